"""Damaged and odd files of the test corpus: `mgc extract` must treat each as the `expected.csv` beside it states."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf
import soxr
from commands import mgc_process
from sounds import assert_levels_agree, librosa_frames

from mgc.pipeline.features import FeatureSpec, Mel, Mfcc
from mgc.pipeline.store.manifest import join_fragments
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

pytestmark = pytest.mark.corpus

FINE = Mel(dtype="float32")
SPECS = (Mel(), FINE, Mfcc())
#: Seconds by which the lengths of two decoders may differ.
TOLERANCE_S = 0.15


@dataclass(frozen=True)
class Result:
    """Result of `mgc extract` on a dataset.

    Attributes:
        report: report on the mel store, as `--json` prints it.
        notes: output on stderr.
        stores: stores by spec.
        rows: manifest rows by file name.
    """

    report: dict[str, Any]
    notes: str
    stores: dict[FeatureSpec, Store]
    rows: dict[str, dict[str, Any]]

    def frames(self, spec: FeatureSpec, name: str) -> np.ndarray:
        """Frames of a file, converted from the stored dtype to float32, `(n, bins)`."""
        store, track_id = self.stores[spec], self.rows[name]["track_id"]
        row = next(row for row in store.tracks.to_pylist() if row["track_id"] == track_id)
        return spec.decode(store.read(row["shard"], row["first_frame"], row["first_frame"] + row["n_frames"]))


def extract(dataset: Path, out: Path, *options: object) -> Result:
    """Extract mel (as uint8 and as float32) and MFCC of a dataset, in slices of 4 s with 50 % overlap."""
    features = [f"--feature={spec.name}:dtype={spec.dtype}" for spec in SPECS]
    slicing = ("--slice", 4, "--overlap", 0.5)
    run = mgc_process("extract", "--dataset", dataset, *features, *slicing, "--out", out, "--json", *options)
    assert run.code == 0, run.err
    stores = {spec: Store.open(out / f"{spec.name}-{spec.digest}") for spec in SPECS}
    rows = stores[Mel()].tracks.to_pylist()
    return Result(run.json["stores"][0], run.err, stores, {row["path"].rpartition("/")[2]: row for row in rows})


def expectations(folder: Path) -> list[dict[str, str]]:
    with (folder / "expected.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def outcome(row: dict[str, Any]) -> str:
    """Describe a manifest row in the words of `expected.csv`."""
    if row["status"] == "dropped":
        return f"drop:{row['reason']}"
    assert (row["status"], row["reason"]) == ("ok", None)
    partial = row["declared_s"] is not None and row["duration_s"] < row["declared_s"] - TOLERANCE_S
    assert not partial or "damaged: " in row["detail"]
    return "decode-partial" if partial else "decode"


def make_odd(corpus: Path, folder: Path) -> Path:
    """Write the odd files that the corpus' own script makes from a clip of 5 s."""
    script, clip = corpus / "faults" / "make_odd.py", corpus / "faults" / "000008.mp3"
    subprocess.run([sys.executable, str(script), str(folder), str(clip)], check=True)
    return folder


@pytest.fixture(scope="module")
def dataset(corpus, tmp_path_factory) -> Path:
    """A folder with a list, `list.csv`, of all files in `faults/` and of those that `make_odd.py` makes."""
    root = tmp_path_factory.mktemp("faulty")
    shutil.copytree(corpus / "faults", root / "faults")
    make_odd(corpus, root / "odd")
    files = [f"{folder}/{row['file']}" for folder in ("faults", "odd") for row in expectations(root / folder)]
    files.remove("odd/loop")  # not an audio name; it is there for the test that reads the folder
    with (root / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "genre"])
        writer.writerows((name, "ab"[i % 2]) for i, name in enumerate(files))
    return root


@pytest.fixture(scope="module")
def result(dataset, tmp_path_factory) -> Result:
    return extract(dataset / "list.csv", tmp_path_factory.mktemp("features"), "--workers", 1)


