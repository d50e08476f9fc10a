"""Folders of music into trained, honestly evaluated genre classifiers."""
