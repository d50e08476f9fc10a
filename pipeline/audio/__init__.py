"""From an audio file to samples, or the reason why it has none."""
