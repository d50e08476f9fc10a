"""`mgc segments`: which slices are chosen, and the excerpts of real files."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from commands import mgc, mgc_all, tree
from music import write_genres
from tiny import TINY

from mgc.models.evaluation.metrics import Predictions
from mgc.models.registry import systems
from mgc.models.report import segments


def test_the_choice() -> None:
    """Of three genres, by hand: one slice a track, in order of what is asked for."""
    rows = [  # track, start, true genre, probabilities
        ("a", 0, 0, (0.9, 0.1, 0.0)),
        ("a", 2, 0, (0.95, 0.05, 0.0)),
        ("b", 0, 0, (0.6, 0.3, 0.1)),
        ("c", 0, 0, (0.1, 0.2, 0.7)),
        ("d", 0, 0, (0.34, 0.35, 0.31)),
        ("e", 0, 1, (0.5, 0.4, 0.1)),
    ]
    tracks, starts, truth, probabilities = zip(*rows, strict=True)
    predictions = Predictions(
        ("x", "y", "z"), np.array(truth), np.array(probabilities), np.array(tracks), np.array(starts), np.arange(6)
    )
    results = SimpleNamespace(slices=predictions, genres=("x", "y", "z"))
    chosen = segments.choose(results, 2)  # type: ignore[arg-type]
    got = [(one.genre, one.kind, one.rank, one.track_id, one.start_s, one.predicted) for one in chosen]
    assert got == [
        ("x", "best", 1, "a", 2, "x"),
        ("x", "best", 2, "b", 0, "x"),
        ("x", "worst", 1, "c", 0, "z"),
        ("x", "worst", 2, "d", 0, "y"),
        ("x", "uncertain", 1, "d", 0, "y"),
        ("x", "uncertain", 2, "b", 0, "x"),
        ("y", "worst", 1, "e", 0, "x"),
        ("y", "uncertain", 1, "e", 0, "x"),
    ]
    assert [round(one.probability, 2) for one in chosen[:4]] == [0.95, 0.6, 0.1, 0.34]


def test_excerpts_are_the_audio_of_the_slices(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample for sample; a file that has gone is named, and a run that was not evaluated refused."""
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    data = tmp_path / "data"
    write_genres(data / "songs", tracks=6, seconds=4)
    words = ("--feature", "mel:n_mels=8,n_fft=512", "--slice", 1.6, "--scheduler", scheduler)
    mgc_all(data, ("extract", *words), ("train", "--model", TINY.id, "--epochs", 1))
    refused = mgc("segments", "--data-dir", data)
    assert refused.code == 1
    assert "mgc evaluate" in refused.error
    mgc_all(data, ("evaluate", "--no-report"))
    [run] = (data / "runs").iterdir()
    before = tree(run)
    made = mgc("segments", "--seconds", 1.5, "--count", 2, "--json", "--data-dir", data)
    assert made.code == 0, made.err
    assert tree(run) == before
    folder = Path(made.json["folder"])
    assert folder == data / "segments" / run.name
    with (folder / "segments.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert [row["file"] for row in listed] == [one["file"] for one in made.json["segments"]]
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.flac")} == {row["file"] for row in listed}
    for one in made.json["segments"]:
        samples, rate = soundfile.read(_song(data, one["track_id"]))
        first = round(one["start_s"] * rate)
        excerpt, own_rate = soundfile.read(folder / one["file"])
        assert own_rate == rate
        assert len(excerpt) == round(1.5 * rate)
        np.testing.assert_allclose(excerpt, samples[first : first + len(excerpt)], atol=1e-4)
    gone = made.json["segments"][0]["track_id"]
    _song(data, gone).unlink()
    again = mgc("segments", "--seconds", 1.5, "--json", "--data-dir", data)
    assert again.code == 0
    assert f"track {gone}: missing" in again.err
    assert gone not in {one["track_id"] for one in again.json["segments"]}


def _song(data: Path, track_id: str) -> Path:
    """The file of a track, whose id is its path without the suffix."""
    return next(path for path in (data / "songs").rglob("*.wav") if path.stem == Path(track_id).stem)
