"""Fingerprints of recordings, which find copies and versions of one recording in a store."""
