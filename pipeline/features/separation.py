"""Spectrograms of the harmonic and of the percussive part of a signal, by median filtering (Fitzgerald, 2010)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mgc.pipeline.dsp.stages import MEDIAN_REACH, HpssBatch, HpssStage, to_db
from mgc.pipeline.features.spectral import LinearFrequency


@dataclass(frozen=True)
class Harmonic(LinearFrequency):
    """What lasts, in dB: the first of `librosa.decompose.hpss(abs(librosa.stft(y)))`, with its default settings.

    The filters reach 15 frames and 15 bins each way, so the track need not be held: frames are made 15 frames late.
    Their sizes are chosen for librosa's default transform, which is the default here, too.
    """

    name: ClassVar[str] = "harmonic"

    @property
    def stage(self) -> tuple[Any, ...]:
        """Power spectra and their medians."""
        return HpssStage, self.n_fft, self.hop_length

    def affected_frames(self, first: float, stop: float) -> tuple[int, int]:
        """The frames whose windows, or those of the frames that they are compared with, hold one of the samples."""
        start, end = super().affected_frames(first, stop)
        return start - MEDIAN_REACH, end + MEDIAN_REACH

    def compute_frames(self, separated: HpssBatch) -> np.ndarray:
        """float32 `(n, bins)`, dB."""
        return to_db(separated.harmonic())


@dataclass(frozen=True)
class Percussive(Harmonic):
    """What is short and broad, in dB: the second of `librosa.decompose.hpss(abs(librosa.stft(y)))`."""

    name: ClassVar[str] = "percussive"

    def compute_frames(self, separated: HpssBatch) -> np.ndarray:
        """float32 `(n, bins)`, dB."""
        return to_db(separated.percussive())
