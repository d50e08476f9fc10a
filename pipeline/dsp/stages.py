"""Stages of a streaming analysis: a signal arrives in blocks, and each stage makes frames, spectra or rows of it.

Conventions are librosa's: `center=True`, `pad_mode="constant"`, periodic Hann window; frame `i` is centred on sample
`i * hop_length`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np

from mgc.pipeline.dsp.filterbanks import mel_bands

#: Power below this is the floor of every level: librosa's `amin`, -100 dB.
AMIN = 1e-10
#: Frames per FFT call. Fixed, and aligned to the start of the track, so that the same frame always takes the same code
#: path of a vectorised FFT or matrix product, and blocks of any size give the same bits. 128 frames of 2048 samples
#: stay in a core's cache; 64 to 256 time alike.
BATCH_FRAMES = 128
#: dB below a frame's strongest bin down to which a float32 transform is good for cepstral coefficients: with all bands
#: of a frame above, they are within 3e-4 of librosa's (51,645 frames of music; 5e-3 is allowed).
FLOAT32_RANGE_DB = 105.0
#: Frames and bins on each side that a median for harmonic-percussive separation covers: librosa's kernel of 31.
MEDIAN_REACH = 15
#: Values sorted in one go to find medians.
_SORTED = 1 << 21


class Stage(Protocol):
    """Makes something of a signal that arrives in blocks."""

    def push(self, block: np.ndarray, *, last: bool) -> Iterator[Any]:
        """What can be made now that float32 `block`, `(samples,)`, is there, too."""
        ...


class StftStage:
    """Power spectra (`Power`) in batches of at most `BATCH` frames, aligned to the start of the signal.

    Args:
        n_fft: samples of a window.
        hop: samples between frames.
        precision: of the Fourier transform, float32 or float64.
    """

    def __init__(self, n_fft: int, hop: int, precision: str) -> None:
        from mgc.pipeline.dsp.fourier import FFT_SIZES, Transform

        self._hop = hop
        self._window = hann(n_fft).astype(precision)
        self._transform = Transform(self._window) if n_fft in FFT_SIZES and precision == "float32" else None
        self._windowed = np.empty((BATCH_FRAMES, n_fft), precision)
        self._pending = np.zeros(n_fft // 2, np.float32)  # centred frames start half a window early

    def push(self, block: np.ndarray, *, last: bool) -> Iterator[PowerBatch]:
        """The next spectra."""
        from mgc.pipeline.dsp import kernels

        n_fft, hop = len(self._window), self._hop
        parts = [self._pending, block]
        if last:
            parts.append(np.zeros(n_fft // 2, np.float32))
        signal = np.concatenate(parts)
        count = max(0, 1 + (len(signal) - n_fft) // hop)
        if not last:
            count -= count % BATCH_FRAMES
        if count:
            # Thirty times as fast as `sliding_window_view`, whose view it is.
            frames = np.ndarray((count, n_fft), signal.dtype, signal, strides=(hop * signal.itemsize, signal.itemsize))
            for first in range(0, count, BATCH_FRAMES):
                batch = frames[first : first + BATCH_FRAMES]
                start = signal[first * hop :]
                if self._transform is not None:
                    spectrum = np.empty((len(batch), 1 + n_fft // 2), np.float32)
                    self._transform(start, hop, spectrum)
                else:
                    windowed = self._windowed[: len(batch)]
                    kernels.window(start, hop, self._window, windowed)
                    spectrum = _power(windowed)
                yield PowerBatch(spectrum, batch)
        self._pending = signal[count * hop :].copy()


class PowerBatch:
    """A batch of power spectra, and the mel bands that several features share, each computed once.

    Attributes:
        spectrum: float32 `(n, 1 + n_fft/2)`.
        frames: the samples they come from, float32 `(n, n_fft)`.
    """

    def __init__(self, spectrum: np.ndarray, frames: np.ndarray) -> None:
        self.spectrum = spectrum
        self.frames = frames
        self._log_mel: dict[tuple, np.ndarray] = {}

    def log_mel(self, sr: int, n_mels: int, fmin: float, fmax: float | None) -> np.ndarray:
        """Levels of mel bands, float32 `(n, n_mels)`, dB; see `mgc.pipeline.dsp.filterbanks.mel_bands`."""
        key = (sr, n_mels, fmin, fmax)
        if key not in self._log_mel:
            self._log_mel[key] = to_db(mel_bands(self.spectrum, *key))
        return self._log_mel[key]

    def precise_log_mel(self, sr: int, n_mels: int, fmin: float, fmax: float | None) -> np.ndarray:
        """`log_mel` without the rounding of a float32 transform, which shows `SINGLE_REACH_DB` below a frame's peak.

        Frames with a band that low are transformed again in float64: a tenth of those of ordinary music.
        """
        levels = self.log_mel(sr, n_mels, fmin, fmax)
        peaks = to_db(self.spectrum.max(axis=1))
        (deep,) = np.nonzero(peaks - levels.min(axis=1) > FLOAT32_RANGE_DB)
        if len(deep):
            spectrum = _power(self.frames[deep] * hann(self.frames.shape[1]))
            levels = levels.copy()
            levels[deep] = to_db(mel_bands(spectrum, sr, n_mels, fmin, fmax))
        return levels


class HpssStage:
    """Power spectra and their medians (`Separated`), `NEIGHBOURS` frames behind the signal.

    In float64: the masks compare medians that may lie far below the frame's maximum, where float32 is decibels off.

    Args:
        n_fft: samples of a window.
        hop: samples between frames.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        self._framer = StftStage(n_fft, hop, "float64")
        self._held = np.empty((0, 1 + n_fft // 2), np.float32)
        self._done = 0  # leading frames of `_held` that are only neighbours of those to come

    def push(self, block: np.ndarray, *, last: bool) -> Iterator[HpssBatch]:
        """The next frames that have all their neighbours. Those beyond an end of the signal are its mirror image."""
        for power in self._framer.push(block, last=last):
            self._held = np.concatenate([self._held, power.spectrum])
            yield from self._separated(len(self._held) - MEDIAN_REACH)
        if last:
            yield from self._separated(len(self._held))

    def _separated(self, stop: int) -> Iterator[HpssBatch]:
        if stop <= self._done:
            return
        power = self._held[self._done : stop]
        # At the ends of what is held that are no ends of the signal, what mirroring adds is in no window asked for.
        in_time = _medians(self._held, 0, self._done, stop)
        yield HpssBatch(power, in_time, _medians(power, 1, 0, len(power)))
        first = max(0, stop - MEDIAN_REACH)
        self._held, self._done = self._held[first:].copy(), stop - first


@dataclass(frozen=True)
class HpssBatch:
    """Power spectra, and what they are in the neighbourhood of each value.

    Attributes:
        power: float32 `(n, 1 + n_fft/2)`.
        in_time: the median over 31 frames of the same bin. Power, not magnitude: medians of an odd number commute with
            squaring.
        in_frequency: the median over 31 bins of the same frame.
    """

    power: np.ndarray
    in_time: np.ndarray
    in_frequency: np.ndarray

    def harmonic(self) -> np.ndarray:
        """Power of the harmonic part, float32 `(n, 1 + n_fft/2)`."""
        return self._masked(self.in_time)

    def percussive(self) -> np.ndarray:
        """Power of the percussive part, float32 `(n, 1 + n_fft/2)`."""
        return self._masked(self.in_frequency)

    def _masked(self, mine: np.ndarray) -> np.ndarray:
        """`librosa.util.softmask(..., power=2, split_zeros=True)` applied to the magnitudes, squared."""
        both = self.in_time + self.in_frequency
        mask = np.full_like(both, 0.5)
        np.divide(mine, both, out=mask, where=both >= np.finfo(np.float32).tiny)
        mask *= mask
        mask *= self.power
        return mask


def _medians(power: np.ndarray, axis: int, first: int, stop: int) -> np.ndarray:
    """Medians of 31 neighbours along an axis of `(n, bins)`, mirrored at its ends, for the rows [first, stop).

    Twice as fast as `scipy.ndimage.median_filter`, whose result (`mode="reflect"`) it is.
    """
    width = [(0, 0), (0, 0)]
    width[axis] = (MEDIAN_REACH, MEDIAN_REACH)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(power, width, mode="symmetric"), 2 * MEDIAN_REACH + 1, axis=axis
    )
    medians = np.empty((stop - first, power.shape[1]), np.float32)
    step = max(1, _SORTED // (power.shape[1] * windows.shape[-1]))
    for row in range(first, stop, step):
        some = slice(row, min(row + step, stop))
        medians[some.start - first : some.stop - first] = np.partition(windows[some], MEDIAN_REACH)[..., MEDIAN_REACH]
    return medians


class FramingStage:
    """The samples themselves, float32 `(n, hop)`, the last row filled up with zeros: `1 + samples // hop` rows in all.

    Args:
        hop: samples of a row.
    """

    def __init__(self, hop: int) -> None:
        self._hop = hop
        self._pending = np.empty(0, np.float32)

    def push(self, block: np.ndarray, *, last: bool) -> Iterator[np.ndarray]:
        """The next rows."""
        signal = np.concatenate([self._pending, block])
        if last:
            signal = np.append(signal, np.zeros(self._hop - len(signal) % self._hop, np.float32))
        whole = len(signal) - len(signal) % self._hop
        if whole:
            yield signal[:whole].reshape(-1, self._hop)
        self._pending = signal[whole:].copy()


class WholeTrackStage:
    """All samples of a signal at once, float32 `(samples,)`; nothing where there are more than can be held.

    Args:
        most: samples that can be held.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._n_samples = 0
        self._blocks: list[np.ndarray] = []

    def push(self, block: np.ndarray, *, last: bool) -> Iterator[np.ndarray]:
        """The samples, when the last of them are there."""
        self._n_samples += len(block)
        if self._n_samples > self._most:
            self._blocks.clear()
            return
        self._blocks.append(block)
        if last:
            samples = np.concatenate(self._blocks)
            self._blocks.clear()
            yield samples


def to_db(power: np.ndarray) -> np.ndarray:
    """`librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)` in float32."""
    from mgc.pipeline.dsp import kernels

    level = np.empty(power.shape, np.float32)
    kernels.decibels(power.reshape(-1), np.float32(AMIN), level.reshape(-1))
    return level


def _power(windowed: np.ndarray) -> np.ndarray:
    """float32 `(n, 1 + n_fft/2)`: power spectra of windowed frames, transformed in their own precision.

    librosa transforms in float64; float32 is 1.6 times as fast and agrees with it to 1e-3 dB in all bins within 60 dB
    of their frame's maximum.
    """
    import scipy.fft

    from mgc.pipeline.dsp import kernels

    spectrum = scipy.fft.rfft(windowed, axis=1, overwrite_x=True)
    power = np.empty(spectrum.shape, np.float32)
    kernels.power(spectrum, power)
    return power


@cache
def hann(n_fft: int) -> np.ndarray:
    """float64 `(n_fft,)`: the bits of `scipy.signal.get_window("hann", n_fft)`, whose import takes a worker 2 s."""
    return 0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, n_fft + 1)[:-1])
