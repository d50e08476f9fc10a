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
            self._module = torch.export.load(io.BytesIO(data)).module()

    def __call__(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Compute probabilities `(slices, classes)`."""
        with torch.no_grad():
            return self._module(*tensors(inputs)).numpy()
