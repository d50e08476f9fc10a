"""Summary statistics of a track: those of the FMA baseline, 11 features of librosa by 7 moments."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mgc.pipeline.dsp.stages import WholeTrackStage
from mgc.pipeline.features.spec import FeatureSpec

#: Rows of each feature, in the order of FMA's `features.csv`.
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
MOMENTS = ("kurtosis", "max", "mean", "median", "min", "skew", "std")

_N_FFT = 2048
_HOP = 512
#: Rate that librosa assumes of a spectrogram whose rate it is not told: the FMA script does not tell it.
_ASSUMED_SR = 22050
#: Frames whose spectra are in memory at a time: their features take some 30 MB.
_FRAMES = 512
#: Samples that a constant-Q transform, which halves the rate six times, takes at least; silence follows fewer.
_LEAST = 64


@dataclass(frozen=True)
class Stats(FeatureSpec):
    """The 518 statistics of the FMA baseline (Defferrard et al., 2017), computed by librosa; one frame per track.

    Seven moments of each row of the features in `SIZES`, by the settings of the script that made FMA's `features.csv`:
    windows of 2048 samples, hop 512, 84 constant-Q bins from C1 on, tuned to the track, tonnetz of the CENS chroma. As
    in that script, centroid, bandwidth, roll-off, contrast and STFT chroma are reckoned as if at 22050 Hz; the others
    know the rate. It took each file at its own rate, which for most is the default here.

    The moments are those of the population; where all frames are equal, skew and kurtosis are 0 rather than undefined.

    Attributes:
        sr: sample rate in Hz the audio is resampled to; at least 11025, for the highest band.
        dtype: float32.
    """

    name: ClassVar[str] = "stats"
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    #: The samples of a track and its constant-Q transform are held in memory: at most so many MB for each minute at
    #: 44100 Hz, beyond what a short track takes (measured: 44 to 56). The longest track takes a worker to about 1 GB,
    #: and a minute of processor time, a fifth of what a file may take.
    mb_per_minute: ClassVar[float] = 60.0
    max_duration_s: ClassVar[float | None] = 900.0

    sr: int = 44100
    dtype: str = "float32"

    # No parameters: what the statistics are of.
    n_fft = _N_FFT
    hop_length = _HOP

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(11_025 <= self.sr <= 96_000, "sr", "11025 to 96000 Hz")

    @property
    def columns(self) -> tuple[tuple[str, str, str], ...]:
        """Feature, moment and number of each of the 518 values: the header of FMA's `features.csv`, in its order."""
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
        """Always 0, the only one."""
        return 0

    @property
    def frame_rate(self) -> float:
        """0: a track is one frame, whatever its length."""
        return 0.0

    def affected_frames(self, first: float, stop: float) -> tuple[int, int]:
        """The only frame depends on every sample."""
        return 0, 1

    @property
    def stage(self) -> tuple[Any, ...]:
        """The whole track."""
        assert self.max_duration_s is not None
        return WholeTrackStage, math.ceil(self.max_duration_s * self.sr) + 1

    def compute_frames(self, samples: np.ndarray) -> np.ndarray:
        """float32 `(1, 518)`."""
        if not len(samples):
            samples = np.zeros(1, np.float32)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Trying to estimate tuning from empty frequency set")
            warnings.filterwarnings("ignore", message="n_fft=.* is too large")
            series = _series(samples, self.sr)
        return np.concatenate([_moments(series[name]) for name in SIZES], dtype=np.float32)[None]


