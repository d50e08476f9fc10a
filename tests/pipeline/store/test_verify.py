"""Damage to a store: `mgc verify` names it, no command crashes on it, `mgc extract` repairs it and nothing else."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from commands import mgc, stamps, tree
from damage import flip
from music import write_genres

from mgc.pipeline.errors import StoreError
from mgc.pipeline.extraction import batches
from mgc.pipeline.storage import files
from mgc.pipeline.store import manifest
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store
from mgc.pipeline.store.verify import verify


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    """A folder with a dataset, `songs`, and its store of four shards, `stft-e466e2`."""
    folder = tmp_path_factory.mktemp("whole")
    write_genres(folder / "songs", tracks=5, seconds=0.6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_TRACKS", 4)
        repair(folder, folder / "stft-e466e2", scheduler)
    return folder


def repair(folder: Path, store: Path, scheduler: str, *options: str) -> int:
    """Run `mgc extract` into `store` and return the number of tracks that it decoded."""
    where = ("--dataset", folder / "songs", "--out", store.parent, "--scheduler", scheduler)
    how = ("--data-dir", folder, "--feature", "stft:n_fft=512", "--slice", "0.4", "--json")
    outcome = mgc("extract", *where, *how, *options)
    assert outcome.code == 0, outcome.err
    assert outcome.json["stores"][0]["store"] == str(store)
    return outcome.json["stores"][0]["decoded"]


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """A copy of the store, to be damaged."""
    return shutil.copytree(whole / "stft-e466e2", tmp_path / "stft-e466e2", ignore=shutil.ignore_patterns(".lock"))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_noise(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))


def replace_by_foreign_table(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


DATA = "shards/00001.zarr/stft/c/0/0"
HEAD = "shards/00001.zarr/stft/zarr.json"
FRAGMENT = "shards/00001.parquet"
PUBLISHED = ("tracks.parquet", "slices.parquet", "published.json")


def test_nothing_is_wrong_with_a_whole_store(store: Path):
    before = stamps(store)
    outcome = mgc("verify", store, "--json")
    assert outcome.code == 0
    assert outcome.json == {"store": str(store), "ok": True, "problems": []}
    assert stamps(store) == before
    assert "every byte is as it was written" in mgc("verify", store).out


def test_any_changed_byte_of_any_file_is_noticed_and_its_file_is_named(store: Path):
    """About 250 bytes, among them the first and the last of each file."""
    rng = random.Random(0)
    names = list(tree(store))
    assert {"store.json", *PUBLISHED, DATA, HEAD, FRAGMENT} < set(names)
    for name in names:
        data = (store / name).read_bytes()
        for position in {0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(10))}:
            flip(store / name, position)
            outcome = mgc("verify", store)
            assert outcome.code == 1, (name, position)
            assert outcome.error.count("; ") == 1
            named = outcome.err if name == "store.json" else outcome.out
            assert f"{store / name}: " in named, (name, position)
            (store / name).write_bytes(data)
    assert not verify(Store.open(store))


@pytest.mark.parametrize("name", [DATA, HEAD, FRAGMENT, *PUBLISHED])
@pytest.mark.parametrize("damage", [cut_short, empty, remove, replace_by_noise, flip, replace_by_foreign_table])
def test_a_damaged_file_is_named_survived_and_repaired(
    name: str, damage: Callable[[Path], None], store: Path, whole: Path, scheduler: str
):
    """Damage that keeps a file's size is found by `--verify` only, which reads everything. Other files stay."""
    healthy, before = tree(store), stamps(store)
    size = (store / name).stat().st_size
    damage(store / name)
    same_size = (store / name).exists() and (store / name).stat().st_size == size
    in_shard = name.startswith("shards/")

    outcome = mgc("verify", store, "--json")
    assert outcome.code == 1
    assert outcome.error.startswith(f"{store}: 1 problems; run `mgc extract --verify`")
    (problem,) = outcome.json["problems"]
    assert problem["file"] == str(store / name)
    assert problem["shard"] == (1 if in_shard else None)

    info = mgc("info", store)
    if in_shard:
        assert info.code == 0
    else:
        assert info.code == 1
        assert name in info.error or "unfinished" in info.error
    if name == FRAGMENT and damage is not flip:
        assert f"{store / name}: " in mgc("slice", store, "--slice", "0.4").error

    decoded = repair(whole, store, scheduler, *(("--verify",) if in_shard and same_size else ()))
    assert decoded == (3 if in_shard else 0)
    assert tree(store) == healthy
    touched = {name for name, stamp in stamps(store).items() if before[name] != stamp}
    assert touched <= {*PUBLISHED, *(other for other in healthy if other.startswith("shards/00001."))}
    assert mgc("verify", store).code == 0


