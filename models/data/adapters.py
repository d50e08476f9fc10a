"""Input adapters: what a store holds, as a batch on the device, made into what a model sees.

Frames come as float32 `(batch, frames, bins)`: absolute dB, lowest frequency first, MFCCs, or samples. What depends on
a slice, such as its maximum or a floor below it, is applied here. Adapters have no weights; the id of the system and
the spec of the store say which one belongs to a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgc.models.registry.systems import PICTURE_SIZE, InputSpec
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.stats import MOMENTS

#: dB below a slice's maximum at which its levels are cut off (librosa's `top_db`).
TOP_DB = 80.0
#: MFCCs whose moments are taken, as in the FMA baseline.
N_MFCC = 20


def adapter(input: InputSpec, spec: FeatureSpec) -> nn.Module:
    """The module that makes a model's input of a store's frames, `(batch, frames, bins)` to `(batch, *input.shape)`.

    Args:
        input: what the model needs.
        spec: what the store holds; it has passed `mgc.models.data.fit.check`.
    """
    made = _adapter(input, spec)
    return nn.Sequential(made, Standardiser()) if input.standardise else made


def _adapter(input: InputSpec, spec: FeatureSpec) -> nn.Module:
    values: nn.Module
    match input.adapter:
        case "picture":
            return Picture(PICTURE_SIZE, _levels(spec))
        case "statistics":
            return nn.Flatten()  # the one row there is
        case "waveform":
            return JoinBlocks()
        case "moments":
            values = nn.Identity() if spec.name == "chroma" else _cepstra(spec, min(N_MFCC, spec.bins))
            return nn.Sequential(values, Moments())
        case "relative":
            values = RelativeDecibels()
        case "absolute":
            values = nn.Identity()
        case "mfcc":
            values = _cepstra(spec, input.bands or spec.bins)
    return nn.Sequential(values, SingleChannel(input.time_first))


def _cepstra(spec: FeatureSpec, n_mfcc: int) -> nn.Module:
    return FirstCoefficients(n_mfcc) if spec.name == "mfcc" else Cepstrum(spec.bins, n_mfcc)


def _levels(spec: FeatureSpec) -> nn.Module:
    """What a picture shows of a feature: levels relative to the maximum, or values that are no levels, as they are."""
    if spec.name == "power":
        return nn.Sequential(Decibels(), RelativeDecibels())
    return nn.Identity() if spec.name in ("chroma", "mfcc") else RelativeDecibels()


class Decibels(nn.Module):
    """Power in dB, with librosa's least value: `power_to_db(S, ref=1, amin=1e-10, top_db=None)`."""

    def forward(self, power: Tensor) -> Tensor:
        """Any shape, 0 and above, to the same shape, dB."""
        return 10 * power.clamp_min(1e-10).log10()


class RelativeDecibels(nn.Module):
    """Levels relative to the maximum of each slice, cut off 80 dB below: `power_to_db(S, ref=np.max, top_db=80)`."""

    def forward(self, db: Tensor) -> Tensor:
        """`(batch, frames, bins)`, dB, to the same shape, in [-80, 0] dB."""
        return (db - db.amax(dim=(1, 2), keepdim=True)).clamp_min(-TOP_DB)


class FirstCoefficients(nn.Module):
    """The first MFCCs of those stored."""

    def __init__(self, n_mfcc: int) -> None:
        super().__init__()
        self.n_mfcc = n_mfcc

    def forward(self, mfcc: Tensor) -> Tensor:
        """`(batch, frames, coefficients)` to `(batch, frames, n_mfcc)`."""
        return mfcc[..., : self.n_mfcc]


def dct_matrix(n_mels: int, n_mfcc: int) -> Tensor:
    """The orthonormal DCT-II along the last axis as a matrix, float32 `(n_mels, n_mfcc)`."""
    band, order = torch.meshgrid(
        torch.arange(n_mels, dtype=torch.float64), torch.arange(n_mfcc, dtype=torch.float64), indexing="ij"
    )
    basis = torch.cos(math.pi / n_mels * (band + 0.5) * order) * math.sqrt(2 / n_mels)
    basis[:, 0] /= math.sqrt(2)
    return basis.float()


class Cepstrum(nn.Module):
    """MFCCs of log-mel slices: a floor 80 dB below the slice's maximum, then the orthonormal DCT-II along the bands.

    That is what `librosa.feature.mfcc` makes of the slice's audio, and what stored MFCCs cannot be turned into.
    """

    basis: Tensor

    def __init__(self, n_mels: int, n_mfcc: int) -> None:
        super().__init__()
        self.register_buffer("basis", dct_matrix(n_mels, n_mfcc), persistent=False)

    def forward(self, db: Tensor) -> Tensor:
        """`(batch, frames, n_mels)`, dB, to `(batch, frames, n_mfcc)`."""
        floored = db.clamp_min(db.amax(dim=(1, 2), keepdim=True) - TOP_DB)
        with torch.autocast(db.device.type, enabled=False):  # in bfloat16 the first coefficient would be off by units
            return floored @ self.basis


