"""`mgc download NAME --check`: what is missing, damaged, or faulty as published."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import Outcome, mgc
from conftest import World
from tiny_archives import FAULTY, clip

from mgc.pipeline.datasets.published import published_dataset
from mgc.pipeline.downloads.places import RECORD


@pytest.fixture(scope="module")
def fetched(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with both datasets and their archives."""
    data = tmp_path_factory.mktemp("fetched")
    for name in ("tiny-fma", "tiny-gtzan"):
        outcome = mgc(
            "download", name, "--mirror", world.server.url("plain"), "--data-dir", data, "--keep-archives"
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
    return data


@pytest.fixture
def data(fetched: Path, tmp_path: Path) -> Path:
    shutil.copytree(fetched, tmp_path / "data")
    return tmp_path / "data"


def check(data: Path, name: str, *options: object) -> Outcome:
    return mgc("download", name, "--check", "--data-dir", data, "--json", *options)


def spoil(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_good_copy_with_its_published_faults(data: Path):
    outcome = check(data, "tiny-fma")
    assert outcome.code == 0
    assert outcome.json["faulty"] == {f"fma_small/{FAULTY}": "almost silent"}
    assert (outcome.json["missing"], outcome.json["problems"], outcome.json["clean"]) == ([], {}, True)
    assert outcome.json["files"] == 24 + 2 + 2
    assert len(outcome.json["against"]) == 4  # two archives, the record, the list of SHA-1
    text = mgc("download", "tiny-fma", "--check", "--data-dir", data)
    assert f"faulty as published: 1\n  fma_small/{FAULTY}: almost silent\n" in text.out
    assert text.out.endswith("28 files compared, as published\n")


@pytest.mark.parametrize("known", ["archives", "record", "list", "all"])
def test_damage_is_found_by_each_of_what_is_known(known: str, data: Path):
    folder = data / "datasets" / "tiny-fma"
    if known not in ("archives", "all"):
        shutil.rmtree(data / "datasets" / "archives")
    if known not in ("record", "all"):
        (folder / RECORD).unlink()
    if known not in ("list", "all"):
        (folder / "fma_small" / "checksums").unlink()
    damaged, missing = folder / "fma_small" / "000" / "000004.mp3", folder / "fma_small" / "000" / "000005.mp3"
    spoil(damaged)
    missing.unlink()
    outcome = check(data, "tiny-fma")
    assert outcome.code == 1
    assert list(outcome.json["problems"]) == ["fma_small/000/000004.mp3"]
    unlisted = ["fma_small/checksums"] if known in ("archives", "record") else []
    assert sorted(outcome.json["missing"]) == ["fma_small/000/000005.mp3", *unlisted]
    expected = "SHA-1" if known in ("list", "all") else "CRC-32"
    assert f"its {expected} is" in outcome.json["problems"]["fma_small/000/000004.mp3"]


def test_a_damaged_archive(data: Path):
    spoil(data / "datasets" / "archives" / "fma_small.zip")
    outcome = check(data, "tiny-fma")
    assert outcome.code == 1
    ((path, problem),) = outcome.json["problems"].items()
    assert path.endswith("fma_small.zip")
    assert "the published one" in problem


def test_the_audio_folder_of_a_copy_made_by_hand(data: Path, tmp_path: Path):
    """Only the archive's audio folder, with the archive beside it, then without."""
    folder = tmp_path / "fma_small"
    shutil.copytree(data / "datasets" / "tiny-fma" / "fma_small", folder)
    shutil.copy(data / "datasets" / "archives" / "fma_small.zip", tmp_path)
    spoil(folder / "README.txt")
    empty = tmp_path / "empty"
    for _ in range(2):
        outcome = check(empty, "tiny-fma", folder)
        assert outcome.code == 1
        assert list(outcome.json["problems"]) == ["README.txt"]
        assert outcome.json["missing"] == []
        assert list(outcome.json["faulty"]) == [FAULTY]
        (tmp_path / "fma_small.zip").unlink(missing_ok=True)
    (folder / "checksums").unlink()
    outcome = mgc("download", "tiny-fma", "--check", folder, "--data-dir", empty)
    assert outcome.code == 1
    assert "holds no list of checksums, and neither archive nor record" in outcome.err


def test_a_tar_archive_beside_a_copy_made_by_hand(data: Path):
    folder = data / "datasets" / "tiny-gtzan"
    (folder / RECORD).unlink()
    assert check(data, "tiny-gtzan").json["files"] == 4
    spoil(folder / "genres" / "blues" / "blues.00001.au")
    assert list(check(data, "tiny-gtzan").json["problems"]) == ["genres/blues/blues.00001.au"]


def test_gtzan_by_the_names_of_its_clips(tmp_path: Path):
    """The copy that circulates, in WAV: what is there, what is missing, and what is known to be damaged."""
    folder = tmp_path / "genres_original"
    audio = clip("wav", 0, 0.1)
    for genre in published_dataset("gtzan").genres:
        for number in range(100):
            path = folder / genre / f"{genre}.{number:05}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(audio)
    outcome = check(tmp_path / "data", "gtzan", folder)
    assert outcome.code == 0
    assert outcome.json["faulty"] == {"jazz/jazz.00054.wav": "damaged"}
    assert "their bytes cannot be verified" in outcome.json["against"][0]
    (folder / "rock" / "rock.00099.wav").unlink()
    (folder / "disco" / "disco.00000.wav").unlink()
    outcome = check(tmp_path / "data", "gtzan", tmp_path)
    assert outcome.code == 1
    expected = ["genres_original/disco/disco.00000.wav", "genres_original/rock/rock.00099.wav"]
    assert outcome.json["missing"] == expected
    assert "missing: 2\n" in mgc("download", "gtzan", tmp_path, "--check").out


def test_a_damaged_record_and_a_list_that_climbs(data: Path):
    folder = data / "datasets" / "tiny-fma"
    spoil(folder / RECORD)
    outcome = mgc("download", "tiny-fma", "--check", "--data-dir", data)
    assert (outcome.code, "is damaged or cannot be read; move the folder away" in outcome.err) == (1, True)
    (folder / RECORD).unlink()
    (folder / "fma_small" / "checksums").write_text(f"{'0' * 40}  ../../../secret\n")
    outcome = mgc("download", "tiny-fma", "--check", "--data-dir", data)
    assert (outcome.code, "it climbs out of the folder" in outcome.err) == (1, True)
