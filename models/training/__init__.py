"""The training loop, what it is given, and what is built on it."""
