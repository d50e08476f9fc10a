"""Networks of mgc's own for collections of a few hundred tracks: several small networks in one.

Networks trained from nothing on a hundred tracks learn the sound of a few recordings rather than a genre. Three
measures against that: the members read statistics over the slice only, of a smooth spectrum (20 cepstral coefficients)
or of bands; training mixes the mean and deviation of each band, which differ with recording and mastering, between
slices; and the output is the mean of the probabilities of eight members of two kinds, which are wrong about different
genres. `docs/decisions.md` lists what was tried.

`mgc/stft` is the same on mel bands that are made of an STFT. `mgc/mfcc` has members of one kind: stored
coefficients show no bands.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mgc.models.registry.systems import InputSpec, system
from mgc.pipeline.dsp.filterbanks import dct_basis

_BANDS = 128
_N_MFCC = 20
#: Pairs of bands whose levels, and groups of 8 bands whose contrasts `BandStatistics` reads.
_N_PAIRS, _N_GROUPS = 64, 16
# Slices of 4 s at a hop of 512 and 22,050 Hz.
_LOG_MEL = InputSpec("relative", features=("mel",), bands=_BANDS, frames=172, min_frames=32)
_MFCC = InputSpec("mfcc", features=("mfcc",), bands=_N_MFCC, frames=172, min_frames=32)
# The same at 44,100 Hz.
_STFT = InputSpec("mel", features=("stft",), bands=_BANDS, frames=345, min_frames=32)
#: Added to variances before their root is taken, whose gradient is infinite at 0.
_EPSILON = 1e-4


class FrequencyMixStyle(nn.Module):
    """Mix mean and deviation of each band between slices, in training only (Schmid et al., "Freq-MixStyle", 2022).

    Each slice is normalised band by band, then gets a mixture of its own statistics and those of another slice of the
    batch. The label stays that of the slice.

    Args:
        probability: probability with which a slice is changed.
        alpha: the share of the own statistics is drawn from Beta(alpha, alpha).
    """

    def __init__(self, probability: float, alpha: float = 0.4) -> None:
        super().__init__()
        self.probability = probability
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Mix slices `(batch, bands, frames)`; in evaluation mode return them as they are."""
        if not self.training:
            return x
        mean = x.mean(dim=2, keepdim=True)
        deviation = (x.var(dim=2, keepdim=True, correction=0) + _EPSILON).sqrt()
        partners = torch.randperm(len(x), device=x.device)
        # Drawn on the device, unchecked: checks of a GPU's values wait for it.
        alpha = x.new_full((), self.alpha)
        share = torch.distributions.Beta(alpha, alpha, validate_args=False).sample((len(x), 1, 1))
        changed = torch.rand(len(x), 1, 1, device=x.device) < self.probability
        share = torch.where(changed, share, 1.0)
        mixed_mean = share * mean + (1 - share) * mean[partners]
        mixed_deviation = share * deviation + (1 - share) * deviation[partners]
        return (x - mean) / deviation * mixed_deviation + mixed_mean


