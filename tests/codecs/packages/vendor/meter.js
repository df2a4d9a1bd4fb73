function decodeUplink(input) {
  return { data: { litres: (input.bytes[0] << 8) | input.bytes[1] } };
}

function encodeDownlink(input) {
  return { bytes: input.data.reset ? [255] : [], fPort: 9 };
}
