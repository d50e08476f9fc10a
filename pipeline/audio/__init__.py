"""Audio files: inspection, decoding to mono blocks, and the reasons why a file cannot be used."""
