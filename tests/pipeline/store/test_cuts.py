"""Cuts that stand side by side in a store: their names, the default, what is said, and what damage and kills leave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import Outcome, mgc, tree
from damage import flip
from stores import make_store

from mgc.pipeline.errors import StoreError
from mgc.pipeline.features import Mel, Stats
from mgc.pipeline.storage import files
from mgc.pipeline.store import cuts, manifest
from mgc.pipeline.store.cuts import Cut, derive_name, requested_cuts, with_cut, with_default
from mgc.pipeline.store.cutting import cut as cut_tracks
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

#: 30 tracks of 9 s have 8 slices of 2 s with half overlap, 3 of 4 s, 9 of 1 s without overlap.
DEFAULT = Slicing(seconds=2.0)
SECOND = Slicing(seconds=1.0, overlap=0.0)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("cuts") / "mel", slicing=DEFAULT).path


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    """A store of one cut, `2s-50`."""
    return shutil.copytree(original, tmp_path / "mel", ignore=shutil.ignore_patterns(".lock"))


def sliced(store: Path, *options: object) -> Outcome:
    outcome = mgc("slice", store, *options, "--data-dir", store.parent / "data")
    assert outcome.code == 0, outcome.err
    return outcome


def listed(store: Path) -> dict[str, dict[str, Any]]:
    return {cut["name"]: cut for cut in mgc("info", store, "--json").json["cuts"]}


@pytest.mark.parametrize(
    ("slicing", "name"),
    [
        (Slicing(), "4s-50"),
        (Slicing(seconds=3.5, overlap=0.0, offset=15.5, max_slices=1), "3.5s-from15.5s-max1"),
        (Slicing(seconds=None, frames=128, overlap=0.25), "128f-25"),
        (Slicing(seconds=None, whole=True), "whole"),
        (Slicing(seconds=1e6, overlap=0.0, place="random", seed=7), "1e06s-random-seed7"),
    ],
)
def test_a_name_tells_the_slicing_and_is_a_file_name(slicing: Slicing, name: str) -> None:
    assert derive_name(slicing) == name
    cuts.require_name(name)


def test_names_stay_apart() -> None:
    """Also those of slicings that are printed alike, and on file systems that do not tell A from a."""
    first = with_default((), Slicing(seconds=None, whole=True))
    second = with_default(first, Slicing(seconds=None, whole=True, overlap=0.0))
    assert [cut.name for cut in second] == ["whole-2", "whole"]
    with pytest.raises(StoreError, match=r"--name WHOLE: the cut whole is whole tracks; .*--remove whole"):
        with_cut(first, SECOND, name="WHOLE")


def test_another_slicing_says_before_and_after_and_keeps_the_former(store: Path) -> None:
    """In an earlier version the former cut was gone without a word."""
    before = tree(store)
    outcome = sliced(store, "--slice", 1, "--overlap", 0)
    said = "default cut 2 s, 50 %: 240 slices -> 1 s: 270 slices; the former is kept as 2s-50 (mgc train --cut 2s-50)"
    assert outcome.out.splitlines()[0] == said
    assert "  cuts      1s     270 slices  1 s (default)\n            2s-50  240 slices  2 s, 50 %\n" in outcome.out
    found = listed(store)
    assert {name: (cut["slices"], cut["tracks"], cut["default"]) for name, cut in found.items()} == {
        "1s": (270, 30, True),
        "2s-50": (240, 30, False),
    }
    kept = pq.read_table(store / "slices-2s-50.parquet").replace_schema_metadata()
    (tmp := store.parent / "former.parquet").write_bytes(before["slices.parquet"])
    assert kept.equals(pq.read_table(tmp).replace_schema_metadata())
    assert mgc("verify", store).code == 0
    # Back again, and without the other: every byte is as before.
    assert sliced(store, "--default", "2s-50").out.startswith("default cut 1 s: 270 slices -> 2 s, 50 %: 240 slices; ")
    assert "cut 1s (1 s) is removed" in sliced(store, "--remove", "1s").out
    assert tree(store) == before


def test_the_same_slicing_again_says_nothing(store: Path) -> None:
    before = tree(store)
    assert sliced(store, "--slice", 2).out.startswith(str(store))
    assert tree(store) == before


def test_a_named_cut_stands_beside_the_default(store: Path) -> None:
    before = tree(store)
    outcome = sliced(store, "--slice", 1, "--overlap", 0, "--name", "mine")
    said = "cut mine is added (1 s): 270 slices; the default stays 2 s, 50 %: 240 slices"
    assert outcome.out.splitlines()[0] == said
    after = tree(store)
    assert {name for name in after if after[name] != before.get(name)} == {"slices-mine.parquet", "published.json"}
    opened = Store.open(store)
    assert opened.slicing == DEFAULT
    (mine,) = opened.cuts[1:]
    shards = opened.fragments()
    rows = [row for table in opened.read_slices(shards, cut=mine) for row in table.to_pylist()]
    assert rows == cut_tracks(SECOND, opened.spec, opened.tracks).to_pylist()
    # The given name stays when the cut becomes the default, and when it is the default no longer.
    sliced(store, "--default", "mine")
    assert listed(store)["mine"]["default"]
    assert "the former is kept as mine (mgc train --cut mine)" in sliced(store, "--slice", 2).out
    assert tree(store) == after


@pytest.mark.parametrize(
    ("options", "code", "error"),
    [
        ("--remove 2s-50", 1, "{store}: 2s-50 is the default cut; a store needs one cut"),
        ("--remove 9s", 1, "{store}: no cut is called 9s; choose from 2s-50 (the default)"),
        ("--default 9s", 1, "{store}: no cut is called 9s; choose from 2s-50 (the default)"),
        ("--slice 1 --name ../x", 2, "--name ../x: no name for a cut; choose one of letters, digits"),
        (
            "--slice 1 --name 2s-50",
            1,
            "{store}: --name 2s-50: the cut 2s-50 is 2 s, 50 %; choose another name, or remove",
        ),
        ("--slice 9.5 --name long", 1, "{store}: no track holds one slice (slices of 9.5 s, 50% overlap); the longest"),
        ("--slice 1 --remove 2s-50", 2, "--remove names a cut that is there; leave the other options out"),
        ("--name 2s-50", 2, "no slicing given; add --slice SECONDS, --frames N or --whole; `mgc info` lists the cuts"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(options: str, code: int, error: str, store: Path) -> None:
    before = tree(store)
    outcome = mgc("slice", store, *options.split())
    assert outcome.code == code
    assert outcome.error.startswith(error.format(store=store))
    assert tree(store) == before


def test_a_store_of_one_cut_is_described_as_by_earlier_versions(store: Path) -> None:
    """They read the entries `slicing` and `digests`; further cuts are entries that they do not know."""
    published = json.loads((store / "published.json").read_bytes())
    assert set(published) == {"slicing", "digests", "store", "digest"}
    sliced(store, "--slice", 1)
    published = json.loads((store / "published.json").read_bytes())
    assert published["slicing"] == Slicing(seconds=1.0).as_dict()
    assert published["cuts"] == {"2s-50": {"slicing": DEFAULT.as_dict()}}
    assert {"tracks.parquet", "slices.parquet", "slices-2s-50.parquet"} == set(published["digests"])


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_a_damaged_index_of_a_cut_is_named_and_written_anew(damage: Callable[[Path], None], store: Path) -> None:
    sliced(store, "--slice", 1)
    whole = tree(store)
    damage(store / "slices-2s-50.parquet")
    outcome = mgc("verify", store)
    assert outcome.code == 1
    assert f"{store / 'slices-2s-50.parquet'}: " in outcome.out
    assert not Store.open(store).tables_are_intact()  # `mgc extract` then publishes the store again
    sliced(store, "--slice", 1)
    assert tree(store) == whole


def test_an_index_that_was_cut_by_other_rules_is_named(store: Path) -> None:
    sliced(store, "--slice", 1, "--name", "mine")
    published = files.read_json_with_digest(store / "published.json")
    published["cuts"]["mine"]["slicing"] = Slicing(seconds=3.0).as_dict()
    files.write_json_with_digest(store / "published.json", published)
    assert f"{store / 'slices-mine.parquet'}: differs from the manifest cut again" in mgc("verify", store).out


def test_a_lost_list_of_cuts_is_known_from_their_indices(store: Path) -> None:
    """`mgc extract` without --slice otherwise cut such a store into slices of 4 s."""
    sliced(store, "--slice", 1, "--name", "mine")
    whole = tree(store)
    (store / "published.json").unlink()
    opened = Store.open(store)
    assert manifest.known_cuts(opened) == (Cut("2s-50", DEFAULT, default=True), Cut("mine", Slicing(seconds=1.0)))
    manifest.publish_cuts(opened, manifest.known_cuts(opened))
    assert tree(store) == whole


def test_a_kill_between_the_tables_is_noticed_and_mended(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = shutil.copytree(store, store.parent / "other")
    sliced(other, "--slice", 1, "--overlap", 0)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json_with_digest", die)  # all tables are written, the list of cuts is not
        with pytest.raises(KeyboardInterrupt):
            manifest.publish_cuts(Store.open(store), with_default(Store.open(store).cuts, SECOND))
    assert f"{store / 'slices.parquet'}: {files.CHECKSUM_MISMATCH}" in mgc("info", store).error
    sliced(store, "--slice", 1, "--overlap", 0)
    assert tree(store) == tree(other)


def test_indices_that_no_cut_has_are_removed(store: Path) -> None:
    """A kill, or an earlier version that wrote the store again, leaves such files."""
    whole = tree(store)
    shutil.copy(store / "slices.parquet", store / "slices-old.parquet")
    assert mgc("verify", store).code == 0
    sliced(store, "--slice", 2)
    assert tree(store) == whole


def test_what_extraction_makes_of_the_cuts() -> None:
    study = ("ref/crnn", SECOND)
    default = Cut("2s-50", DEFAULT, default=True)
    assert requested_cuts((), Mel(), None, None) == (Cut("4s-50", Slicing(), default=True),)
    assert requested_cuts((), Mel(), None, study) == (Cut("1s", SECOND, default=True),)
    assert requested_cuts((default,), Mel(), None, None) == (default,)
    assert requested_cuts((default,), Mel(), DEFAULT, study) == (default,)
    beside = requested_cuts((default,), Mel(), None, study)
    assert beside == (default, Cut("1s", SECOND, systems=("ref/crnn",)))
    again = requested_cuts(beside, Mel(), None, ("ref", SECOND))
    assert again == (default, Cut("1s", SECOND, systems=("ref/crnn", "ref")))
    swapped = requested_cuts(beside, Mel(), SECOND, None)
    assert swapped == (Cut("1s", SECOND, default=True, systems=("ref/crnn",)), Cut("2s-50", DEFAULT))
    whole = (Cut("whole", Slicing(seconds=None, whole=True), default=True),)
    assert requested_cuts(whole, Stats(), SECOND, None) == whole  # one frame per track can be cut in one way only
