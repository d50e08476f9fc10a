"""What a leak buys: much where artists can be recognised and genres cannot, nothing where genres can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Outcome, mgc
from stores import GENRES, make_store

from mgc.models.audit import price, probe
from mgc.pipeline.features import FeatureSpec, Mel, Waveform, parse_feature
from mgc.pipeline.store.store import Store

MEL = Mel(n_mels=32)
SPLITS = {"random by slice", "random by track", "the store's own", "clean"}


def artist_of(row: dict[str, Any]) -> int:
    return int(row["track_id"][-3:]) // 4


def by_artist(row: dict[str, Any]) -> dict[str, Any]:
    """Artists of four tracks, of one genre each, on all sides of the split."""
    artist = artist_of(row)
    return {"artist_id": f"artist {artist}", "genre": GENRES[artist % 3]}


def own_sound(row: dict[str, Any]) -> np.ndarray:
    """Each artist has a spectrum of its own, which says nothing about the genre."""
    return np.random.default_rng(artist_of(row)).normal(0, 15, 32)


def store_of(folder: Path, spec: FeatureSpec = MEL, **options: Any) -> Store:
    tracks = {"training": 48, "validation": 16, "test": 16}
    return make_store(folder / spec.name, spec, tracks=tracks, seconds=(5.0,), tracks_per_shard=40, **options)


def priced(store: Store, *options: object) -> Outcome:
    return mgc("audit", store.path, "--price", *options)


def rows_of(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {row["split"]: row for row in outcome.json["price"]["rows"]}


def test_recognised_artists_are_priced(tmp_path: Path) -> None:
    store = store_of(tmp_path, relabel=by_artist, colour=own_sound)
    rows = rows_of(priced(store, "--json"))
    assert set(rows) == SPLITS
    assert rows["clean"]["accuracy"] < 0.6
    for name in ("random by slice", "random by track", "the store's own"):
        assert rows[name]["accuracy"] > 0.9
        assert rows[name]["bought"] > 0.3
    assert rows["random by slice"]["bought_interval"][0] > 0.1
    assert rows["the store's own"]["bought_interval"][0] < 0.1  # four artists
    assert rows["random by slice"]["bought"] == pytest.approx(
        rows["random by slice"]["accuracy"] - rows["clean"]["accuracy"]
    )
    assert rows["the store's own"]["tracks"] == 16
    text = priced(store).out
    table = text[text.index("split   ") :]
    assert table.count("\nrandom by ") == 2
    assert max(map(len, table.splitlines())) <= 80


def test_genres_that_are_heard_need_no_leak(tmp_path: Path) -> None:
    rows = rows_of(priced(store_of(tmp_path), "--json"))
    assert rows["clean"]["accuracy"] > 0.95
    for name in SPLITS - {"clean"}:
        low, high = rows[name]["bought_interval"]
        assert low < 0 < high
        assert abs(rows[name]["bought"]) < 0.05


@pytest.mark.parametrize("feature", ["stats", "chroma", "power:n_fft=512", "mfcc"])
def test_other_features(feature: str, tmp_path: Path) -> None:
    outcome = priced(store_of(tmp_path, parse_feature(feature)), "--json")
    expected = SPLITS - {"random by slice"} if feature == "stats" else SPLITS
    assert set(rows_of(outcome)) == expected
    assert outcome.json["price"]["folds"] == 5


@pytest.mark.parametrize(
    ("spec", "relabel", "reason"),
    [
        (Waveform(), lambda row: {}, "no probe works on waveform frames; name a store of mel"),
        (MEL, lambda row: {"genre": "Folk"}, "fewer than two genres have two artists or more"),
        (MEL, lambda row: {"artist_id": row["genre"]}, "fewer than two genres have two artists or more"),
    ],
    ids=["waveform", "one genre", "one artist each"],
)
def test_a_store_that_cannot_be_priced_gets_one_line(
    spec: FeatureSpec, relabel: Callable[[dict[str, Any]], dict[str, Any]], reason: str, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store", spec, seconds=(2.5,), relabel=relabel)
    outcome = priced(store, "--json")
    assert outcome.json["price"] is None
    (line,) = (line for line in outcome.err.splitlines() if line.startswith("the price"))
    assert line.startswith(f"the price of a leak cannot be measured: {reason}")


def test_large_stores_are_priced_by_whole_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price, "MAX_TRACKS", 50)
    monkeypatch.setattr(probe, "MAX_SLICES", 100)
    report = priced(store_of(tmp_path, relabel=by_artist), "--json").json["price"]
    (note,) = (note for note in report["notes"] if "tracks are used" in note)
    assert note == "48 of 80 tracks are used, in whole groups of linked tracks."
    assert report["rows"][-1]["tracks"] == 48
    assert report["slices"] == 96
