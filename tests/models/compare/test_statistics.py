"""Paired differences, McNemar's test, Holm's correction and letters: closed forms, other libraries, simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables
from statsmodels.stats.multitest import multipletests

from mgc.models.compare.multiple import holm, letters
from mgc.models.compare.pairs import compare_all
from mgc.models.compare.scores import Items, SystemScores, measure
from mgc.models.evaluation import paired
from mgc.models.evaluation.intervals import Component, interval, resample, total


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (5, 0), (3, 4), (7, 7), (10, 2), (40, 80), (300, 200)])
def test_mcnemar_equals_the_binomial_test_if_every_artist_has_one_track(only_a: int, only_b: int) -> None:
    first = np.repeat([1, 0], [only_a, only_b])
    expected = contingency_tables.mcnemar([[9, only_a], [only_b, 9]], exact=True).pvalue
    assert paired.mcnemar(first, 1 - first) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_exchanges_the_tracks_of_an_artist_together() -> None:
    balances = [3, -1, 2, 2, -1, 0, 1]
    sums = [abs(np.dot(signs, balances)) for signs in itertools.product([1, -1], repeat=len(balances))]
    expected = np.mean(np.array(sums) >= sum(balances))
    assert paired.mcnemar(np.array([3, 0, 2, 2, 0, 4, 1]), np.array([0, 1, 0, 0, 1, 4, 0])) == pytest.approx(expected)
    assert paired.mcnemar(np.array([9]), np.array([0])) == pytest.approx(1)  # one artist shows nothing


def test_holm_equals_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 30):
        values = rng.random(n) ** 3
        np.testing.assert_allclose(holm(values), multipletests(values, method="holm")[1])
    assert holm([]) == []


def test_systems_share_a_letter_exactly_if_they_do_not_differ() -> None:
    assert letters(4, [(0, 2), (0, 3), (1, 3)]) == ["a", "ab", "bc", "c"]
    assert letters(1, []) == ["a"]
    rng = np.random.default_rng(0)
    for _ in range(100):
        n = int(rng.integers(2, 9))
        pairs = list(itertools.combinations(range(n), 2))
        different = [pair for pair in pairs if rng.random() < 0.4]
        given = letters(n, different)
        assert {(i, j) for i, j in pairs if not set(given[i]) & set(given[j])} == set(different)
    assert letters(60, itertools.combinations(range(60), 2))[-1] == "h2"


def test_the_interval_of_single_tracks_is_that_of_bonett_and_price() -> None:
    """12 and 4 of 100 tracks that one system alone has right, by their formula with t for z."""
    differences = np.repeat([1, -1, 0], [12, 4, 84])
    draws = resample(differences[:, None], 20_000, seed=0)[:, 0] / 100
    error = paired.accuracy_error(differences, draws, np.ones(100, int))
    p12, p21 = 13 / 102, 5 / 102
    assert error.shrinkage * 0.08 == pytest.approx(p12 - p21, rel=0.002)
    half = stats.t.ppf(0.975, 99) * ((p12 + p21 - (p12 - p21) ** 2) / 102) ** 0.5
    span = paired.span(0.08, error, draws)
    # The bootstrap takes n - 1 for n, which makes 100 tracks count as 99.
    assert (span.low, span.high) == pytest.approx((p12 - p21 - half, p12 - p21 + half), abs=0.002)


def scores_of(right: np.ndarray, artists: np.ndarray) -> tuple[Items, list[SystemScores]]:
    """Scores of systems, `(systems, trainings, tracks)`, that have tracks of two genres right or wrong."""
    truth = artists % 2
    items = Items(truth, artists, ("a", "b"))
    return items, [measure(items, np.where(each, truth, 1 - truth), n_resamples=300) for each in right]


def test_equal_predictions_have_an_interval_and_no_difference() -> None:
    items, systems = scores_of(np.ones((2, 1, 50), bool), np.arange(50))
    (pair,), given = compare_all(items, systems)
    assert (pair.accuracy.difference, pair.p, pair.mcnemar, given) == (0, 1, 1, ["a", "a"])
    assert -0.06 < pair.accuracy.low < 0 < pair.accuracy.high < 0.06  # 2.8 / (n + 2)


def test_one_artist_shows_no_difference() -> None:
    items, systems = scores_of(np.stack([np.ones((1, 8), bool), np.zeros((1, 8), bool)]), np.zeros(8, int))
    (pair,), given = compare_all(items, systems)
    assert (pair.accuracy.low, pair.accuracy.high) == (-1, 1)
    assert pair.p == pytest.approx(1)
    assert given == ["a", "a"]


def test_the_spread_of_trainings_widens_the_interval() -> None:
    """Three seeds of one network gave 42, 48 and 61 % on 183 tracks by other artists."""
    rng = np.random.default_rng(0)
    seeds = np.array([rng.permutation(183) < round(share * 183) for share in (0.42, 0.48, 0.61)])
    items, (network,) = scores_of(seeds[None], np.arange(183))
    _, (classical, first_seed) = scores_of(np.array([[rng.permutation(183) < 110], seeds[:1]]), np.arange(183))
    assert network.deviation == pytest.approx(0.097, abs=0.001)
    accuracy, _ = network.intervals(items)
    assert accuracy.low < 0.35
    assert accuracy.high > 0.65  # the bootstrap of the artists alone: 0.46 to 0.55
    (pair,), given = compare_all(items, [classical, network])
    assert pair.accuracy.difference == pytest.approx(0.098, abs=0.002)
    assert pair.mcnemar is None
    assert given == ["a", "a"]
    (single,), _ = compare_all(items, [classical, first_seed])
    assert single.differs  # of the first seed alone one would say so
    assert single.trainings is None


@pytest.mark.parametrize(("shares", "within"), [((0.40, 0.44, 0.60), True), ((0.47, 0.48, 0.49), False)])
def test_a_difference_is_within_the_spread_of_trainings(shares: tuple[float, ...], within: bool) -> None:
    """The means of 48 % are 7 points below 55 %; the standard deviations are 10.6 points and 1."""
    seeds = np.array([np.arange(100) < 100 * share for share in shares])
    items, (network,) = scores_of(seeds[None], np.arange(100))
    _, (classical,) = scores_of(np.array([[np.arange(100) < 55]]), np.arange(100))
    (pair,), _ = compare_all(items, [classical, network])
    assert pair.trainings == pytest.approx(np.std(shares, ddof=1))
    assert pair.within_trainings is within


def test_degrees_of_freedom_are_those_of_welch() -> None:
    a, b = np.array([0.42, 0.48, 0.61]), np.array([0.34, 0.36, 0.4, 0.45, 0.49])
    expected = stats.ttest_ind(a, b, equal_var=False)
    whole = total([Component(float(x.var(ddof=1)) / len(x), len(x) - 1) for x in (a, b)])
    assert whole.freedom == pytest.approx(expected.df)
    assert (a.mean() - b.mean()) / whole.variance**0.5 == pytest.approx(expected.statistic)


def test_no_variance_of_trainings_leaves_the_interval_of_a_score() -> None:
    sizes = np.ones(40, int)
    resampled = np.random.default_rng(0).binomial(40, 0.5, 500) / 40
    assert interval(0.5, resampled, sizes, [Component(0.0, 2)]) == interval(0.5, resampled, sizes)
    assert interval(0.5, resampled, sizes, [Component(0.01, 2)]).width > 1.5 * interval(0.5, resampled, sizes).width


@pytest.mark.parametrize("trainings", [1, 3])
def test_coverage_and_errors_with_thirty_artists(trainings: int) -> None:
    """Two equal systems, of which each suits some artists more; trainings differ. `docs/compare.md` has more."""
    rng = np.random.default_rng(3)
    covered, called = [], []
    for _ in range(200):
        artists = np.repeat(np.arange(30), rng.choice([1, 1, 2, 4], 30))
        n = len(artists)
        ease = 0.45 * rng.standard_normal(30)[artists] + 0.5 * rng.standard_normal(n)
        suits = 0.35 * rng.standard_normal((2, 1, 30))[..., artists]
        seed = (0.2 if trainings > 1 else 0.0) * rng.standard_normal((2, trainings, 1))
        right = ease + suits + seed + 0.6 * rng.standard_normal((2, trainings, n)) > -0.2
        (pair,), _ = compare_all(*scores_of(right, artists))
        covered.append(pair.accuracy.low <= 0 <= pair.accuracy.high)
        called.append(pair.p < 0.05)
    assert np.mean(covered) >= 0.92  # 0.95, less two standard errors of 200 simulations
    assert np.mean(called) <= 0.08
