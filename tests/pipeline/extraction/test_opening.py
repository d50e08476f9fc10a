"""Small files of a store that stand for much: the same `mgc extract` restores each of them without decoding."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from commands import Outcome, mgc, tree
from damage import flip
from hypothesis import given
from hypothesis import strategies as st
from music import write_genres
from properties import examples

from mgc.pipeline.extraction import batches, journal
from mgc.pipeline.extraction import extract as extraction
from mgc.pipeline.extraction.planning import Plan
from mgc.pipeline.storage import files
from mgc.pipeline.storage.remote import RemotePath
from mgc.pipeline.store.store import Store

NAME = "stft-e466e2"
SMALL_FILES = ("store.json", "published.json", "tracks.parquet", "slices.parquet", "slices-0.4s-50.parquet")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def extract(songs: Path, out: Path, scheduler: str, *options: object) -> Outcome:
    where = ("--dataset", songs, "--out", out, "--scheduler", scheduler, "--data-dir", out)
    return mgc("extract", *where, "--feature", "stft:n_fft=512", *options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    """A folder with a dataset, `songs`, and its store of four shards, which was cut again by `mgc slice`."""
    folder = tmp_path_factory.mktemp("whole")
    write_genres(folder / "songs", tracks=5, seconds=0.6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_TRACKS", 4)
        assert extract(folder / "songs", folder, scheduler, "--seed", 7, "--slice", 0.4).code == 0
    assert mgc("slice", folder / NAME, "--slice", 0.3).code == 0
    return folder


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole / NAME, tmp_path / NAME, ignore=shutil.ignore_patterns(".lock")))


def restored(store: Path, whole: Path, scheduler: str, *options: object) -> Outcome:
    """Extract again; nothing may be decoded."""
    outcome = extract(whole / "songs", store.parent, scheduler, "--json", *options)
    assert outcome.code == 0, outcome.err
    assert outcome.json["stores"][0]["decoded"] == 0
    assert mgc("verify", store).code == 0
    return outcome


@pytest.mark.parametrize("names", [*((name,) for name in SMALL_FILES), ("store.json", "slices.parquet")])
@pytest.mark.parametrize("damage", [flip, cut_short, Path.unlink])
def test_the_same_extract_restores_it_byte_for_byte(
    names: Sequence[str], damage: Callable[[Path], None], store: Path, whole: Path, scheduler: str
) -> None:
    healthy = tree(store)
    for name in names:
        damage(store / name)
    said = mgc("verify", store)
    assert said.code == 1
    assert "delete" not in said.error
    if "store.json" in names:
        command = f"`mgc extract --dataset {whole / 'songs'} --feature stft:n_fft=512 --out {store.parent}`"
        for other in (("slice", store, "--slice", 1), ("verify", store), ("info", store)):
            assert mgc(*other).error.endswith(f"; {command} restores it without decoding")
    restored(store, whole, scheduler)
    assert tree(store) == healthy


def test_without_its_copy_a_head_is_restored_from_the_call_and_the_shards(
    store: Path, whole: Path, scheduler: str
) -> None:
    """What cannot be known are the versions of the libraries; a seed is known by the order of the tracks."""
    healthy, head = tree(store), files.read_json_with_digest(store / "store.json")
    for name in ("store.json", "published.json"):
        (store / name).unlink()
    assert "run the `mgc extract` that made the store again: it restores store.json" in mgc("info", store).error
    said = restored(store, whole, scheduler).err
    assert f"{NAME}: store.json was lost and is restored from the call and the shards, without library versions" in said
    assert files.read_json_with_digest(store / "store.json") == head | {"versions": {}}
    after = tree(store)
    assert {name for name in healthy if after[name] != healthy[name]} == {"store.json", "published.json"}
    assert mgc("info", store).code == 0


def test_a_store_of_an_earlier_version_has_no_copy(store: Path, whole: Path, scheduler: str) -> None:
    published = files.read_json_with_digest(store / "published.json")
    del published["store"]
    files.write_json_with_digest(store / "published.json", published)
    assert mgc("verify", store).code == 0
    healthy, head = tree(store), files.read_json_with_digest(store / "store.json")
    restored(store, whole, scheduler)
    assert tree(store) == healthy
    (store / "store.json").unlink()
    restored(store, whole, scheduler)
    assert files.read_json_with_digest(store / "store.json") == head | {"versions": {}}
    after = tree(store)
    assert {name for name in healthy if after[name] != healthy[name]} == {"store.json"}


def test_without_its_copy_a_head_is_not_made_of_other_music(
    store: Path, whole: Path, tmp_path: Path, scheduler: str
) -> None:
    for name in ("store.json", "published.json"):
        (store / name).unlink()
    healthy = tree(store)
    write_genres(tmp_path / "others", tracks=2, genres=("jazz", "metal"))
    outcome = extract(tmp_path / "others", store.parent, scheduler)
    assert "store.json is lost, and 10 of its 10 tracks are not in" in outcome.error
    assert tree(store) == healthy


def test_a_flipped_format_number_is_damage_and_no_later_format(store: Path, whole: Path, scheduler: str) -> None:
    healthy = tree(store)
    (store / "store.json").write_bytes(healthy["store.json"].replace(b'"format": 3', b'"format": 7'))
    assert "store.json: damaged" in mgc("info", store).error
    restored(store, whole, scheduler)
    assert tree(store) == healthy


def test_a_cut_that_is_lost_with_its_index_is_said(store: Path, whole: Path, scheduler: str) -> None:
    for name in ("published.json", "slices.parquet", "slices-0.4s-50.parquet"):
        (store / name).unlink()
    said = restored(store, whole, scheduler, "--slice", 0.3).err
    assert "is lost" not in said
    for name in ("published.json", "slices.parquet"):
        (store / name).unlink()
    outcome = extract(whole / "songs", store.parent, scheduler)
    assert f"{NAME}: how its tracks were cut is lost, they get slices of 4 s, 50% overlap; `mgc slice`" in outcome.out


def test_a_journal_that_is_cut_short_is_said(store: Path, whole: Path, scheduler: str) -> None:
    healthy = tree(store)
    opened = Store.open(store)
    journal.write_journal(opened, Plan())
    cut_short(opened.journal_path)
    said = restored(store, whole, scheduler).err
    assert f"{NAME}: plan.parquet is damaged: what the interrupted extraction left is planned anew" in said
    assert tree(store) == healthy


@pytest.fixture(scope="module")
def interrupted(whole: Path, tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    """A store whose first extraction was interrupted: it has a head and a journal."""
    out = tmp_path_factory.mktemp("interrupted")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "_dispatch", interrupt)
        assert extract(whole / "songs", out, scheduler, "--slice", 0.4).code == 130
    assert (out / NAME / "plan.parquet").exists()
    return out / NAME


@pytest.mark.slow
@given(st.data())
@examples(8)
def test_any_flipped_byte_of_a_journal(interrupted: Path, whole: Path, scheduler: str, data: st.DataObject) -> None:
    """No digest covers the footer of the journal."""
    store = interrupted.parent / "copy" / NAME
    shutil.rmtree(store.parent, ignore_errors=True)
    shutil.copytree(interrupted, store)
    content = bytearray((store / "plan.parquet").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (store / "plan.parquet").write_bytes(content)
    outcome = extract(whole / "songs", store.parent, scheduler, "--slice", 0.4, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["stores"][0]["ok"] == outcome.json["stores"][0]["decoded"] == 10
    assert mgc("verify", store).code == 0


def test_what_a_damaged_lock_says(store: Path, whole: Path, scheduler: str) -> None:
    (store / ".lock").write_bytes(b"\xff\x00 anything")
    (store / ".holder").write_bytes(b"\xff\xfe")
    restored(store, whole, scheduler)
    with Store.open(store).lock():
        (store / ".holder").write_bytes(b"process \xff")
        outcome = extract(whole / "songs", store.parent, scheduler)
    assert outcome.error == f"{store}: process \N{REPLACEMENT CHARACTER} is writing to it; wait for it to end"


@pytest.mark.parametrize("content", ["", "{", '{"store": 5}', '{"store": "gone"}', "[1]", None])
def test_the_latest_store(content: str | None, store: Path, tmp_path: Path) -> None:
    """Without `latest.json` the newest store is taken, and said; the next extraction writes the file anew."""
    workspace = tmp_path / "data"
    (workspace / "features" / "songs").mkdir(parents=True)
    place = store.rename(workspace / "features" / "songs" / NAME)
    if content is not None:
        (workspace / "latest.json").write_text(content)
    outcome = mgc("info", "--data-dir", workspace, "--json")
    assert outcome.err == f"store: {place}\n"
    assert json.loads(outcome.out)["store"] == str(place)


def test_a_store_at_a_url_is_restored_and_its_music_may_move(whole: Path, tmp_path: Path) -> None:
    out = RemotePath("memory://opening/features")

    def decoded(songs: Path, *options: object) -> int:
        where = ("--dataset", songs, "--out", out, "--data-dir", tmp_path)
        outcome = mgc("extract", *where, "--feature", "stft:n_fft=512", "--slice", 0.4, "--json", *options)
        assert outcome.code == 0, outcome.err
        return outcome.json["stores"][0]["decoded"]

    assert decoded(whole / "songs") == 10
    head = (out / NAME / "store.json").read_bytes()
    (out / NAME / "store.json").unlink()
    assert f"--out {out}` restores it without decoding" in mgc("info", out / NAME).error
    assert decoded(whole / "songs") == 0
    assert (out / NAME / "store.json").read_bytes() == head
    songs = Path(shutil.copytree(whole / "songs", tmp_path / "songs", copy_function=shutil.copyfile))
    assert decoded(songs, "--moved") == decoded(songs) == 0
    assert mgc("verify", out / NAME).code == 0
