"""The signal itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mgc.pipeline.dsp.stages import FramingStage
from mgc.pipeline.features.spec import FeatureSpec

_FULL_SCALE = 32768


@dataclass(frozen=True)
class Waveform(FeatureSpec):
    """Resampled mono samples, 1 at full scale: `librosa.load(file, sr=sr)`, cut into blocks.

    Frame `i` is the samples from `i * hop_length` on, the last one filled up with zeros. So there are as many frames as
    of a spectrogram with the same rate and hop, slices of both cover the same moments, and 2^17 samples are 256 frames
    of the default 512, to be cut out anywhere at steps of 23 ms. As rows of one sample (`hop_length=1`) they could be
    cut anywhere, at 8 bytes of index for each of 2.

    Attributes:
        sr: sample rate in Hz the audio is resampled to.
        hop_length: samples of a frame.
        dtype: how samples are stored: int16 (1/32768 of full scale a step) or float32.
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
        """Blocks of samples."""
        return FramingStage, self.hop_length

    def compute_frames(self, blocks: np.ndarray) -> np.ndarray:
        """float32 `(n, hop_length)`: the samples as they are."""
        return blocks

    def affected_frames(self, first: float, stop: float) -> tuple[int, int]:
        """The frames that hold one of the samples."""
        return math.floor(first / self.hop_length), math.ceil(stop / self.hop_length)

    @property
    def scale(self) -> float:
        """Share of full scale per step of the stored integer; 1 for float32."""
        return 1 / _FULL_SCALE if self.quantised else 1.0

    def encode(self, rows: np.ndarray, out: np.ndarray) -> int:
        """Store float32 `rows` in `out`, rounded to the nearest step; how many samples were beyond full scale."""
        if not self.quantised:
            return super().encode(rows, out)
        steps = np.rint(rows * np.float32(_FULL_SCALE))
        clipped = np.clip(steps, -_FULL_SCALE, _FULL_SCALE - 1)
        out[...] = clipped
        return int(np.count_nonzero(clipped != steps))
