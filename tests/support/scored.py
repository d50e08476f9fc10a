"""Evaluated runs without stores and weights: the files that `mgc evaluate` writes, with predictions of one's choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mgc.models.evaluation.evaluate import results_path
from mgc.models.runs.run import Run
from mgc.models.runs.selection import TRACK_SCHEMA, Selection
from mgc.pipeline.features import Mel
from mgc.pipeline.storage import files, parquet
from mgc.pipeline.store.slicing import Slicing

GENRES = ("Folk", "Rock", "Ambient")


def make_scored_run(
    folder: Path,
    predicted: Mapping[str, str] | Sequence[str],
    truth: Sequence[str],
    *,
    model: str = "kth2020/cnn",
    split: str = "test",
    genres: Sequence[str] = GENRES,
    artists: Sequence[str | None] | None = None,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    dataset: str = "songs",
    evaluated: bool = True,
) -> Run:
    """Make a run and the results of its evaluation.

    Args:
        folder: folder of runs.
        predicted: predicted genre of each track of the split, by id or in the order of `truth`.
        truth: true genre of each track of the split; ids are `000`, `001`, ...
        model: id of the system.
        split: split of the tracks.
        genres: classes of the run.
        artists: artist of each track; None for one artist per track.
        config: further settings of the run.
        metrics: further keys of metrics.json.
        dataset: name of the dataset.
        evaluated: False to write no results.
    """
    ids = list(predicted) if isinstance(predicted, Mapping) else [f"{number:03}" for number in range(len(truth))]
    guesses = list(predicted.values()) if isinstance(predicted, Mapping) else list(predicted)
    artists = [f"artist {id}" for id in ids] if artists is None else artists
    rows = [
        {"track_id": id, "genre": true, "artist_id": artist, "split": split, "content_hash": f"content {id}"}
        for id, true, artist in zip(ids, truth, artists, strict=True)
    ]
    rows.append({"track_id": "learnt", "genre": genres[0], "artist_id": "x", "split": "training"})
    selection = Selection(tuple(genres), pa.Table.from_pylist(rows, TRACK_SCHEMA).sort_by("track_id"))
    store = {
        "path": str(folder / "store"),
        "from_runs": "../store",
        "spec": Mel().as_dict(),
        "slicing": Slicing().as_dict(),
        "dataset": {"name": dataset},
    }
    settings = {"kind": "neural", "params": 1000, "seed": 0, "frames": 128, "training": None, "differences": []}
    run = Run.create(folder, model, settings | {"leaky": False, "store": store} | dict(config or {}), selection)
    run.write_files({"best.pt": bytes(4000)})
    run.finish({"seconds": 12.0})
    if evaluated:
        table = pa.table({"track_id": ids, "true": list(truth), "predicted": guesses})
        scores = {"dataset": dataset, "split": split, "leaky": False, "by_slice": {"accuracy": 0.5}}
        run.write_files(
            {
                results_path(run, "track-predictions.parquet", split).name: parquet.table_bytes(table),
                results_path(run, "metrics.json", split).name: files.encode_json(scores | dict(metrics or {})),
            }
        )
    return run
