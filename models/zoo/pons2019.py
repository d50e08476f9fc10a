"""Pons and Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", ISMIR (LBD), 2019.

Networks that tag 3 s of music: `musicnn` (Pons et al., "End-to-end learning for music audio tagging at scale",
ISMIR 2018), whose filters have the shapes of timbre and of rhythm, and `vgg`, its baseline of small square filters.
Both are TensorFlow 1 graphs; layers here are named after the outputs of the authors' package. `mgc download musicnn`
gets their trained weights, see `manifests/weights/musicnn.toml`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgc.models.registry.systems import InputSpec, system
from mgc.models.zoo.layers import BatchNorm1d, BatchNorm2d, init_keras

_LOG_POWER = InputSpec("log-power", features=("mel",), bands=96, frames=187, time_first=True)


class TaggingNetwork(nn.Module):
    """Base class of the networks: logits, and the outputs of the layers below.

    The children of a network are its blocks, from the input up: `--thaw` trains them from the last one down.

    Attributes:
        LAYERS: layers that `embed` returns, with the number of values of a window.
        EMBEDDING: the layer that describes a window best: the last one before the tags.
    """

    LAYERS: ClassVar[dict[str, int]]
    EMBEDDING: ClassVar[str]

    def layers(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the layers of `LAYERS`, and the `logits` `(batch, n_classes)`, for `(batch, 1, frames, 96)`."""
        raise NotImplementedError

    def embed(self, x: Tensor, layer: str) -> Tensor:
        """Compute one layer, without the random state of training if the network is in evaluation mode.

        Args:
            x: `log10(1 + 10,000 * mel)`, float32 `(batch, 1, frames, 96)`.
            layer: a key of `LAYERS`.

        Returns:
            float32 `(batch, LAYERS[layer])`.
        """
        return self.layers(x)[layer]

    def tags(self, x: Tensor) -> Tensor:
        """Compute the probability of each tag, each by itself: the sigmoid of the logits, `(batch, n_classes)`."""
        return self.layers(x)["logits"].sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, 1, frames, 96)` to logits `(batch, n_classes)`."""
        return self.layers(x)["logits"]


def _norm_and_max(norm: BatchNorm2d, x: Tensor) -> Tensor:
    """Normalise `(batch, filters, frames, bands)` and take the maximum over the bands: `(batch, filters, frames)`.

    In evaluation, the norm of a filter is a straight line: it is applied to the maximum, or where it falls to the
    minimum, which gives the same bits and saves a fifth of the network's time.
    """
    if norm.training:
        return norm(x).amax(dim=3)
    return norm(torch.where(norm.weight.unsqueeze(1) > 0, x.amax(dim=3), x.amin(dim=3)))


class TimbralBlock(nn.Module):
    """Filters that are high and short, and the maximum over the bands: where on the frequency axis does not matter.

    Args:
        filters: number of filters.
        bands: height of a filter in bands; each is 7 frames long.
    """

    def __init__(self, filters: int, bands: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, filters, (7, bands), padding=(3, 0))
        self.norm = BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, 1, frames, bands)` to `(batch, filters, frames)`."""
        return _norm_and_max(self.norm, self.conv(x).relu_())


class TemporalBlock(nn.Module):
    """Filters that are one band high and long in time, and the maximum over the bands.

    Args:
        filters: number of filters.
        frames: length of a filter. TensorFlow pads even lengths by one frame more behind than before.
    """

    def __init__(self, filters: int, frames: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, filters, (frames, 1))
        self.norm = BatchNorm2d(filters)
        self._padding = (0, 0, (frames - 1) // 2, frames // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, 1, frames, bands)` to `(batch, filters, frames)`."""
        return _norm_and_max(self.norm, self.conv(F.pad(x, self._padding)).relu_())


