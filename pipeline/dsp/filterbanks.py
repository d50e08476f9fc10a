"""Filter banks that turn power spectra into mel bands, cepstral coefficients and pitch classes: librosa's, cached."""

from __future__ import annotations

from functools import cache

import numpy as np


@cache
def mel_bank(sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None) -> np.ndarray:
    """librosa's mel filter bank (Slaney scale and normalisation), float32 `(1 + n_fft/2, n_mels)`."""
    import warnings

    import librosa.filters  # here because it brings in numba, which takes a second

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")  # very many bands of a short FFT: librosa's choice
        bank = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    return np.ascontiguousarray(bank.T, dtype=np.float32)


def mel_bands(spectrum: np.ndarray, sr: int, n_mels: int, fmin: float, fmax: float | None) -> np.ndarray:
    """Sum power spectra up by the mel filter bank.

    Args:
        spectrum: float32 `(n, 1 + n_fft/2)`.
        sr: sample rate in Hz.
        n_mels: bands.
        fmin, fmax: edges in Hz; `fmax=None` is half the sample rate.

    Returns:
        float32 `(n, n_mels)`, power.
    """
    bands_power = np.empty((len(spectrum), n_mels), np.float32)
    for bands, bins, weights in _mel_blocks(sr, 2 * (spectrum.shape[1] - 1), n_mels, fmin, fmax):
        np.matmul(spectrum[:, bins], weights, out=bands_power[:, bands])
    return bands_power


#: Bands per product. Nearly all weights of the bank are zero: eight products of the bins that 16 bands reach take
#: 0.5 ms for a 30 s clip, one product with the whole bank 3.5; their levels agree to 3e-6 dB.
_BANDS = 16


@cache
def _mel_blocks(
    sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None
) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """The filter bank in pieces: (bands, the bins they reach, their weights)."""
    bank = mel_bank(sr, n_fft, n_mels, fmin, fmax)
    blocks = []
    for first in range(0, n_mels, _BANDS):
        bands = slice(first, min(first + _BANDS, n_mels))
        reached = np.flatnonzero(bank[:, bands].any(axis=1))
        bins = slice(reached[0], reached[-1] + 1) if len(reached) else slice(0, 0)
        blocks.append((bands, bins, np.ascontiguousarray(bank[bins, bands])))
    return tuple(blocks)


@cache
def dct_basis(n_mels: int, n_mfcc: int) -> np.ndarray:
    """The first `n_mfcc` vectors of the orthonormal DCT-II, float32 `(n_mels, n_mfcc)`."""
    import scipy.fft

    return np.ascontiguousarray(scipy.fft.dct(np.eye(n_mels), type=2, norm="ortho")[:, :n_mfcc], dtype=np.float32)


@cache
def chroma_bank(sr: int, n_fft: int, n_chroma: int, tuning: float) -> np.ndarray:
    """librosa's chroma filter bank, float32 `(1 + n_fft/2, n_chroma)`."""
    import librosa.filters

    bank = librosa.filters.chroma(sr=sr, n_fft=n_fft, tuning=tuning, n_chroma=n_chroma)
    return np.ascontiguousarray(bank.T, dtype=np.float32)
