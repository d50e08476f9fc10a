"""Faults of sound: where each begins, how tracks are grouped, and files that have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from commands import mgc
from sounds import music

from mgc.models.audit.sound import FAULTS, find_faults
from mgc.pipeline.fingerprints.levels import Levels

ROW = {
    "track_id": "a", "path": "a.mp3", "detail": None, "channels": 2, "sample_rate": 44100, "duration_s": 10.0,
    "clipped": 0, "stereo_image": "different",
}  # fmt: skip
SOUND = Levels(-14.0, 0.1, 0.01, None)


def faults(row: dict[str, Any], levels: Levels = SOUND) -> set[str]:
    """Faults of one track among ten others."""
    rows = [ROW | {"track_id": str(number)} for number in range(10)] + [ROW | row | {"track_id": "x"}]
    findings = find_faults(rows, {row["track_id"]: SOUND for row in rows} | {"x": levels})
    assert all(finding.tracks == ("x",) for finding in findings)
    return {finding.values["fault"] for finding in findings if finding.values}


@pytest.mark.parametrize(
    ("row", "levels", "expected"),
    [
        ({}, SOUND, set()),
        ({}, Levels(-14, 4.9, 0.49, None), set()),
        ({}, Levels(-14, 5.0, 0.2, None), {"silence"}),
        ({}, Levels(-14, 6.0, 0.5, None), {"mostly-silent"}),
        ({}, Levels(-33.9, 0, 0, None), set()),
        ({}, Levels(-34.1, 0, 0, None), {"level"}),
        ({}, Levels(6.1, 0, 0, None), {"level"}),
        ({}, Levels(-61.0, 0, 0, None), {"faint"}),
        ({"clipped": 881}, SOUND, set()),
        ({"clipped": 882}, SOUND, {"clipping"}),
        ({"stereo_image": "left"}, SOUND, {"dead-channel"}),
        ({"stereo_image": "equal"}, SOUND, {"equal-channels"}),
        ({"stereo_image": None, "clipped": None}, SOUND, set()),
        ({"detail": "decoded by FFmpeg; channels partly cancel: the mix is 8 dB below them"}, SOUND, {"cancelled"}),
        ({"detail": "mono: left, since the channels cancel in their mix"}, SOUND, {"cancelled"}),
    ],
)
def test_where_each_begins(row: dict[str, Any], levels: Levels, expected: set[str]):
    assert faults(row, levels) == expected


def test_tracks_with_one_fault_are_one_finding_that_names_the_worst():
    rows = [ROW | {"track_id": f"{n}", "path": f"{n}.mp3", "clipped": 1000 * n, "duration_s": 1.0} for n in range(1, 6)]
    (finding,) = find_faults(rows, {})
    assert finding.tracks == ("5", "4", "3", "2", "1")
    assert finding.detail == (
        "5 tracks: 0.1% of the samples or more at full scale: 5.mp3 (5.7%), 4.mp3 (4.5%), 3.mp3 (3.4%) and 2 more"
    )
    assert find_faults([], {}) == []


@pytest.mark.slow
def test_files_with_faults(tmp_path: Path, scheduler: str):
    """One file with each fault, of a signal that has none."""
    sound = music(12, 22050, 2)
    left = sound[:, :1]
    planted = {
        "none": sound,
        "silence": sound * (np.arange(len(sound)) > 5.5 * 22050)[:, None],
        "mostly-silent": sound * (np.arange(len(sound)) > 8 * 22050)[:, None],
        "faint": sound * 3e-3,
        "level": sound * 0.03,
        "clipping": np.clip(20 * sound, -1, 1),
        "dead-channel": left * np.float32([0, 1]),
        "equal-channels": left * np.float32([1, 1]),
        "cancelled": left * np.float32([1, -0.9]),
    }
    (tmp_path / "songs" / "blues").mkdir(parents=True)
    for name, samples in planted.items():
        soundfile.write(tmp_path / "songs" / "blues" / f"{name}.wav", samples, 22050, subtype="FLOAT")
    where = ("--dataset", tmp_path / "songs", "--out", tmp_path, "--data-dir", tmp_path, "--scheduler", scheduler)
    assert mgc("extract", *where, "--feature", "mel", "--slice", "2").code == 0
    (store,) = tmp_path.glob("mel-*")
    outcome = mgc("audit", store, "--json")
    assert outcome.code == 1
    found = {finding["fault"]: finding for finding in outcome.json["findings"] if finding["kind"] == "sound"}
    assert {fault: finding["tracks"] for fault, finding in found.items()} == {
        fault: [f"blues/{fault}"] for fault in FAULTS
    }
    assert {fault: finding["severity"] for fault, finding in found.items()} == {
        fault: properties.severity for fault, properties in FAULTS.items()
    }
    text = mgc("audit", store)
    assert max(map(len, text.out.splitlines()[1:])) <= 80
    assert "warning: sound (1)" in text.out
