"""The waveform: resampled samples as a feature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mgc.pipeline.dsp.stages import FramingStage
from mgc.pipeline.features.spec import Clipped, FeatureSpec

_FULL_SCALE = 32768


@dataclass(frozen=True)
class Waveform(FeatureSpec):
    """Resampled mono samples with full scale 1: `librosa.load(file, sr=sr)`, cut into frames without overlap.

    Frame `i` holds the samples from `i * hop_length` on; the last one is padded with zeros. A track has as many frames
    as in a spectrogram with the same sample rate and hop, so slices of both cover the same time. With the default hop
    of 512, a slice of 2^17 samples is 256 frames and can begin at any multiple of 23 ms. Frames of one sample
    (`hop_length=1`) could begin anywhere, but need 8 bytes of index for each sample of 2 bytes.

    Attributes:
        sr: sample rate in Hz to which the audio is resampled.
        hop_length: samples per frame.
        dtype: storage dtype: int16 (steps of 1/32768 of full scale) or float32.
    """

    name: ClassVar[str] = "waveform"
    dtypes: ClassVar[tuple[str, ...]] = ("int16", "float32")
    units: ClassVar[str] = "1"

    sr: int = 22050
    hop_length: int = 512
    dtype: str = "int16"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(1 <= self.hop_length <= 65536, "hop_length", "1 to 65536 samples")

    @property
    def bins(self) -> int:
        """`hop_length` samples."""
        return self.hop_length

    @property
    def stage(self) -> tuple[Any, ...]:
        """`FramingStage`."""
        return FramingStage, self.hop_length

    def compute_frames(self, samples: np.ndarray) -> np.ndarray:
        """Return the samples unchanged, float32 `(n, hop_length)`."""
        return samples

    def affected_frames(self, first: float, stop: float) -> tuple[int, int]:
        """Return the range of frames that contain one of the samples."""
        return math.floor(first / self.hop_length), math.ceil(stop / self.hop_length)

    @property
    def scale(self) -> float:
        """Amplitude per step of the stored integers; 1 for float32."""
        return 1 / _FULL_SCALE if self.quantised else 1.0

    def encode(self, rows: np.ndarray, out: np.ndarray) -> int | Clipped:
        """Write float32 `rows` to `out`, rounded to the nearest step, and count the samples beyond full scale.

        Both ends of the range are loud, so all of them count as above it.
        """
        if not self.quantised:
            return super().encode(rows, out)
        steps = np.rint(rows * np.float32(_FULL_SCALE))
        clipped = np.clip(steps, -_FULL_SCALE, _FULL_SCALE - 1)
        out[...] = clipped
        n_clipped = int(np.count_nonzero(clipped != steps))
        return Clipped(n_clipped, n_clipped)
