"""Temperature: fitted on validation tracks, shown by `mgc evaluate`, applied by `mgc predict --calibrated`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import mgc, mgc_all
from music import write_genres
from scipy import optimize, stats
from tiny import TINY
from validated import replace_validation

from mgc.models.evaluation.temperature import LEAST_GAIN, cross_entropy, fit, temper
from mgc.models.registry import systems
from mgc.models.runs.run import Run


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


def two_genres(right: int, n: int, sureness: float) -> tuple[np.ndarray, np.ndarray]:
    """Genres and probabilities of `n` tracks that a model names equally surely, `right` of them rightly."""
    return (np.arange(n) >= right).astype(int), np.tile([sureness, 1 - sureness], (n, 1))


def closed_gain(right: int, n: int, sureness: float) -> float:
    """What the best temperature gains there: it makes the model as sure as it is right."""
    share = right / n
    return n * (share * np.log(share / sureness) + (1 - share) * np.log((1 - share) / (1 - sureness)))


def test_the_limit_is_that_of_the_likelihood_ratio_test() -> None:
    assert pytest.approx(stats.chi2.ppf(0.95, 1) / 2, rel=1e-12) == LEAST_GAIN


def test_few_tracks_of_a_nearly_calibrated_model_do_not_tell_a_temperature() -> None:
    """12 tracks, 70 % sure and right in 50 or 83 %: the temperature that suits them best is chance."""
    for right in (7, 10):
        truth, probabilities = two_genres(right, 12, 0.7)
        found = fit(truth, probabilities)
        assert abs(np.log(found.best)) > 0.5
        assert found.gain == pytest.approx(closed_gain(right, 12, 0.7), abs=1e-4)
        assert (found.helps, found.value) == (False, 1)
        assert found.apply(probabilities) is probabilities
        effect = found.effect(truth, probabilities)
        assert (effect["temperature"], effect["best_temperature"], effect["gain"]) == (1, found.best, found.gain)
        assert effect["ece"]["after"] == effect["ece"]["before"]
        assert effect["cross_entropy"]["after"] == effect["cross_entropy"]["before"]


def test_as_many_tracks_of_a_model_that_is_much_too_sure_do() -> None:
    truth, probabilities = two_genres(7, 12, 0.99)
    found = fit(truth, probabilities)
    assert found.helps
    assert found.value == found.best == pytest.approx(np.log(99) / np.log(7 / 5), rel=1e-3)
    np.testing.assert_allclose(found.apply(probabilities), np.tile([7 / 12, 5 / 12], (12, 1)), rtol=1e-3)
    assert fit(*two_genres(70, 120, 0.7)).helps  # a gain that grows with the tracks


@pytest.mark.parametrize("right", [6, 9])
def test_a_temperature_is_kept_from_the_limit_on(right: int) -> None:
    """Models that are too sure: by the least that a gain of 1 % below and above the limit takes."""
    for factor in (0.99, 1.01):

        def excess(sureness: float, aim: float = factor * LEAST_GAIN) -> float:
            return closed_gain(right, 10, sureness) - aim

        found = fit(*two_genres(right, 10, optimize.brentq(excess, right / 10, 1 - 1e-9)))
        assert found.gain == pytest.approx(factor * LEAST_GAIN, rel=2e-3)
        assert found.best > 1
        assert found.helps == (factor > 1)
        assert found.value == (found.best if found.helps else 1)


def test_one_time_in_twenty_chance_tells_a_temperature_where_none_is_needed() -> None:
    """Of independent tracks; their number does not matter."""
    rng = np.random.default_rng(0)
    for n in (16, 160):
        kept = 0
        for _ in range(400):
            probabilities = rng.dirichlet(np.ones(6), n)
            truth = (rng.random((n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=5)
            kept += fit(truth, probabilities).helps
        assert stats.binomtest(kept, 400, 0.05).pvalue > 0.01


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

    [run] = (data / "runs").iterdir()
    replace_validation(Run.open(run), lambda _, shares: np.full_like(shares, 1 / shares.shape[1]))
    none = mgc("evaluate", "--json", "--no-report", "--data-dir", data).json["calibration"]
    assert (none["temperature"], none["gain"]) == (1, pytest.approx(0, abs=1e-9))
    assert none["ece"]["after"] == none["ece"]["before"] == again["ece"]["before"]
    told = f"(no better one can be told from {none['n_tracks']} validation tracks)"
    assert f"Temperature: 1 {told}" in " ".join(mgc("evaluate", "--no-report", "--data-dir", data).out.split())
    untouched = mgc(*predict, "--calibrated")
    assert f"predict: probabilities are not tempered: temperature 1 {told}" in untouched.err
    assert untouched.json == raw.json
