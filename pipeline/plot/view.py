"""How the frames of each feature are shown: the unit and colours of their values, and the axis of their bins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mgc.pipeline import pictures
from mgc.pipeline.errors import StoreError
from mgc.pipeline.features import Chroma, FeatureSpec, Mel, Mfcc, PowerSpectrum, Waveform
from mgc.pipeline.features.spectral import LinearFrequency
from mgc.pipeline.storage.remote import Place

#: Levels are shown from the highest one down to this many dB below it.
RANGE_DB = 80.0
#: Smallest power that is shown, as in the STFT feature.
_AMIN = 1e-10
#: Points of a mean spectrum over linear frequency, spaced logarithmically.
_POINTS = 256
_PITCHES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
#: Least distance of two ticks, as a share of the axis.
_LEAST_GAP = 0.045


@dataclass(frozen=True)
class BinAxis:
    """An axis along the bins of a frame.

    Attributes:
        label: name and unit.
        bins: bin that each position of the axis shows, `(n,)`; a number between two stands for their weighted mean.
        ticks: positions of the ticks.
        tick_labels: their labels.
    """

    label: str
    bins: np.ndarray
    ticks: tuple[float, ...]
    tick_labels: tuple[str, ...]

    def sample(self, frames: np.ndarray) -> np.ndarray:
        """Return the values of frames `(n, bins)` at the positions of the axis."""
        lower = np.floor(self.bins).astype(np.int64)
        upper = np.ceil(self.bins).astype(np.int64)
        return frames[:, lower] + (frames[:, upper] - frames[:, lower]) * (self.bins - lower)

    def thinned(self, most: int) -> BinAxis:
        """Return this axis with at most so many ticks: every n-th one, counted from the lowest."""
        step = -(-len(self.ticks) // most) or 1
        return BinAxis(self.label, self.bins, self.ticks[::step], self.tick_labels[::step])


@dataclass(frozen=True)
class View:
    """How frames of a feature are shown.

    Attributes:
        spec: the feature.
        label: name and unit of the values.
        axis: the bins in a spectrogram.
        curve_axis: the bins in a mean spectrum: logarithmic where those of the spectrogram are linear in frequency.
        colours: colour map.
    """

    spec: FeatureSpec
    label: str
    axis: BinAxis
    curve_axis: BinAxis
    colours: str | None = None

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Convert stored frames to the values that are shown, float32 `(n, bins)`."""
        frames = self.spec.decode(stored)
        if isinstance(self.spec, PowerSpectrum):
            frames = 10 * np.log10(np.maximum(frames, np.float32(_AMIN)))
        return frames

    def limits(self, values: np.ndarray) -> tuple[float, float]:
        """Return the values that the ends of the colour map stand for.

        Args:
            values: what is shown, in the bins of `axis`; non-finite values are ignored.
        """
        finite = values[np.isfinite(values)]
        if not len(finite):
            return 0.0, 1.0
        if isinstance(self.spec, Chroma):
            return 0.0, 1.0
        if self.colours == pictures.DIVERGING:
            largest = float(np.percentile(np.abs(finite), 99.5)) or 1.0
            return -largest, largest
        top = float(finite.max())
        if self.label.endswith("(dB)"):
            return top - RANGE_DB, top
        return float(finite.min()), max(top, float(finite.min()) + 1e-6)


