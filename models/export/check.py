"""The check of an exported file: its probabilities against the run's, on slices of the run's store."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mgc.models.export.graph import Graph, Origin, Window
from mgc.models.export.onnx_file import Model
from mgc.models.export.slices import Block, Slices
from mgc.models.runs.run import Run
from mgc.pipeline.errors import MgcError

#: Greatest difference of probabilities from the run's that is accepted.
LIMIT = 1e-4
#: The same for slices with a value that lies on the border of two steps of the store's integers, and is rounded to the
#: other one than at extraction; or twice as much as the run's own probabilities move by that rounding, if that is more.
#: A step is 0.5 dB, so a network that has hardly learnt anything can move by that.
ROUNDED_LIMIT = 1e-3
#: Largest share of such values.
ROUNDED_SHARE = 1e-3
#: Tracks that are looked at, and slices of each.
N_TRACKS, PER_TRACK = 8, 2


@dataclass(frozen=True)
class Check:
    """How far an exported file is from its run.

    Attributes:
        difference: greatest difference of two probabilities.
        n_slices: number of slices that were compared.
        made_up: whether the input was made up, since the store or the audio is gone.
        n_rounded: slices with a value that is rounded to the next step of the store's integers.
        rounded_difference: greatest difference among these; 0 if there is none.
    """

    difference: float
    n_slices: int
    made_up: bool
    n_rounded: int = 0
    rounded_difference: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        what = "made-up slices (the store or its audio is gone)" if self.made_up else "slices of the store"
        text = f"differs from the run by at most {self.difference:.1e} on {self.n_slices} {what}"
        if self.n_rounded:
            text += (
                f"; by {self.rounded_difference:.1e} on {self.n_rounded} more, in which a level lies between two steps"
            )
        return text


def examples(run: Run, origin: Origin, window: Window | None) -> tuple[list[Block], Slices | None]:
    """Read some slices of a run, of tracks that it has not learnt from if there are any.

    Returns:
        The slices, and what they were read from; nothing of both if the store, or with the origin `samples` the audio,
        is gone.
    """
    try:
        source = Slices(run, origin, window)
        for split in source.splits():
            blocks = list(source.blocks(split, N_TRACKS, PER_TRACK))
            if blocks:
                return blocks, source
    except MgcError:
        pass
    return [], None


def compare(
    exported: Model, reference: Model, graph: Graph, blocks: Sequence[Block], made_up: Sequence[np.ndarray]
) -> Check:
    """Compare an exported file with its run.

    Args:
        exported: the file, in the runtime that it is for.
        reference: the run's model, from frames to probabilities.
        graph: the module that was exported.
        blocks: slices of the run; if there are none, `made_up` is compared.
        made_up: made-up input; it is compared with what the front ends of `graph` make of it.

    Raises:
        MgcError: they differ by more than `LIMIT`, or by more than `ROUNDED_LIMIT` allows where rounding differs.
    """
    if not blocks:
        blocks_in: list[tuple[Sequence[np.ndarray], list[np.ndarray]]] = [(made_up, _frames(graph, made_up))]
    else:
        blocks_in = [
            (block.inputs, [f.numpy() for f in (block.frames if isinstance(block.frames, tuple) else (block.frames,))])
            for block in blocks
        ]
    exact, rounded, excess = [0.0], [], 0.0
    n_slices = 0
    for inputs, frames in blocks_in:
        own = reference(frames)
        difference = np.abs(exported(inputs) - own).max(axis=1)
        computed = _frames(graph, inputs)
        shares = np.max([_share(*pair) for pair in zip(computed, frames, strict=True)], axis=0)
        if not np.isfinite(difference).all() or shares.max() > ROUNDED_SHARE:
            difference = np.where(shares > ROUNDED_SHARE, 1.0, np.nan_to_num(difference, nan=1.0))
            shares = np.zeros_like(shares)
        exact += difference[shares == 0].tolist()
        if (shares > 0).any():
            allowed = np.maximum(ROUNDED_LIMIT, 2 * np.abs(reference(computed) - own).max(axis=1))
            excess = max(excess, float((difference - allowed)[shares > 0].max()))
        rounded += difference[shares > 0].tolist()
        n_slices += len(difference)
    check = Check(max(exact), n_slices - len(rounded), not blocks, len(rounded), max(rounded, default=0.0))
    if check.difference > LIMIT or excess > 0:
        worst = max(check.difference, check.rounded_difference)
        problem = f"the exported model's probabilities differ from the run's by {worst:.1e}, more than {LIMIT:g}"
        raise MgcError(problem, "nothing was written; `--from features` leaves the front end out")
    return check


def _frames(graph: Graph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the front ends make of samples; frames themselves if there are none."""
    if not graph.front_ends:
        return list(inputs)
    with torch.no_grad():
        return [frames.numpy() for frames in graph.frames(torch.from_numpy(inputs[0]))]


def _share(ours: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Share of the values of each slice that are another multiple of the store's step, `(slices,)`.

    Features in floating point are never rounded to another step: their small differences count as none.
    """
    differs = np.abs(ours - stored) > 0.1 * np.maximum(1.0, np.abs(stored) * 0.01)
    return differs.reshape(len(ours), -1).mean(axis=1)
