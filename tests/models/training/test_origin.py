"""Differences between a run's tracks and its study's."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from stores import make_store

from mgc.models.registry.recipes import Dataset
from mgc.models.runs.selection import Selection, select_tracks
from mgc.models.training import origin
from mgc.pipeline.datasets import open_dataset
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.store.store import Store

OFFICIAL = Dataset("fma_small", 8, "official")
GROUPED = Dataset("fma_small", 8, "grouped")
TRACKS = {"training": 64, "validation": 8, "test": 8}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("data")
    return make_store(folder / "mel", tracks=TRACKS, seconds=(2.0,), tracks_per_shard=64, fma=folder)


def moved(selection: Selection, ids: dict[str, str]) -> Selection:
    """The selection with some tracks in other splits."""
    tracks = selection.tracks
    splits = [
        ids.get(track, split)
        for track, split in zip(*tracks.select(["track_id", "split"]).to_pydict().values(), strict=True)
    ]
    return Selection(selection.classes, tracks.set_column(3, tracks.schema.field(3), pa.array(splits)))


def test_the_dataset_and_split_of_the_study(store: Store) -> None:
    for study in (OFFICIAL, GROUPED):
        assert origin.differences(study, store, select_tracks(store)) == []


def test_another_dataset(store: Store, tmp_path: Path) -> None:
    other = make_store(tmp_path / "mel", seconds=(2.0,))
    assert origin.differences(OFFICIAL, other, select_tracks(other)) == ["dataset synthetic for fma_small"]
    gtzan = Dataset("gtzan", 10, "grouped")
    assert origin.differences(gtzan, store, select_tracks(store)) == ["dataset fma_small for gtzan"]


@pytest.mark.corpus
def test_the_corpus_is_not_fma_small(corpus: Path, store: Store) -> None:
    """It has the layout of FMA-small and other genres."""
    dataset = open_dataset(corpus / "fma_debian")
    assert dataset.published is None
    described = {"name": dataset.name, "genres": list(dataset.genres)}
    other = Store(store.path, store.spec, described, {})
    assert origin.differences(OFFICIAL, other, select_tracks(store)) == ["dataset fma_debian for fma_small"]


def test_tracks_in_other_splits(store: Store) -> None:
    swapped = moved(select_tracks(store), {"001000": "test", "003000": "training"})
    assert origin.differences(OFFICIAL, store, swapped) == [
        "2 tracks in other splits than the official ones, such as 001000 in test for training"
    ]
    assert origin.differences(GROUPED, store, swapped) == []


def test_splits_of_other_sizes(store: Store) -> None:
    fewer = moved(select_tracks(store), {f"{1000 + i:06d}": "test" for i in range(8)})
    assert origin.differences(GROUPED, store, fewer) == ["splits of 70/10/20 for 80/10/10"]
    assert origin.differences(GROUPED, store, fewer, limited=True) == []


def test_tracks_that_are_left_out(store: Store) -> None:
    whole = select_tracks(store)
    part = Selection(whole.classes, whole.tracks.filter(pc.not_equal(whole.tracks["track_id"], "001007")))
    assert origin.differences(OFFICIAL, store, part) == ["1 of 80 tracks left out, such as 001007"]
    assert origin.differences(OFFICIAL, store, part, limited=True) == []


def test_faulty_tracks_may_be_left_out(store: Store, tmp_path: Path) -> None:
    """Six clips of the published FMA-small hold nothing to train on."""
    csv = Path(store.dataset["root"]).parent / "fma_metadata" / "tracks.csv"
    (tmp_path / "fma_metadata").mkdir()
    (tmp_path / "fma_metadata" / "tracks.csv").write_text(csv.read_text() + "98565,training,small,Rock\n")
    clips = tmp_path / "fma_small"
    clips.symlink_to(store.dataset["root"])
    here = Store(store.path, store.spec, store.dataset | {"root": str(clips), "source": str(clips)}, {})
    assert origin.differences(OFFICIAL, here, select_tracks(store)) == []


def test_a_dataset_that_is_gone(store: Store, tmp_path: Path) -> None:
    here = Store(store.path, store.spec, store.dataset | {"source": str(tmp_path / "gone")}, {})
    with pytest.raises(
        DatasetError, match=r"of fma_small cannot be compared: .*gone: the dataset of this store is no longer there"
    ):
        origin.differences(OFFICIAL, here, select_tracks(store))
