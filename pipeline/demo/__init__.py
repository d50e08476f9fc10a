"""The demo: a dataset of synthetic music, composed by `mgc demo`."""
