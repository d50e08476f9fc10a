"""Intervals that respect artists: closed forms, what clusters do to them, and how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from mgc.models.evaluation.intervals import chance, interval, resample


def accuracy_interval(hits: np.ndarray, sizes: np.ndarray, *, n_resamples: int = 1000, seed: int = 0):
    """The interval of the accuracy of groups with so many items, so many of them right."""
    right, items = resample(np.stack([hits, sizes], axis=1), n_resamples, seed).T
    return interval(hits.sum() / sizes.sum(), right / items, sizes)


def test_resamples_are_sums_of_drawn_groups() -> None:
    counts = np.array([[1, 10], [2, 20], [4, 40]])
    samples = resample(counts, 500, seed=1)
    assert samples.shape == (500, 2)
    np.testing.assert_array_equal(samples[:, 1], 10 * samples[:, 0])
    possible = {a + b + c for a in (1, 2, 4) for b in (1, 2, 4) for c in (1, 2, 4)}
    assert set(samples[:, 0]) == possible
    np.testing.assert_array_equal(samples, resample(counts, 500, seed=1))
    assert not np.array_equal(samples, resample(counts, 500, seed=2))


def test_many_single_tracks_give_the_binomial_interval() -> None:
    hits = np.repeat([1, 0], [240, 160])
    found = accuracy_interval(hits, np.ones(400, int), n_resamples=20_000)
    exact = stats.binomtest(240, 400).proportion_ci(method="exact")
    assert found.low == pytest.approx(exact.low, abs=0.002)
    assert found.high == pytest.approx(exact.high, abs=0.002)
    assert found.percentiles == pytest.approx((0.6 - 1.96 * 0.0245, 0.6 + 1.96 * 0.0245), abs=0.004)


def test_artists_whose_tracks_agree_widen_it() -> None:
    sizes = np.full(40, 5)
    agreeing = accuracy_interval(np.repeat([5, 0], 20), sizes)
    independent = accuracy_interval(np.random.default_rng(0).binomial(5, 0.5, 40), sizes)
    single = accuracy_interval(np.repeat([1, 0], 20), np.ones(40, int))
    assert agreeing.width > 1.8 * independent.width
    assert agreeing.width == pytest.approx(single.width, rel=0.1)  # as if each artist were one track


@pytest.mark.parametrize(("hits", "estimate"), [(1, 1.0), (0, 0.0)])
def test_all_right_or_all_wrong_still_has_a_width(hits: int, estimate: float) -> None:
    sizes = np.array([2, 2, 1, 1, 1, 1, 1, 1, 1, 1])
    found = accuracy_interval(hits * sizes, sizes)
    assert found.percentiles == (estimate, estimate)
    exact = stats.binomtest(9 * hits, 9).proportion_ci(method="exact")  # Kish: 12² / (2·2² + 8·1²) = 9 tracks
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_one_artist_says_next_to_nothing() -> None:
    found = accuracy_interval(np.array([3]), np.array([4]))
    assert found.width > 0.9


def test_undefined_resamples_are_left_out() -> None:
    sizes = np.ones(20, int)
    resampled = np.random.default_rng(0).binomial(20, 0.5, 1000) / 20
    holes = np.insert(resampled, [0, 500], np.nan)
    assert interval(0.5, holes, sizes) == interval(0.5, resampled, sizes)
    assert interval(0.5, np.full(3, np.nan), sizes).width > 0


@pytest.mark.parametrize("agreement", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("truth", [0.17, 0.6, 0.9])
def test_ten_artists_are_enough_for_the_coverage_it_promises(truth: float, agreement: float) -> None:
    """Artists are right with a probability of their own; `agreement` is the correlation of tracks of one artist."""
    rng = np.random.default_rng(7)
    held = []
    for _ in range(300):
        sizes = rng.choice([1, 1, 1, 2, 2, 4], 10)
        spread = 1 / agreement - 1 if agreement else 1e6
        hits = rng.binomial(sizes, rng.beta(truth * spread, (1 - truth) * spread, 10))
        found = accuracy_interval(hits, sizes, n_resamples=300)
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.93  # 0.95, less two standard errors of 300 simulations


def test_guessing_is_binomial_where_every_artist_has_one_track() -> None:
    found = chance(5, np.ones(12, int), 1 / 6, None)
    assert found.level == found.uniform == 1 / 6
    assert found.majority is None
    assert found.p_value == pytest.approx(stats.binomtest(5, 12, 1 / 6, alternative="greater").pvalue)
    assert found.least_accuracy == 5 / 12
    assert stats.binomtest(4, 12, 1 / 6, alternative="greater").pvalue > 0.05


def test_tracks_of_one_artist_are_one_guess() -> None:
    found = chance(4, np.array([2, 2, 1]), 0.25, None)
    # At least 4 of 5: both pairs, with or without the single one.
    assert found.p_value == pytest.approx(0.25**2)
    assert chance(0, np.array([2, 2, 1]), 0.25, None).p_value == pytest.approx(1)


def test_always_answering_the_commonest_genre_can_beat_guessing() -> None:
    found = chance(9, np.ones(12, int), 1 / 3, 0.75)
    assert found.level == 0.75
    assert found.p_value > 0.5


def test_too_few_tracks_to_tell() -> None:
    assert chance(2, np.ones(2, int), 0.25, None).least_accuracy is None  # both right: 1 in 16
    assert chance(2, np.ones(2, int), 0.2, None).least_accuracy == 1
