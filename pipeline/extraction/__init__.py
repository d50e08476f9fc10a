"""Feature extraction: plan what to decode, decode it on Dask workers, write the feature stores."""
