"""Stores and runs do not depend on whether the tables of tracks are in memory or mapped from files."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from commands import mgc, tree
from music import write_clip, write_list

from mgc.pipeline.datasets import blocks
from mgc.pipeline.storage import mapped

FEATURE = "mel"


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for number in range(16):
        write_clip(folder / f"{number:02}.wav", 0.4 + 0.05 * (number % 5), seed=number)
    shutil.copy(folder / "03.wav", folder / "copy.wav")
    return folder


def write_rows(songs: Path, numbers: Iterable[int], genres: str = "ab") -> Path:
    names = [*(f"{number:02}" for number in numbers), "copy"]
    rows = [
        {"path": f"{name}.wav", "genre": genres[row % len(genres)], "artist": f"artist {row // 2}", "title": name}
        for row, name in enumerate(names)
    ]
    return write_list(songs / "list.csv", rows)


def histories(songs: Path, out: Path, scheduler: str) -> list[dict[str, bytes]]:
    """Extract, extend, relabel, split and train; return the files of the store after each step, and of the run."""
    where = ("--out", out, "--data-dir", out, "--slice", "0.2", "--feature", FEATURE, "--scheduler", scheduler)
    extract = ("extract", "--dataset", songs / "list.csv", *where, "--duplicates")
    steps = []

    def step(*command: object) -> None:
        outcome = mgc(*command)
        assert outcome.code == 0, outcome.err
        (store,) = out.glob("mel-*")
        steps.append(tree(store))

    write_rows(songs, range(10))
    step(*extract, "group")
    write_rows(songs, range(3, 16), "bca")
    step(*extract, "drop")
    write_rows(songs, range(3, 16), "cab")
    step(*extract, "group")
    (store,) = out.glob("mel-*")
    step("split", store, "--redo", "--seed", 3, "--data-dir", out)
    step("train", "--store", store, "--model", "moments/logreg", "--data-dir", out)
    (run,) = (out / "runs").iterdir()
    steps.append({"tracks.parquet": (run / "tracks.parquet").read_bytes()})
    return steps


def test_mapped_tables_change_nothing(songs, tmp_path, scheduler, monkeypatch):
    expected = histories(songs, tmp_path / "memory", scheduler)
    assert len({str(step) for step in expected[:4]}) == 4
    collect, n_mapped = mapped._write, 0

    def count(*arguments: object) -> object:
        nonlocal n_mapped
        n_mapped += 1
        return collect(*arguments)

    monkeypatch.setattr(mapped, "_write", count)
    monkeypatch.setattr(mapped, "SMALL_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 3)
    assert histories(songs, tmp_path / "mapped", scheduler) == expected
    assert n_mapped > 50
