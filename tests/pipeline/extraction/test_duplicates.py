"""Files that are in a dataset twice: how they are found, and what `mgc extract --duplicates` does with them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from commands import mgc
from music import write_clip

from mgc.pipeline.datasets import lookup, open_dataset
from mgc.pipeline.extraction import duplicates, signatures
from mgc.pipeline.storage import files
from mgc.pipeline.storage.remote import RemotePath
from mgc.pipeline.store.store import Store

NOTHING_KNOWN = pa.table({"track_id": [], "size": [], "mtime_ns": [], "content_hash": []}, schema=pa.schema(
    {"track_id": pa.string(), "size": pa.int64(), "mtime_ns": pa.int64(), "content_hash": pa.string()}))  # fmt: skip


def test_only_files_of_equal_size_and_sample_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0).bytes
    contents = {"a": random(9000), "c": random(9000), "d": random(9001), "e": b"", "f": b""}
    contents["b"] = contents["a"]
    contents["g"] = b"\1" + contents["a"][1:]  # equal in the middle only
    (tmp_path / "x").mkdir()
    for name, data in contents.items():
        (tmp_path / "x" / f"{name}.mp3").write_bytes(data)
    dataset = open_dataset(tmp_path, format="folder")
    sizes, times = signatures.file_signatures(dataset, dataset.tracks)
    read = []
    monkeypatch.setattr(files, "file_digest", lambda path: (read.append(path.name), files.digest(path.read_bytes()))[1])
    hashes = duplicates.content_hashes(dataset, sizes, times, NOTHING_KNOWN)
    assert dict(zip(dataset.tracks["track_id"].to_pylist(), hashes.to_pylist(), strict=True)) == {
        f"x/{name}": files.digest(contents["a"]) if name in "ab" else None for name in contents
    }
    assert sorted(read) == ["a.mp3", "b.mp3", "g.mp3"]

    ids = dataset.tracks["track_id"]
    known = [files.digest(contents[name[2:]]) for name in ids.to_pylist()]
    past = pa.table({"track_id": ids, "size": sizes, "mtime_ns": times, "content_hash": known})
    monkeypatch.setattr(duplicates, "_read", lambda *_: pytest.fail("a known file is read"))
    assert duplicates.content_hashes(dataset, sizes, times, past).equals(hashes)
    monkeypatch.setattr(lookup, "hashes", lambda digests: np.zeros(len(digests), np.int64))  # all collide
    assert duplicates.content_hashes(dataset, sizes, times, past).equals(hashes)


def test_copies_at_a_url_are_found() -> None:
    root = RemotePath("memory://copies/music")
    data = np.random.default_rng(1).bytes(9000)
    for name, content in (("x/a", data), ("y/b", data), ("y/c", data[::-1])):
        (root / f"{name}.mp3").write_bytes(content)
    dataset = open_dataset(root, format="folder")
    hashes = duplicates.content_hashes(dataset, *signatures.file_signatures(dataset, dataset.tracks), NOTHING_KNOWN)
    assert hashes.to_pylist() == [files.digest(data), files.digest(data), None]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a list of 8 clips, each copied byte for byte under another artist; one copy has another genre."""
    folder = tmp_path_factory.mktemp("library")
    rows = [("path", "genre", "artist", "split")]
    for i in range(8):
        write_clip(folder / f"{i}.wav", seed=i)
        shutil.copy(folder / f"{i}.wav", folder / f"copy{i}.wav")
        split = ("training", "training", "validation", "test")[i // 2]
        rows.append((f"{i}.wav", "AB"[i % 2], f"artist{i}", split))
        rows.append((f"copy{i}.wav", "AB"[(i + (i == 0)) % 2], f"various{i}", "training"))
    with (folder / "dup.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def test_the_same_file_on_both_sides_of_a_split_is_said_and_marked(library: Path, tmp_path: Path) -> None:
    where = ("--data-dir", tmp_path)
    command = ("extract", "--dataset", library / "dup.csv", "--feature", "mfcc", "--slice", "0.5", "--workers", 1)

    def extract(*options: object) -> tuple[dict[str, dict[str, Any]], str]:
        outcome = mgc(*command, *where, *options)
        assert outcome.code == 0, outcome.err
        (path,) = tmp_path.glob("features/dup/mfcc-*")
        return {row["track_id"]: row for row in Store.open(path).tracks.to_pylist()}, outcome.out + outcome.err

    _, said = extract()
    assert "16 files hold only 8 recordings" in said
    assert "label conflict: 1 recordings have several genres (0.wav (A) = copy0.wav (B))" in said
    assert "byte for byte: 2 of 2 (6, 7)" in said

    outcome = mgc("train", "--model", "moments/knn", *where)
    assert outcome.code == 0, outcome.err
    assert "leaky: the files of 2 of 2 test tracks" in outcome.out + outcome.err
    metrics = mgc("evaluate", "--json", *where).json
    assert (metrics["leaky"], metrics["n_heard"]) == (True, 2)
    assert "LEAKY: the files of 2 of 2 tracks" in mgc("evaluate", *where).out

    tracks, said = extract("--duplicates", "drop")
    assert {row["reason"] for key, row in tracks.items() if key.startswith("copy")} == {"duplicate"}
    assert {row["status"] for key, row in tracks.items() if not key.startswith("copy")} == {"ok"}
    assert "missing" not in said
    tracks, _ = extract("--duplicates", "keep")
    assert {row["status"] for row in tracks.values()} == {"ok"}
