// A thermometer: two bytes of tenths of a degree, big endian; 7 sets its period in minutes.
function decodeUplink(input) {
  if (input.fPort !== 5) throw new Error("unsupported port " + input.fPort);
  const value = Buffer.from(input.bytes).readInt16BE(0);
  return { data: { temperature: value / 10 } };
}

function encodeDownlink(input) {
  return { bytes: [input.data.minutes], fPort: 7 };
}

function decodeDownlink(input) {
  return { data: { minutes: input.bytes[0] } };
}

function extractPoints(input) {
  return { temperature: { unitId: "Cel", records: [{ eventTime: input.time, value: input.message.temperature }] } };
}

exports.decodeUplink = decodeUplink;
exports.encodeDownlink = encodeDownlink;
exports.decodeDownlink = decodeDownlink;
exports.extractPoints = extractPoints;
