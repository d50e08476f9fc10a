"""Augmentation on the device: what a network is shown in training instead of a slice as it is stored.

Every number that is drawn for a slice is a pure function of (seed, epoch, row of the slice table, or number of the draw
where rows come twice): it does not depend on the batch, and a resumed run draws what an uninterrupted one does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.nn import functional as F

from mgc.models.data import vocoder
from mgc.models.data.stream import Batch
from mgc.models.registry.augmentation import Augmentation
from mgc.pipeline.features import FeatureSpec


@dataclass(frozen=True)
class Augmenter:
    """Applies an augmentation to the batches of a run.

    Attributes:
        how: which changes.
        spec: what a frame is.
        seed: the run's.
        computed: whether frames are computed of samples, which `sound` changes before.
    """

    how: Augmentation
    spec: FeatureSpec
    seed: int
    computed: bool = False

    def __call__(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor, float]:
        """What the network is shown of a batch in an epoch.

        Returns:
            Frames of the batch's shape; and of mixup, which other labels `(batch,)` they have for a part, and the share
            of their own.
        """
        assert isinstance(batch.frames, Tensor)  # systems of several inputs are refused before
        changed = self.augment(batch.frames, epoch, batch.draws)
        return self.mixup(changed, batch.labels, epoch, batch.draws)

    def changed(self, frames: Tensor, epoch: int, rows: np.ndarray) -> Tensor:
        """Every change but mixup.

        Args:
            frames: float32 `(batch, frames, bins)`: levels in dB, or samples; left as they are.
            epoch: number of the epoch.
            rows: the slices' rows of the slice table, int64 `(batch,)`.
        """
        draw = Draws(self.seed, epoch, rows)
        if self.spec.name == "waveform":
            changed = self.augment_samples(frames.flatten(1), epoch, rows).view_as(frames)
        elif self.how.gain and not self.computed:
            changed = frames + self._gain(draw, frames.device)[:, None, None]
        else:
            changed = frames
        if self.how.shift:
            steps = draw.integers(2 * self.how.shift + 1, "shift") - self.how.shift
            at = np.arange(frames.shape[1])[None] + steps[:, None]
            at = torch.from_numpy(at % frames.shape[1]).to(frames.device)
            changed = changed.gather(1, at[..., None].expand_as(changed))
        for mask in range(self.how.time_masks):
            changed = self._masked(changed, 1, self.how.time_width, draw, f"time mask {mask}")
        for mask in range(self.how.band_masks):
            changed = self._masked(changed, 2, self.how.band_width, draw, f"band mask {mask}")
        return changed

    def mixed(self, frames: Tensor, labels: Tensor, epoch: int, rows: np.ndarray) -> tuple[Tensor, Tensor, float]:
        """Each slice with a share of another one of the batch: the sums, the others' labels, and the slices' own share.

        The share, of a half or more, is one number for the batch, drawn by its first row.
        """
        if not self.how.mixup:
            return frames, labels, 1.0
        draw = Draws(self.seed, epoch, rows)
        share = float(betaincinv(self.how.mixup, self.how.mixup, draw.uniform("share")[0]))
        share = max(share, 1 - share)
        others = torch.from_numpy(np.argsort(draw.uniform("mixup"))).to(frames.device)
        return share * frames + (1 - share) * frames[others], labels[others], share

    def augment_samples(self, signal: Tensor, epoch: int, rows: np.ndarray) -> Tensor:
        """What is done to samples: everything that is not done to frames.

        Args:
            signal: float32 `(batch, samples)`; left as it is.
            epoch, rows: see `changed`.
        """
        draw = Draws(self.seed, epoch, rows)
        signal = signal.clone()
        for row in range(len(signal)):
            if self.how.stretch and draw.uniform("stretched")[row] < self.how.probability:
                rate = 1 / self.how.stretch + draw.uniform("stretch")[row] * (self.how.stretch - 1 / self.how.stretch)
                signal[row] = _fitted(vocoder.time_stretch(signal[row], rate), signal.shape[1])
            if self.how.pitch and draw.uniform("pitched")[row] < self.how.probability:
                semitones = (2 * draw.uniform("pitch")[row] - 1) * self.how.pitch
                signal[row] = _fitted(vocoder.pitch_shift(signal[row], semitones), signal.shape[1])
            if self.how.noise and draw.uniform("noisy")[row] < self.how.probability:
                deviation = self.how.noise * (1 + 14 * draw.uniform("noise")[row]) / 15
                generator = torch.Generator().manual_seed(int(draw.keys("noise itself")[row] >> np.uint64(1)))
                noise = torch.randn(signal.shape[1], generator=generator)
                signal[row] += deviation * noise.to(signal.device)
        if self.how.polarity:
            flipped = torch.from_numpy(draw.uniform("polarity") < self.how.polarity).to(signal.device)
            signal = torch.where(flipped[:, None], -signal, signal)
        if self.how.gain:
            signal *= 10 ** (self._gain(draw, signal.device)[:, None] / 20)
        return signal

    def _gain(self, draw: Draws, device: torch.device) -> Tensor:
        """dB, float32 `(batch,)`."""
        return draw.between(-self.how.gain, self.how.gain, "gain", device)

    def _masked(self, frames: Tensor, axis: int, width: int, draw: Draws, name: str) -> Tensor:
        """One block along an axis replaced by the mean."""
        size = frames.shape[axis]
        widths = draw.integers(min(width, size) + 1, f"{name} width")
        starts = (draw.uniform(f"{name} start") * (size - widths + 1)).astype(np.int64)
        at = np.arange(size)[None]
        inside = torch.from_numpy((starts[:, None] <= at) & (at < (starts + widths)[:, None])).to(frames.device)
        inside = inside[:, :, None] if axis == 1 else inside[:, None, :]
        return torch.where(inside, frames.mean(dim=(1, 2), keepdim=True), frames)


def _fitted(signal: Tensor, length: int) -> Tensor:
    """The signal cut, or filled with zeros at its end, to a length."""
    return F.pad(signal[:length], (0, max(0, length - len(signal))))


class Draws:
    """Random numbers of the slices of a batch, by name: a counter-based generator, so that no slice waits for another.

    splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014) of seed, epoch, row, name.
    """

    def __init__(self, seed: int, epoch: int, rows: np.ndarray) -> None:
        numbers = np.array([seed, epoch], np.uint64)
        self._rows = _mix(_mix(_mix(numbers[:1]) ^ numbers[1:]) ^ rows.astype(np.uint64))

    def keys(self, name: str) -> np.ndarray:
        """uint64 `(batch,)`."""
        named = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return _mix(self._rows ^ np.uint64(int.from_bytes(named, "little")))

    def uniform(self, name: str) -> np.ndarray:
        """float64 `(batch,)` in [0, 1)."""
        return (self.keys(name) >> np.uint64(11)) * 2.0**-53

    def integers(self, stop: int, name: str) -> np.ndarray:
        """int64 `(batch,)` from 0 to `stop - 1`."""
        return (self.uniform(name) * stop).astype(np.int64)

    def between(self, low: float, high: float, name: str, device: torch.device) -> Tensor:
        """float32 `(batch,)` on the device, evenly from `low` to `high`."""
        return torch.from_numpy((low + self.uniform(name) * (high - low)).astype(np.float32)).to(device)


def _mix(x: np.ndarray) -> np.ndarray:
    """One step of splitmix64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
