"""Mel and chroma filter banks with the bits of librosa's, and the DCT basis of MFCCs, cached.

The banks are computed here because `import librosa.filters` takes a worker half a second: it imports Numba's vectorised
functions and `scipy.signal`. The order of operations is librosa's, so that every weight has the same bits;
tests/pipeline/dsp/test_filterbanks.py compares them.
"""

from __future__ import annotations

from functools import cache

import numpy as np

#: Slaney's mel scale (Auditory Toolbox, 1998): linear with this many Hz per mel up to 1 kHz, logarithmic above, where
#: 27 mel are a factor of 6.4.
_HZ_PER_MEL = 200.0 / 3
_LOG_START_HZ = 1000.0
_LOG_START_MEL = _LOG_START_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


@cache
def mel_bank(sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None) -> np.ndarray:
    """Return the mel filter bank of `librosa.filters.mel` (Slaney scale and normalisation), bit for bit.

    Each band is a triangle over the frequencies of three neighbouring edges, of area 1. Of many bands of a short
    transform, some may be empty.

    Args:
        sr: sample rate in Hz.
        n_fft: length of the Fourier transform in samples.
        n_mels: number of bands.
        fmin: lower edge in Hz.
        fmax: upper edge in Hz; None for half the sample rate.

    Returns:
        Weights, float32 `(1 + n_fft/2, n_mels)`.
    """
    top = sr / 2 if fmax is None else fmax
    edges = _mel_to_hz(np.linspace(_hz_to_mel(fmin), _hz_to_mel(top), n_mels + 2))
    distance = np.subtract.outer(edges, np.fft.rfftfreq(n_fft, 1.0 / sr))
    width = np.diff(edges)[:, np.newaxis]
    rising, falling = -distance[:-2] / width[:-1], distance[2:] / width[1:]
    # Rounded twice, as librosa does: the triangles, and their product with the height in float64.
    triangles = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    heights = 2.0 / (edges[2:] - edges[:-2])
    return np.ascontiguousarray((triangles * heights[:, np.newaxis]).T, dtype=np.float32)


def _hz_to_mel(frequency: float) -> float:
    """Convert a frequency in Hz to mel."""
    if frequency < _LOG_START_HZ:
        return frequency / _HZ_PER_MEL
    return float(_LOG_START_MEL + np.log(frequency / _LOG_START_HZ) / _LOG_STEP)


def _mel_to_hz(mels: np.ndarray) -> np.ndarray:
    """Convert mel to Hz, float64 `(n,)`."""
    frequencies = _HZ_PER_MEL * mels
    is_log = mels >= _LOG_START_MEL
    frequencies[is_log] = _LOG_START_HZ * np.exp(_LOG_STEP * (mels[is_log] - _LOG_START_MEL))
    return frequencies


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


#: Bell over the octaves that weights the bins of a chroma bank: its centre, in octaves above 27.5 Hz, and its width.
_CENTRE_OCTAVE = 5.0
_OCTAVE_WIDTH = 2.0


@cache
def chroma_bank(sr: int, n_fft: int, n_chroma: int, tuning: float) -> np.ndarray:
    """Return the chroma filter bank of `librosa.filters.chroma`, bit for bit (after Ellis, "Chroma feature analysis").

    Each bin has a bell over the pitch classes around its own, of Euclidean norm 1, times a bell over the octaves.

    Args:
        sr: sample rate in Hz.
        n_fft: length of the Fourier transform in samples.
        n_chroma: number of pitch classes.
        tuning: deviation from A = 440 Hz, in fractions of a pitch class.

    Returns:
        Weights, float32 `(1 + n_fft/2, n_chroma)`.
    """
    a0 = 440.0 * 2.0 ** (tuning / n_chroma) / 16
    frequencies = np.linspace(0, sr, n_fft, endpoint=False)[1:]
    pitches = n_chroma * np.log2(frequencies / a0)
    # Bin 0 has no pitch: librosa lets it lie one and a half octaves below bin 1.
    pitches = np.concatenate(([pitches[0] - 1.5 * n_chroma], pitches))
    widths = np.concatenate((np.maximum(np.diff(pitches), 1.0), [1.0]))[:, np.newaxis]
    half = np.round(n_chroma / 2)
    distance = np.subtract.outer(pitches, np.arange(n_chroma, dtype=np.float64))
    distance = np.remainder(distance + half + 10 * n_chroma, n_chroma) - half
    bells = np.exp(-0.5 * (2 * distance / widths) ** 2)
    norms = np.sqrt((bells**2).sum(axis=1, keepdims=True))
    bells /= np.where(norms < np.finfo(np.float64).tiny, 1.0, norms)
    bells *= np.exp(-0.5 * ((pitches / n_chroma - _CENTRE_OCTAVE) / _OCTAVE_WIDTH) ** 2)[:, np.newaxis]
    from_c = np.roll(bells, -3 * (n_chroma // 12), axis=1)  # the first class so far is A
    return np.ascontiguousarray(from_c[: 1 + n_fft // 2], dtype=np.float32)
