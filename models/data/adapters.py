"""Input adapters: convert frames of a store, as a batch on the device, to the input tensor of a model.

Frames come as float32 `(batch, frames, bins)`: absolute levels in dB with the lowest frequency first, MFCCs, or
samples. Whatever depends on the slice, such as its maximum or a floor below it, is computed here. Adapters have no
trainable weights; the id of the system and the spec of the store determine which one a run uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgc.models.parallel.device import wide_dtype
from mgc.models.registry.systems import PICTURE_SIZE, InputSpec
from mgc.pipeline.dsp.filterbanks import mel_bank
from mgc.pipeline.features import FeatureSpec, Spectral
from mgc.pipeline.features.stats import MOMENTS

#: Levels are clipped this many dB below the slice's maximum (librosa's `top_db`).
TOP_DB = 80.0
#: Number of MFCCs whose moments are computed, as in the FMA baseline.
N_MFCC = 20


def adapter(input_spec: InputSpec, spec: FeatureSpec) -> nn.Module:
    """Build the module that converts frames `(batch, frames, bins)` to an input `(batch, *input_spec.shape)`.

    Args:
        input_spec: input that the model requires.
        spec: feature of the store; it has passed `mgc.models.data.fit.check_fit`.
    """
    module = _adapter(input_spec, spec)
    return nn.Sequential(module, Standardiser()) if input_spec.standardise else module


def _adapter(input_spec: InputSpec, spec: FeatureSpec) -> nn.Module:
    values: nn.Module
    match input_spec.adapter:
        case "picture":
            return Picture(PICTURE_SIZE, _picture_levels(spec))
        case "statistics":
            return nn.Flatten()  # statistics have one frame per track
        case "waveform":
            return JoinBlocks()
        case "moments":
            values = nn.Identity() if spec.name == "chroma" else _mfcc(spec, min(N_MFCC, spec.bins))
            return nn.Sequential(values, Moments())
        case "relative":
            values = RelativeDecibels()
        case "absolute":
            values = nn.Identity()
        case "log-power":
            values = LogPower()
        case "mfcc":
            values = _mfcc(spec, input_spec.bands or spec.bins)
        case "mel":
            assert isinstance(spec, Spectral)
            assert input_spec.bands is not None
            values = nn.Sequential(MelBands(spec.sr, spec.n_fft, input_spec.bands), RelativeDecibels())
    return nn.Sequential(values, SingleChannel(input_spec.time_first))


def _mfcc(spec: FeatureSpec, n_mfcc: int) -> nn.Module:
    return FirstCoefficients(n_mfcc) if spec.name == "mfcc" else Cepstrum(spec.bins, n_mfcc)


def _picture_levels(spec: FeatureSpec) -> nn.Module:
    """Module from frames to what a picture shows: levels relative to the maximum; chroma and MFCCs unchanged."""
    if spec.name == "power":
        return nn.Sequential(Decibels(), RelativeDecibels())
    return nn.Identity() if spec.name in ("chroma", "mfcc") else RelativeDecibels()


class Decibels(nn.Module):
    """Convert power to dB: `librosa.power_to_db(S, ref=1, amin=1e-10, top_db=None)`."""

    def forward(self, power: Tensor) -> Tensor:
        """Convert power of any shape, >= 0, to dB of the same shape."""
        return 10 * power.clamp_min(1e-10).log10()


class RelativeDecibels(nn.Module):
    """Levels relative to each slice's maximum, clipped 80 dB below: `librosa.power_to_db(S, ref=np.max, top_db=80)`."""

    def forward(self, db: Tensor) -> Tensor:
        """Convert `(batch, frames, bins)` in dB to the same shape, in [-80, 0] dB."""
        return (db - db.amax(dim=(1, 2), keepdim=True)).clamp_min(-TOP_DB)


class LogPower(nn.Module):
    """Compress the power that stored levels stand for: `log10(1 + 10,000 * power)`.

    Levels are `10 * log10(power)` with a floor of 1e-10, which becomes 4e-7 here.
    """

    def forward(self, db: Tensor) -> Tensor:
        """Convert levels in dB of any shape to the same shape, >= 0."""
        with torch.autocast(db.device.type, enabled=False):  # half precision would round powers to a thousandth
            return (1 + 10_000 * torch.exp(db * (math.log(10) / 10))).log10()


