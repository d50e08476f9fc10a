"""librosa's mel and chroma filter banks and the DCT basis of MFCCs, cached."""

from __future__ import annotations

from functools import cache

import numpy as np


@cache
def mel_bank(sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None) -> np.ndarray:
    """Return the mel filter bank of `librosa.filters.mel` (Slaney scale and normalisation).

    Args:
        sr: sample rate in Hz.
        n_fft: length of the Fourier transform in samples.
        n_mels: number of bands.
        fmin: lower edge in Hz.
        fmax: upper edge in Hz; None for half the sample rate.

    Returns:
        Weights, float32 `(1 + n_fft/2, n_mels)`.
    """
    import warnings

    import librosa.filters  # here, since it imports numba, which takes a second

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")  # many bands of a short FFT leave some empty
        bank = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    return np.ascontiguousarray(bank.T, dtype=np.float32)


def mel_bands(spectrum: np.ndarray, sr: int, n_mels: int, fmin: float, fmax: float | None) -> np.ndarray:
    """Compute mel band powers from power spectra; agrees with `spectrum @ mel_bank(...)` to 3e-6 dB.

    Args:
        spectrum: power spectra, float32 `(n, 1 + n_fft/2)`.
        sr: sample rate in Hz.
        n_mels: number of bands.
        fmin: lower edge in Hz.
        fmax: upper edge in Hz; None for half the sample rate.

    Returns:
        Power, float32 `(n, n_mels)`.
    """
    bands_power = np.empty((len(spectrum), n_mels), np.float32)
    for bands, bins, weights in _mel_blocks(sr, 2 * (spectrum.shape[1] - 1), n_mels, fmin, fmax):
        np.matmul(spectrum[:, bins], weights, out=bands_power[:, bands])
    return bands_power


#: Bands per matrix product. Nearly all weights of the bank are zero: eight products of 16 bands and the bins that they
#: cover take 0.5 ms for a 30 s clip, one product with the whole bank 3.5 ms.
_BANDS_PER_PRODUCT = 16


@cache
def _mel_blocks(
    sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None
) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """Split the filter bank into blocks of bands.

    Returns:
        Blocks of (slice of bands, slice of bins with non-zero weights, weights float32 `(bins, bands)`).
    """
    bank = mel_bank(sr, n_fft, n_mels, fmin, fmax)
    blocks = []
    for first in range(0, n_mels, _BANDS_PER_PRODUCT):
        bands = slice(first, min(first + _BANDS_PER_PRODUCT, n_mels))
        nonzero = np.flatnonzero(bank[:, bands].any(axis=1))
        bins = slice(nonzero[0], nonzero[-1] + 1) if len(nonzero) else slice(0, 0)
        blocks.append((bands, bins, np.ascontiguousarray(bank[bins, bands])))
    return tuple(blocks)


@cache
def dct_basis(n_mels: int, n_mfcc: int) -> np.ndarray:
    """Return the first `n_mfcc` basis vectors of the orthonormal DCT-II, float32 `(n_mels, n_mfcc)`."""
    import scipy.fft

    return np.ascontiguousarray(scipy.fft.dct(np.eye(n_mels), type=2, norm="ortho")[:, :n_mfcc], dtype=np.float32)


@cache
def chroma_bank(sr: int, n_fft: int, n_chroma: int, tuning: float) -> np.ndarray:
    """Return the chroma filter bank of `librosa.filters.chroma`.

    Args:
        sr: sample rate in Hz.
        n_fft: length of the Fourier transform in samples.
        n_chroma: number of pitch classes.
        tuning: deviation from A = 440 Hz, in fractions of a pitch class.

    Returns:
        Weights, float32 `(1 + n_fft/2, n_chroma)`.
    """
    import librosa.filters

    bank = librosa.filters.chroma(sr=sr, n_fft=n_fft, tuning=tuning, n_chroma=n_chroma)
    return np.ascontiguousarray(bank.T, dtype=np.float32)
