"""Slices of other lengths than the run's: which modules take them, and whether an exported file does.

Networks that pool over time, read the last state of a recurrent layer or rescale their input take slices of any length;
those with a dense layer over time take one length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mgc.models.export.check import LIMIT
from mgc.models.export.graph import Graph, Window
from mgc.models.export.onnx_file import Model, tensors

#: What is tried: numbers of slices, and their lengths as multiples of the run's own.
_TRIED = ((1, 0.5), (2, 2.0))


def others(graph: Graph, example: Sequence[np.ndarray], window: Window | None) -> list[list[np.ndarray]]:
    """Make inputs of half and of twice the length, if the module takes both.

    Args:
        graph: the module that is exported.
        example: three slices or more of the run's length: samples `(slices, samples)`, or per input frames
            `(slices, frames, bins)`.
        window: window of samples that `example` has; None if it has frames.

    Returns:
        One list of inputs per length; none if the module does not take them.
    """
    inputs = [[_stretched(values[:n], factor, window) for values in example] for n, factor in _TRIED]
    if any(index is not None for index in graph.repeats):
        return []
    for values in inputs:
        try:
            with torch.no_grad():
                graph(*tensors(values))
        except RuntimeError:  # a dense layer over time, or a pool that needs more frames
            return []
    return inputs


def takes(model: Model, graph: Graph, inputs: Sequence[list[np.ndarray]]) -> bool:
    """Whether an exported model takes inputs of each length, and returns what the module does."""
    for values in inputs:
        with torch.no_grad():
            expected = graph(*tensors(values)).numpy()
        try:
            outputs = model(values)
        except Exception:  # each runtime has its own errors
            return False
        if not np.allclose(outputs, expected, rtol=LIMIT, atol=LIMIT):
            return False
    return True


def _stretched(values: np.ndarray, factor: float, window: Window | None) -> np.ndarray:
    """Cut or repeat `values` along their second axis; a window keeps what it holds beyond its frames."""
    rows = np.arange(values.shape[1])
    if window is None:
        return values[:, np.resize(rows, max(1, int(len(rows) * factor)))]
    n_frames = (window.length - window.margin) // window.hop
    return values[:, np.resize(rows, len(rows) + (int(n_frames * factor) - n_frames) * window.hop)]
