"""From a feature store to batches on the device."""
