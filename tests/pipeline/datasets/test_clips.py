"""GTZAN's clips by number: artists, and the published list of splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from commands import mgc

from mgc.pipeline.datasets import clips, open_dataset
from mgc.pipeline.datasets.published import published_dataset
from mgc.pipeline.errors import DatasetError

GENRES = published_dataset("gtzan").genres


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_the_filtered_list_has_the_published_counts() -> None:
    listed = clips.split_list("gtzan-filtered")
    assert Counter(listed.values()) == {"training": 443, "validation": 197, "test": 290}
    assert listed["blues.00029"] == listed["rock.00099"] == "training"
    assert listed["blues.00000"] == "validation"
    assert listed["rock.00090"] == listed["blues.00012"] == "test"
    assert "rock.00058" in listed
    assert "pop.00015" not in listed


def test_no_artist_is_on_two_sides_of_it_but_for_two_duets() -> None:
    """Bob Marley with Lauryn Hill, Donna Summer with Barbra Streisand."""
    listed, artists = clips.split_list("gtzan-filtered"), clips.artists("gtzan")
    splits: dict[str, set[str]] = {}
    for clip, split in listed.items():
        if clip in artists and clip not in ("reggae.00087", "disco.00047"):
            splits.setdefault(artists[clip], set()).add(split)
    assert len(splits) > 200
    assert all(len(used) == 1 for used in splits.values())


def test_the_artists() -> None:
    artists = clips.artists("gtzan")
    assert (len(artists), len(set(artists.values()))) == (919, 238)
    assert {clip.split(".")[0] for clip in artists} == set(GENRES)
    assert Counter(artists.values())["Britney Spears"] == 24  # Sturm 2013
    assert artists["metal.00058"] == artists["rock.00016"] == "Queen"


@pytest.mark.parametrize("pattern", ["{g}/{g}.{n:05}.wav", "{g}/{g}.{n:05}.au", "{g}/{g}.{n:05}.mp3"])
def test_it_is_applied_to_any_suffix(pattern: str, tmp_path: Path) -> None:
    dataset = open_dataset(touch(tmp_path, *(pattern.format(g=g, n=n) for g in GENRES for n in range(0, 100, 7))))
    assert dataset.format == "gtzan"
    splits, omitted = clips.choose_splits(Path("gtzan-filtered"), dataset.tracks, dataset.source)
    assert splits == {c: s for c, s in clips.split_list("gtzan-filtered").items() if int(c[-5:]) % 7 == 0}
    assert len(splits) + len(omitted) == len(dataset.tracks) == 150
    assert omitted["pop.00021"] == "not in the list gtzan-filtered"


def test_it_is_applied_whatever_stands_before_a_name(tmp_path: Path) -> None:
    names = [f"{g}/GTZAN_{g.title()}.{n:05}.wav" for g in GENRES for n in (0, 15)]
    dataset = open_dataset(touch(tmp_path, *names))
    assert dataset.format == "folder"
    splits, omitted = clips.choose_splits(Path("gtzan-filtered"), dataset.tracks, dataset.source)
    assert splits["blues/GTZAN_Blues.00000"] == "validation"
    assert "pop/GTZAN_Pop.00015" in omitted


def test_other_music_is_refused(tmp_path: Path) -> None:
    source = touch(tmp_path / "music", *(f"{g}/{g}.{n:05}.wav" for g in ("waltz", "rock", "folk") for n in range(2)))
    dataset = open_dataset(source)
    with pytest.raises(DatasetError, match=r"is not GTZAN, 2 of its 6 files are named like its clips; name a CSV"):
        clips.choose_splits(Path("gtzan-filtered"), dataset.tracks, dataset.source)
    outcome = mgc(
        "extract", "--dataset", source, "--feature", "mel", "--splits", "gtzan-filtered", "--data-dir", tmp_path
    )
    assert outcome.error.startswith(f"--splits gtzan-filtered: {source} is not GTZAN")
    assert not (tmp_path / "features").exists()
    outcome = mgc("extract", "--dataset", source, "--feature", "mel", "--splits", "gtzan", "--data-dir", tmp_path)
    assert (
        outcome.error
        == "cannot read gtzan: No such file or directory; check the path, or name a published list: gtzan-filtered"
    )


def test_the_names_are_in_the_help() -> None:
    for command in ("extract", "split"):
        text = " ".join(mgc(command, "--help").out.split())
        assert all(name in text for name in clips.split_lists())
