"""Statistics of a whole track, as in the FMA baseline: seven moments of 11 librosa features."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mgc.pipeline.dsp.stages import WholeTrackStage
from mgc.pipeline.features.spec import FeatureSpec

#: Number of rows (such as pitch classes or bands) of each feature, in the order of FMA's `features.csv`.
SIZES = {
    "chroma_cens": 12,
    "chroma_cqt": 12,
    "chroma_stft": 12,
    "mfcc": 20,
    "rmse": 1,
    "spectral_bandwidth": 1,
    "spectral_centroid": 1,
    "spectral_contrast": 7,
    "spectral_rolloff": 1,
    "tonnetz": 6,
    "zcr": 1,
}
#: Moments over time of each row, in the order of `features.csv`.
MOMENTS = ("kurtosis", "max", "mean", "median", "min", "skew", "std")

_N_FFT = 2048
_HOP = 512
#: librosa's default `sr` in Hz for spectrograms, which the FMA script does not override.
_DEFAULT_SR = 22050
#: Frames per block of spectra: their features take about 30 MB.
_BLOCK_FRAMES = 512
#: Minimum number of samples for the constant-Q transform, which halves the rate six times; shorter tracks are padded.
_MIN_CQT_SAMPLES = 64


@dataclass(frozen=True)
class Stats(FeatureSpec):
    """The 518 statistics of the FMA baseline (Defferrard et al., 2017), computed by librosa: one frame per track.

    They are seven moments of each row of the features in `SIZES`, with the settings of the script behind FMA's
    `features.csv`: windows of 2048 samples, hop 512, 84 constant-Q bins from C1 up, tuned to the track, tonnetz from
    the CENS chroma. As in that script, centroid, bandwidth, roll-off, contrast and STFT chroma assume 22050 Hz whatever
    the sample rate; the other features use the true rate. The script read each file at its own rate, which for most
    is the default here.

    Moments are population moments. If all frames are equal, skew and kurtosis are 0 rather than undefined.

    Attributes:
        sr: sample rate in Hz to which the audio is resampled; at least 11025, for the highest band.
        dtype: float32.
    """

    name: ClassVar[str] = "stats"
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    #: Memory in MB per minute of audio at 44100 Hz, beyond that of a short track, at most (measured: 44 to 56): the
    #: samples of a track and its constant-Q transform are held in memory. The longest track takes about 1 GB in a
    #: worker, and a minute of processor time, a fifth of a file's time limit.
    mb_per_minute: ClassVar[float] = 60.0
    max_duration_s: ClassVar[float | None] = 900.0

    sr: int = 44100
    dtype: str = "float32"

    # Constants, not parameters: the window and hop of all features.
    n_fft = _N_FFT
    hop_length = _HOP

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(11_025 <= self.sr <= 96_000, "sr", "11025 to 96000 Hz")

    @property
    def columns(self) -> tuple[tuple[str, str, str], ...]:
        """Header of the 518 values as in FMA's `features.csv`: tuples of feature, moment and row number."""
        return tuple(
            (name, moment, f"{number:02d}")
            for name, size in SIZES.items()
            for moment in MOMENTS
            for number in range(1, size + 1)
        )

    @property
    def bins(self) -> int:
        """518."""
        return len(MOMENTS) * sum(SIZES.values())

    def frame_at(self, seconds: float) -> int:
        """Return 0, the only frame."""
        return 0

    @property
    def frame_rate(self) -> float:
        """0, since a track of any length has one frame."""
        return 0.0

    def affected_frames(self, first: float, stop: float) -> tuple[int, int]:
        """Return the only frame, which depends on every sample."""
        return 0, 1

    @property
    def stage(self) -> tuple[Any, ...]:
        """`WholeTrackStage`."""
        assert self.max_duration_s is not None
        return WholeTrackStage, math.ceil(self.max_duration_s * self.sr) + 1

    def compute_frames(self, samples: np.ndarray) -> np.ndarray:
        """Return float32 `(1, 518)`."""
        if not len(samples):
            samples = np.zeros(1, np.float32)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Trying to estimate tuning from empty frequency set")
            warnings.filterwarnings("ignore", message="n_fft=.* is too large")
            series = _series(samples, self.sr)
        return np.concatenate([_moments(series[name]) for name in SIZES], dtype=np.float32)[None]


def _series(samples: np.ndarray, sr: int) -> dict[str, np.ndarray]:
    """Compute the features of `SIZES` over time, each `(rows, frames)`."""
    import librosa

    magnitude_pitches, power_pitches = _Pitches(sr), _Pitches(_DEFAULT_SR)
    for spectra in _spectra(samples):
        magnitude_pitches.add(spectra)
        power_pitches.add(np.square(spectra))
    series = _cqt_features(samples, sr, magnitude_pitches.tuning())
    blocks = [_spectral_features(spectra, sr, power_pitches.tuning()) for spectra in _spectra(samples)]
    series |= {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}
    # `power_to_db` clips at 80 dB below the track's maximum, so it needs all frames.
    series["mfcc"] = librosa.feature.mfcc(S=librosa.power_to_db(series.pop("mel")), n_mfcc=SIZES["mfcc"])
    series["spectral_contrast"] = librosa.power_to_db(series.pop("peak")) - librosa.power_to_db(series.pop("valley"))
    series["zcr"] = librosa.feature.zero_crossing_rate(samples, frame_length=_N_FFT, hop_length=_HOP)
    return series


