function extractPoints(input) {
  return { open: { record: input.message.open } };
}

exports.extractPoints = extractPoints;
