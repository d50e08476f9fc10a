"""What is exported of a run: its front ends, input adapters and network as one module that returns probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mgc.models.data import adapters
from mgc.models.export.spectrogram import Features, length, reach, supports
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.training.predict import load_network
from mgc.pipeline.errors import RunError
from mgc.pipeline.features import FeatureSpec

#: What the exported file reads: samples, or the frames of a store.
Origin = Literal["samples", "features"]


@dataclass(frozen=True)
class Window:
    """The window of samples that a slice is predicted from, in samples at the rate `sr`.

    Attributes:
        sr: sample rate in Hz.
        hop: samples between frames; a slice begins at a multiple of it.
        margin: samples in the window before the start of the slice; zeros before the start of the track.
        length: samples in the window, those of the margin included.
        skip: frames from the start of the slice to the excerpt that the network sees.
    """

    sr: int
    hop: int
    margin: int
    length: int
    skip: int


class Graph(nn.Module):
    """From samples or frames to probabilities.

    Attributes:
        front_ends: module of each input from a window of samples to frames; empty if frames are read.
        network: from frames to logits, or of a classical system, to the vectors that its estimator reads.
    """

    def __init__(
        self, front_ends: Sequence[nn.Module], network: nn.Module, repeats: Sequence[Tensor | None], *, is_neural: bool
    ) -> None:
        super().__init__()
        self.front_ends = nn.ModuleList(front_ends)
        self.network = network
        self._is_neural = is_neural
        for number, index in enumerate(repeats):
            self.register_buffer(f"_repeat{number}", index, persistent=False)

    @property
    def repeats(self) -> list[Tensor | None]:
        """Per front end, the frames that fill a slice shorter than the network's input; None if none are repeated."""
        return [getattr(self, f"_repeat{number}") for number in range(len(self.front_ends))]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Convert samples `(batch, samples)`, or frames `(batch, frames, bins)` for each input.

        Returns:
            Probabilities `(batch, classes)`, or vectors `(batch, values)`.
        """
        if self.front_ends:
            inputs = self.frames(inputs[0])
        outputs = self.network(inputs[0] if len(inputs) == 1 else inputs)
        return outputs.float().softmax(dim=1) if self._is_neural else outputs

    def frames(self, samples: Tensor) -> tuple[Tensor, ...]:
        """Compute the frames of each input from samples `(batch, samples)`; short slices are repeated to fill them."""
        result = []
        for front_end, index in zip(self.front_ends, self.repeats, strict=True):
            values = front_end(samples)
            result.append(values if index is None else values[:, index])
        return tuple(result)


def build(run: Run, origin: Origin) -> tuple[Graph, Window | None]:
    """Build the module of a run, on the CPU and in evaluation mode.

    Returns:
        The module; and with the origin `samples`, the window that it reads.

    Raises:
        RunError: the run has no model of its own or is unfinished, or its features need more than samples.
    """
    system = systems.of_run(run.config)
    if system.kind == "ensemble":
        raise RunError(f"{run.path}: an ensemble has no model of its own", "export its members, one after the other")
    if not run.finished:
        remedy = f"continue it: `mgc train --resume --run {run.path}`"
        raise RunError(f"{run.path}: its training is unfinished", remedy)
    window = window_of(run) if origin == "samples" else None
    specs = [source.spec for source in run.sources]
    if system.kind == "classical":
        network: nn.Module = nn.Sequential(adapters.adapter(system.input, specs[0]), nn.Flatten())
    else:
        network = load_network(run, specs, torch.device("cpu"))
    front_ends, repeats = [], []
    if window is not None:
        for source in run.sources:
            frames = _slice_frames(run, source.spec, source.frames)
            repeats.append(None if frames == source.frames else torch.arange(source.frames) % frames)
            # A single front end computes all frames of its window, so that windows of other lengths have other numbers.
            counted = None if len(run.sources) == 1 else frames
            front_ends.append(Features(source.spec, window.margin, counted, source.waveform))
    return Graph(front_ends, network, repeats, is_neural=system.kind == "neural").eval(), window


def window_of(run: Run) -> Window:
    """Compute the window of samples that a run's slices are predicted from.

    Raises:
        RunError: a feature of the run cannot be computed from samples in one file.
    """
    remedy = "export what follows the features: `--from features`"
    for source in run.sources:
        if not supports(source.spec):
            problem = f"{run.path}: {source.spec.name} frames are not computed from samples in an exported file"
            raise RunError(problem, remedy)
    if run.slicing.whole:
        raise RunError(f"{run.path}: its slices are whole tracks, which have no window of one length", remedy)
    specs = [source.spec for source in run.sources]
    if len({(spec.sr, spec.hop_length) for spec in specs}) > 1:
        names = " and ".join(f"{spec.name} of {spec.sr} Hz with hop {spec.hop_length}" for spec in specs)
        raise RunError(f"{run.path}: its inputs are cut at different samples: {names}", remedy)
    margin = max(reach(spec) for spec in specs)
    frames = [_slice_frames(run, source.spec, source.frames) for source in run.sources]
    skips = {((run.slicing.n_frames(spec) or n) - n) // 2 for spec, n in zip(specs, frames, strict=True)}
    if len(skips) > 1:
        raise RunError(f"{run.path}: its inputs see different excerpts of a slice", remedy)
    whole = margin + max(length(spec, n) for spec, n in zip(specs, frames, strict=True))
    return Window(specs[0].sr, specs[0].hop_length, margin, whole, skips.pop())


def _slice_frames(run: Run, spec: FeatureSpec, seen: int) -> int:
    """Frames of a slice that a window holds: those that the network sees, or all if they are fewer."""
    return min(run.slicing.n_frames(spec) or seen, seen)