def _spectra(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the magnitudes of `librosa.stft` in blocks of at most `_BLOCK_FRAMES` frames, float32 `(1025, n)`."""
    import librosa

    n_frames = 1 + len(samples) // _HOP
    padded = np.pad(samples, _N_FFT // 2)
    for first in range(0, n_frames, _BLOCK_FRAMES):
        stop = min(first + _BLOCK_FRAMES, n_frames)
        block = padded[first * _HOP : (stop - 1) * _HOP + _N_FFT]
        yield np.abs(librosa.stft(block, n_fft=_N_FFT, hop_length=_HOP, center=False))


class _Pitches:
    """Estimates a track's tuning from blocks of spectra, as `librosa.estimate_tuning` does from all at once."""

    def __init__(self, sr: int) -> None:
        self._sr = sr
        self._pitches: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, spectra: np.ndarray) -> None:
        """Add the pitches of a block, float32 `(1025, n)`."""
        import librosa

        pitches, magnitudes = librosa.piptrack(S=spectra, sr=self._sr)
        pitched = pitches > 0
        self._pitches.append((pitches[pitched], magnitudes[pitched]))

    def tuning(self) -> float:
        """Return the deviation from A = 440 Hz in semitones, from the louder half of the pitches."""
        import librosa

        pitches, magnitudes = (np.concatenate(arrays) for arrays in zip(*self._pitches, strict=True))
        loud = magnitudes >= np.median(magnitudes) if len(magnitudes) else slice(None)
        return float(librosa.pitch_tuning(pitches[loud], resolution=0.01, bins_per_octave=12))


def _cqt_features(samples: np.ndarray, sr: int, tuning: float) -> dict[str, np.ndarray]:
    """Compute the features of the constant-Q transform, each `(rows, frames)`."""
    import librosa

    n_frames = 1 + len(samples) // _HOP
    if len(samples) < _MIN_CQT_SAMPLES:
        samples = np.pad(samples, (0, _MIN_CQT_SAMPLES - len(samples)))
    cqt = np.abs(librosa.cqt(samples, sr=sr, hop_length=_HOP, bins_per_octave=12, n_bins=84, tuning=tuning))
    cqt = cqt[:, :n_frames]
    cens = librosa.feature.chroma_cens(C=cqt, n_chroma=12, n_octaves=7)
    return {
        "chroma_cqt": librosa.feature.chroma_cqt(C=cqt, n_chroma=12, n_octaves=7),
        "chroma_cens": cens,
        "tonnetz": librosa.feature.tonnetz(chroma=cens),
    }


def _spectral_features(spectra: np.ndarray, sr: int, tuning: float) -> dict[str, np.ndarray]:
    """Compute the features of a block of spectra `(1025, n)`; `_series` converts `mel`, `peak` and `valley` to dB."""
    import librosa

    power = np.square(spectra)
    peak, valley = _peaks_and_valleys(spectra)
    return {
        "chroma_stft": librosa.feature.chroma_stft(S=power, sr=_DEFAULT_SR, n_chroma=12, tuning=tuning),
        "rmse": librosa.feature.rms(S=spectra),
        "spectral_centroid": librosa.feature.spectral_centroid(S=spectra, sr=_DEFAULT_SR),
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(S=spectra, sr=_DEFAULT_SR),
        "spectral_rolloff": librosa.feature.spectral_rolloff(S=spectra, sr=_DEFAULT_SR),
        "peak": peak,
        "valley": valley,
        "mel": librosa.feature.melspectrogram(S=power, sr=sr),
    }


def _peaks_and_valleys(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean of the loudest and of the softest 2 % of bins in seven bands (Jiang et al., 2002).

    The bands are those of `librosa.feature.spectral_contrast`, which returns the difference in dB: they end at 200,
    400, ... 6400 Hz and half the sample rate. Each but the last excludes the bin at its upper edge, and each but the
    first begins one bin early.

    Args:
        spectra: magnitudes `(1025, n)`.

    Returns:
        Peaks and valleys, `(7, n)` each.
    """
    edges = 200.0 * 2.0 ** np.arange(6)
    bins = [0, *(int(edge * _N_FFT / _DEFAULT_SR) + 1 for edge in edges)]
    peaks, valleys = [], []
    for band in range(7):
        first = max(0, bins[band] - 1)
        stop = bins[band + 1] if band < 6 else len(spectra)
        count = max(1, round(0.02 * (stop - first)))
        ordered = np.sort(spectra[first : stop - (band < 6)], axis=0)
        valleys.append(ordered[:count].mean(axis=0))
        peaks.append(ordered[-count:].mean(axis=0))
    return np.array(peaks), np.array(valleys)


def _moments(values: np.ndarray) -> np.ndarray:
    """Compute the moments of each row of `(rows, frames)`: float64 `(7 * rows,)`, moment by moment."""
    values = values.astype(np.float64)
    mean = values.mean(axis=1)
    deviation = values - mean[:, None]
    variance = np.square(deviation).mean(axis=1)
    # Rounding gives a constant row a small variance; the bound is that of scipy.stats.
    constant = variance <= np.square(np.finfo(np.float64).resolution * mean)
    divisor = np.where(constant, 1, variance)
    moments = {
        "kurtosis": np.where(constant, 0, np.power(deviation, 4).mean(axis=1) / divisor**2 - 3),
        "max": values.max(axis=1),
        "mean": mean,
        "median": np.median(values, axis=1),
        "min": values.min(axis=1),
        "skew": np.where(constant, 0, np.power(deviation, 3).mean(axis=1) / divisor**1.5),
        "std": np.sqrt(variance),
    }
    return np.concatenate([moments[moment] for moment in MOMENTS])
