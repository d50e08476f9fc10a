"""Smaller files of a network: int8 by ONNX Runtime's static quantisation, and float16; measured beside the float one.

Only the network's own layers change. Front end and input adapters stay in float32: power spectra exceed the range of
float16, and 256 steps from the softest to the loudest level are too few.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from mgc.models.evaluation import intervals, paired
from mgc.models.evaluation.metrics import Predictions
from mgc.models.evaluation.paired import Span
from mgc.models.export.onnx_file import MODEL, Session
from mgc.models.export.slices import Block, Slices
from mgc.pipeline.errors import MgcError

if TYPE_CHECKING:
    from onnx import ModelProto

#: Type of the numbers in a file.
Precision = Literal["float32", "float16", "int8"]
#: Training tracks to calibrate on, and slices of each.
CALIBRATION_TRACKS, CALIBRATION_PER_TRACK = 32, 2
#: Timed calls of each file.
REPEATS = 21


@dataclass(frozen=True)
class Measurement:
    """A smaller file beside the float one, measured in one run.

    Attributes:
        precision: int8 or float16.
        split: split that the accuracies are of.
        n_tracks: its tracks.
        bytes_before, bytes_after: sizes of the float file and of the smaller one.
        accuracy_before, accuracy_after: accuracy by track.
        difference: accuracy of the smaller file less that of the float one, with its 95 % interval.
        ms_before, ms_after: median time for one slice on one thread of this CPU, in milliseconds.
    """

    precision: str
    split: str
    n_tracks: int
    bytes_before: int
    bytes_after: int
    accuracy_before: float
    accuracy_after: float
    difference: Span
    ms_before: float
    ms_after: float

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return asdict(self)


def quantise(data: bytes, calibration: Iterable[Block], names: Sequence[str]) -> bytes:
    """Quantise the network of a file to int8, weights by channel, activations by their range on real slices.

    Args:
        data: the float file.
        calibration: slices of the training split.
        names: names of the inputs.

    Raises:
        MgcError: there is no slice to calibrate on, or ONNX Runtime cannot quantise the network.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Hands the slices out one batch at a time."""

        def __init__(self) -> None:
            self._feeds: Iterator[dict[str, np.ndarray]] = iter(
                [dict(zip(names, block.inputs, strict=True)) for block in calibration]
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    model = onnx.load_from_string(data)
    kept = [node.name for node in model.graph.node if not node.name.startswith(MODEL)]
    with tempfile.TemporaryDirectory(prefix="mgc-export-") as folder, _quiet_root():
        target = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                model,
                target,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["Conv", "Gemm", "MatMul"],
                nodes_to_exclude=kept,
            )
        except Exception as error:  # onnxruntime raises many kinds of errors
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise MgcError(f"ONNX Runtime cannot quantise this network ({reason})", "leave out --quantise") from None
        return target.read_bytes()


def halve(data: bytes) -> bytes:
    """Convert the network of a file to float16; inputs and outputs stay float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load_from_string(data)
    kept = [node.name for node in model.graph.node if not node.name.startswith(MODEL)]
    with warnings.catch_warnings(), _quiet_root():
        warnings.simplefilter("ignore")
        converted: ModelProto = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    _drop_casts(converted)
    return converted.SerializeToString()


def _drop_casts(model: ModelProto) -> None:
    """Remove casts that the conversion inserts between two nodes that both stay in float32: there and back again.

    It inserts a cast once for each reader of a value, all under one name, and casts the inputs of the model, too. Power
    spectra exceed the range of float16.
    """
    import onnx

    kinds = {"there": onnx.TensorProto.FLOAT16, "back": onnx.TensorProto.FLOAT}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    halves = {node.output[0]: node.input[0] for node in casts if node.attribute[0].i == kinds["there"]}
    wide = {
        node.output[0]: halves[node.input[0]]
        for node in casts
        if node.attribute[0].i == kinds["back"] and node.input[0] in halves
    }
    outputs = {value.name for value in model.graph.output}
    nodes, seen = [], set()
    for node in model.graph.node:
        for number, name in enumerate(node.input):
            if name in wide:
                node.input[number] = wide[name]
        if node.op_type == "Cast" and (node.output[0] in seen or node.output[0] in wide.keys() - outputs):
            continue
        seen.update(node.output)
        nodes.append(node)
    for number, node in enumerate(nodes):
        node.name = f"{node.name}-{number}"
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def measure(before: bytes, after: bytes, precision: Precision, source: Slices, classes: Sequence[str]) -> Measurement:
    """Measure a smaller file beside the float one, on the test split, or on what there is instead.

    Args:
        before: the float file.
        after: the smaller one.
        precision: of the smaller one.
        source: slices of the run.
        classes: genres in the order of the outputs.
    """
    split = source.splits()[0]
    sessions = [Session(data, threads=1) for data in (before, after)]
    tables: list[list[pa.Table]] = [[], []]
    example: list[np.ndarray] = []
    for block in source.blocks(split):
        example = example or [values[:1] for values in block.inputs]
        for session, parts in zip(sessions, tables, strict=True):
            values = session(block.inputs).astype(np.float32)
            offsets = pa.array(np.arange(len(values) + 1) * len(classes), pa.int32())
            lists = pa.ListArray.from_arrays(offsets, pa.array(values.ravel()))
            parts.append(block.rows.append_column("probabilities", lists))
    if not example:
        raise MgcError(f"no {split} track has slices to measure on", "leave out --quantise and --half")
    first, second = (Predictions.from_table(pa.concat_tables(parts), classes).by_track() for parts in tables)
    right = [one.predicted == one.truth for one in (first, second)]
    times = _times(sessions, example)
    return Measurement(
        precision=precision,
        split=split,
        n_tracks=len(first.truth),
        bytes_before=len(before),
        bytes_after=len(after),
        accuracy_before=float(right[0].mean()),
        accuracy_after=float(right[1].mean()),
        difference=_span(right[1].astype(float) - right[0], first),
        ms_before=times[0],
        ms_after=times[1],
    )


def _span(differences: np.ndarray, tracks: Predictions) -> Span:
    """Mean difference of the correctness of tracks, with its interval; artists are resampled."""
    sizes = tracks.group_sizes
    sums = np.stack([np.bincount(tracks.groups, differences, len(sizes)), sizes], axis=1)
    total = intervals.resample(sums, 2000, 0)
    resampled = total[:, 0] / total[:, 1]
    return paired.span(float(differences.mean()), paired.accuracy_error(differences, resampled, sizes), resampled)


def _times(sessions: Sequence[Session], inputs: Sequence[np.ndarray]) -> list[float]:
    """Median time of a call of each session in milliseconds; the sessions take turns, so that all see the same load."""
    seconds: list[list[float]] = [[] for _ in sessions]
    for repeat in range(REPEATS + 2):
        for session, own in zip(sessions, seconds, strict=True):
            start = time.perf_counter()
            session(inputs)
            if repeat >= 2:  # the first calls allocate memory
                own.append(time.perf_counter() - start)
    return [1000 * statistics.median(own) for own in seconds]


class _quiet_root:
    """Silence the log lines of ONNX Runtime's tools, which go to the root logger."""

    def __enter__(self) -> None:
        self._level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)

    def __exit__(self, *exception: object) -> None:
        logging.getLogger().setLevel(self._level)
