"""The audit of a dataset: recordings, artists and albums on both sides of a split, and what else spoils scores."""
