"""Export of a run: build the module, convert it, check it against the run, and only then write file and card."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from mgc.models.export import card, check, conversion, estimator, onnx_file, slices, smaller, torch_file
from mgc.models.export.check import Check
from mgc.models.export.description import describe
from mgc.models.export.graph import Graph, Origin, Window, build
from mgc.models.export.onnx_file import Model, Session
from mgc.models.export.slices import Slices
from mgc.models.export.smaller import Measurement, Precision
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.training.predict import load_estimator
from mgc.pipeline.errors import MgcError
from mgc.pipeline.storage import files

if TYPE_CHECKING:
    from onnx import ModelProto

Format = Literal["onnx", "torch"]
#: Suffix of a file by its format.
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch": ".pt2"}
#: Name of the model card.
CARD = "README.md"


@dataclass(frozen=True)
class Export:
    """An exported file.

    Attributes:
        path: the file.
        card: the model card.
        size: bytes of the file.
        check: comparison with the run.
        shapes: shape of each input; names stand for any length.
        measured: comparison of a smaller file with the float one; None for the float one.
    """

    path: Path
    card: Path
    size: int
    check: Check
    shapes: list[list[Any]]
    measured: Measurement | None

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {
            "file": str(self.path),
            "card": str(self.card),
            "bytes": self.size,
            "check": self.check.as_dict(),
            "shapes": self.shapes,
            "measured": None if self.measured is None else self.measured.as_dict(),
        }


def export(
    run: Run, out: Path, form: Format, origin: Origin, *, precision: Precision = "float32", licence: str = "unknown"
) -> Export:
    """Export a run.

    Args:
        run: finished run with a model of its own.
        out: file to write, or the folder of `model.onnx` or `model.pt2`; the card stands beside it.
        form: `onnx` or `torch`.
        origin: what the file reads: `samples` or `features`.
        precision: `int8` or `float16` makes an ONNX file smaller.
        licence: licence of the model, for the card.

    Raises:
        MgcError: a package is missing; the run cannot be exported, or not from samples; the exported model differs from
            the run; the file or its card exists already; the folder cannot be written.
    """
    if form == "onnx":
        onnx_file.require_packages()
    target = place(out, form)
    graph, window = build(run, origin)
    blocks, source = check.examples(run, origin, window)
    if precision != "float32":
        if graph.network is None or systems.of_run(run.config).kind != "neural":
            raise MgcError(f"{run.model} is no network: only networks are made smaller", "leave out --quantise, --half")
        if source is None:
            problem = f"{run.path}: its store or its audio is gone, on which a smaller file is calibrated and measured"
            raise MgcError(problem, "extract it again, or leave out --quantise and --half")
    made_up = slices.made_up(run, window)
    example = blocks[0].inputs if blocks else made_up
    reference = _reference(run)
    measured = None
    if form == "torch":
        if systems.of_run(run.config).kind == "classical":
            raise MgcError(f"{run.model} is no network, and torch.export holds only networks", "take --format onnx")
        program, loaded = conversion.to_torch(graph, example, window)
        result = check.compare(loaded, reference, graph, blocks, made_up)
        data, shapes = torch_file.encode(program, describe(run, origin, window, _record(result))), loaded.shapes
    else:
        proto = _to_onnx(run, graph, example, origin, window)
        session = Session(proto.SerializeToString())
        result = check.compare(session, reference, graph, blocks, made_up)
        onnx_file.write_metadata(proto, describe(run, origin, window, _record(result)))
        data, shapes = proto.SerializeToString(), session.shapes
        if precision != "float32" and source is not None:
            data, measured = _smaller(run, data, precision, source, session.names)
    text = card.card(run, target.name, form, origin, result, licence, measured)
    beside = target.with_name(CARD)
    _write({target: data, beside: text.encode()})
    return Export(target, beside, len(data), result, shapes, measured)


def place(out: Path, form: Format) -> Path:
    """Return the path of the file, and require that neither it nor a card beside it exists.

    Raises:
        MgcError: one does.
    """
    target = out if out.suffix in SUFFIXES.values() and not out.is_dir() else out / f"model{SUFFIXES[form]}"
    if target.suffix != SUFFIXES[form]:
        raise MgcError(f"{target}: a file of {form} ends in {SUFFIXES[form]}", "name another file, or a folder")
    for path in (target, target.with_name(CARD)):
        if os.path.lexists(path):
            raise MgcError(f"{path}: exists already, and is not replaced", "remove it, or name another with --out")
    return target


def _record(result: Check) -> dict[str, Any]:
    return {"check": result.as_dict()}


def _reference(run: Run) -> Model:
    """The run's model, from frames to probabilities."""
    graph, _ = build(run, "features")
    fitted = load_estimator(run) if not _is_network(run) else None

    def predict(frames: Sequence[np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            outputs = graph(*onnx_file.tensors(frames)).numpy()
        return outputs if fitted is None else fitted.predict_proba(outputs)

    return predict


def _is_network(run: Run) -> bool:
    return systems.of_run(run.config).kind == "neural"


def _to_onnx(
    run: Run, graph: Graph, example: Sequence[np.ndarray], origin: Origin, window: Window | None
) -> ModelProto:
    """Convert a run to ONNX."""
    is_network = _is_network(run)
    names = onnx_file.input_names(len(run.sources), origin)
    proto = conversion.to_onnx(graph, example, names, "probabilities" if is_network else "vectors", window)
    if is_network:
        return proto
    fitted = load_estimator(run)
    with torch.no_grad():
        n_values = graph(*onnx_file.tensors(example)).shape[1]
    return estimator.join(proto, fitted, n_values, run.model)


def _smaller(
    run: Run, data: bytes, precision: Precision, source: Slices, names: Sequence[str]
) -> tuple[bytes, Measurement]:
    """Make a file smaller, and measure it beside the float one."""
    if precision == "int8":
        tracks, per_track = smaller.CALIBRATION_TRACKS, smaller.CALIBRATION_PER_TRACK
        reduced = smaller.quantise(data, list(source.blocks("training", tracks, per_track)), names)
    else:
        reduced = smaller.halve(data)
    return reduced, smaller.measure(data, reduced, precision, source, run.classes)


def _write(contents: dict[Path, bytes]) -> None:
    """Write files whose folder may not exist; if one fails, none of them is left.

    Raises:
        MgcError: the folder cannot be written.
    """
    written: list[Path] = []
    for path, data in contents.items():
        try:
            with files.translate_write_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                files.write_bytes(path, data)
        except BaseException:
            for earlier in written:
                earlier.unlink(missing_ok=True)
            raise
        written.append(path)
