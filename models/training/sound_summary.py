"""Summaries of the sound of tracks, to tell music from what is none: noise, tones, a metronome, speech.

A slice of a mel spectrogram is described by its cepstrum: the first coefficients are the envelope of the spectrum, the
others its fine structure, such as partials. Music has both and moves, each within bounds; noise has no fine structure,
a tone does not move, speech moves fast. The powers of an STFT are summed into mel bands first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mgc.models.data.adapters import MelBands, RelativeDecibels, dct_matrix
from mgc.models.data.split_data import SplitData
from mgc.models.network import outputs
from mgc.pipeline.features import FeatureSpec, Mel, Stft

#: Coefficients of the envelope.
N_ENVELOPE = 20
#: Mel bands that the powers of an STFT are summed into.
N_BANDS = 128
#: Upper edge of these bands: above it, encoders and sample rates decide what there is.
HIGHEST_HZ = 11_025.0
#: Added before logarithms are taken: what moves less than this, in dB, stands still.
_EPSILON = 1e-2


def supports(spec: FeatureSpec) -> bool:
    """Whether tracks can be summarised by this feature.

    Mel spectrograms need bands enough for a fine structure, STFTs a frequency for each mel band. MFCCs lack the fine
    structure: docs/decisions.md has the figures.
    """
    if type(spec) is Stft:
        return spec.bins > N_BANDS
    return type(spec) is Mel and spec.n_mels >= 2 * N_ENVELOPE


def best_input(specs: Sequence[FeatureSpec]) -> int | None:
    """Number of the input that tells most: the first mel spectrogram, else the first STFT; None if none."""
    usable = [number for number, spec in enumerate(specs) if supports(spec)]
    return min(usable, key=lambda number: (Mel, Stft).index(type(specs[number])), default=None)


def summary_module(spec: FeatureSpec) -> nn.Module:
    """Build the module that summarises frames `(batch, frames, bins)` of a feature that `supports` accepts."""
    if isinstance(spec, Stft):
        bands = MelBands(spec.sr, spec.n_fft, N_BANDS, min(HIGHEST_HZ, spec.sr / 2))
        return nn.Sequential(bands, SoundSummary(N_BANDS))
    return SoundSummary(spec.bins)


class SoundSummary(nn.Module):
    """Mean envelope, how much and how fast it moves, and how strong the fine structure is.

    Args:
        n_mels: mel bands, at least 40.
    """

    basis: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.register_buffer("basis", dct_matrix(n_mels, n_mels), persistent=False)
        self._levels = RelativeDecibels()
        #: Octaves of the fine structure: coefficients 20 to 39, 40 to 79 and so on.
        self._octaves = [slice(first, 2 * first) for first in (20, 40, 80, 160, 320) if first < n_mels]

    def forward(self, db: Tensor) -> Tensor:
        """Summarise levels `(batch, frames, n_mels)` in dB.

        Returns:
            float32 `(batch, 60 + octaves)`: mean of each coefficient of the envelope; logarithms of their deviations,
            of the deviations of their changes from frame to frame, and of the root mean square of the mean coefficients
            in each octave of the fine structure.
        """
        levels = self._levels(db.float())
        envelope = levels @ self.basis[:, :N_ENVELOPE]
        changes = envelope[:, 1:] - envelope[:, :-1]
        means = levels.mean(dim=1) @ self.basis
        fine = torch.stack([means[:, octave].square().mean(dim=1).sqrt() for octave in self._octaves], dim=1)
        moves = [envelope.std(dim=1, correction=0), changes.std(dim=1, correction=0), fine]
        return torch.cat([means[:, :N_ENVELOPE], *((values + _EPSILON).log() for values in moves)], dim=1)


def summarise(data: SplitData, store: int, spec: FeatureSpec) -> np.ndarray:
    """Summarise the tracks of a split: the median over the slices of each, so that a silent stretch does not count.

    Args:
        data: the split.
        store: number of the store whose frames are summarised.
        spec: its feature, as `supports` accepts.

    Returns:
        float64 `(tracks, values)`, in the order of `data.tracks`; NaN for a track none of whose slices can be read.
    """
    stream = data.streams[store]
    slices = outputs(summary_module(spec).to(stream.device), stream, "sounds").double().numpy()
    order = np.argsort(data.tracks, kind="stable")
    own = np.split(slices[order], np.flatnonzero(np.diff(data.tracks[order])) + 1)
    readable = [values[np.isfinite(values).all(axis=1)] for values in own]
    missing = np.full(slices.shape[1], np.nan)
    return np.stack([np.median(values, axis=0) if len(values) else missing for values in readable])
