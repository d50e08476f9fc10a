"""The parts of benchmarks/gpu.py: each is a function that yields rows of the table while it measures."""
