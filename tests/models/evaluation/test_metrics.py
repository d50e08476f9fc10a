"""Scores against scikit-learn, figures printed in the studies, and closed forms."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import gmean
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from mgc.models.evaluation.joining import JOINS
from mgc.models.evaluation.metrics import Predictions, chance, rates, score, tally
from mgc.pipeline.errors import RunError

GENRES = ("blues", "jazz", "pop", "rock")

#: Confusion matrix of the CNN as printed in kth2020: 800 test tracks, accuracy 50.25 %.
KTH_CNN = np.array(
    [
        [58, 5, 4, 11, 5, 3, 9, 5],
        [6, 39, 13, 9, 10, 5, 9, 9],
        [2, 18, 53, 0, 6, 10, 7, 4],
        [15, 3, 5, 67, 2, 3, 3, 2],
        [8, 18, 25, 0, 41, 0, 8, 0],
        [13, 4, 16, 5, 4, 48, 7, 3],
        [17, 7, 17, 8, 5, 8, 28, 10],
        [5, 9, 7, 1, 0, 3, 7, 68],
    ]
)


def table(
    tracks: list[str], truth: list[str], probabilities: np.ndarray, artists: list[str | None] | None = None
) -> pa.Table:
    """A prediction table."""
    return pa.table(
        {
            "track_id": tracks,
            "start_s": np.arange(len(tracks), dtype=np.float64),
            "genre": truth,
            "artist_id": pa.array(artists or [None] * len(tracks), pa.string()),
            "probabilities": pa.array(np.asarray(probabilities, np.float32).tolist(), pa.list_(pa.float32())),
        }
    )


@pytest.fixture
def predictions() -> Predictions:
    """Predictions for 300 slices of 60 tracks by 25 artists, 4 genres, right more often than not."""
    rng = np.random.default_rng(0)
    track = np.arange(300) // 5
    truth = track % 4
    logits = rng.standard_normal((300, 4)) + rng.standard_normal((60, 4))[track] + 1.5 * np.eye(4)[truth]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    artists: list[str | None] = [None if t % 10 == 0 else f"a{t % 24}" for t in track]
    return Predictions.from_table(table([f"{t:03}" for t in track], [GENRES[k] for k in truth], p, artists), GENRES)


@pytest.mark.parametrize("level", ["slice", "track"])
def test_agrees_with_scikit_learn(predictions: Predictions, level: str) -> None:
    items = predictions if level == "slice" else predictions.by_track()
    scores = score(items, n_resamples=100)
    truth, predicted = items.truth, items.probabilities.argmax(axis=1)
    each = reference.precision_recall_fscore_support(truth, predicted)
    assert scores.n == len(truth)
    assert scores.accuracy == reference.accuracy_score(truth, predicted)
    assert scores.macro_precision == pytest.approx(reference.precision_score(truth, predicted, average="macro"))
    assert scores.macro_recall == pytest.approx(reference.balanced_accuracy_score(truth, predicted))
    assert scores.macro_f1 == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert scores.confusion == tuple(map(tuple, reference.confusion_matrix(truth, predicted).tolist()))
    one_hot = np.eye(4)[truth]
    assert scores.rmse == pytest.approx(math.sqrt(reference.mean_squared_error(one_hot, items.probabilities)))
    assert scores.cross_entropy == pytest.approx(-np.log(items.probabilities[np.arange(len(truth)), truth]).mean())
    for k, genre in enumerate(GENRES):
        row = scores.by_genre[genre]
        assert (row.precision, row.recall, row.f1, row.support) == tuple(values[k] for values in each)
        assert row.specificity == pytest.approx(reference.recall_score(truth != k, predicted != k))


def test_bootstrap_rates_agree_with_scikit_learn(predictions: Predictions) -> None:
    resampled = rates(tally(predictions).sum(axis=0)[None])
    scores = score(predictions, n_resamples=10)
    assert resampled.accuracy[0] == pytest.approx(scores.accuracy)
    assert resampled.macro_f1[0] == pytest.approx(scores.macro_f1)
    np.testing.assert_allclose(resampled.recall[0], [row.recall for row in scores.by_genre.values()])


def test_scores_of_a_printed_confusion_matrix() -> None:
    truth, predicted = (np.repeat(index.ravel(), KTH_CNN.ravel()) for index in np.indices((8, 8)))
    items = Predictions(tuple("abcdefgh"), truth, np.eye(8)[predicted], np.arange(800), np.zeros(800), np.arange(800))
    scores = score(items, n_resamples=10)
    assert scores.accuracy == 0.5025
    assert [round(100 * row.precision, 2) for row in scores.by_genre.values()][:2] == [46.77, 37.86]
    assert [round(100 * row.f1, 2) for row in scores.by_genre.values()][-1] == 67.66
    assert scores.one_vs_rest_accuracy == pytest.approx(1 - (1 - 0.5025) / 4)


def test_one_vs_rest_accuracy_is_the_mean_over_genres(predictions: Predictions) -> None:
    scores = score(predictions, n_resamples=10)
    each = [np.mean((predictions.truth == k) == (predictions.predicted == k)) for k in range(4)]
    assert scores.one_vs_rest_accuracy == pytest.approx(np.mean(each))


def test_f1_of_means_equals_padova2023s() -> None:
    printed = 2 * 37.35 * 34.62 / (37.35 + 34.62)  # precision and recall of its 1D CNN
    assert printed == pytest.approx(35.94, abs=0.01)
    p = np.eye(2)[[0, 0, 0, 1]]
    items = Predictions(("a", "b"), np.array([0, 0, 1, 1]), p, np.arange(4), np.zeros(4), np.arange(4))
    scores = score(items, n_resamples=10)
    precision, recall = (2 / 3 + 1) / 2, (1 + 1 / 2) / 2
    assert scores.f1_of_means == pytest.approx(2 * precision * recall / (precision + recall))
    assert scores.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_track_is_the_mean_of_its_slices() -> None:
    p = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]]
    slices = Predictions.from_table(table(["z", "z", "z", "b"], ["x", "x", "x", "y"], np.array(p)), ("x", "y"))
    tracks = slices.by_track()
    np.testing.assert_allclose(tracks.probabilities, [[0.6, 0.4], [1.4 / 3, 1.6 / 3]], rtol=1e-6)  # b, z
    assert tracks.truth.tolist() == [1, 0]
    assert score(slices, n_resamples=10).accuracy == 0.25
    assert score(tracks, n_resamples=10).accuracy == 0


def test_tracks_of_unknown_artists_have_groups_of_their_own() -> None:
    """Even if an artist has the id of such a track."""
    rows = table(["1", "2", "3", "3"], ["x"] * 4, np.full((4, 2), 0.5), [None, None, "1", "1"])
    groups = Predictions.from_table(rows, ("x", "y")).groups
    assert len(set(groups.tolist())) == 3
    assert groups[2] == groups[3]


def test_intervals_are_seeded_and_widen_with_agreeing_tracks(predictions: Predictions) -> None:
    scores = score(predictions, n_resamples=500, seed=3)
    assert scores == score(predictions, n_resamples=500, seed=3)
    assert scores != score(predictions, n_resamples=500, seed=4)
    alone = score(dataclasses.replace(predictions, groups=np.arange(300)), n_resamples=500)
    for name in ("accuracy_interval", "macro_f1_interval"):
        assert getattr(scores, name).width > 1.3 * getattr(alone, name).width
        assert getattr(scores, name).low < getattr(scores, name.removesuffix("_interval")) < getattr(scores, name).high


def test_absent_and_unpredicted_genres() -> None:
    """`pop` is predicted but has no item; `rock` has an item but is never predicted."""
    truth = ["blues", "blues", "jazz", "rock"]
    p = np.eye(4)[[0, 2, 1, 0]]
    items = Predictions.from_table(table(list("1234"), truth, p), GENRES)
    scores = score(items, n_resamples=200)
    pop, rock = scores.by_genre["pop"], scores.by_genre["rock"]
    assert (pop.support, pop.precision, pop.recall, pop.recall_interval, pop.f1) == (0, None, None, None, None)
    assert pop.specificity == 0.75
    assert (rock.support, rock.precision, rock.recall, rock.f1, rock.specificity) == (1, 0, 0, 0, 1)
    assert scores.macro_recall == pytest.approx((0.5 + 1 + 0) / 3)
    assert scores.macro_precision == pytest.approx((0.5 + 1 + 0) / 3)
    assert scores.macro_f1 == pytest.approx((0.5 + 1 + 0) / 3)


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("truth", "predicted"),
    [(["blues"] * 3, [0, 0, 0]), (["blues"] * 3, [1, 1, 1]), (["jazz"], [1]), (["jazz", "pop"], [3, 3])],
)
def test_json_has_no_nan(truth: list[str], predicted: list[int]) -> None:
    items = Predictions.from_table(table([str(i) for i in range(len(truth))], truth, np.eye(4)[predicted]), GENRES)
    scores = json.loads(json.dumps(dataclasses.asdict(score(items))), parse_constant=no_constant)
    assert scores["by_genre"]["rock"]["recall"] is None
    assert scores["accuracy_interval"]["low"] <= scores["accuracy"] <= scores["accuracy_interval"]["high"]


def test_chance_is_the_better_of_two_guesses(predictions: Predictions) -> None:
    tracks = predictions.by_track()
    assert chance(tracks, None).majority is None
    skewed = chance(tracks, {"rock": 50, "jazz": 10})
    assert skewed.majority == np.mean(tracks.truth == GENRES.index("rock")) == 0.25
    assert skewed.level == 0.25
    assert skewed.p_value < 0.05


def test_tables_that_cannot_be_scored_are_refused() -> None:
    good = np.full((1, 2), 0.5)
    with pytest.raises(RunError, match="no slice"):
        Predictions.from_table(table(["1"], ["x"], good).slice(1), ("x", "y"))
    with pytest.raises(RunError, match="'z'"):
        Predictions.from_table(table(["1"], ["z"], good), ("x", "y"))
    for bad in (np.array([[np.nan, 1.0]]), np.array([[0.2, 0.3, 0.5]])):
        with pytest.raises(RunError, match="not probabilities"):
            Predictions.from_table(table(["1"], ["x"], bad), ("x", "y"))


@pytest.mark.parametrize("level", ["slice", "track"])
def test_rankings_and_agreement_are_scikit_learns(predictions: Predictions, level: str) -> None:
    items = predictions if level == "slice" else predictions.by_track("vote")  # votes have many ties
    scores = score(items, n_resamples=10)
    truth, p = items.truth, items.probabilities
    one_hot = np.eye(4)[truth]
    assert scores.roc_auc == pytest.approx(reference.roc_auc_score(truth, p, multi_class="ovr", average="macro"))
    assert scores.average_precision == pytest.approx(reference.average_precision_score(one_hot, p, average="macro"))
    for k, row in enumerate(scores.by_genre.values()):
        assert row.roc_auc == pytest.approx(reference.roc_auc_score(truth == k, p[:, k]))
        assert row.average_precision == pytest.approx(reference.average_precision_score(truth == k, p[:, k]))
    assert scores.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(truth, items.predicted))
    assert scores.mcc == pytest.approx(reference.matthews_corrcoef(truth, items.predicted))
    if level == "slice":
        for k in (2, 3):
            assert scores.top_k[str(k)] == pytest.approx(reference.top_k_accuracy_score(truth, p, k=k))
    assert scores.top_k["5"] is None  # of four genres


def test_calibration_is_scikit_learns(predictions: Predictions) -> None:
    scores = score(predictions, n_resamples=10)
    confidence, right = predictions.probabilities.max(axis=1), predictions.predicted == predictions.truth
    accuracy, means = calibration_curve(right, confidence, n_bins=15)
    assert [bin.accuracy for bin in scores.reliability] == pytest.approx(accuracy.tolist())
    assert [bin.confidence for bin in scores.reliability] == pytest.approx(means.tolist())
    assert sum(bin.n for bin in scores.reliability) == 300
    closed, bins = 0.0, np.ceil(confidence * 15)
    for number in range(1, 16):
        in_bin = bins == number
        closed += abs(right[in_bin].sum() - confidence[in_bin].sum())
    assert scores.ece == pytest.approx(closed / 300)


def test_a_confident_model_that_is_always_wrong_has_the_largest_calibration_error() -> None:
    wrong = Predictions.from_table(table(list("1234"), ["blues"] * 4, np.eye(4)[[1, 1, 1, 1]]), GENRES)
    assert score(wrong, n_resamples=10).ece == 1
    right = Predictions.from_table(table(list("1234"), ["blues"] * 4, np.eye(4)[[0, 0, 0, 0]]), GENRES)
    assert score(right, n_resamples=10).ece == 0


@pytest.mark.filterwarnings("error")
def test_scores_of_equal_probabilities_are_those_of_chance() -> None:
    truth = ["blues", "jazz", "pop", "rock"] * 2
    scores = score(Predictions.from_table(table(list("12345678"), truth, np.full((8, 4), 0.25)), GENRES))
    assert (scores.accuracy, scores.roc_auc, scores.average_precision, scores.mcc) == (0.25, 0.5, 0.25, 0)
    assert scores.top_k == {"2": 0.5, "3": 0.75, "5": None}
    assert scores.ece == pytest.approx(0)
    assert [(bin.n, bin.low < 0.25 <= bin.high) for bin in scores.reliability] == [(8, True)]


@pytest.mark.filterwarnings("error")
def test_scores_without_positives_or_negatives_are_undefined() -> None:
    p = np.array([[0.7, 0.2, 0.1, 0], [0.1, 0.8, 0.1, 0], [0.6, 0.3, 0.1, 0]])
    scores = score(Predictions.from_table(table(list("123"), ["blues", "jazz", "blues"], p), GENRES), n_resamples=10)
    assert scores.by_genre["pop"].roc_auc is scores.by_genre["rock"].average_precision is None
    assert (scores.roc_auc, scores.average_precision, scores.mcc) == (1, 1, 1)
    alone = score(Predictions.from_table(table(list("123"), ["blues"] * 3, p), GENRES), n_resamples=10)
    assert (alone.roc_auc, alone.average_precision, alone.mcc) == (None, None, 0)
    assert alone.balanced_accuracy == pytest.approx(2 / 3)


def test_joins_of_slices() -> None:
    """Two slices for x by a narrow margin and one for y by a wide one; one for x and one for y; one for y alone."""
    p = [[0.5, 0.4, 0.1], [0.5, 0.4, 0.1], [0.0, 0.9, 0.1], [0.8, 0.1, 0.1], [0.1, 0.9, 0.0], [0.2, 0.5, 0.3]]
    rows = table(["1", "1", "1", "2", "2", "3"], ["x", "x", "x", "x", "x", "z"], np.array(p))
    slices = Predictions.from_table(rows, ("x", "y", "z"))
    joined = {name: slices.by_track(name).probabilities for name in JOINS}
    np.testing.assert_allclose(joined["mean"], [[1 / 3, 1.7 / 3, 0.1], [0.45, 0.5, 0.05], [0.2, 0.5, 0.3]], atol=1e-6)
    np.testing.assert_allclose(joined["median"], [[0.5, 0.4, 0.1], [0.45, 0.5, 0.05], [0.2, 0.5, 0.3]], atol=1e-6)
    np.testing.assert_allclose(joined["vote"], [[2 / 3, 1 / 3, 0], [0.5, 0.5, 0], [0, 1, 0]], atol=1e-5)
    assert slices.by_track("vote").predicted.tolist() == [0, 1, 1]  # the mean decides between one vote each
    geometric = gmean(np.maximum(slices.probabilities[:3], np.finfo(float).eps))
    np.testing.assert_allclose(joined["log-mean"][0], geometric / geometric.sum(), rtol=1e-9)
    np.testing.assert_allclose(joined["log-mean"][2], [0.2, 0.5, 0.3], atol=1e-6)


def test_medians_that_are_all_0_leave_the_mean() -> None:
    slices = Predictions.from_table(table(["1"] * 3, ["x"] * 3, np.eye(3)), ("x", "y", "z"))
    np.testing.assert_allclose(slices.by_track("median").probabilities, [[1 / 3] * 3])


def test_joins_agree_with_numpy_by_track(predictions: Predictions) -> None:
    medians = np.array([np.median(predictions.probabilities[i : i + 5], axis=0) for i in range(0, 300, 5)])
    joined = predictions.by_track("median").probabilities
    np.testing.assert_allclose(joined, medians / medians.sum(axis=1, keepdims=True))
    for name in JOINS:
        np.testing.assert_allclose(predictions.by_track(name).probabilities.sum(axis=1), 1)
