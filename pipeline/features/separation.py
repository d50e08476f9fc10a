"""Harmonic and percussive spectrograms, by median filters (Fitzgerald, 2010)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mgc.pipeline.dsp.separation import MEDIAN_REACH, HpssBatch, HpssStage
from mgc.pipeline.dsp.stages import to_db
from mgc.pipeline.features.spectral import LinearFrequency


@dataclass(frozen=True)
class Harmonic(LinearFrequency):
    """Harmonic (sustained) component in dB: the first output of `librosa.decompose.hpss(abs(librosa.stft(y)))`.

    The median filters cover 15 frames and 15 bins on each side, so the analysis runs 15 frames behind the signal and
    need not hold the track. Their size suits librosa's default transform, which is the default here, too.
    """

    name: ClassVar[str] = "harmonic"

    @property
    def stage(self) -> tuple[Any, ...]:
        """`HpssStage`."""
        return HpssStage, self.n_fft, self.hop_length

    def affected_frames(self, first: float, stop: float) -> tuple[int, int]:
        """Return the range of frames whose windows, or those of frames in their medians, overlap a sample range."""
        start, end = super().affected_frames(first, stop)
        return start - MEDIAN_REACH, end + MEDIAN_REACH

    def compute_frames(self, batch: HpssBatch) -> np.ndarray:
        """Return float32 `(n, bins)` in dB."""
        return to_db(batch.harmonic())


@dataclass(frozen=True)
class Percussive(Harmonic):
    """Percussive (transient) component in dB: the second output of `librosa.decompose.hpss(abs(librosa.stft(y)))`."""

    name: ClassVar[str] = "percussive"

    def compute_frames(self, batch: HpssBatch) -> np.ndarray:
        """Return float32 `(n, bins)` in dB."""
        return to_db(batch.percussive())
