"""Evaluated runs for reports: real ones of a few seconds of sound, and synthetic ones of any number of genres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from commands import mgc_all
from music import write_clip
from tiny import TINY

import mgc.models.evaluation.evaluate
from mgc.models.evaluation import tables
from mgc.models.evaluation.evaluate import evaluate
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.runs.selection import TRACK_SCHEMA, Selection
from mgc.pipeline.features import Mel
from mgc.pipeline.store.slicing import Slicing

#: Genres whose names are markup, right to left, and a control character; as names of folders.
GENRES = ("<script>alert(1)<&script>", "שירה", "be\x1bbop")


@pytest.fixture(scope="session")
def data(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a dataset of three genres and 36 tracks, and two evaluated runs that differ in their seed."""
    data = tmp_path_factory.mktemp("report") / "data"
    for g, genre in enumerate(GENRES):
        for i in range(12):
            path = data / "songs" / genre / f"{i:02} <i>&amp;.wav"
            write_clip(path, 6 + 0.1 * i, seed=100 * g + i, level=0.1 * (g + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        mgc_all(
            data,
            ("extract", "--feature", "mel:n_mels=8,n_fft=512", "--slice", "1.6", "--scheduler", scheduler),
            ("train", "--model", TINY.id, "--epochs", "2"),
            ("evaluate",),
            ("train", "--model", TINY.id, "--epochs", "2", "--seed", "1"),
            ("evaluate", "--no-report"),
        )
    return data


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the system of the runs in `data`."""
    monkeypatch.setitem(systems._systems, TINY.id, TINY)


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Return a function that makes an evaluated run without store and weights, from random predictions."""

    def make(genres: Sequence[str], per_genre: int = 2, artists: Sequence[str | None] | None = None) -> Run:
        rng = np.random.default_rng(len(genres))
        rows = [
            {
                "track_id": f"{split}-{k:05}",
                "genre": genres[k % len(genres)],
                "artist_id": artists[k % len(artists)] if artists else f"{split}-{k}",
                "split": split,
                "content_hash": f"{split}-{k}",
            }
            for split in ("training", "test")
            for k in range(per_genre * len(genres))
        ]
        selection = Selection(tuple(genres), pa.Table.from_pylist(rows, TRACK_SCHEMA).sort_by("track_id"))
        tests = [row for row in rows if row["split"] == "test"]
        values = rng.dirichlet(np.ones(len(genres)), len(tests)).astype(np.float32)
        table = pa.table(
            {
                "track_id": [row["track_id"] for row in tests],
                "start_s": pa.array([0.0] * len(tests)),
                "split": [row["split"] for row in tests],
                "genre": [row["genre"] for row in tests],
                "artist_id": pa.array([row["artist_id"] for row in tests], pa.string()),
                "probabilities": pa.array(values.tolist(), pa.list_(pa.float32())),
            }
        )
        details = pa.table(
            {
                "track_id": table["track_id"],
                "path": [f"{row['track_id']}.mp3" for row in tests],
                "title": [f"</title> {k} \u202e" for k in range(len(tests))],
                "artist": pa.nulls(len(tests), pa.string()),
            }
        )
        monkeypatch.setattr(mgc.models.evaluation.evaluate, "predict", lambda *_, **__: table)
        monkeypatch.setattr(tables, "track_details", lambda *_: details)
        store = {
            "path": str(tmp_path / "store"),
            "from_runs": "../store",
            "spec": Mel().as_dict(),
            "slicing": Slicing().as_dict(),
            "dataset": {"name": "songs <&>"},
        }
        settings = {"kind": "classical", "seed": 0, "frames": 128, "differences": [], "leaky": False, "store": store}
        run = Run.create(tmp_path / "runs", "moments/knn", settings, selection)
        evaluate([run], n_resamples=100)
        return run

    return make