class MelBands(nn.Module):
    """Levels of mel bands from those of an STFT: the weighted mean of the powers under each triangle.

    The triangles are those of `librosa.filters.mel` from 0 Hz up. If the transform is so short that no frequency falls
    under one, its band repeats the nearest band that has some: a band at the floor would look like the strongest
    contrast there is.

    Args:
        sr: sample rate in Hz.
        n_fft: length of the Fourier transform in samples.
        n_mels: number of bands.
        fmax: upper edge of the highest band in Hz; None for half the sample rate.
    """

    weights: Tensor

    def __init__(self, sr: int, n_fft: int, n_mels: int, fmax: float | None = None) -> None:
        super().__init__()
        bank = mel_bank(sr, n_fft, n_mels, 0.0, fmax)
        filled = np.flatnonzero(bank.any(axis=0))
        nearest = filled[np.abs(np.subtract.outer(np.arange(n_mels), filled)).argmin(axis=1)]
        weights = (bank / np.maximum(bank.sum(axis=0), np.finfo(np.float32).tiny))[:, nearest]
        self.register_buffer("weights", torch.from_numpy(np.ascontiguousarray(weights)), persistent=False)
        self._decibels = Decibels()

    def forward(self, db: Tensor) -> Tensor:
        """Convert `(batch, frames, 1 + n_fft/2)` in dB to `(batch, frames, n_mels)` in dB."""
        with torch.autocast(db.device.type, enabled=False):  # half precision cannot hold powers
            return self._decibels(torch.exp(db.float() * (math.log(10) / 10)) @ self.weights)


class FirstCoefficients(nn.Module):
    """Keep the first `n_mfcc` of the stored MFCCs."""

    def __init__(self, n_mfcc: int) -> None:
        super().__init__()
        self.n_mfcc = n_mfcc

    def forward(self, mfcc: Tensor) -> Tensor:
        """Slice `(batch, frames, coefficients)` to `(batch, frames, n_mfcc)`."""
        return mfcc[..., : self.n_mfcc]


def dct_matrix(n_mels: int, n_mfcc: int) -> Tensor:
    """Orthonormal DCT-II along the last axis as a matrix to multiply by, float32 `(n_mels, n_mfcc)`."""
    band, order = torch.meshgrid(
        torch.arange(n_mels, dtype=torch.float64), torch.arange(n_mfcc, dtype=torch.float64), indexing="ij"
    )
    basis = torch.cos(math.pi / n_mels * (band + 0.5) * order) * math.sqrt(2 / n_mels)
    basis[:, 0] /= math.sqrt(2)
    return basis.float()


class Cepstrum(nn.Module):
    """MFCCs of log-mel slices: clip 80 dB below the slice's maximum, then take the orthonormal DCT-II of the bands.

    This equals `librosa.feature.mfcc` of the slice's audio. Stored MFCCs cannot be converted to it, since the floor of
    80 dB belongs before the DCT.
    """

    basis: Tensor

    def __init__(self, n_mels: int, n_mfcc: int) -> None:
        super().__init__()
        self.register_buffer("basis", dct_matrix(n_mels, n_mfcc), persistent=False)

    def forward(self, db: Tensor) -> Tensor:
        """Convert `(batch, frames, n_mels)` in dB to `(batch, frames, n_mfcc)`."""
        floored = db.clamp_min(db.amax(dim=(1, 2), keepdim=True) - TOP_DB)
        with torch.autocast(db.device.type, enabled=False):  # in bfloat16 the first coefficient would be off by units
            return floored @ self.basis