class FrontEnd(nn.Module):
    """Timbral and temporal filters side by side: 408 and 153 values a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = BatchNorm2d(1)
        # The filters reach over 0.4 and 0.7 of the 96 bands.
        self.timbral = nn.ModuleList(TimbralBlock(204, bands) for bands in (38, 67))
        self.temporal = nn.ModuleList(TemporalBlock(51, frames) for frames in (128, 64, 32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(batch, 1, frames, 96)` to `(batch, 408, frames)` and `(batch, 153, frames)`."""
        x = self.norm(x)
        timbral, temporal = ([block(x) for block in blocks] for blocks in (self.timbral, self.temporal))
        return torch.cat(timbral, dim=1), torch.cat(temporal, dim=1)


class MidEnd(nn.Module):
    """64 filters over 7 frames and all values below.

    The convolution has two dimensions, as in the original, whose initial weights depend on that.

    Args:
        channels: values a frame below.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 64, (7, channels), padding=(3, 0))
        self.norm = BatchNorm2d(64)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, frames)` to `(batch, 64, frames)`."""
        return self.norm(self.conv(x.transpose(1, 2).unsqueeze(1)).relu()).squeeze(3)


class BackEnd(nn.Module):
    """The 200 units between the pooled frames and the tags."""

    def __init__(self) -> None:
        super().__init__()
        self.pool_norm = BatchNorm1d(2 * 753)
        self.dense = nn.Linear(2 * 753, 200)
        self.norm = BatchNorm1d(200)

    def forward(self, max_pool: Tensor, mean_pool: Tensor) -> tuple[Tensor, Tensor]:
        """Map two `(batch, 753)` to the 200 units `(batch, 200)` before and after their batch norm."""
        pooled = torch.stack([max_pool, mean_pool], dim=2).flatten(1)  # maximum and mean of the first channel, ...
        units = self.dense(F.dropout(self.pool_norm(pooled), 0.5, self.training)).relu()
        return units, self.norm(units)


class Musicnn(TaggingNetwork):
    """Front end, three convolutions over time with residual connections, pooling over time, and a dense layer.

    Layers with one value a frame (`timbral` to `cnn3`) are averaged over the frames.

    Args:
        n_classes: number of outputs.
    """

    LAYERS: ClassVar[dict[str, int]] = {
        "timbral": 408,
        "temporal": 153,
        "cnn1": 64,
        "cnn2": 64,
        "cnn3": 64,
        "mean_pool": 753,
        "max_pool": 753,
        "dense_relu": 200,
        "penultimate": 200,
    }
    EMBEDDING: ClassVar[str] = "penultimate"

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.frontend = FrontEnd()
        self.cnn1, self.cnn2, self.cnn3 = MidEnd(561), MidEnd(64), MidEnd(64)
        self.backend = BackEnd()
        self.head = nn.Linear(200, n_classes)
        init_keras(self)

    def layers(self, x: Tensor) -> dict[str, Tensor]:
        """Compute all layers for `(batch, 1, frames, 96)`; `dense_relu` is `penultimate` before its batch norm."""
        timbral, temporal = self.frontend(x)
        front = torch.cat([timbral, temporal], dim=1)
        cnn1 = self.cnn1(front)
        cnn2 = self.cnn2(cnn1) + cnn1
        cnn3 = self.cnn3(cnn2) + cnn2
        frames = torch.cat([front, cnn1, cnn2, cnn3], dim=1)
        max_pool, mean_pool = frames.amax(dim=2), frames.mean(dim=2)
        dense_relu, penultimate = self.backend(max_pool, mean_pool)
        by_frame = {"timbral": timbral, "temporal": temporal, "cnn1": cnn1, "cnn2": cnn2, "cnn3": cnn3}
        return {name: values.mean(dim=2) for name, values in by_frame.items()} | {
            "mean_pool": mean_pool,
            "max_pool": max_pool,
            "dense_relu": dense_relu,
            "penultimate": penultimate,
            "logits": self.head(F.dropout(penultimate, 0.5, self.training)),
        }


