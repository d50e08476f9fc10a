"""Prediction for audio files: genres of songs that are in no store, by the features and the model of a run."""
