"""Streaming harmonic-percussive separation by median filters (Fitzgerald, 2010), as `librosa.decompose.hpss`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mgc.pipeline.dsp.stages import StftStage

#: Frames or bins on each side of a value in the medians of harmonic-percussive separation: librosa's kernel size of 31.
MEDIAN_REACH = 15
#: Values per call of `np.partition` in `_medians`.
_PARTITION_SIZE = 1 << 21


class HpssStage:
    """Streaming harmonic-percussive separation: yields `HpssBatch`, `MEDIAN_REACH` frames behind the signal.

    The transform is in float64: the masks compare medians that may lie far below the frame's maximum, where float32 is
    off by decibels.

    Args:
        n_fft: length of the window and the Fourier transform, in samples.
        hop: samples between frames.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        self._stft = StftStage(n_fft, hop, "float64")
        self._power = np.empty((0, 1 + n_fft // 2), np.float32)
        self._n_context = 0  # leading frames of `_power` that are done: neighbours of those to come

    def push(self, block: np.ndarray, *, last: bool) -> Iterator[HpssBatch]:
        """Yield the frames whose neighbours are all known. Beyond both ends, the signal's frames are mirrored."""
        for batch in self._stft.push(block, last=last):
            self._power = np.concatenate([self._power, batch.spectrum])
            yield from self._separate(len(self._power) - MEDIAN_REACH)
        if last:
            yield from self._separate(len(self._power))

    def _separate(self, stop: int) -> Iterator[HpssBatch]:
        """Yield the frames of `_power` up to `stop` that are not done."""
        if stop <= self._n_context:
            return
        power = self._power[self._n_context : stop]
        # Mirroring at an end of `_power` that is not an end of the signal affects context frames only.
        in_time = _medians(self._power, 0, self._n_context, stop)
        yield HpssBatch(power, in_time, _medians(power, 1, 0, len(power)))
        first = max(0, stop - MEDIAN_REACH)
        self._power, self._n_context = self._power[first:].copy(), stop - first


@dataclass(frozen=True)
class HpssBatch:
    """Power spectra of consecutive frames and their medians in time and frequency (Fitzgerald, 2010).

    Medians are those of power instead of magnitude: the median of an odd number of values commutes with squaring.

    Attributes:
        power: float32 `(n, 1 + n_fft/2)`.
        in_time: median over 31 frames of the same bin, float32 `(n, 1 + n_fft/2)`.
        in_frequency: median over 31 bins of the same frame, float32 `(n, 1 + n_fft/2)`.
    """

    power: np.ndarray
    in_time: np.ndarray
    in_frequency: np.ndarray

    def harmonic(self) -> np.ndarray:
        """Return the power of the harmonic component, float32 `(n, 1 + n_fft/2)`."""
        return self._masked(self.in_time)

    def percussive(self) -> np.ndarray:
        """Return the power of the percussive component, float32 `(n, 1 + n_fft/2)`."""
        return self._masked(self.in_frequency)

    def _masked(self, median: np.ndarray) -> np.ndarray:
        """Apply `librosa.util.softmask(..., power=2, split_zeros=True)` to the magnitudes and square the result."""
        total = self.in_time + self.in_frequency
        mask = np.full_like(total, 0.5)
        np.divide(median, total, out=mask, where=total >= np.finfo(np.float32).tiny)
        mask *= mask
        mask *= self.power
        return mask


def _medians(power: np.ndarray, axis: int, first: int, stop: int) -> np.ndarray:
    """Compute running medians over 31 values along one axis, with mirrored ends.

    The result equals `scipy.ndimage.median_filter(..., mode="reflect")` in half its time.

    Args:
        power: float32 `(n, bins)`.
        axis: 0 for time, 1 for frequency.
        first: first row of the result.
        stop: row after the last.

    Returns:
        float32 `(stop - first, bins)`.
    """
    padding = [(0, 0), (0, 0)]
    padding[axis] = (MEDIAN_REACH, MEDIAN_REACH)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(power, padding, mode="symmetric"), 2 * MEDIAN_REACH + 1, axis=axis
    )
    medians = np.empty((stop - first, power.shape[1]), np.float32)
    step = max(1, _PARTITION_SIZE // (power.shape[1] * windows.shape[-1]))
    for row in range(first, stop, step):
        end = min(row + step, stop)
        medians[row - first : end - first] = np.partition(windows[row:end], MEDIAN_REACH)[..., MEDIAN_REACH]
    return medians
