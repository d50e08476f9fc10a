"""The audit of a dataset of real clips with planted faults, and of the same dataset without them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from commands import Outcome, mgc
from music import write_list
from stores import make_store

from mgc.models.audit.metadata import fold_name
from mgc.pipeline.features import Chroma

#: Copies of the first clips: the name of the planted file, and what is done to the samples (at 44,100 Hz) and the file.
RELATIVES = {
    "low.mp3": (lambda x: x, 0.885),  # 64 kbit/s
    "high.mp3": (lambda x: x, 0.1),  # 320 kbit/s
    "other.ogg": (lambda x: x, None),
    "trimmed.mp3": (lambda x: x[int(0.3 * 44100) :], 0.8),
    "trimmed5.ogg": (lambda x: x[5 * 44100 :], None),
    "louder.wav": (lambda x: np.clip(2 * x, -1, 1), None),
    "part.ogg": (lambda x: x[8 * 44100 : 20 * 44100].mean(axis=1, keepdims=True), None),
}


@pytest.fixture(scope="module")
def stores(corpus: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores of 16 clips by as many artists, of these and the planted files, and of one genre all at 64 kbit/s."""
    folder = tmp_path_factory.mktemp("audit")
    sources = sorted((corpus / "fma_debian").glob("*/*.mp3"))[:16]
    splits = ("training", "test", "training", "validation")
    rows = [
        {
            "track_id": path.stem,
            "path": str(path),
            "genre": "AB"[i // 4 % 2],
            "artist": f"artist {i}",
            "album": f"album {i}",
            "split": splits[i % 4],
        }
        for i, path in enumerate(sources)
    ]
    planted = []
    for (name, (change, level)), row in zip(RELATIVES.items(), rows[1:], strict=False):
        samples, rate = soundfile.read(row["path"], dtype="float32", always_2d=True)
        options = {"bitrate_mode": "CONSTANT", "compression_level": level} if level else {}
        soundfile.write(folder / name, change(samples), rate, **options)
        planted.append(row | {"track_id": name, "path": name, "artist": f"by {name}", "album": "", "split": "test"})
        planted[-1]["split"] = "training" if row["split"] == "test" else "test"
    (folder / "again.mp3").write_bytes(sources[8].read_bytes())
    planted.append(rows[8] | {"track_id": "again", "path": "again.mp3", "artist": "by again", "album": ""})
    for row, artist in zip(planted, ("The Béla & Co", "bela and co", "BELA & CO. (feat. Guest)"), strict=False):
        row["artist"] = artist
    planted[3]["album"] = planted[4]["album"] = "shared"
    alike = [row | {"path": f"64-{row['track_id']}.mp3"} if row["genre"] == "B" else dict(row) for row in rows]
    for row, source in zip(alike, rows, strict=True):
        if row["genre"] == "B":
            samples, rate = soundfile.read(source["path"], dtype="float32", always_2d=True)
            encoding = {"bitrate_mode": "CONSTANT", "compression_level": 0.885}
            soundfile.write(folder / row["path"], samples[: 12 * rate], rate, **encoding)
    for row in rows + planted + alike:
        row["path"] = (folder / row["path"]).resolve().relative_to("/").as_posix()
    stores = {}
    for kind, tracks in (("clean", rows), ("planted", rows + planted), ("alike", alike)):
        write_list(folder / f"{kind}.csv", tracks)
        options = ("--dataset", folder / f"{kind}.csv", "--audio-root", "/", "--feature", "mel", "--duplicates", "keep")
        outcome = mgc("extract", *options, "--out", folder / kind, "--scheduler", scheduler, "--json")
        assert outcome.code == 0, outcome.err
        stores[kind] = Path(outcome.json["stores"][0]["store"])
    return stores


def audit(store: Path, *options: object) -> Outcome:
    return mgc("audit", store, *options)


def of_kind(findings: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [finding for finding in findings if finding["kind"] in kinds]


@pytest.mark.slow
@pytest.mark.corpus
class TestClean:
    def test_it_finds_little_and_nothing_serious(self, stores: dict[str, Path]):
        outcome = audit(stores["clean"], "--json")
        assert (outcome.code, outcome.json["clean"]) == (0, True)
        findings = outcome.json["findings"]
        assert {(finding["kind"], finding["severity"]) for finding in findings} == {
            ("balance", "info"),
            ("sound", "info"),
        }
        assert [finding["fault"] for finding in of_kind(findings, "sound")] == ["equal-channels"]
        assert len(outcome.json["shortcuts"]) == 8
        assert audit(stores["clean"], "--fail-on", "info").code == 1
        assert sum(row["tracks"] for row in outcome.json["balance"]) == outcome.json["tracks"] == 16

    def test_it_changes_nothing_but_its_record(self, stores: dict[str, Path]):
        def files() -> dict[Path, bytes]:
            paths = stores["clean"].rglob("*")
            return {path: path.read_bytes() for path in paths if path.is_file() and path.name != "audit.json"}

        before = files()
        audit(stores["clean"])
        assert files() == before


@pytest.mark.slow
@pytest.mark.corpus
class TestPlanted:
    def test_every_relative_is_named_and_no_other_pair(self, stores: dict[str, Path]):
        outcome = audit(stores["planted"], "--json")
        assert outcome.code == 1
        findings = outcome.json["findings"]
        pairs = {(finding["a"], finding["b"]) for finding in of_kind(findings, "near-duplicate", "version")}
        assert {b if b in RELATIVES else a for a, b in pairs} == set(RELATIVES)
        assert len(pairs) == len(RELATIVES)
        for finding in of_kind(findings, "near-duplicate"):
            assert finding["severity"] == "error"
            assert set(finding["splits"]) >= {"test"}
            assert finding["error"] < 0.25
        assert not of_kind(findings, "version")
        (duplicate,) = of_kind(findings, "duplicate")
        assert "again" in (duplicate["a"], duplicate["b"])

    def test_offsets_are_those_of_the_cuts(self, stores: dict[str, Path]):
        found = {}
        for finding in of_kind(audit(stores["planted"], "--json").json["findings"], "near-duplicate"):
            sign = 1 if finding["b"] in RELATIVES else -1
            found[finding["b"] if sign == 1 else finding["a"]] = sign * finding["offset_s"]
        expected = dict.fromkeys(RELATIVES, 0.0) | {"trimmed.mp3": 0.3, "trimmed5.ogg": 5.0, "part.ogg": 8.0}
        assert found == pytest.approx(expected, abs=0.06)  # a frame, and what an encoder puts before the audio

    def test_spellings_and_albums_are_suspected(self, stores: dict[str, Path]):
        findings = audit(stores["planted"], "--json").json["findings"]
        (artist,) = of_kind(findings, "artist")
        assert (artist["severity"], sorted(artist["tracks"])) == ("warning", ["high.mp3", "low.mp3", "other.ogg"])
        assert "suspected" in artist["detail"]
        (album,) = of_kind(findings, "album")
        assert sorted(album["tracks"]) == ["trimmed.mp3", "trimmed5.ogg"]
        assert len(of_kind(findings, "component")) == 1

    def test_a_genre_at_one_bit_rate_is_named(self, stores: dict[str, Path]):
        outcome = audit(stores["alike"], "--json")
        assert outcome.code == 1
        found = {finding["mark"]: finding for finding in of_kind(outcome.json["findings"], "shortcut")}
        assert found["bit rate"]["severity"] == "warning"
        assert "B" in found["bit rate"]["genres"]
        assert {finding["kind"] for finding in outcome.json["findings"]} == {"shortcut", "balance", "sound"}

    def test_the_text_fits_a_terminal(self, stores: dict[str, Path]):
        outcome = audit(stores["planted"])
        path, *lines = outcome.out.splitlines()
        assert path == str(stores["planted"])
        assert max(map(len, lines)) <= 80
        assert "Remedy: mgc audit --write-splits splits.csv" in outcome.out

    # The last one, as it changes the store.
    def test_written_splits_are_clean_and_move_few_tracks(self, stores: dict[str, Path], tmp_path: Path):
        splits = tmp_path / "splits.csv"
        outcome = audit(stores["planted"], "--write-splits", splits)
        written = {row["track_id"]: row["split"] for row in csv.DictReader(splits.open())}
        assert len(written) == 24
        assert f"{splits}: " in outcome.err
        before = mgc("audit", stores["planted"], "--json").json
        old = json.dumps(before["balance"])
        assert mgc("split", stores["planted"], "--splits", splits).code == 0
        after = mgc("audit", stores["planted"], "--json").json
        assert not [finding for finding in after["findings"] if finding["severity"] == "error"]
        assert not of_kind(after["findings"], "album", "artist", "component")
        assert after["leaked_test_tracks"] == [] != before["leaked_test_tracks"]
        assert json.dumps(after["balance"]) != old


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("The Beatles", "beatles", True),
        ("Beyoncé feat. Jay-Z", "Beyonce", True),
        ("Simon & Garfunkel", "simon and garfunkel", True),
        ("AC/DC", "ac dc", True),
        ("The The", "the the", True),
        ("!!!", "???", False),
        ("Featherstone", "", False),
        ("Air", "Airborne", False),
    ],
)
def test_fold_name(left: str, right: str, same: bool):
    assert (fold_name(left) == fold_name(right)) is same


def test_a_store_of_chroma_is_audited_but_for_its_recordings(tmp_path: Path):
    store = make_store(tmp_path / "chroma", Chroma(), tracks={"training": 12, "test": 12})
    outcome = audit(store.path)
    assert outcome.code == 0, outcome.err
    assert "Recordings are not compared: chroma frames do not show which tracks are copies." in outcome.out
    assert outcome.out.count("' has ") == 3
    assert audit(store.path, "--json").json["notes"]
