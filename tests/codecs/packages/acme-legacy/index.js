exports.decodeUplink = function (input) { return { open: input.bytes[0] === 1 }; };
exports.encodeDownlink = function (message) { return { bytes: [message.locked ? 1 : 0], fPort: 3 }; };
