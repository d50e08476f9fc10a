"""Signal processing that features are made of: compiled loops, Fourier transforms, streaming stages."""
