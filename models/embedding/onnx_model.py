"""Embeddings by an ONNX file: a network of other people, whose input a TOML file beside it states.

    feature = "mel:sr=16000,n_fft=512,hop_length=256,n_mels=96"   as `mgc extract --feature` takes it
    frames = 187                                                  frames of a window
    axes = "bctf"                                                 order of batch, channel, time and band in the input
    output = "embedding"                                          the output to store (default: the first one)

Values are those of the feature, such as levels in dB. The output has one row per window; what follows is flattened.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mgc.models.export.onnx_file import Session, require_packages
from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import FeatureSpec, parse_feature

#: Types of the keys of the TOML file, and whether a key must be there.
_KEYS: dict[str, tuple[type, bool]] = {
    "feature": (str, True),
    "frames": (int, True),
    "axes": (str, True),
    "output": (str, False),
}
#: Axes of a batch of windows as mgc has them.
_AXES = "btf"


@dataclass(frozen=True)
class Description:
    """What the TOML file says.

    Attributes:
        spec: feature that the network reads.
        frames: frames of a window.
        axes: order of the input's axes: `b`, `t`, `f`, and `c` for an axis of one channel.
        output: name of the output; None for the first one.
    """

    spec: FeatureSpec
    frames: int
    axes: str
    output: str | None


def read_description(path: Path) -> Description:
    """Read the TOML file of a network.

    Raises:
        SpecError: it is missing or not TOML, lacks a key, or a value is of another type or out of range.
    """
    remedy = f"write feature, frames and axes of the network's input into {path}"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"{path}: missing", remedy) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{path}: {error}", remedy) from None
    for key in values.keys() - _KEYS.keys():
        raise SpecError(f"{path}: {key} is not a key", f"choose from {', '.join(_KEYS)}")
    for key, (kind, required) in _KEYS.items():
        if key not in values and required:
            raise SpecError(f"{path}: {key} is missing", remedy)
        if key in values and type(values[key]) is not kind:
            raise SpecError(f"{path}: {key} is {values[key]!r}", f"it must be of type {kind.__name__}")
    axes = values["axes"].replace(" ", "")
    if sorted(axes.replace("c", "", 1)) != sorted(_AXES) or axes[0] != "b":
        raise SpecError(f"{path}: axes is {values['axes']!r}", "name b first, then t, f and maybe c, in any order")
    if values["frames"] < 1:
        raise SpecError(f"{path}: frames is {values['frames']}", "it must be 1 or more")
    return Description(parse_feature(values["feature"]), values["frames"], axes, values.get("output"))


class OnnxModule(nn.Module):
    """An ONNX file as a module from windows `(batch, frames, bins)` to vectors `(batch, width)`, on the CPU.

    Args:
        data: content of the file.
        description: its input and output.
        path: its path, for error messages.

    Raises:
        SpecError: ONNX Runtime cannot load it, or it has no such output.
        MgcError: ONNX Runtime is not installed.
    """

    def __init__(self, data: bytes, description: Description, path: Path) -> None:
        super().__init__()
        require_packages(["onnxruntime"])
        try:
            self._session = Session(data, output=description.output)
        except KeyError as error:
            raise SpecError(f"{path}: no output {description.output!r}", f"choose from {error.args[0]}") from None
        except Exception as error:  # ONNX Runtime has an error of its own for each kind of damage
            raise SpecError(f"{path}: {str(error).splitlines()[0]}", "name an ONNX file") from None
        order = [_AXES.index(axis) for axis in description.axes if axis != "c"]
        self._order, self._channel = order, description.axes.find("c")

    def forward(self, frames: Tensor) -> Tensor:
        """Map windows to vectors; float32."""
        x = frames.permute(self._order)
        x = x.unsqueeze(self._channel) if self._channel >= 0 else x
        values: Any = self._session([x.contiguous().numpy()])
        return torch.from_numpy(values).flatten(1)
