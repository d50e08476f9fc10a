"""Signal processing behind the features: streaming stages, Fourier transform, filter banks, compiled loops."""