def _series(samples: np.ndarray, sr: int) -> dict[str, np.ndarray]:
    """The features of `SIZES` over time, each `(rows, frames)`."""
    import librosa

    magnitude_pitches, power_pitches = _Pitches(sr), _Pitches(_ASSUMED_SR)
    for spectra in _spectra(samples):
        magnitude_pitches.add(spectra)
        power_pitches.add(np.square(spectra))
    series = _constant_q(samples, sr, magnitude_pitches.tuning())
    parts = [_spectral(spectra, sr, power_pitches.tuning()) for spectra in _spectra(samples)]
    series |= {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    # 80 dB below the loudest of the track: only now is it known.
    series["mfcc"] = librosa.feature.mfcc(S=librosa.power_to_db(series.pop("mel")), n_mfcc=SIZES["mfcc"])
    series["spectral_contrast"] = librosa.power_to_db(series.pop("peak")) - librosa.power_to_db(series.pop("valley"))
    series["zcr"] = librosa.feature.zero_crossing_rate(samples, frame_length=_N_FFT, hop_length=_HOP)
    return series


def _spectra(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Magnitudes of `librosa.stft`, some frames at a time: float32 `(1025, n)`."""
    import librosa

    n_frames = 1 + len(samples) // _HOP
    padded = np.pad(samples, _N_FFT // 2)
    for first in range(0, n_frames, _FRAMES):
        stop = min(first + _FRAMES, n_frames)
        part = padded[first * _HOP : (stop - 1) * _HOP + _N_FFT]
        yield np.abs(librosa.stft(part, n_fft=_N_FFT, hop_length=_HOP, center=False))


class _Pitches:
    """The tuning of a track from its spectra: `librosa.estimate_tuning`, which would hold them all at once."""

    def __init__(self, sr: int) -> None:
        self._sr = sr
        self._found: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, spectra: np.ndarray) -> None:
        """Find the pitches of more frames."""
        import librosa

        pitches, magnitudes = librosa.piptrack(S=spectra, sr=self._sr)
        here = pitches > 0
        self._found.append((pitches[here], magnitudes[here]))

    def tuning(self) -> float:
        """Deviation from A = 440 Hz in semitones, of the louder half of the pitches."""
        import librosa

        pitches, magnitudes = (np.concatenate(arrays) for arrays in zip(*self._found, strict=True))
        loud = magnitudes >= np.median(magnitudes) if len(magnitudes) else slice(None)
        return float(librosa.pitch_tuning(pitches[loud], resolution=0.01, bins_per_octave=12))


def _constant_q(samples: np.ndarray, sr: int, tuning: float) -> dict[str, np.ndarray]:
    """The features of the constant-Q transform."""
    import librosa

    n_frames = 1 + len(samples) // _HOP
    if len(samples) < _LEAST:
        samples = np.pad(samples, (0, _LEAST - len(samples)))
    cqt = np.abs(librosa.cqt(samples, sr=sr, hop_length=_HOP, bins_per_octave=12, n_bins=84, tuning=tuning))
    cqt = cqt[:, :n_frames]
    cens = librosa.feature.chroma_cens(C=cqt, n_chroma=12, n_octaves=7)
    return {
        "chroma_cqt": librosa.feature.chroma_cqt(C=cqt, n_chroma=12, n_octaves=7),
        "chroma_cens": cens,
        "tonnetz": librosa.feature.tonnetz(chroma=cens),
    }


def _spectral(spectra: np.ndarray, sr: int, tuning: float) -> dict[str, np.ndarray]:
    """The features of some frames, `(1025, n)`, whose levels are not yet limited to 80 dB below the track's maximum."""
    import librosa

    power = np.square(spectra)
    peak, valley = _peaks_and_valleys(spectra)
    return {
        "chroma_stft": librosa.feature.chroma_stft(S=power, sr=_ASSUMED_SR, n_chroma=12, tuning=tuning),
        "rmse": librosa.feature.rms(S=spectra),
        "spectral_centroid": librosa.feature.spectral_centroid(S=spectra, sr=_ASSUMED_SR),
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(S=spectra, sr=_ASSUMED_SR),
        "spectral_rolloff": librosa.feature.spectral_rolloff(S=spectra, sr=_ASSUMED_SR),
        "peak": peak,
        "valley": valley,
        "mel": librosa.feature.melspectrogram(S=power, sr=sr),
    }


def _peaks_and_valleys(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of the loudest and of the softest 2 % of the bins of seven bands, `(7, n)` each (Jiang et al., 2002).

    The bands end at 200, 400, ... 6400 Hz and half the rate, each but the last without the bin at its upper edge; all
    but the first begin one bin early. `librosa.feature.spectral_contrast` takes both to dB, and their difference.
    """
    edges = 200.0 * 2.0 ** np.arange(6)
    bins = [0, *(int(edge * _N_FFT / _ASSUMED_SR) + 1 for edge in edges)]
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
    """The moments of each row of `(rows, frames)`, one after the other: float64 `(7 * rows,)`."""
    values = values.astype(np.float64)
    mean = values.mean(axis=1)
    deviation = values - mean[:, None]
    variance = np.square(deviation).mean(axis=1)
    # Rounding leaves a constant row a variance: it is told by the bound that scipy.stats takes.
    constant = variance <= np.square(np.finfo(np.float64).resolution * mean)
    divisor = np.where(constant, 1, variance)
    found = {
        "kurtosis": np.where(constant, 0, np.power(deviation, 4).mean(axis=1) / divisor**2 - 3),
        "max": values.max(axis=1),
        "mean": mean,
        "median": np.median(values, axis=1),
        "min": values.min(axis=1),
        "skew": np.where(constant, 0, np.power(deviation, 3).mean(axis=1) / divisor**1.5),
        "std": np.sqrt(variance),
    }
    return np.concatenate([found[moment] for moment in MOMENTS])
