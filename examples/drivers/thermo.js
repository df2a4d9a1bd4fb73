// A thermometer: two bytes of tenths of a degree on FPort 5; a downlink sets its period in minutes.
function decodeUplink(input) {
  if (input.fPort !== 5) return { errors: ["unknown FPort " + input.fPort] };
  return { data: { temperature: Buffer.from(input.bytes).readInt16BE(0) / 10 } };
}

function encodeDownlink(input) {
  return { bytes: [input.data.minutes], fPort: 7 };
}