class Moments(nn.Module):
    """Seven moments over the time of a slice, those of `mgc.pipeline.features.stats` and in their order.

    Of the population; kurtosis is excess kurtosis. A bin that does not move has skew and kurtosis 0 rather than those
    of its rounding errors: its deviation is below a millionth of the slice's largest value, float32's precision.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, frames, bins)` to `(batch, 7 * bins)`, moment by moment."""
        values = x.double()
        ordered = values.sort(dim=1).values
        n = x.shape[1]
        mean = values.mean(dim=1)
        deviation = values - mean.unsqueeze(1)
        std = deviation.square().mean(dim=1).sqrt()
        still = std <= 1e-6 * values.abs().amax(dim=(1, 2)).unsqueeze(1)
        scaled = deviation / torch.where(still, 1.0, std).unsqueeze(1)
        found = {
            "kurtosis": torch.where(still, 0.0, scaled.pow(4).mean(dim=1) - 3),
            "max": ordered[:, -1],
            "mean": mean,
            "median": (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2,
            "min": ordered[:, 0],
            "skew": torch.where(still, 0.0, scaled.pow(3).mean(dim=1)),
            "std": std,
        }
        return torch.cat([found[moment] for moment in MOMENTS], dim=1).float()


class SingleChannel(nn.Module):
    """Frames as a plane with one channel, the way up the model reads it."""

    def __init__(self, time_first: bool) -> None:
        super().__init__()
        self.time_first = time_first

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, frames, bins)` to `(batch, 1, bins, frames)`, or `(batch, 1, frames, bins)` if `time_first`."""
        return (x if self.time_first else x.transpose(1, 2)).unsqueeze(1)


class Standardiser(nn.Module):
    """Values less the mean of the training split, over its deviation: one of each for all values of an input.

    Its buffers are part of a checkpoint: what the weights were trained on.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self._sums: Tensor | None = None

    def begin(self) -> None:
        """Count what passes from here on."""
        # float64: the sum of squares of a million samples would lose what the deviation is made of.
        self._sums = torch.zeros(3, dtype=torch.float64)

    def finish(self, added: Callable[[Tensor], Tensor] = lambda sums: sums) -> None:
        """Use the statistics of what has passed. Where all of it was one value, the deviation is taken for 1.

        Args:
            added: makes of these sums, float64 `(3,)`, those of all processes.
        """
        assert self._sums is not None
        n, total, squares = added(self._sums).tolist()
        self._sums = None
        variance = max(squares / n - (total / n) ** 2, 0.0)
        self.mean.fill_(total / n)
        self.std.fill_(math.sqrt(variance) or 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, to the same shape."""
        if self._sums is not None:
            double = x.double()
            self._sums += torch.stack([torch.tensor(float(x.numel())), double.sum().cpu(), double.square().sum().cpu()])
        return (x - self.mean) / self.std


class JoinBlocks(nn.Module):
    """Blocks of samples in [-1, 1] as one signal with one channel."""

    def forward(self, blocks: Tensor) -> Tensor:
        """`(batch, frames, samples of a frame)` to `(batch, 1, samples)`."""
        return blocks.flatten(1).unsqueeze(1)


class Picture(nn.Module):
    """A spectrogram as an ImageNet network expects a photograph.

    xu2022 plots spectrograms and reads the pictures. Here levels are cut off 80 dB below the slice's maximum and
    stretched to [0, 1], low frequencies at the bottom, resized (bilinear, antialiased), copied to three channels and
    normalised by ImageNet's means and deviations. A slice of a single level, such as digital silence, is black. Chroma
    and MFCCs are no levels, and only stretched.

    Args:
        size: side of the picture in pixels.
        levels: what is shown of the frames.
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
        """`(batch, frames, bins)` to `(batch, 3, size, size)`."""
        shown = self.levels(frames)
        lowest, highest = shown.amin(dim=(2, 3), keepdim=True), shown.amax(dim=(2, 3), keepdim=True)
        grey = (shown - lowest) / (highest - lowest).clamp_min(torch.finfo(shown.dtype).tiny)
        grey = F.interpolate(grey.flip(2), (self.size, self.size), mode="bilinear", antialias=True)
        return (grey - self.mean) / self.std
