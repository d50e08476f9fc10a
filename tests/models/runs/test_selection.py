"""The slices of a run, read from the slice index without the row groups of other shards."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from stores import make_store

from mgc.models.runs.selection import select_tracks
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.store import manifest
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store


@pytest.fixture
def whole(tmp_path: Path) -> Store:
    """Shards of four tracks: 0 to 4 hold the training split, 5 and 6 the validation split, 7 and 8 the test split."""
    return make_store(tmp_path / "whole", seconds=(9.0, 5.0, 1.0))


@pytest.fixture
def grouped(whole: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The same store in row groups of eight tracks: shards 0 and 1, 2 and 3, 4 to 6, 7 and 8."""
    monkeypatch.setattr(manifest, "GROUP_TRACKS", 8)
    return make_store(tmp_path / "grouped", seconds=(9.0, 5.0, 1.0))


def test_row_groups_are_all_that_differs(whole: Store, grouped: Store) -> None:
    for name, table in (("tracks", grouped.tracks), ("slices", grouped.slices)):
        assert table.equals(getattr(whole, name))
        assert [pq.read_metadata(s.path / f"{name}.parquet").num_row_groups for s in (whole, grouped)] == [1, 4]
    assert grouped.shard_files() == whole.shard_files()


@pytest.mark.parametrize(
    ("shards", "read"), [([], set()), ([1], {0, 1}), ([6, 5], {4, 5, 6}), ([0, 8], {0, 1, 7, 8}), ([9], set())]
)
def test_row_groups_without_a_wanted_shard_are_not_read(shards: list[int], read: set[int], grouped: Store) -> None:
    groups = [table["shard"].to_pylist() for table in grouped.read_slices(shards, ["shard"])]
    assert [shard for group in groups for shard in group] == [
        s for s in grouped.slices["shard"].to_pylist() if s in read
    ]


@pytest.mark.parametrize("slicing", [Slicing(seconds=2.0), Slicing(seconds=1.5, overlap=0.0)])
@pytest.mark.parametrize("split", SPLITS)
def test_the_slices_of_a_split_are_those_of_its_tracks(split: str, slicing: Slicing, grouped: Store) -> None:
    """Whether the store has the slicing of the run or another one."""
    selection = select_tracks(grouped)
    genres = {row["track_id"]: row["genre"] for row in selection.tracks.to_pylist() if row["split"] == split}
    table, labels = selection.slices(grouped, slicing, split)
    index = [row for _, (slices,), _ in manifest.join_fragments(grouped, [slicing]) for row in slices.to_pylist()]
    expected = [row for row in index if row["track_id"] in genres]
    assert expected
    assert table.to_pylist() == expected
    assert [selection.classes[label] for label in labels] == [genres[row["track_id"]] for row in expected]
