"""A look at the headers of a few files, before stores are created, shows that no slice fits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import Outcome, mgc, tree
from music import write_clip, write_genres

from mgc.pipeline.datasets import open_dataset
from mgc.pipeline.extraction import probe

#: Address of a scheduler that is not there: an extraction that gets so far fails after a second.
NO_SCHEDULER = "tcp://127.0.0.1:1"
REFUSED = "no track holds one slice ("


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Twelve WAV files of 1 to 1.25 s."""
    return write_genres(tmp_path / "songs", tracks=6)


def extract(songs: Path, *options: object) -> Outcome:
    where = ("--data-dir", songs.parent / "data", "--scheduler", NO_SCHEDULER)
    return mgc("extract", songs, *where, "--feature", "stft:n_fft=512", *options)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    from mgc.pipeline.extraction import cluster

    monkeypatch.setattr(cluster, "CONNECT_WAIT_S", 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slice", 60], "slices of 60 s, 50% overlap): the longest file has 1.25 s; take --slice 1 or --whole"),
        ([], "slices of 4 s, 50% overlap): the longest file has 1.25 s; take --slice 1 or --whole"),
        (["--frames", 5000], "slices of 5000 frames, 50% overlap): the longest file has 1.25 s; take --slice 1 or"),
        (["--slice", 1, "--offset", 3], "slices of 1 s, 50% overlap, from 3 s on): the longest file has 1.25 s; short"),
        (["--slice", 60, "--dry-run"], "slices of 60 s, 50% overlap): the longest file has 1.25 s; take"),
    ],
)
def test_slices_that_fit_into_no_file_are_refused_before_a_store_is_created(options, message, songs):
    outcome = extract(songs, *options)
    assert outcome.code == 1
    assert outcome.error.startswith(REFUSED + message)
    assert "connecting" not in outcome.err
    assert tree(songs.parent / "data") == {}


@pytest.mark.parametrize("options", [["--slice", 1.2], ["--whole"], ["--slice", 1.3]])
def test_slices_that_fit_or_nearly_fit_are_left_to_the_extraction(options, songs):
    assert "no Dask scheduler answers" in extract(songs, *options).error


def test_one_long_file_among_many_is_found_by_its_size(songs):
    for number in range(30):
        shutil.copy(songs / "blues" / "blues00.wav", songs / "disco" / f"copy{number}.wav")
    assert "the longest of 20 files looked at has 1.25 s" in extract(songs, "--slice", 5).error
    write_clip(songs / "blues" / "long.wav", 6)
    assert "no Dask scheduler answers" in extract(songs, "--slice", 5).error


def test_files_of_unknown_duration_are_not_judged(songs):
    """Also where all others are short; files that are empty or not there do not count."""
    (songs / "blues" / "empty.wav").touch()
    (songs / "blues" / "gone.wav").symlink_to("nowhere")
    assert REFUSED in extract(songs, "--slice", 5).error
    (songs / "blues" / "other.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(10_000))
    assert "no Dask scheduler answers" in extract(songs, "--slice", 5).error


def test_an_existing_store_is_not_refused(songs, scheduler):
    """Its tracks have a cut already; what a longer slice leaves of them is said by the extraction."""
    where = ("--data-dir", songs.parent / "data", "--scheduler", scheduler)
    assert mgc("extract", songs, *where, "--feature", "stft:n_fft=512", "--slice", 1).code == 0
    assert REFUSED not in extract(songs, "--slice", 5).err


def test_durations_of_each_format(tmp_path):
    samples = np.sin(np.arange(3 * 22050) / 20).astype(np.float32)
    (tmp_path / "songs" / "a").mkdir(parents=True)
    for suffix in ("wav", "flac", "ogg", "mp3", "aiff"):
        soundfile.write(tmp_path / "songs" / "a" / f"clip.{suffix}", samples, 22050)
    dataset = open_dataset(tmp_path / "songs")
    seconds = probe.durations(dataset, dataset.tracks)
    assert len(seconds) == 5
    assert seconds == pytest.approx([3] * 5, abs=probe.TOLERANCE_S)