def view_of(spec: FeatureSpec, place: Place) -> View:
    """Return how frames of a feature are shown.

    Raises:
        StoreError: the feature has one frame per track, so that there is nothing to show over time.
    """
    if not spec.frame_rate:
        remedy = "name a store of another feature, such as mel"
        raise StoreError(f"{place}: {spec.name} has one frame per track, which is no spectrogram", remedy)
    numbers = np.arange(spec.bins)
    if isinstance(spec, Mfcc):
        # The zeroth coefficient, the level, is ten times as large as the others.
        shown = numbers[1:] if spec.bins > 1 else numbers
        axis = _numbered(f"MFCC, number {shown[0]} to {shown[-1]}", shown)
        return View(spec, "coefficient", axis, axis, pictures.DIVERGING)
    if isinstance(spec, Mel):
        axis = _mel_axis(spec)
        return View(spec, "level (dB)", axis, axis)
    if isinstance(spec, LinearFrequency):
        return View(spec, "level (dB)", _linear_axis(spec), _logarithmic_axis(spec))
    if isinstance(spec, Chroma):
        axis = _numbered("pitch class", numbers)
        if spec.bins == len(_PITCHES):
            axis = BinAxis("pitch class", numbers, tuple(range(12)), _PITCHES)
        return View(spec, "energy (share of the largest)", axis, axis)
    if isinstance(spec, Waveform):
        axis = BinAxis("amplitude (1 is full scale)", numbers, (), ())
        return View(spec, "amplitude", axis, axis)
    axis = _numbered("bin", numbers)
    return View(spec, f"value ({spec.units})" if spec.units != "1" else "value", axis, axis)


def _numbered(label: str, shown: np.ndarray) -> BinAxis:
    """Return an axis that numbers its bins, with at most 13 ticks."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, len(shown)) if len(shown) / s <= 13)
    ticks = [position for position, number in enumerate(shown) if number % step == 0]
    return BinAxis(label, shown, tuple(ticks), tuple(str(shown[position]) for position in ticks))


def _mel_axis(spec: Mel) -> BinAxis:
    """Return the axis of mel bands, with ticks in Hz: band `k` is centred on point `k + 1` of `n_mels + 2`."""
    import librosa

    top = spec.sr / 2 if spec.fmax is None else spec.fmax
    low, high = librosa.hz_to_mel(spec.fmin), librosa.hz_to_mel(top)

    def position(frequencies: np.ndarray) -> np.ndarray:
        return (librosa.hz_to_mel(frequencies) - low) / (high - low) * (spec.n_mels + 1) - 1

    return _frequency_axis(np.arange(spec.bins), position, _round_frequencies(top))


def _linear_axis(spec: LinearFrequency) -> BinAxis:
    """Return the axis of the bins of the Fourier transform, with ticks at multiples of 1, 2 or 5 × 10ⁿ Hz."""
    top = spec.sr / 2
    step = min(hz for hz in _round_frequencies(1e6) if top / hz <= 12)
    return _frequency_axis(np.arange(spec.bins), lambda hz: hz * spec.n_fft / spec.sr, np.arange(0, top + 1, step))


def _logarithmic_axis(spec: LinearFrequency) -> BinAxis:
    """Return an axis of `_POINTS` bins of the Fourier transform at logarithmic distances, from the first above 0 Hz."""
    points = np.geomspace(1, spec.bins - 1, _POINTS)

    def position(frequencies: np.ndarray) -> np.ndarray:
        ratio = np.log(np.maximum(frequencies, 1e-3) * spec.n_fft / spec.sr)
        return ratio / np.log(spec.bins - 1) * (_POINTS - 1)

    return _frequency_axis(points, position, _round_frequencies(spec.sr / 2))


def _round_frequencies(top: float) -> np.ndarray:
    """Return 1, 2 and 5 × 10ⁿ Hz from 10 Hz up to `top`."""
    return np.array([hz for power in range(1, 7) for hz in (10**power, 2 * 10**power, 5 * 10**power) if hz <= top])


def _frequency_axis(bins: np.ndarray, position: Callable[[np.ndarray], np.ndarray], frequencies: np.ndarray) -> BinAxis:
    """Return an axis in Hz with ticks at those frequencies that lie on it, far enough from the next higher one."""
    ticks: list[tuple[float, str]] = []
    for hz in sorted(frequencies, reverse=True):
        place = float(position(np.asarray(hz, float)))
        on_axis = -0.5 <= place <= len(bins) - 0.5
        if on_axis and (not ticks or ticks[-1][0] - place >= _LEAST_GAP * len(bins)):
            ticks.append((place, f"{hz:,.0f}"))
    ticks.reverse()
    return BinAxis("frequency (Hz)", bins, tuple(tick for tick, _ in ticks), tuple(label for _, label in ticks))
