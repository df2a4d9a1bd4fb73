function Decoder(bytes, port) {
  return { count: bytes[0] };
}
