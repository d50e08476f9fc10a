"""Embeddings: what a network hears in each window of a track, made from the frames of another feature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from mgc.pipeline.features.spec import FeatureSpec

#: Values of `Embedding.pool`.
_POOLS = ("windows", "track")


@dataclass(frozen=True)
class Embedding(FeatureSpec):
    """The output of one layer of a network for each window of a track. `mgc embed` makes it, not `mgc extract`.

    Frame `i` belongs to the samples from `i * hop_length` on, `window` of them. A track has as many frames as windows
    lie inside it.

    Attributes:
        model: the network: `musicnn/MSD_musicnn`, or the name of a run or of an ONNX file.
        layer: the layer whose output is stored.
        width: values per window.
        weights: first 16 digits of the SHA-256 of the weights.
        of: feature that the network reads, as `--feature` takes it.
        window: samples that a window covers, at the sample rate `sr`.
        sr: sample rate in Hz of the feature that the network reads.
        hop_length: samples between windows.
        pool: `windows`, or `track` for mean and standard deviation over each track's windows, which is how systems read
            a store (`mgc.models.data.pooled_view`); no store holds it.
        dtype: float32 or float16.
    """

    name: ClassVar[str] = "embedding"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float16")
    units: ClassVar[str] = "1"
    command: ClassVar[str] = "mgc embed"

    model: str = ""
    layer: str = ""
    width: int = 0
    weights: str = ""
    of: str = ""
    window: int = 0
    sr: int = 16000
    hop_length: int = 0
    pool: str = "windows"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.width > 0, "width", "1 or more")
        self._require(self.window > 0, "window", "1 or more samples")
        self._require(self.hop_length > 0, "hop_length", "1 or more samples")
        self._require(self.pool in _POOLS, "pool", " or ".join(_POOLS))

    @property
    def bins(self) -> int:
        """`width`, or twice that for mean and deviation."""
        return self.width if self.pool == "windows" else 2 * self.width

    def frames(self, seconds: float) -> int:
        """Return the number of windows that a slice of this duration holds, at least 1."""
        return 1 + max(0, self.frame_at(seconds - self.window / self.sr))

    def frame_at(self, seconds: float) -> int:
        """Return the index of the last window that begins by a time; 0 if a track has one frame."""
        return super().frame_at(seconds) if self.pool == "windows" else 0

    @property
    def frame_rate(self) -> float:
        """Windows per second; 0 if a track has one frame."""
        return super().frame_rate if self.pool == "windows" else 0.0

    def affected_frames(self, first: float, stop: float) -> tuple[int, int]:
        """Return the range of windows that hold one of the samples."""
        return math.floor((first - self.window) / self.hop_length) + 1, math.ceil(stop / self.hop_length)