class VggStage(nn.Module):
    """3×3 convolution with 128 filters, batch norm and max-pool.

    Args:
        channels: input channels.
        pool, stride: frames and bands of the pooling window, and of its steps.
        dropout: share of the inputs that training drops.
    """

    def __init__(self, channels: int, pool: tuple[int, int], stride: tuple[int, int], dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv2d(channels, 128, 3, padding=1)
        self.norm = BatchNorm2d(128)
        self.pool = nn.MaxPool2d(pool, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, frames, bands)` to `(batch, 128, fewer frames, fewer bands)`."""
        return self.pool(self.norm(self.conv(self.dropout(x)).relu()))


class Vgg(TaggingNetwork):
    """Five stages of convolution and max-pool, and a dense layer. It reads windows of 187 frames only.

    The layers are the stages' outputs, averaged over frames and bands; the last one is kept as it is.

    The two trained networks have the same tensors and different pools: the graph of `MSD_vgg` pools by 4×1 and 1×4
    first, that of `MTT_vgg` by 4×1 with steps of 2×2, and by 2×2. The authors' own Python code runs both with the pools
    of `MTT_vgg`, which moves tags of `MSD_vgg` by up to 0.55 (synthetic input); here each has its own.

    Args:
        n_classes: number of outputs.
        strides: steps of the first two pools in frames and bands.
        pool2: window of the second pool.
    """

    LAYERS: ClassVar[dict[str, int]] = {"pool1": 128, "pool2": 128, "pool3": 128, "pool4": 128, "pool5": 256}
    EMBEDDING: ClassVar[str] = "pool5"

    def __init__(
        self, n_classes: int, strides: tuple[tuple[int, int], tuple[int, int]], pool2: tuple[int, int]
    ) -> None:
        super().__init__()
        self.norm = BatchNorm2d(1)
        self.stage1 = VggStage(1, (4, 1), strides[0], 0.0)
        self.stage2 = VggStage(128, pool2, strides[1], 0.25)
        self.stage3 = VggStage(128, (2, 2), (2, 2), 0.25)
        self.stage4 = VggStage(128, (2, 2), (2, 2), 0.25)
        self.stage5 = VggStage(128, (4, 4), (4, 4), 0.25)
        self.head = nn.Linear(256, n_classes)
        init_keras(self)

    def layers(self, x: Tensor) -> dict[str, Tensor]:
        """Compute all layers for `(batch, 1, 187, 96)`; `pool5` has 2 frames, each with its 128 values."""
        x = self.norm(x)
        layers: dict[str, Tensor] = {}
        for number, stage in enumerate((self.stage1, self.stage2, self.stage3, self.stage4, self.stage5), 1):
            x = stage(x)
            layers[f"pool{number}"] = x.mean(dim=(2, 3))
        layers["pool5"] = x.permute(0, 2, 3, 1).flatten(1)
        return layers | {"logits": self.head(F.dropout(layers["pool5"], 0.5, self.training))}


@system("pons2019/musicnn", input=_LOG_POWER)
def musicnn(n_classes: int) -> nn.Module:
    """The network with musically motivated filters: 778,717 parameters with 8 classes."""
    return Musicnn(n_classes)


@system("pons2019/vgg", input=_LOG_POWER)
def vgg(n_classes: int) -> nn.Module:
    """The baseline of small square filters, as trained on the Million Song Dataset: 594,954 parameters, 8 classes."""
    return Vgg(n_classes, strides=((4, 1), (1, 4)), pool2=(1, 4))


@system("pons2019/vgg-mtt", input=_LOG_POWER)
def vgg_mtt(n_classes: int) -> nn.Module:
    """The baseline of small square filters, as trained on MagnaTagATune: 594,954 parameters with 8 classes."""
    return Vgg(n_classes, strides=((2, 2), (2, 2)), pool2=(2, 2))
