"""ONNX files: export of a module by `torch.onnx`, metadata, and sessions of ONNX Runtime.

The name of a node begins with `model/` if it belongs to the network itself, and with `input/` if it belongs to the
front end or an input adapter, which stay in float32 when the network is made smaller.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from mgc.pipeline.errors import MgcError

if TYPE_CHECKING:
    from onnx import ModelProto

#: Packages of the extra `onnx`.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
#: First part of the names of nodes; see above.
MODEL, INPUT = "model/", "input/"
#: Scope of the network's own layers in `Graph`, as `torch.export` and as tracing writes it.
_MODEL_SCOPES = "network.model", "/network/model/"
#: Version of the operators of traced files.
_OPSET = 18

#: A model, or what was exported of it: from its inputs to probabilities `(slices, classes)`.
Model: TypeAlias = Callable[[Sequence[np.ndarray]], np.ndarray]


def require_packages(names: Sequence[str] = PACKAGES) -> None:
    """Raise `MgcError` if a package that writes ONNX files is not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"ONNX files need {' and '.join(missing)}, which this environment lacks"
        raise MgcError(problem, "pip install 'mgc-music[onnx]', or take --format torch")


def input_names(count: int, origin: str) -> list[str]:
    """Names of the inputs of an exported file: `samples`, `frames`, or `frames_1` and so on."""
    if origin == "samples":
        return ["samples"]
    return ["frames"] if count == 1 else [f"frames_{number}" for number in range(1, count + 1)]


def trace(module: nn.Module, inputs: Sequence[np.ndarray], *, any_length: bool = False) -> torch.export.ExportedProgram:
    """Export a module by `torch.export`, for any number of slices.

    Args:
        module: takes one tensor per input.
        inputs: example of each input.
        any_length: leave the length of the slices open, too, as far as PyTorch's symbolic arithmetic can. Only for
            modules that take any length: on others it can take a quarter of an hour. It may still fix the length, or
            bound it: run the result at other lengths.

    Raises:
        MgcError: it cannot be exported.
    """
    tensors = tuple(torch.from_numpy(np.repeat(values[:1], 3, axis=0)) for values in inputs)
    dims: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if any_length:
        dims[1] = torch.export.Dim.AUTO
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(module, tensors, dynamic_shapes=((dims,) * len(tensors),))
    except Exception as error:  # torch raises many kinds of errors for what it cannot trace
        raise MgcError(f"PyTorch cannot export the network ({_first_line(error)})", "") from None


def encode(program: torch.export.ExportedProgram, names: Sequence[str], output: str) -> ModelProto:
    """Convert an exported program to ONNX.

    Args:
        program: the program.
        names: names of its inputs.
        output: name of its output.
    """
    with quiet():
        exported = torch.onnx.export(
            program, (), dynamo=True, verbose=False, input_names=list(names), output_names=[output], optimize=True
        )
    assert exported is not None
    proto = exported.model_proto
    for number, node in enumerate(proto.graph.node):
        scopes = next((entry.value for entry in node.metadata_props if "name_scopes" in entry.key), "")
        node.name = _node_name(scopes, number, node.op_type)
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]
    for shape in (entry.type.tensor_type.shape for entry in (*proto.graph.input, *proto.graph.output)):
        if shape.dim and shape.dim[0].dim_param:
            _rename(proto, shape.dim[0].dim_param, "batch")
        if len(shape.dim) > 1 and shape.dim[1].dim_param:
            _rename(proto, shape.dim[1].dim_param, "length")
    return proto


