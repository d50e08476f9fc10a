"""Predictions of files as text, JSON, CSV and Parquet, and the file of results that a later call continues."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mgc.models.prediction.prediction import FilePrediction
from mgc.pipeline.datasets.tracks import escape
from mgc.pipeline.errors import MgcError
from mgc.pipeline.escaping import visible
from mgc.pipeline.storage import files
from mgc.pipeline.wrapping import WIDTH, ellipsise

#: Word for a file whose most probable genre is not probable enough.
NONE_OF_THESE = "none of these"


def as_dict(prediction: FilePrediction, *, unknown: float = 0, timeline: bool = False) -> dict[str, Any]:
    """Convert a prediction to plain values for JSON.

    Args:
        prediction: the prediction.
        unknown: see `named_genre`.
        timeline: add the probabilities in each second.
    """
    values: dict[str, Any] = {
        "path": escape(prediction.path),
        "status": prediction.status,
        "reason": prediction.reason or None,
        "detail": prediction.detail or None,
        "duration_s": prediction.duration_s,
        "genre": named_genre(prediction, unknown),
        "probabilities": prediction.probabilities,
        "strange": prediction.strange,
    }
    if timeline:
        genres = list(prediction.probabilities)
        rows = [dict(zip(genres, row, strict=True)) for row in prediction.timeline.tolist()]
        values["timeline"] = [{"start_s": second, "probabilities": row} for second, row in enumerate(rows)]
    return values


def named_genre(prediction: FilePrediction, unknown: float) -> str | None:
    """Return the most probable genre; None for a dropped file, and for one that is none of them.

    Args:
        prediction: the prediction.
        unknown: probability below which a genre is not named, and above 0 neither is that of a strange file.
    """
    genre = prediction.genre
    if genre is None or (unknown > 0 and prediction.strange):
        return None
    return genre if prediction.probabilities[genre] >= unknown else None


def table(predictions: Sequence[FilePrediction], genres: Sequence[str], *, unknown: float = 0) -> pa.Table:
    """Convert predictions to a table with one row per file.

    Returns:
        path, status, reason, detail, duration_s, predicted (null if no genre is named), and `p_<genre>` for each genre,
        float64, null for a dropped file.
    """
    from mgc.models.evaluation.tables import PREFIX

    rows = [as_dict(prediction, unknown=unknown) for prediction in predictions]
    texts = ("path", "status", "reason", "detail")
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in texts}
    columns["duration_s"] = pa.array([row["duration_s"] for row in rows], pa.float64())
    columns["predicted"] = pa.array([row["genre"] for row in rows], pa.string())
    for genre in genres:
        columns[PREFIX + genre] = pa.array([row["probabilities"].get(genre) for row in rows], pa.float64())
    return pa.table(columns)


def text(
    predictions: Sequence[FilePrediction],
    *,
    top_k: int = 3,
    unknown: float = 0,
    timeline: bool = False,
    width: int = WIDTH,
) -> Iterator[str]:
    """Yield the lines of a table: a line for each file with its most probable genres, and what was refused.

    Args:
        predictions: the predictions.
        top_k: number of genres of each file.
        unknown: probability below which the answer is `NONE_OF_THESE`.
        timeline: after each file, a line for each second.
        width: columns of the terminal, at least 80.
    """
    genres = [visible(genre) for genre in next((one.probabilities for one in predictions if one.probabilities), ())]
    beside = min(top_k, 3, max(1, len(genres)))
    room = width - 2 - beside * (max(map(len, genres), default=0) + len(" 100 %  "))
    names = [_shortened(visible(escape(one.path)), min(max(room, width // 4), width // 2)) for one in predictions]
    margin = max(map(len, names), default=0) + 2
    cell = (width - margin) // beside - 2
    for name, prediction in zip(names, predictions, strict=True):
        if prediction.status != "ok":
            [reason] = ellipsise([f"refused: {prediction.reason}{_bracketed(prediction.detail)}"], width - margin)
            yield f"{name:{margin}}{visible(reason)}"
            continue
        shares = np.array(list(prediction.probabilities.values()))
        is_named = named_genre(prediction, unknown) is not None
        prefix = f"{NONE_OF_THESE}: " if not is_named else "strange: " if prediction.strange else ""
        yield from _ranking(f"{name:{margin}}{prefix}", list(prediction.probabilities), shares, top_k, cell, width)
        if timeline:
            for second, row in enumerate(prediction.timeline):
                clock = f"{second // 60:4}:{second % 60:02}  "
                yield from _ranking(f"{clock:>{margin}}", list(prediction.probabilities), row, top_k, cell, width)


def _shortened(path: str, width: int) -> str:
    """Shorten a path at its beginning: the end tells files apart."""
    return path if len(path) <= width else "…" + path[1 - width :]


def _bracketed(detail: str) -> str:
    return f" ({detail})" if detail else ""


def _ranking(prefix: str, genres: Sequence[str], shares: np.ndarray, top_k: int, cell: int, width: int) -> list[str]:
    """Lines with the most probable genres, behind a prefix: as many to a line as fit."""
    best = np.argsort(-shares, kind="stable")[:top_k]
    labels = ellipsise([visible(genres[k]) for k in best], max(6, cell - len(" 100 %")))
    cells = [f"{label} {shares[k]:.0%}".replace("%", " %") for label, k in zip(labels, best, strict=True)]
    lines = [prefix]
    for number, entry in enumerate(cells):
        padded = f"{entry:{cell}}  "
        if number and len(lines[-1]) + len(entry) > width:
            lines.append(" " * len(prefix))
        lines[-1] += padded
    return [line.rstrip() for line in lines]


class ResultFile:
    """A file of results, one JSON object a line, that grows while files are predicted and that a later call continues.

    The first line names the run and its genres. Each further line has the file's size and modification time: a file
    that has changed since is predicted again.

    Args:
        path: the file; created if it does not exist.
        head: what the results depend on: run, genres and settings.

    Raises:
        MgcError: the file holds something else, or results of another run.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._path = path
        self._done: dict[str, dict[str, Any]] = {}
        lines = self._complete_lines()
        if lines and lines[0] != head:
            raise MgcError(f"{path}: holds results of another run, or something else", "name another file with --out")
        with files.translate_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not lines:
                files.write_bytes(path, _line(head))
        for row in lines[1:]:
            self._done[row["path"]] = row

    def _complete_lines(self) -> list[Any]:
        """Read the lines, and cut off a last one that is not whole, as a kill leaves it."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise MgcError(f"{self._path}: {error.strerror}", "name another file with --out") from None
        end = data.rfind(b"\n") + 1
        try:
            lines = [json.loads(line) for line in data[:end].splitlines()]
        except (ValueError, RecursionError):
            lines = [None]
        if any(not isinstance(line, dict) for line in lines) or any("path" not in line for line in lines[1:]):
            raise MgcError(f"{self._path}: holds something else than results", "name another file with --out")
        if end < len(data):
            with files.translate_write_errors(self._path):
                os.truncate(self._path, end)
        return lines

    def known(self, path: str) -> FilePrediction | None:
        """Return the result of a file that has not changed since; None if there is none."""
        row = self._done.get(escape(path))
        if row is None or [row.get("size"), row.get("mtime_ns")] != _signature(path):
            return None
        seconds = [list(entry["probabilities"].values()) for entry in row.get("timeline", [])]
        return FilePrediction(
            path,
            row["status"],
            row["reason"] or "",
            row["detail"] or "",
            row["duration_s"],
            row["probabilities"],
            np.array(seconds).reshape(len(seconds), len(row["probabilities"])),
            row.get("strange", False),
        )

    def append(self, prediction: FilePrediction) -> None:
        """Append a result and write it to the file."""
        size, mtime_ns = _signature(prediction.path)
        with files.translate_write_errors(self._path), self._path.open("ab") as file:
            file.write(_line(as_dict(prediction, timeline=True) | {"size": size, "mtime_ns": mtime_ns}))


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode() + b"\n"


def _signature(path: str) -> list[int | None]:
    """Size and modification time of a file; None twice if there is none."""
    with contextlib.suppress(OSError):
        status = os.stat(path)  # noqa: PTH116  # a path may hold bytes that are no text
        return [status.st_size, status.st_mtime_ns]
    return [None, None]
