"""The Python interface: thin classes and functions over the rooms below, for scripts and notebooks."""
