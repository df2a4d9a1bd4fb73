"""The data plane: reports from the LRC come in here, and are answered when they are on disk."""
