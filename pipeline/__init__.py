"""Everything before training: datasets, audio, features, stores. Knows nothing of models."""
