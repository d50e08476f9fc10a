"""Augmentation on the device: what a network is shown in training instead of a slice as it is stored.

Every number that is drawn for a slice is a pure function of (seed, epoch, row of the slice table): it does not depend
on the batch that the slice comes in, and a resumed run draws what an uninterrupted one does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.nn import functional as F

from models import vocoder
from pipeline.errors import SpecError
from pipeline.features import FeatureSpec


@dataclass(frozen=True)
class Augmentation:
    """Which changes, and how strong; what is 0 does not happen.

    Attributes:
        time_masks: blocks of frames that are replaced by the slice's mean (Park et al., "SpecAugment", 2019).
        time_width: frames of such a block at most; its width is drawn evenly from 0 on.
        band_masks: the same for blocks of neighbouring bins.
        band_width: bins of such a block at most.
        shift: frames by which a slice is turned round at most, either way.
        gain: dB by which it is louder or softer at most.
        noise: largest standard deviation of Gaussian noise; drawn evenly from a fifteenth of it on. Samples only, as
            are the following.
        stretch: tempo, drawn evenly from its inverse to itself; the length stays, zeros fill what is missing.
        pitch: semitones at most, up or down.
        probability: that noise, stretch and pitch, each for itself, happen to a slice.
        polarity: probability that the sign of the samples changes.
        mixup: parameter of the beta distribution that shares are drawn from when two slices and their labels are
            added (Zhang et al., "mixup", 2018).
    """

    time_masks: int = 0
    time_width: int = 0
    band_masks: int = 0
    band_width: int = 0
    shift: int = 0
    gain: float = 0.0
    noise: float = 0.0
    stretch: float = 0.0
    pitch: float = 0.0
    probability: float = 0.5
    polarity: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        limits = {"stretch": 2.0, "pitch": 12.0, "probability": 1.0, "polarity": 1.0}
        for name, value in dataclasses.asdict(self).items():
            most = limits.get(name, math.inf)
            if not 0 <= value <= most or (name == "stretch" and 0 < value < 1):
                span = "0 or from 1 to 2" if name == "stretch" else f"from 0 to {most:g}" if name in limits else ">= 0"
                raise SpecError(f"--augment {name.replace('_', '-')}={value:g}", f"it must be {span}")
        for masks, width in (("time_masks", "time_width"), ("band_masks", "band_width")):
            if bool(getattr(self, masks)) != bool(getattr(self, width)):
                names = " and ".join((masks, width)).replace("_", "-")
                raise SpecError(f"--augment: one of {names} is given without the other", "give both, or neither")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The augmentation of `key=value,...`, such as `time-masks=2,time-width=20,mixup=0.2`.

        Raises:
            SpecError: an unknown key, or a value that is no number or out of its range.
        """
        kinds: dict[str, Any] = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for setting in filter(None, text.split(",")):
            key, equals, value = (part.strip() for part in setting.partition("="))
            name = key.replace("-", "_")
            if name not in kinds or not equals:
                choices = ", ".join(kinds).replace("_", "-")
                raise SpecError(f"--augment: {setting!r} is not a setting", f"write key=value with {choices}")
            try:
                values[name] = kinds[name](value)
            except ValueError:
                whole = "a whole number" if kinds[name] is int else "a number"
                raise SpecError(f"--augment {key}={value}", f"it must be {whole}") from None
        return cls(**values)

    def check(self, spec: FeatureSpec) -> None:
        """Raise `SpecError` where something does not apply to a feature."""
        of_samples = ("noise", "stretch", "pitch", "polarity")
        of_levels = ("time_masks", "band_masks")
        foreign = of_levels if spec.name == "waveform" else of_samples
        if spec.name not in ("waveform", "stft", "mel", "harmonic", "percussive"):
            foreign = (*foreign, "gain")  # which adds the same to all levels, and to nothing else
        for name in foreign:
            if getattr(self, name):
                setting = name.replace("_", "-")
                raise SpecError(f"--augment {setting} does not apply to {spec.name}", f"leave {setting} out")

    def __bool__(self) -> bool:
        return any(value for name, value in dataclasses.asdict(self).items() if name != "probability")


@dataclass(frozen=True)
class Augmenter:
    """Applies an augmentation to the batches of a run.

    Attributes:
        how: which changes.
        spec: what a frame is.
        seed: the run's.
    """

    how: Augmentation
    spec: FeatureSpec
    seed: int

    def __call__(self, frames: Tensor, epoch: int, rows: np.ndarray) -> Tensor:
        """The changed frames; mixup apart, which `mixed` does.

        Args:
            frames: float32 `(batch, frames, bins)`: levels in dB, or samples.
            epoch: number of the epoch.
            rows: the slices' rows of the slice table, int64 `(batch,)`.

        Returns:
            The same shape; `frames` itself is left as it is.
        """
        draw = Draws(self.seed, epoch, rows)
        samples = self.spec.name == "waveform"
        changed = self._sound(frames, draw) if samples else frames
        if self.how.gain:
            gain = draw.between(-self.how.gain, self.how.gain, "gain", frames.device)[:, None, None]
            changed = changed * 10 ** (gain / 20) if samples else changed + gain
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

    def _sound(self, frames: Tensor, draw: Draws) -> Tensor:
        signal = frames.flatten(1).clone()
        for row in range(len(signal)):
            if self.how.stretch and draw.uniform("stretched")[row] < self.how.probability:
                rate = 1 / self.how.stretch + draw.uniform("stretch")[row] * (self.how.stretch - 1 / self.how.stretch)
                signal[row] = _fitted(vocoder.stretched(signal[row], rate), signal.shape[1])
            if self.how.pitch and draw.uniform("pitched")[row] < self.how.probability:
                semitones = (2 * draw.uniform("pitch")[row] - 1) * self.how.pitch
                signal[row] = _fitted(vocoder.pitched(signal[row], semitones), signal.shape[1])
            if self.how.noise and draw.uniform("noisy")[row] < self.how.probability:
                deviation = self.how.noise * (1 + 14 * draw.uniform("noise")[row]) / 15
                generator = torch.Generator().manual_seed(int(draw.keys("noise itself")[row] >> np.uint64(1)))
                noise = torch.randn(signal.shape[1], generator=generator)
                signal[row] += deviation * noise.to(signal.device)
        if self.how.polarity:
            flipped = torch.from_numpy(draw.uniform("polarity") < self.how.polarity).to(signal.device)
            signal = torch.where(flipped[:, None], -signal, signal)
        return signal.view_as(frames)

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
