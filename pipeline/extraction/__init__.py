"""The Dask stage: plan what to decode, decode it on worker processes, publish the store."""
