"""The synthetic music of `mgc demo`."""
