"""The record of the last audit: written by `mgc audit`, read by other commands until labels or splits change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import mgc
from stores import make_store

from mgc.pipeline.features import Chroma, Mel
from mgc.pipeline.store import last_audit
from mgc.pipeline.store.manifest import publish
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store


def on_both_sides(row: dict[str, Any]) -> dict[str, Any]:
    """One artist has the first training track and the first two test tracks."""
    return {"artist_id": "everywhere"} if row["track_id"] in ("training-000", "test-000", "test-001") else {}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "features" / "mel", Mel(), root=tmp_path, relabel=on_both_sides)


def test_an_audit_is_recorded_and_said_by_split_and_info(store: Store) -> None:
    assert last_audit.read(store) is None
    assert mgc("split", store.path, "--json").json["audit"] is None
    assert mgc("audit", store.path).code == 1
    record = last_audit.read(store)
    assert record is not None
    assert record.leaked == ("test-000", "test-001")
    assert record.findings["artist"] == {"error": 1}
    found = "found 2 of 6 test tracks that share a recording or an artist with another split."
    line = f"The last audit ({record.date[:10]}) {found}"
    verdict = {"clean": False, "test_tracks": 6, "leaked": 2, "line": line}
    assert record.verdict() == verdict
    assert record.verdict(["test-001", "test-002", "test-003"]) | {"line": ""} == {
        "clean": False, "test_tracks": 3, "leaked": 1, "line": ""
    }  # fmt: skip
    assert record.verdict(["test-005"])["clean"]
    for command in ("split", "info"):
        assert line in " ".join(mgc(command, store.path).out.split())
        assert mgc(command, store.path, "--json").json["audit"] == verdict
    assert mgc("verify", store.path).code == 0


def test_a_clean_split_is_said_by_info_alone(tmp_path: Path) -> None:
    store = make_store(tmp_path / "mel", Mel())
    mgc("audit", store.path)
    assert "audit" not in mgc("split", store.path).out
    assert "found no test track that shares a recording" in " ".join(mgc("info", store.path).out.split())


def test_it_belongs_to_the_labels_and_splits(store: Store, tmp_path: Path) -> None:
    """It survives another slicing, and the audit of one store counts for the others of the dataset."""
    chroma = make_store(tmp_path / "features" / "chroma", Chroma(), root=tmp_path, relabel=on_both_sides)
    mgc("audit", chroma.path)
    limited = last_audit.read(chroma)
    assert limited is not None
    assert limited.verdict()["line"].endswith("another split; recordings were not compared.")
    mgc("audit", store.path)
    publish(store, Slicing(seconds=1.0))
    for each in (store, chroma):
        record = last_audit.read(Store.open(each.path))
        assert record is not None
        assert record.limits == ()
    other = make_store(tmp_path / "features" / "other", root=tmp_path, relabel=lambda row: {"album_id": "one"})
    assert last_audit.read(other) is None
    shutil.copy(store.path / last_audit.NAME, other.path)
    assert last_audit.read(other) is None


def test_a_damaged_record_counts_as_none(store: Store) -> None:
    mgc("audit", store.path)
    path = store.path / last_audit.NAME
    path.write_bytes(path.read_bytes().replace(b"test-000", b"test-003"))
    assert last_audit.read(store) is None
    assert mgc("verify", store.path).code == 0


def test_a_store_that_cannot_be_written_is_audited_all_the_same(store: Store) -> None:
    store.path.chmod(0o500)
    try:
        outcome = mgc("audit", store.path, "--json")
    finally:
        store.path.chmod(0o700)
    if not (store.path / last_audit.NAME).exists():  # root writes everywhere
        assert "the audit is not recorded: " in outcome.err
    assert outcome.json["clean"] is False
    (store.path / last_audit.NAME).unlink(missing_ok=True)
    (store.path / last_audit.NAME).mkdir()
    outcome = mgc("audit", store.path, "--json")
    assert outcome.json["clean"] is False
    assert outcome.err.count("the audit is not recorded: ") == 1
