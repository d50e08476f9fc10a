"""Conversion of a module to ONNX and to `torch.export`, for any number of slices, of any length where that can be."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from mgc.models.data.adapters import Picture
from mgc.models.export import lengths, onnx_file, torch_file
from mgc.models.export.graph import Graph, Window
from mgc.models.export.onnx_file import Session
from mgc.pipeline.errors import MgcError

if TYPE_CHECKING:
    from onnx import ModelProto


def to_onnx(
    graph: Graph, example: Sequence[np.ndarray], names: Sequence[str], output: str, window: Window | None
) -> ModelProto:
    """Convert a module to ONNX.

    Slices of any length go through tracing: `torch.export` cannot leave the length open where a layer's arithmetic on
    it is beyond its solver, and unrolls recurrent layers. Pictures are the exception: tracing has no operator for their
    resizing, and `torch.export` has. If either fails, the file takes slices of the run's length.

    Args:
        graph: the module.
        example: an example of each input.
        names: names of the inputs.
        output: name of the output.
        window: window of samples that the input is; None for frames.

    Raises:
        MgcError: it cannot be converted.
    """
    others = lengths.others(graph, example, window)
    if others:
        with contextlib.suppress(MgcError):
            if any(isinstance(module, Picture) for module in graph.network.modules()):
                proto = onnx_file.encode(onnx_file.trace(graph, example, any_length=True), names, output)
            else:
                proto = onnx_file.encode_any_length(graph, example, names, output)
            if lengths.takes(Session(proto.SerializeToString()), graph, others):
                return proto
    return onnx_file.encode(onnx_file.trace(graph, example), names, output)


def to_torch(
    graph: Graph, example: Sequence[np.ndarray], window: Window | None
) -> tuple[torch.export.ExportedProgram, torch_file.Program]:
    """Convert a module by `torch.export`; see `to_onnx`.

    Returns:
        The program, and the same loaded from its file.

    Raises:
        MgcError: it cannot be converted.
    """
    others = lengths.others(graph, example, window)
    if others:
        with contextlib.suppress(MgcError):
            program = onnx_file.trace(graph, example, any_length=True)
            loaded = torch_file.Program(torch_file.encode(program, {}))
            if lengths.takes(loaded, graph, others):
                return program, loaded
    program = onnx_file.trace(graph, example)
    return program, torch_file.Program(torch_file.encode(program, {}))
