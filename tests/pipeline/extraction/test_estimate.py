"""The estimate that an extraction prints before it starts."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from commands import mgc
from music import write_genres

from mgc.pipeline import features
from mgc.pipeline.extraction import estimate
from mgc.pipeline.extraction.estimate import Estimate

FEATURE = "stft:n_fft=512"


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of 11.25 s on average."""
    return write_genres(tmp_path_factory.mktemp("music") / "songs", tracks=6, seconds=10)


def extract(songs: Path, data: Path, *options: object) -> list[str]:
    """Extract; return the lines on stderr, without the one that the scheduler is being connected to."""
    outcome = mgc("extract", songs, "--data-dir", data, "--feature", FEATURE, "--slice", "0.4", "--json", *options)
    assert outcome.code == 0, outcome.err
    return [line for line in outcome.err.splitlines() if not line.startswith("extract: connecting to ")]


def stored_bytes(data: Path) -> int:
    return sum(path.stat().st_size for path in data.glob("features/*/*/shards/*.zarr/**/*") if path.is_file())


def test_one_line_says_what_it_takes():
    whole = Estimate(n_files=1000, seconds=130, n_bytes=134e6, free_bytes=12_300_000_000, workers=2)
    assert list(whole.notes()) == ["extract: 1,000 files to decode, about 2 min and 130 MB (12 GB free)"]
    assert whole.is_long
    remote = Estimate(n_files=1, seconds=50, n_bytes=2e6, free_bytes=None, workers=None)
    assert list(remote.notes()) == ["extract: 1 file to decode, about 50 s of processor time and 2.0 MB"]
    assert not remote.is_long


def test_every_feature_of_ours_has_its_costs():
    assert set(estimate.COSTS) == set(features.FEATURES)


def test_the_size_is_right_for_lengths_from_files_and_from_stores(songs, tmp_path, scheduler, monkeypatch):
    """The headers of some files correct the lengths that follow from sizes; later, a store knows the lengths."""
    estimates: list[Estimate] = []
    original = estimate.estimate
    monkeypatch.setattr(estimate, "estimate", lambda *args: estimates.append(original(*args)) or estimates[-1])
    lines = extract(songs, tmp_path, "--scheduler", scheduler)
    assert lines[0] == f"extract: {estimates[0]}"
    assert lines[0].startswith("extract: 12 files to decode, about ")
    assert not any("dashboard" in line for line in lines)  # it is short work
    size = stored_bytes(tmp_path)
    # Their rate of 22,050 Hz is in the headers: by its size alone, a WAV file counts as one of 44,100 Hz.
    assert estimates[0].n_bytes == pytest.approx(size, rel=0.3)
    assert extract(songs, tmp_path, "--scheduler", scheduler) == []
    assert len(estimates) == 1  # there was nothing to decode
    extract(songs, tmp_path, "--scheduler", scheduler, "--rebuild")
    assert estimates[1].n_bytes == pytest.approx(size, rel=0.3)


def test_a_disk_that_is_too_small_is_said(songs, tmp_path, scheduler, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 2000, 2000))
    lines = extract(songs, tmp_path, "--scheduler", scheduler)
    assert lines[0].endswith("(2.0 kB free)")
    assert lines[1] == "extract: the disk is too small for that: make space, or name a folder elsewhere with --out"
