function Decode(fPort, bytes, variables) {
  return { on: bytes[0] === 1, port: fPort };
}

function Encode(fPort, data, variables) {
  return [data.on ? 1 : 0];
}
