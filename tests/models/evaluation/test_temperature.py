"""Temperature: fitted on validation tracks, shown by `mgc evaluate`, applied by `mgc predict --calibrated`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import mgc, mgc_all
from music import write_genres
from tiny import TINY

from mgc.models.evaluation.temperature import cross_entropy, fit, temper
from mgc.models.registry import systems


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_it_undoes_what_made_probabilities_too_sure(sharpness: float) -> None:
    """Genres drawn by known probabilities, which are then sharpened or flattened."""
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.ones(4), 20_000)
    truth = np.array([rng.choice(4, p=row) for row in honest])
    seen = temper(honest, 1 / sharpness)
    found = fit(truth, seen)
    assert found.value == pytest.approx(sharpness, rel=0.03)
    effect = found.effect(truth, seen)
    assert effect["ece"]["after"] <= effect["ece"]["before"] + 1e-3
    assert effect["ece"]["after"] < 0.02
    assert effect["cross_entropy"]["after"] == pytest.approx(cross_entropy(truth, honest), abs=2e-3)


def test_tempering_keeps_the_order_and_the_sum() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])
    for temperature in (0.1, 1.0, 8.0):
        values = temper(probabilities, temperature)
        np.testing.assert_allclose(values.sum(axis=1), 1)
        assert values.argmax(axis=1).tolist() == [0, 0]
        assert np.isfinite(values).all()
    np.testing.assert_allclose(temper(probabilities, 1.0), probabilities, atol=1e-9)


def test_the_commands(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    data = tmp_path / "data"
    write_genres(data / "songs", tracks=6, seconds=3)
    words = ("--feature", "mel:n_mels=8,n_fft=512", "--slice", 1.6, "--scheduler", scheduler)
    mgc_all(data, ("extract", *words), ("train", "--model", TINY.id, "--epochs", 1))
    song = next((data / "songs").rglob("*.wav"))
    predict = ("predict", song, "--json", "--timeline", "--scheduler", scheduler, "--data-dir", data)
    refused = mgc(*predict, "--calibrated")
    assert refused.code == 1
    assert "has not been evaluated on its validation tracks" in refused.error
    plain = mgc("evaluate", "--json", "--no-report", "--data-dir", data).json
    assert plain["calibration"] is None
    validation = mgc("evaluate", "--split", "validation", "--json", "--no-report", "--data-dir", data).json
    assert validation["calibration"] is None  # not of the tracks that it is fitted on
    again = mgc("evaluate", "--json", "--no-report", "--data-dir", data).json["calibration"]
    assert again["n_tracks"] == validation["n_tracks"]
    assert again["cross_entropy"]["before"] == pytest.approx(plain["by_track"]["cross_entropy"])
    assert "mgc predict --calibrated" in mgc("evaluate", "--no-report", "--data-dir", data).out.replace("\n", " ")
    raw, tempered = mgc(*predict), mgc(*predict, "--calibrated")
    assert f"tempered by {again['temperature']:.2f}" in tempered.err
    shares = [np.array([*one.json[0]["probabilities"].values()]) for one in (raw, tempered)]
    np.testing.assert_allclose(shares[1], temper(shares[0][None], again["temperature"])[0])
    seconds = [one.json[0]["timeline"][0]["probabilities"] for one in (raw, tempered)]
    first = np.array([[*seconds[0].values()]])
    np.testing.assert_allclose([*seconds[1].values()], temper(first, again["temperature"])[0])
