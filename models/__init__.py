"""Everything after the store: architectures, streaming, training, evaluation. Depends on `pipeline` alone."""
