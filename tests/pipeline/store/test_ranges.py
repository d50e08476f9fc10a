"""What is said of values outside the stored range, and of files with a lower sample rate than the feature's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from commands import mgc
from stores import make_store

from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA, with_optional_columns
from mgc.pipeline.features import Mel, Stats, Stft, Waveform
from mgc.pipeline.store import ranges
from mgc.pipeline.store.store import Store


@pytest.fixture(scope="module")
def low(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    """Store of an STFT at 44,100 Hz of files of 22,050 Hz: three of noise at -20 dBFS, one clipped by its recorder."""
    folder = tmp_path_factory.mktemp("low")
    rng = np.random.default_rng(0)
    for genre, gains in (("blues", (0.1, 0.1)), ("disco", (0.1, 30.0))):
        (folder / "songs" / genre).mkdir(parents=True)
        for number, gain in enumerate(gains):
            sound = gain * rng.standard_normal(22050).astype(np.float32)
            soundfile.write(folder / "songs" / genre / f"{number}.wav", sound, 22050, subtype="FLOAT")
    where = ("--dataset", folder / "songs", "--out", folder, "--data-dir", folder, "--scheduler", scheduler)
    outcome = mgc("extract", *where, "--feature", "stft", "--slice", "0.4")
    assert outcome.code == 0, outcome.err
    (store,) = folder.glob("stft-*")
    (folder / "said").write_text(outcome.out)
    return store


def test_silence_is_no_distortion_and_empty_bins_are_explained(low: Path) -> None:
    """An earlier version said of such a store that half of its values were clipped, and no more."""
    report = mgc("info", low, "--json").json
    store = Store.open(low)
    values = sum(track["n_frames"] for track in store.tracks.to_pylist()) * 513
    below = 100 * (report["saturated"] - report["saturated_above"]) / values
    above = 100 * report["saturated_above"] / values
    assert 35 < below < 55  # the bins above 11,025 Hz, without leakage and the resampler's slope
    assert 0 < above < 10  # of one track of four
    loud = [track["track_id"] for track in store.tracks.to_pylist() if track["saturated_above"]]
    assert loud == ["disco/1"]
    for lines in ((low.parent / "said").read_text(), mgc("info", low).out):
        text = re.sub(r"\n {12}(?! )", " ", lines)  # as before it was wrapped
        assert (
            "  rate      4 of 4 tracks (100 %) have less than the feature's 44,100 Hz, typically 22,050 Hz: "
            "the bins above 11,025 Hz are empty; --sr 22050 fits\n" in text
        )
        assert f"  range     {below:.3g} % of the values lie below the floor (silence, harmless)\n" in text
        assert (
            f"  warning   {above:.3g} % of the values lie above the top and were clipped (distortion); "
            "--dtype float16 or float32 keeps them\n" in text
        )
    assert report["low_rate"] == {"tracks": 4, "sr": 22050}


def tracks_at(*rates: int | None) -> pa.Table:
    return pa.table({"sample_rate": pa.array(rates, pa.int32())})


@pytest.mark.parametrize(
    ("spec", "rates", "expected"),
    [
        (Stft(), (44100, 48000, 22050), None),
        (Stft(), (44100, 22050), None),  # half of the tracks are not most of them
        (Stft(), (44100, 22050, 32000, 22050), {"tracks": 3, "sr": 22050}),
        (Mel(), (22050, 44100, None), None),
        (Mel(fmax=8000.0), (16000, 16000), None),
        (Mel(fmax=8001.0), (16000, 16000), {"tracks": 2, "sr": 16000}),
        (Waveform(), (16000,), {"tracks": 1, "sr": 16000}),
        (Stats(), (16000,), {"tracks": 1, "sr": 16000}),
        (Stft(), (), None),
    ],
)
def test_a_rate_is_too_low_if_the_feature_reaches_beyond_it(spec, rates, expected) -> None:
    assert ranges.low_rate(spec, tracks_at(*rates)) == expected


def clipped(total: int | None, above: int | None) -> pa.Table:
    columns = {"saturated": pa.array([5, total], pa.int64()), "saturated_above": pa.array([2, above], pa.int64())}
    return pa.table(columns)


def test_what_an_earlier_version_did_not_count_apart_is_not_known() -> None:
    assert ranges.count_above(clipped(4, 1)) == 3
    assert ranges.count_above(clipped(0, None)) == ranges.count_above(clipped(None, None)) == 2
    assert ranges.count_above(clipped(4, None)) is None
    (line,) = ranges.range_lines({"saturated": 5124, "saturated_above": None}, Stft(), 10_000)
    assert line == "  range     51.2 % of the values lie outside the uint8 range and were clipped to it"
    assert ranges.range_lines({"saturated": 0, "saturated_above": 0}, Stft(), 10_000) == []
    assert ranges.range_lines({"saturated": 3, "saturated_above": 3}, Waveform(), 10**9) == [
        "  warning   less than 0.0001 % of the values lie above the top and were clipped (distortion);"
        " --dtype float32 keeps them"
    ]


def test_a_manifest_of_an_earlier_version_lacks_the_column(tmp_path: Path) -> None:
    """It reads as null, at its place: tables of both kinds can be joined."""
    store = make_store(tmp_path / "store")
    old = store.tracks.drop_columns(["saturated_above", "variants"])
    read = with_optional_columns(old, MANIFEST_SCHEMA)
    assert read.schema.names == MANIFEST_SCHEMA.names
    assert read["saturated_above"].null_count == len(read)
