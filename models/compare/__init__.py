"""Leaderboards: several runs on the same tracks, and which of them differ."""
