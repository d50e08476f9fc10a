"""Marks of files that tell their genre: found where they are planted, and not where they mean nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mgc.models.audit import shortcuts
from mgc.pipeline.fingerprints.levels import Levels

GENRES = "ABCD"


def make_tracks(n_artists: int, seed: int = 0, per_artist: int = 3) -> tuple[list[dict[str, Any]], dict[str, Levels]]:
    """Tracks of artists of one genre each, whose encodings are drawn for each artist, whatever the genre."""
    rng = np.random.default_rng(seed)
    rows, levels = [], {}
    for artist in range(n_artists):
        bit_rate, encoder = rng.choice([128, 192, 256, 320]), rng.choice(["mp3 LAME3.100", "mp3", "vorbis Lavf59"])
        for number in range(per_artist):
            track = f"{artist}-{number}"
            rows.append(
                {
                    "track_id": track,
                    "genre": GENRES[artist % len(GENRES)],
                    "artist_id": str(artist),
                    "album_id": None,
                    "size": int(30 * 125 * bit_rate + rng.integers(2000)),
                    "duration_s": 30 + rng.random(),
                    "sample_rate": int(rng.choice([44100, 48000])),
                    "channels": 2,
                    "stereo_image": "different",
                    "encoder": str(encoder),
                }
            )
            levels[track] = Levels(float(rng.normal(-15, 4)), 0.0, 0.0, 16000.0 if bit_rate == 128 else None)
    return rows, levels


def find(rows: list[dict[str, Any]], levels: dict[str, Levels]) -> dict[str, Any]:
    return {
        finding.values["mark"]: finding
        for finding in shortcuts.find_shortcuts(rows, shortcuts.measure(rows, levels))
        if finding.values
    }


def test_files_whose_encoding_says_nothing_raise_no_alarm():
    """Encodings differ between artists, so that tracks of one artist are alike: the tests have to allow for that."""
    assert not [seed for seed in range(10) for found in [find(*make_tracks(20, seed))] if found]


@pytest.mark.parametrize(
    ("mark", "change"),
    [
        ("bit rate", {"size": 30 * 8000}),
        ("sample rate", {"sample_rate": 22050}),
        ("channels", {"stereo_image": "equal"}),
        ("encoder", {"encoder": "flac reference libFLAC 1.4.3"}),
    ],
)
def test_a_genre_that_is_encoded_alike_is_named(mark: str, change: dict[str, Any]):
    rows, levels = make_tracks(32)
    rows = [row | change if row["genre"] == "C" else row for row in rows]
    found = find(rows, levels)
    assert set(found) == {mark}
    assert found[mark].severity == "warning"
    assert found[mark].values["genres"] == ["C"]
    assert "'C'" in found[mark].detail
    told = {row["track_id"] for row in rows if row["genre"] == "C"}
    assert told <= set(found[mark].tracks)


def test_levels_and_lengths_are_reported_without_alarm():
    rows, levels = make_tracks(32)
    for row in rows:
        if row["genre"] == "B":
            row["duration_s"], row["size"] = 12.0, row["size"] * 12 / row["duration_s"]
            levels[row["track_id"]] = Levels(-40.0, 0.0, 0.0, levels[row["track_id"]].low_pass_hz)
    found = find(rows, levels)
    assert {mark: finding.severity for mark, finding in found.items()} == {"duration": "info", "level": "info"}


def test_a_low_pass_is_a_mark_of_the_encoding():
    rows, levels = make_tracks(32)
    for row in rows:
        if row["genre"] == "D":
            levels[row["track_id"]] = Levels(levels[row["track_id"]].level_db, 0.0, 0.0, 11_000.0)
    assert find(rows, levels)["low-pass"].severity == "warning"


def test_what_an_earlier_version_did_not_record_is_left_out():
    rows, _ = make_tracks(12)
    rows[5] |= {"encoder": None, "stereo_image": None}
    marks = [result.mark for result in shortcuts.measure(rows, {})]
    assert marks == ["bit rate", "sample rate", "channels", "duration", "encoding"]
    rows = [row | dict.fromkeys(["size", "duration_s", "sample_rate", "channels"]) for row in rows]
    assert shortcuts.measure(rows, {}) == []


@pytest.mark.parametrize(("n_artists", "genre"), [(4, None), (12, "A"), (0, None)])
def test_one_genre_or_few_artists_show_nothing(n_artists: int, genre: str | None):
    rows, levels = make_tracks(n_artists)
    rows = [row | {"genre": genre or row["genre"]} for row in rows]
    assert shortcuts.measure(rows, levels) == []


def test_a_mark_that_all_files_share_is_as_good_as_chance():
    rows, levels = make_tracks(11)  # genres of different sizes
    results = {result.mark: result for result in shortcuts.measure(rows, levels)}
    assert results["channels"].accuracy == pytest.approx(results["channels"].chance) == pytest.approx(3 / 11)