class Cepstrum(nn.Module):
    """The first 20 cepstral coefficients of each frame, each standardised over the training slices."""

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", torch.from_numpy(dct_basis(_BANDS, _N_MFCC)), persistent=False)
        self.norm = nn.BatchNorm1d(_N_MFCC, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convert levels `(batch, bands, frames)` in dB to coefficients `(batch, 20, frames)`."""
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round levels to half a decibel
            return self.norm((x.float().transpose(1, 2) @ self.basis).transpose(1, 2))


class CepstralStatistics(nn.Module):
    """Mean, deviation and deviation of differences of each coefficient over the slice, and one hidden layer.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.mix = FrequencyMixStyle(0.5)
        self.cepstrum = Cepstrum()
        self.head = _head(3 * _N_MFCC, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map levels `(batch, bands, frames)` to logits `(batch, n_classes)`."""
        return self.head(_statistics(self.cepstrum(self.mix(x))))


class BandStatistics(nn.Module):
    """Mean and deviation over the slice of levels and spectral contrasts, and one hidden layer.

    The contrast of a group of 8 neighbouring bands is the difference of their highest and their lowest level in a frame
    (after Jiang et al., "Music type classification by spectral contrast feature", 2002): large where single partials
    stand out, small in noise. Cepstral coefficients do not show it.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.mix = FrequencyMixStyle(0.5)
        self.head = _head(2 * _N_PAIRS + 3 * _N_GROUPS, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map levels `(batch, bands, frames)` to logits `(batch, n_classes)`."""
        with torch.autocast(x.device.type, enabled=False):  # see `Cepstrum`
            x = self.mix(x.float())
            groups = x.unflatten(1, (_N_GROUPS, -1))
            levels = x.unflatten(1, (_N_PAIRS, -1)).mean(dim=2)
            contrasts = groups.amax(dim=2) - groups.amin(dim=2)
            means = [rows.mean(dim=2) for rows in (levels, contrasts, groups.mean(dim=2))]
            return self.head(torch.cat([*means, _deviation(levels), _deviation(contrasts)], dim=1))


class CoefficientStatistics(nn.Module):
    """`CepstralStatistics` of coefficients as they are stored, without the mean of the zeroth.

    That mean is the loudness of the recording: stored coefficients are not relative to the loudest level of a slice.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.mix = FrequencyMixStyle(0.5)
        self.head = _head(3 * _N_MFCC - 1, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map coefficients `(batch, 20, frames)` to logits `(batch, n_classes)`."""
        with torch.autocast(x.device.type, enabled=False):  # see `Cepstrum`
            return self.head(_statistics(self.mix(x.float()))[:, 1:])


def _head(n_statistics: int, n_classes: int) -> nn.Sequential:
    """Build a classifier of statistics `(batch, n_statistics)` with one hidden layer."""
    return nn.Sequential(
        nn.BatchNorm1d(n_statistics, affine=False),
        nn.Dropout(0.5),
        nn.Linear(n_statistics, 64),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(64, n_classes),
    )


def _deviation(x: Tensor) -> Tensor:
    """Standard deviation over the last axis, `(batch, rows, n)` to `(batch, rows)`."""
    return (x.var(dim=2, correction=0) + _EPSILON).sqrt()


def _statistics(coefficients: Tensor) -> Tensor:
    """Mean, deviation and deviation of the differences of successive frames: `(batch, 20, frames)` to `(batch, 60)`."""
    changes = coefficients[:, :, 1:] - coefficients[:, :, :-1]
    return torch.cat([coefficients.mean(dim=2), _deviation(coefficients), _deviation(changes)], dim=1)


class Committee(nn.Module):
    """Networks that learn independently of each other, and whose probabilities are averaged.

    Args:
        members: modules from levels `(batch, bands, frames)` to logits `(batch, n_classes)`.
    """

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map spectrograms or coefficients `(batch, 1, bands, frames)` to the logarithm of the mean probabilities.

        Returns:
            `(batch, n_classes)`. In training, a tuple of it, without a gradient, and of the logits of each member:
            the losses of all members are minimised, that of the mean is reported.
        """
        logits = [member(x.squeeze(1)).float() for member in self.members]
        log_probabilities = torch.stack(logits).log_softmax(dim=2)
        mean = log_probabilities.logsumexp(dim=0) - math.log(len(logits))
        return (mean.detach(), *logits) if self.training else mean


@system("mgc/cnn", input=_LOG_MEL)
def cnn(n_classes: int) -> nn.Module:
    """Eight small networks in one: four on statistics of the cepstrum, and four on those of bands."""
    kinds = (CepstralStatistics, BandStatistics)
    return Committee([kind(n_classes) for kind in kinds for _ in range(4)])


@system("mgc/stft", input=_STFT)
def stft(n_classes: int) -> nn.Module:
    """The members of `mgc/cnn`, on mel bands up to half the sample rate."""
    return cnn(n_classes)


@system("mgc/mfcc", input=_MFCC)
def mfcc(n_classes: int) -> nn.Module:
    """Eight small networks in one, on statistics of stored cepstral coefficients."""
    return Committee([CoefficientStatistics(n_classes) for _ in range(8)])
