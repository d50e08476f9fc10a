"""Pipeline: datasets, audio, features and stores, everything before training. It does not import `mgc.models`."""