class TestFaults:
    def test_every_file_ends_as_expected(self, dataset, result):
        wrong = {}
        for row in expectations(dataset / "faults"):
            actual = outcome(result.rows[row["file"]])
            if actual not in row["expected"].split("|"):
                wrong[row["file"]] = (row["fault"], row["expected"], actual, result.rows[row["file"]]["detail"])
        assert wrong == {}
        assert len(expectations(dataset / "faults")) == 27

    def test_decoded_files_have_the_expected_length_rate_and_channels(self, dataset, result):
        wrong, checked = {}, 0
        for expected in expectations(dataset / "faults"):
            row = result.rows[expected["file"]]
            if row["duration_s"] is None:
                assert row["status"] == "dropped"
                continue
            lengths = {"000011.mp3": (28.7, 30.0)}.get(expected["file"], (float(expected["seconds"] or 0.3),))
            near = any(abs(row["duration_s"] - length) <= TOLERANCE_S for length in lengths)
            form = [str(row["sample_rate"]), str(row["channels"])]
            if not near or form != [expected["sample_rate"] or "44100", expected["channels"] or "2"]:
                wrong[expected["file"]] = (row["duration_s"], *form, expected)
            checked += 1
        assert wrong == {}
        assert checked == 22

    def test_odd_names_and_nodes_end_as_expected(self, dataset, result):
        wrong = {}
        for row in expectations(dataset / "odd"):
            if row["file"] != "loop":
                actual = outcome(result.rows[row["file"]])
                expected = row["expected"]
                if "as root" in expected:
                    readable = os.access(dataset / "odd" / row["file"], os.R_OK)
                    expected = "decode" if readable else "drop:unreadable"
                if actual != expected:
                    wrong[row["file"]] = (row["fault"], expected, actual)
        assert wrong == {}

    def test_no_file_is_lost(self, dataset, result):
        rows = result.rows.values()
        assert result.report["tracks"] == len(rows) == 27 + len(expectations(dataset / "odd")) - 1
        assert result.report["ok"] == sum(row["status"] == "ok" for row in rows)
        assert result.report["dropped"] == Counter(row["reason"] for row in rows if row["status"] == "dropped")
        assert {row["path"] for row in result.report["dropped_tracks"]} == {
            row["path"] for row in rows if row["status"] == "dropped"
        }
        details = [row["detail"] for row in rows if row["status"] == "ok" and row["detail"] is not None]
        lossy = ("decoding stopped: ", "damaged: ", "damaged packets", "gaps of non-finite")
        assert result.report["rescued"] == sum(any(word in detail for word in lossy) for detail in details) > 0
        assert result.report["by_ffmpeg"] == sum(row["decoder"] == "ffmpeg" for row in rows if row["status"] == "ok")

    def test_all_stored_levels_are_finite(self, result):
        floor, top = Mel().decode(np.array([0, 255], np.uint8))
        stored = 0
        for name, row in result.rows.items():
            exact, coarse, cepstra = (result.frames(spec, name) for spec in (FINE, Mel(), Mfcc()))
            assert len(exact) == len(coarse) == len(cepstra) == row["n_frames"]
            assert np.isfinite(exact).all()
            assert np.isfinite(cepstra).all()
            if len(exact):
                assert np.abs(coarse - np.clip(exact, floor, top)).max() <= 0.25 + 1e-4
                assert len(exact) - FINE.frames(row["duration_s"]) in (0, 1)
                stored += 1
        assert stored > 20

    def test_frames_of_healthy_files_equal_those_of_librosa(self, dataset, result):
        """For every container, name, sample rate and number of channels."""
        for name in ("000008.mp3", "000014.mp3", "000016.mp3", "000017.mp3", "000019.mp3", "000024.mp3", "000025.flac"):
            sound, rate = sf.read(dataset / "faults" / name, dtype="float32", always_2d=True)
            assert_levels_agree(result.frames(FINE, name), librosa_frames(sound, rate, FINE))

    def test_slices_are_cut_from_healthy_audio_only(self, result):
        slices = Counter(result.stores[Mel()].slices["track_id"].to_pylist())
        for row in result.rows.values():
            assert (slices[row["track_id"]] > 0) == (row["status"] == "ok")
            if row["status"] == "ok":
                assert slices[row["track_id"]] == int((row["duration_s"] - 4 + 1e-9) // 2) + 1

    def test_a_shorter_slice_includes_tracks_that_were_too_short_or_have_gaps(self, result):
        """Their frames are stored, so `mgc slice` needs no decoding."""
        ((tracks, (slices,), _),) = join_fragments(result.stores[Mel()], [Slicing(seconds=1.0, overlap=0.0)])
        rows = {row["path"].rpartition("/")[2]: row for row in tracks.to_pylist()}
        starts = {name: starts_of(slices, row["track_id"]) for name, row in rows.items()}
        assert rows["000006.mp3"]["reason"] == "too-short"  # half a second
        assert rows["000007.mp3"]["status"] == "ok"
        assert starts["000007.mp3"] == [0]
        assert rows["000023.wav"]["status"] == "ok"
        assert starts["000023.wav"] == [2, 3]  # around NaNs from 1.0 s on and infinities at 1.4 s
        assert rows["000009.mp3"]["reason"] == "silence"


def starts_of(slices: pa.Table, track_id: str) -> list[float]:
    return [row["start_s"] for row in slices.to_pylist() if row["track_id"] == track_id]


def test_a_folder_with_odd_names_and_nodes(corpus, scheduler, tmp_path):
    """A link to the folder itself is not followed, a pipe is not opened, and file names need not be valid text."""
    make_odd(corpus, tmp_path / "music" / "genre")
    result = extract(tmp_path / "music", tmp_path / "features", "--scheduler", scheduler)
    expected = {row["file"]: row["expected"] for row in expectations(tmp_path / "music" / "genre")}
    del expected["loop"]
    readable = os.access(tmp_path / "music" / "genre" / "000208.mp3", os.R_OK)
    expected["000208.mp3"] = "decode" if readable else "drop:unreadable"
    assert {name: outcome(row) for name, row in result.rows.items()} == expected
    assert all(row["path"].startswith("genre/0002") for row in result.rows.values())
    assert "links to folders, not followed: 1 (genre/loop)" in result.notes
    frames = [result.frames(FINE, name) for name, outcome in expected.items() if outcome == "decode"]
    assert len(frames) >= 4
    assert all(np.array_equal(other, frames[0]) for other in frames)


@pytest.mark.slow
def test_the_gtzan_layout(corpus, scheduler, tmp_path):
    """The layout of `make_gtzan_layout.py`: clips at 22.05 kHz mono; here without ffmpeg, and half as .au files."""
    with (corpus / "fma_metadata" / "clips.csv").open(newline="", encoding="utf-8") as file:
        clips = [(int(row["track_id"]), row["genre"].lower()) for row in csv.DictReader(file)]
    count: Counter[str] = Counter()
    root = tmp_path / "gtzan" / "genres"
    for track_id, genre in clips:
        if count[genre] < 2:
            path = corpus / "fma_debian" / f"{track_id // 1000:03d}" / f"{track_id:06d}.mp3"
            sound, rate = sf.read(path, always_2d=True)
            (root / genre).mkdir(parents=True, exist_ok=True)
            name = f"{genre}.{count[genre]:05d}.{'au' if count[genre] else 'wav'}"
            sf.write(root / genre / name, soxr.resample(sound.mean(axis=1), rate, 22050), 22050, subtype="PCM_16")
            count[genre] += 1
    result = extract(tmp_path / "gtzan", tmp_path / "features", "--format", "auto", "--scheduler", scheduler)
    store = result.stores[FINE]
    assert (store.dataset["format"], store.dataset["name"]) == ("gtzan", "gtzan")
    assert result.report["genres"] == dict.fromkeys(sorted(count), 2)
    assert (result.report["ok"], result.report["dropped"], result.report["rescued"]) == (12, {}, 0)
    assert result.report["slices"] == 12 * 13
    for name, row in result.rows.items():
        assert (row["sample_rate"], row["channels"], row["decoder"]) == (22050, 1, "libsndfile")
        assert row["duration_s"] == pytest.approx(29.98, abs=0.02)
        assert row["track_id"] == name.rpartition(".")[0]
    sound, rate = sf.read(root / "rock" / "rock.00001.au", dtype="float32", always_2d=True)
    assert_levels_agree(result.frames(FINE, "rock.00001.au"), librosa_frames(sound, rate, FINE))
