"""Augmentation of training batches on the device; `mgc.models.registry.augmentation` has the settings.

Every random number for a slice is a pure function of seed, epoch and draw (the slice's row of the slice table, unless
balancing draws some rows twice). So it does not depend on the other slices of the batch, and a resumed run draws the
same numbers as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mgc.models.data import vocoder
from mgc.models.data.stream import Batch
from mgc.models.parallel.transfer import send
from mgc.models.registry.augmentation import Augmentation
from mgc.pipeline.features import FeatureSpec


@dataclass(frozen=True)
class Augmenter:
    """Augments the training batches of a run.

    Attributes:
        augmentation: strength of each augmentation.
        spec: feature of the frames.
        seed: seed of the run.
        frontend: whether the device computes the frames from samples; those are augmented by `augment_samples` before,
            which then applies the gain, too.
    """

    augmentation: Augmentation
    spec: FeatureSpec
    seed: int
    frontend: bool = False

    def __call__(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor, float]:
        """Augment a batch: `augment`, then `mixup`.

        Returns:
            As `mixup`: frames of the batch's shape, labels of the slices mixed in, int64 `(batch,)`, and the share of
            the batch's own labels.
        """
        assert isinstance(batch.frames, Tensor)  # augmentation is refused for systems of several inputs
        frames = self.augment(batch.frames, epoch, batch.draws)
        return self.mixup(frames, batch.labels, epoch, batch.draws)

    def augment(self, frames: Tensor, epoch: int, draws: np.ndarray) -> Tensor:
        """Apply every augmentation but mixup.

        Args:
            frames: float32 `(batch, frames, bins)`: levels in dB, or samples. It is not modified.
            epoch: number of the epoch.
            draws: draw of each slice in the epoch, int64 `(batch,)`.
        """
        random = Draws(self.seed, epoch, draws)
        if self.spec.name == "waveform":
            augmented = self.augment_samples(frames.flatten(1), epoch, draws).view_as(frames)
        elif self.augmentation.gain and not self.frontend:
            augmented = frames + self._gain(random, frames.device)[:, None, None]
        else:
            augmented = frames
        if max_shift := self.augmentation.shift:
            shift = random.integers(2 * max_shift + 1, "shift") - max_shift
            index = np.arange(frames.shape[1])[None] + shift[:, None]
            index = send(index % frames.shape[1], frames.device)
            augmented = augmented.gather(1, index[..., None].expand_as(augmented))
        for mask in range(self.augmentation.time_masks):
            augmented = _mask(augmented, 1, self.augmentation.time_width, random, f"time mask {mask}")
        for mask in range(self.augmentation.band_masks):
            augmented = _mask(augmented, 2, self.augmentation.band_width, random, f"band mask {mask}")
        return augmented

    def mixup(self, frames: Tensor, labels: Tensor, epoch: int, draws: np.ndarray) -> tuple[Tensor, Tensor, float]:
        """Mix each slice with another one of the batch (Zhang et al., "mixup", 2018).

        Args:
            frames: float32 `(batch, frames, bins)`.
            labels: class indices, int64 `(batch,)`.
            epoch: number of the epoch.
            draws: draw of each slice in the epoch, int64 `(batch,)`.

        Returns:
            Mixed frames; labels of the slices mixed in, int64 `(batch,)`; and the share of a slice's own frames and
            label, at least a half. The share is the same for the whole batch, drawn by its first slice.
        """
        alpha = self.augmentation.mixup
        if not alpha:
            return frames, labels, 1.0
        from scipy.special import betaincinv  # here: evaluation and prediction import this module, too

        random = Draws(self.seed, epoch, draws)
        share = float(betaincinv(alpha, alpha, random.uniform("share")[0]))
        share = max(share, 1 - share)
        partners = send(np.argsort(random.uniform("mixup")), frames.device)
        return share * frames + (1 - share) * frames[partners], labels[partners], share

    def augment_samples(self, signal: Tensor, epoch: int, draws: np.ndarray) -> Tensor:
        """Apply the augmentations of samples: time stretch, pitch shift, noise, polarity and gain.

        Args:
            signal: float32 `(batch, samples)`. It is not modified.
            epoch: number of the epoch.
            draws: draw of each slice in the epoch, int64 `(batch,)`.
        """
        # The names of the draws below are part of the random numbers: with another name, training gives other weights.
        settings, random = self.augmentation, Draws(self.seed, epoch, draws)
        signal = signal.clone()
        for row in range(len(signal)):
            if settings.stretch and random.uniform("stretched")[row] < settings.probability:
                slowest = 1 / settings.stretch
                rate = slowest + random.uniform("stretch")[row] * (settings.stretch - slowest)
                signal[row] = _fix_length(vocoder.time_stretch(signal[row], rate), signal.shape[1])
            if settings.pitch and random.uniform("pitched")[row] < settings.probability:
                semitones = (2 * random.uniform("pitch")[row] - 1) * settings.pitch
                signal[row] = _fix_length(vocoder.pitch_shift(signal[row], semitones), signal.shape[1])
            if settings.noise and random.uniform("noisy")[row] < settings.probability:
                deviation = settings.noise * (1 + 14 * random.uniform("noise")[row]) / 15
                generator = torch.Generator().manual_seed(int(random.keys("noise itself")[row] >> np.uint64(1)))
                noise = torch.randn(signal.shape[1], generator=generator)
                signal[row] += deviation * send(noise.numpy(), signal.device)
        if settings.polarity:
            inverted = send(random.uniform("polarity") < settings.polarity, signal.device)
            signal = torch.where(inverted[:, None], -signal, signal)
        if settings.gain:
            signal *= 10 ** (self._gain(random, signal.device)[:, None] / 20)
        return signal

    def _gain(self, random: Draws, device: torch.device) -> Tensor:
        """Gain of each slice in dB, float32 `(batch,)`."""
        return random.between(-self.augmentation.gain, self.augmentation.gain, "gain", device)


def _mask(frames: Tensor, axis: int, max_width: int, random: Draws, name: str) -> Tensor:
    """Replace one block along an axis by the slice's mean (SpecAugment).

    Args:
        frames: float32 `(batch, frames, bins)`.
        axis: 1 for time, 2 for frequency.
        max_width: maximum width of the block.
        random: random numbers of the batch.
        name: name of the mask, under which its width and its start are drawn.
    """
    size = frames.shape[axis]
    widths = random.integers(min(max_width, size) + 1, f"{name} width")
    starts = (random.uniform(f"{name} start") * (size - widths + 1)).astype(np.int64)
    index = np.arange(size)[None]
    inside = send((starts[:, None] <= index) & (index < (starts + widths)[:, None]), frames.device)
    inside = inside[:, :, None] if axis == 1 else inside[:, None, :]
    return torch.where(inside, frames.mean(dim=(1, 2), keepdim=True), frames)


def _fix_length(signal: Tensor, length: int) -> Tensor:
    """Truncate a signal, or pad it with zeros at its end, to a length (`librosa.util.fix_length`)."""
    return F.pad(signal[:length], (0, max(0, length - len(signal))))


class Draws:
    """Named random numbers for the slices of a batch, from a counter-based generator.

    A number is the splitmix64 hash (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014) of
    seed, epoch, draw and name, so it does not depend on which numbers were generated before.

    Args:
        seed: seed of the run.
        epoch: number of the epoch.
        draws: draw of each slice in the epoch, int64 `(batch,)`.
    """

    def __init__(self, seed: int, epoch: int, draws: np.ndarray) -> None:
        numbers = np.array([seed, epoch], np.uint64)
        self._state = _mix(_mix(_mix(numbers[:1]) ^ numbers[1:]) ^ draws.astype(np.uint64))

    def keys(self, name: str) -> np.ndarray:
        """Random bits, uint64 `(batch,)`."""
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return _mix(self._state ^ np.uint64(int.from_bytes(digest, "little")))

    def uniform(self, name: str) -> np.ndarray:
        """Uniform numbers in [0, 1), float64 `(batch,)`."""
        return (self.keys(name) >> np.uint64(11)) * 2.0**-53

    def integers(self, stop: int, name: str) -> np.ndarray:
        """Uniform integers from 0 to `stop - 1`, int64 `(batch,)`."""
        return (self.uniform(name) * stop).astype(np.int64)

    def between(self, low: float, high: float, name: str, device: torch.device) -> Tensor:
        """Uniform numbers in [low, high) on the device, float32 `(batch,)`."""
        return send((low + self.uniform(name) * (high - low)).astype(np.float32), device)


def _mix(x: np.ndarray) -> np.ndarray:
    """One step of splitmix64, uint64 of any shape."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