class Moments(nn.Module):
    """Seven moments of each bin over the time of a slice, in the order of `mgc.pipeline.features.stats.MOMENTS`.

    Moments are those of the population; kurtosis is excess kurtosis. A constant bin has skew and kurtosis 0 instead of
    those of its rounding errors. It counts as constant if its standard deviation is at most a millionth of the slice's
    largest absolute value, the precision of float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convert `(batch, frames, bins)` to `(batch, 7 * bins)`: all bins of the first moment, then of the next."""
        values = x.to(wide_dtype(x.device))
        ordered = values.sort(dim=1).values
        n = x.shape[1]
        mean = values.mean(dim=1)
        deviation = values - mean.unsqueeze(1)
        std = deviation.square().mean(dim=1).sqrt()
        constant = std <= 1e-6 * values.abs().amax(dim=(1, 2)).unsqueeze(1)
        scaled = deviation / torch.where(constant, 1.0, std).unsqueeze(1)
        moments = {
            "kurtosis": torch.where(constant, 0.0, scaled.pow(4).mean(dim=1) - 3),
            "max": ordered[:, -1],
            "mean": mean,
            "median": (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2,
            "min": ordered[:, 0],
            "skew": torch.where(constant, 0.0, scaled.pow(3).mean(dim=1)),
            "std": std,
        }
        return torch.cat([moments[name] for name in MOMENTS], dim=1).float()


class SingleChannel(nn.Module):
    """Add a channel axis to frames, and order the axes as the model reads them.

    Args:
        time_first: keep time before frequency.
    """

    def __init__(self, time_first: bool) -> None:
        super().__init__()
        self.time_first = time_first

    def forward(self, x: Tensor) -> Tensor:
        """Convert `(batch, frames, bins)` to `(batch, 1, bins, frames)`, or `(batch, 1, frames, bins)`."""
        return (x if self.time_first else x.transpose(1, 2)).unsqueeze(1)


class Standardiser(nn.Module):
    """Scale an input to mean 0 and standard deviation 1 over the training split, one of each for all of its values.

    To fit it, call `begin`, pass the training split through it, and call `finish`. Its buffers are saved in
    checkpoints, since the weights depend on them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self._sums: Tensor | None = None

    def begin(self) -> None:
        """Start to accumulate statistics of the inputs."""
        # float64: in float32, the sum of squares of a million samples would lose the digits of the deviation.
        self._sums = torch.zeros(3, dtype=torch.float64)

    def finish(self, all_reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> None:
        """Use the accumulated statistics from here on. If all values were equal, the deviation is set to 1.

        Args:
            all_reduce: function that adds the sums of all processes: from float64 `(3,)` to the same shape.
        """
        assert self._sums is not None
        n, total, squares = all_reduce(self._sums).tolist()
        self._sums = None
        variance = max(squares / n - (total / n) ** 2, 0.0)
        self.mean.fill_(total / n)
        self.std.fill_(math.sqrt(variance) or 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Scale a tensor of any shape."""
        if self._sums is not None:
            double = (x if wide_dtype(x.device) == torch.float64 else x.cpu()).double()
            self._sums += torch.stack([torch.tensor(float(x.numel())), double.sum().cpu(), double.square().sum().cpu()])
        return (x - self.mean) / self.std


class JoinBlocks(nn.Module):
    """Join blocks of samples to a signal of one channel."""

    def forward(self, blocks: Tensor) -> Tensor:
        """Convert `(batch, blocks, samples per block)`, in [-1, 1], to `(batch, 1, samples)`."""
        return blocks.flatten(1).unsqueeze(1)


class Picture(nn.Module):
    """Render a spectrogram as the picture that an ImageNet network expects.

    xu2022 plots spectrograms and reads the pictures. Here, levels are clipped 80 dB below the slice's maximum, scaled
    to [0, 1], resized with low frequencies at the bottom (bilinear, antialiased), copied to three channels and
    normalised by ImageNet's means and deviations. A slice of a single level, such as digital silence, is black. Chroma
    and MFCCs are not levels; they are scaled without clipping.

    Args:
        size: width and height of the picture in pixels.
        levels: module from frames to the levels to show; None for `RelativeDecibels`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, levels: nn.Module | None = None) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        self.levels = nn.Sequential(levels or RelativeDecibels(), SingleChannel(time_first=False))

    def forward(self, frames: Tensor) -> Tensor:
        """Convert `(batch, frames, bins)` to `(batch, 3, size, size)`."""
        levels = self.levels(frames)
        lowest, highest = levels.amin(dim=(2, 3), keepdim=True), levels.amax(dim=(2, 3), keepdim=True)
        grey = (levels - lowest) / (highest - lowest).clamp_min(torch.finfo(levels.dtype).tiny)
        grey = F.interpolate(grey.flip(2), (self.size, self.size), mode="bilinear", antialias=True)
        return (grey - self.mean) / self.std
