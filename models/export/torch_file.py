"""Files of `torch.export` (`.pt2`): the program, and what it says of itself in the extra file `mgc.json`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mgc.models.export.onnx_file import quiet, tensors

#: Name of the extra file in which the metadata stand, a JSON object of texts.
METADATA = "mgc.json"
#: Axes of an input: slices, samples or frames, and bins.
_AXES = "batch", "length", "bins"


def encode(program: torch.export.ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """Encode a program with its metadata."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={METADATA: json.dumps(dict(metadata))})
    return buffer.getvalue()


class Program:
    """An encoded program, loaded as a user loads it."""

    def __init__(self, data: bytes) -> None:
        with quiet():
            program = torch.export.load(io.BytesIO(data))
            self._module = program.module()
        names = program.graph_signature.user_inputs
        values = [node.meta["val"] for node in program.graph.nodes if node.name in names]
        #: Shape of each input; the names `batch` and `length` stand for any number.
        self.shapes = [
            [size if isinstance(size, int) else name for size, name in zip(value.shape, _AXES, strict=False)]
            for value in values
        ]

    def __call__(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Compute probabilities `(slices, classes)`."""
        with torch.no_grad():
            return self._module(*tensors(inputs)).numpy()
