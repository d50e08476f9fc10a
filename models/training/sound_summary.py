"""Summaries of the sound of tracks, to tell music from what is none: noise, tones, a metronome, speech.

A slice of a mel spectrogram is described by its cepstrum: the first coefficients are the envelope of the spectrum, the
others its fine structure, such as partials. Music has both and moves, each within bounds; noise has no fine structure,
a tone does not move, speech moves fast. The powers of an STFT are summed into mel bands first.

A file of a low sample rate has no treble, which is no reason to call it strange. So there is a summary of all bands,
one of those below 7 kHz and one of those below 3.5 kHz; sounds that do not reach up to there lack the first ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mgc.models.data.adapters import TOP_DB, MelBands, RelativeDecibels, dct_matrix
from mgc.models.data.split_data import SplitData
from mgc.models.network import outputs
from mgc.pipeline.dsp.filterbanks import mel_bank
from mgc.pipeline.features import FeatureSpec, Mel, Stft

#: Coefficients of the envelope.
N_ENVELOPE = 20
#: Mel bands that the powers of an STFT are summed into.
N_BANDS = 128
#: Upper edge of these bands: above it, encoders and sample rates decide what there is.
HIGHEST_HZ = 11_025.0
#: Frequencies below which the further summaries look: files of 16 kHz and of 8 kHz reach up to there.
EDGES_HZ = (7_000.0, 3_500.0)
#: A sound reaches up to a frequency if more than this share of its frames has a band within a tenth below it that is
#: above the floor.
_REACHING_SHARE = 0.05
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


def summary_module(spec: FeatureSpec) -> nn.Sequential:
    """Build the module that summarises frames `(batch, frames, bins)` of a feature that `supports` accepts.

    Its last child is a `SoundSummaries`.
    """
    if isinstance(spec, Stft):
        top = min(HIGHEST_HZ, spec.sr / 2)
        bank = mel_bank(spec.sr, spec.n_fft, N_BANDS, 0.0, top)
        return nn.Sequential(MelBands(spec.sr, spec.n_fft, N_BANDS, top), SoundSummaries(_centres(bank, spec.sr)))
    assert isinstance(spec, Mel)
    return nn.Sequential(SoundSummaries(_centres(spec.bank(), spec.sr)))


def summary_widths(spec: FeatureSpec) -> list[int]:
    """Return the number of values of each of the summaries that `summary_module` makes side by side."""
    *_, summaries = summary_module(spec)
    assert isinstance(summaries, SoundSummaries)
    return summaries.widths


def _centres(bank: np.ndarray, sr: int) -> np.ndarray:
    """Return the frequency at which each band of a filter bank `(1 + n_fft/2, n_mels)` is largest, in Hz, ascending."""
    return np.maximum.accumulate(bank.argmax(axis=0)) * sr / (2 * (len(bank) - 1))


class SoundSummaries(nn.Module):
    """The summary of all bands, and of those below each of EDGES_HZ, side by side.

    Args:
        centres: frequencies of the bands in Hz, ascending, `(n_mels,)`.

    Attributes:
        widths: values of each summary. Those of fewer than 40 bands are left out.
    """

    def __init__(self, centres: np.ndarray) -> None:
        super().__init__()
        below = [int(np.searchsorted(centres, edge)) for edge in EDGES_HZ]
        n_bands = [len(centres), *(n for n in below if 2 * N_ENVELOPE <= n < len(centres))]
        #: The bands of each summary, and the first of those that a sound must reach for it.
        self._bands = [(n, int(np.searchsorted(centres, 0.9 * centres[n - 1]))) for n in n_bands]
        summaries = [SoundSummary(n) for n in n_bands]
        self._summaries, self._levels = nn.ModuleList(summaries), RelativeDecibels()
        self.widths = [summary.width for summary in summaries]

    def forward(self, db: Tensor) -> Tensor:
        """Summarise levels `(batch, frames, n_mels)` in dB.

        Returns:
            float32 `(batch, sum of widths)`. A summary whose highest bands a sound does not reach is NaN, but for the
            last one.
        """
        floor = -TOP_DB + 0.5
        heard = self._levels(db.float()) > floor
        values: list[Tensor] = []
        for (n, first), summary in zip(self._bands, self._summaries, strict=True):
            reaches = heard[..., first:n].any(dim=2).float().mean(dim=1) > _REACHING_SHARE
            is_last = len(values) == len(self._bands) - 1
            values.append(torch.where(reaches[:, None] | is_last, summary(db[..., :n]), torch.nan))
        return torch.cat(values, dim=1)


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
        self.width = 3 * N_ENVELOPE + len(self._octaves)

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

    A track has a summary if at least half of its slices have it.

    Args:
        data: the split.
        store: number of the store whose frames are summarised.
        spec: its feature, as `supports` accepts.

    Returns:
        float64 `(tracks, values)`, in the order of `data.tracks`; NaN for summaries that a track has not, and for
        tracks none of whose slices can be read.
    """
    stream = data.streams[store]
    slices = outputs(summary_module(spec).to(stream.device), stream, "sounds").double().numpy()
    order = np.argsort(data.tracks, kind="stable")
    own = np.split(slices[order], np.flatnonzero(np.diff(data.tracks[order])) + 1)
    return np.stack([_medians(values[~np.isnan(values).all(axis=1)]) for values in own])


def _medians(slices: np.ndarray) -> np.ndarray:
    """Return the median of each value over the slices of a track `(n, values)` that have it; NaN if fewer than half."""
    medians = np.full(slices.shape[1], np.nan)
    known = np.isfinite(slices)
    usual = known.any(axis=0) & (2 * known.sum(axis=0) >= len(slices))
    medians[usual] = np.nanmedian(slices[:, usual], axis=0)
    return medians
