"""Embeddings: stores of what a network hears in each window of a track."""