@pytest.mark.parametrize(("name", "decoded"), [("shards/00001.zarr", 3), ("shards", 10)])
def test_a_folder_that_is_gone_is_extracted_again(name, decoded, store, whole, scheduler):
    healthy = tree(store)
    remove(store / name)
    assert mgc("verify", store).code == 1
    assert f"{store / name}" in mgc("verify", store).out
    assert repair(whole, store, scheduler) == decoded
    assert tree(store) == healthy


def test_damage_in_several_places_is_repaired_at_once(store, whole, scheduler):
    healthy = tree(store)
    remove(store / "shards" / "00000.zarr")
    flip(store / DATA)
    flip(store / "slices.parquet")
    remove(store / "tracks.parquet")
    assert repair(whole, store, scheduler, "--verify") == 6
    assert tree(store) == healthy


def test_an_index_that_was_cut_by_other_rules_is_written_anew(store, whole, scheduler):
    """For example those of an earlier version. No byte is damaged; `--verify` once left such an index as it was."""
    healthy = tree(store)
    manifest.publish(Store.open(store), Slicing(seconds=0.2))
    published = files.read_json_with_digest(store / "published.json")
    files.write_json_with_digest(store / "published.json", published | {"slicing": Slicing(seconds=0.4).as_dict()})
    outcome = mgc("verify", store)
    assert outcome.code == 1
    assert f"{store / 'slices.parquet'}: differs from the manifest cut again" in outcome.out
    assert repair(whole, store, scheduler, "--verify") == 0
    assert tree(store) == healthy


def test_slice_does_not_forget_the_tracks_of_a_shard_that_is_gone(store, whole, scheduler):
    """Otherwise the manifest would lack these tracks, and the next extraction would treat them as new."""
    healthy = tree(store)
    remove(store / "shards" / "00002.zarr")
    remove(store / "shards" / "00002.parquet")
    damaged = stamps(store)
    for command in (("slice", store, "--slice", "0.3"), ("split", store, "--redo", "--seed", 3)):
        outcome = mgc(*command)
        assert outcome.code == 1
        assert f"{store / 'shards' / '00002.parquet'}: missing; run `mgc extract" in outcome.error
    assert stamps(store) == damaged
    assert repair(whole, store, scheduler) == 2
    assert tree(store) == healthy


def test_reading_frames_notices_what_is_missing_or_damaged(store: Path):
    """zarr itself reads a missing data file as zeros."""
    opened = Store.open(store)
    mine = opened.tracks.filter(pc.equal(opened.tracks["shard"], 1))
    assert len(opened.read(1)) == pc.sum(mine["n_frames"]).as_py()
    flip(store / DATA)
    with pytest.raises(StoreError, match=r"00001\.zarr: damaged .*; run `mgc extract --verify`"):
        opened.read(1)
    cut_short(store / DATA)
    with pytest.raises(
        StoreError, match=r"00001\.zarr/stft/c/0/0: \d+ bytes instead of \d+ \(contains frames of .*\); run"
    ):
        opened.read(1)
    remove(store / DATA)
    with pytest.raises(
        StoreError, match=r"00001\.zarr/stft/c/0/0: No such file or directory \(contains frames of .*\); run"
    ):
        opened.read(1)


def test_any_changed_byte_of_a_shard_is_noticed_by_the_reader_and_its_tracks_are_named(store: Path):
    """This includes zarr.json, which no checksum of Zarr's own covers."""
    opened = Store.open(store)
    mine = opened.tracks.filter(pc.equal(opened.tracks["shard"], 1))["track_id"].to_pylist()
    assert len(mine) == 3
    rng = random.Random(1)
    for path in sorted(path for path in (store / "shards" / "00001.zarr").rglob("*") if path.is_file()):
        data = path.read_bytes()
        for position in {0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(40))}:
            flip(path, position)
            with pytest.raises(StoreError) as caught:
                opened.read(1)
            assert "00001.zarr" in caught.value.problem, (path, position)
            assert all(track_id in caught.value.problem for track_id in mine), (path, position)
            assert caught.value.remedy.startswith("run `mgc extract --verify`")
            path.write_bytes(data)
    assert opened.read(1).any()


def test_reading_a_damaged_fragment_raises_nothing(store: Path):
    """Damaged footers make Parquet readers raise many errors; after a kill there is no digest to check first."""
    opened = Store.open(store)
    path = opened.fragment_path(1)
    data = path.read_bytes()
    refused = 0
    for position in range(0, len(data), 10):
        flip(path, position)
        refused += manifest.read_fragment(opened, 1) is None
        path.write_bytes(data)
    assert refused > len(data) / 10 / 4