def encode_any_length(module: nn.Module, inputs: Sequence[np.ndarray], names: Sequence[str], output: str) -> ModelProto:
    """Convert a module to ONNX for any number of slices of any length, by tracing it.

    `torch.export` cannot leave the length open where a layer's arithmetic on it is beyond its solver, and unrolls
    recurrent layers step by step. Tracing can, but keeps as constants whatever a module computes from lengths in
    Python: compare the result with the module at other lengths.

    Args:
        module: takes one tensor per input.
        inputs: example of each input.
        names: names of the inputs.
        output: name of the output.

    Raises:
        MgcError: there is no operator of ONNX for one of the module.
    """
    import onnx

    lengths = ["length"] if len(names) == 1 else [f"length_{number}" for number in range(1, len(names) + 1)]
    axes = {name: {0: "batch", 1: length} for name, length in zip(names, lengths, strict=True)}
    buffer = io.BytesIO()
    try:
        # It prints the graph of a failure.
        with quiet(), torch.no_grad(), _initial_states(module), contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(
                module, tensors(inputs), buffer, dynamo=False,  # type: ignore[arg-type]  # tracing writes to buffers, too
                input_names=list(names), output_names=[output],
                opset_version=_OPSET, dynamic_axes={**axes, output: {0: "batch"}},
            )  # fmt: skip
    except Exception as error:  # torch raises many kinds of errors for what it cannot convert
        raise MgcError(f"PyTorch cannot trace the network ({_first_line(error)})", "") from None
    proto = onnx.load_from_string(buffer.getvalue())
    for number, node in enumerate(proto.graph.node):
        node.name = _node_name(node.name, number, node.op_type)
    return proto


@contextlib.contextmanager
def _initial_states(module: nn.Module) -> Iterator[None]:
    """Give recurrent layers their initial states as arguments, zeros: else tracing fixes the number of slices."""

    def add(layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Any, ...] | None:
        assert isinstance(layer, nn.RNNBase)
        if len(arguments) > 1:
            return None
        values = arguments[0]
        n_states = layer.num_layers * (2 if layer.bidirectional else 1)
        state = values.new_zeros(n_states, values.shape[0 if layer.batch_first else 1], layer.hidden_size)
        return values, (state, state) if isinstance(layer, nn.LSTM) else state

    hooks = [layer.register_forward_pre_hook(add) for layer in module.modules() if isinstance(layer, nn.RNNBase)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _node_name(scope: str, number: int, operator: str) -> str:
    part = MODEL if any(own in scope for own in _MODEL_SCOPES) else INPUT
    return f"{part}{number}-{operator}"


def _rename(proto: ModelProto, old: str, new: str) -> None:
    """Rename a dimension of inputs and outputs."""
    for entry in (*proto.graph.input, *proto.graph.output):
        for dim in entry.type.tensor_type.shape.dim:
            if dim.dim_param == old:
                dim.dim_param = new


def write_metadata(proto: ModelProto, values: Mapping[str, str]) -> None:
    """Replace the metadata of a model, which ONNX Runtime shows as `get_modelmeta().custom_metadata_map`."""
    del proto.metadata_props[:]
    for key, value in values.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    proto.producer_name = "mgc"


class Session:
    """A model in ONNX Runtime on the CPU.

    Args:
        data: the ONNX file.
        threads: number of threads; None for ONNX Runtime's default.
        output: name of the output to compute; None for the first one.

    Raises:
        KeyError: there is no such output; the argument lists those that there are.
    """

    def __init__(self, data: bytes, threads: int | None = None, output: str | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised, and need not be printed, too
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.names = [entry.name for entry in self._session.get_inputs()]
        self.shapes = [entry.shape for entry in self._session.get_inputs()]
        outputs = [entry.name for entry in self._session.get_outputs()]
        if output is not None and output not in outputs:
            raise KeyError(", ".join(outputs))
        self._output = output or outputs[0]

    def __call__(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the output, such as probabilities `(slices, classes)`."""
        return self._session.run([self._output], dict(zip(self.names, inputs, strict=True)))[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and log lines of PyTorch's exporters, which are about packages that mgc does not use."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    children = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [child.level for child in children]
    for child in children:
        child.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        for child, old in zip(children, levels, strict=True):
            child.setLevel(old)


def tensors(inputs: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
    """Convert arrays to tensors."""
    return tuple(torch.from_numpy(values) for values in inputs)
