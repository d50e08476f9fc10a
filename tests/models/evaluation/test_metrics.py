"""Scores against scikit-learn, against figures printed in the studies, and against closed forms."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as reference

from mgc.models.evaluation.metrics import Predictions, chance, rates, score, tally
from mgc.pipeline.errors import RunError

GENRES = ("blues", "jazz", "pop", "rock")

#: kth2020's printed confusion matrix of the CNN, 800 test tracks: 50.25 %.
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
    """300 slices of 60 tracks by 25 artists, 4 genres, right more often than not."""
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
    found = score(items, n_resamples=100)
    truth, predicted = items.truth, items.probabilities.argmax(axis=1)
    each = reference.precision_recall_fscore_support(truth, predicted)
    assert found.n == len(truth)
    assert found.accuracy == reference.accuracy_score(truth, predicted)
    assert found.macro_precision == pytest.approx(reference.precision_score(truth, predicted, average="macro"))
    assert found.macro_recall == pytest.approx(reference.balanced_accuracy_score(truth, predicted))
    assert found.macro_f1 == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert found.confusion == tuple(map(tuple, reference.confusion_matrix(truth, predicted).tolist()))
    one_hot = np.eye(4)[truth]
    assert found.rmse == pytest.approx(math.sqrt(reference.mean_squared_error(one_hot, items.probabilities)))
    assert found.cross_entropy == pytest.approx(-np.log(items.probabilities[np.arange(len(truth)), truth]).mean())
    for k, genre in enumerate(GENRES):
        row = found.by_genre[genre]
        assert (row.precision, row.recall, row.f1, row.support) == tuple(values[k] for values in each)
        assert row.specificity == pytest.approx(reference.recall_score(truth != k, predicted != k))


def test_bootstrap_rates_are_scikit_learns(predictions: Predictions) -> None:
    found = rates(tally(predictions).sum(axis=0)[None])
    scores = score(predictions, n_resamples=10)
    assert found.accuracy[0] == pytest.approx(scores.accuracy)
    assert found.macro_f1[0] == pytest.approx(scores.macro_f1)
    np.testing.assert_allclose(found.recall[0], [row.recall for row in scores.by_genre.values()])


def test_printed_results_of_a_study() -> None:
    truth, predicted = (np.repeat(index.ravel(), KTH_CNN.ravel()) for index in np.indices((8, 8)))
    items = Predictions(tuple("abcdefgh"), truth, np.eye(8)[predicted], np.arange(800), np.zeros(800), np.arange(800))
    found = score(items, n_resamples=10)
    assert found.accuracy == 0.5025
    assert [round(100 * row.precision, 2) for row in found.by_genre.values()][:2] == [46.77, 37.86]
    assert [round(100 * row.f1, 2) for row in found.by_genre.values()][-1] == 67.66
    assert found.one_vs_rest_accuracy == pytest.approx(1 - (1 - 0.5025) / 4)


def test_one_vs_rest_accuracy_is_the_mean_over_genres(predictions: Predictions) -> None:
    found = score(predictions, n_resamples=10)
    each = [np.mean((predictions.truth == k) == (predictions.predicted == k)) for k in range(4)]
    assert found.one_vs_rest_accuracy == pytest.approx(np.mean(each))


def test_f1_of_means_is_padova2023s() -> None:
    printed = 2 * 37.35 * 34.62 / (37.35 + 34.62)  # of its 1D CNN
    assert printed == pytest.approx(35.94, abs=0.01)
    p = np.eye(2)[[0, 0, 0, 1]]
    items = Predictions(("a", "b"), np.array([0, 0, 1, 1]), p, np.arange(4), np.zeros(4), np.arange(4))
    found = score(items, n_resamples=10)
    precision, recall = (2 / 3 + 1) / 2, (1 + 1 / 2) / 2
    assert found.f1_of_means == pytest.approx(2 * precision * recall / (precision + recall))
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_track_is_the_mean_of_its_slices() -> None:
    p = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]]
    slices = Predictions.from_table(table(["z", "z", "z", "b"], ["x", "x", "x", "y"], np.array(p)), ("x", "y"))
    tracks = slices.by_track()
    np.testing.assert_allclose(tracks.probabilities, [[0.6, 0.4], [1.4 / 3, 1.6 / 3]], rtol=1e-6)  # b, z
    assert tracks.truth.tolist() == [1, 0]
    assert score(slices, n_resamples=10).accuracy == 0.25
    assert score(tracks, n_resamples=10).accuracy == 0


def test_tracks_of_unknown_artists_are_on_their_own() -> None:
    """Not even an artist whose id is the track's id joins them."""
    rows = table(["1", "2", "3", "3"], ["x"] * 4, np.full((4, 2), 0.5), [None, None, "1", "1"])
    groups = Predictions.from_table(rows, ("x", "y")).groups
    assert len(set(groups.tolist())) == 3
    assert groups[2] == groups[3]


def test_intervals_are_seeded_and_widen_with_agreeing_tracks(predictions: Predictions) -> None:
    found = score(predictions, n_resamples=500, seed=3)
    assert found == score(predictions, n_resamples=500, seed=3)
    assert found != score(predictions, n_resamples=500, seed=4)
    alone = score(dataclasses.replace(predictions, groups=np.arange(300)), n_resamples=500)
    for name in ("accuracy_interval", "macro_f1_interval"):
        assert getattr(found, name).width > 1.3 * getattr(alone, name).width
        assert getattr(found, name).low < getattr(found, name.removesuffix("_interval")) < getattr(found, name).high


def test_absent_and_unpredicted_genres() -> None:
    """Nothing of `pop` is in the test set though `pop` is predicted; `rock` is there and never predicted."""
    truth = ["blues", "blues", "jazz", "rock"]
    p = np.eye(4)[[0, 2, 1, 0]]
    items = Predictions.from_table(table(list("1234"), truth, p), GENRES)
    found = score(items, n_resamples=200)
    pop, rock = found.by_genre["pop"], found.by_genre["rock"]
    assert (pop.support, pop.precision, pop.recall, pop.recall_interval, pop.f1) == (0, None, None, None, None)
    assert pop.specificity == 0.75
    assert (rock.support, rock.precision, rock.recall, rock.f1, rock.specificity) == (1, 0, 0, 0, 1)
    assert found.macro_recall == pytest.approx((0.5 + 1 + 0) / 3)
    assert found.macro_precision == pytest.approx((0.5 + 1 + 0) / 3)
    assert found.macro_f1 == pytest.approx((0.5 + 1 + 0) / 3)


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("truth", "predicted"),
    [(["blues"] * 3, [0, 0, 0]), (["blues"] * 3, [1, 1, 1]), (["jazz"], [1]), (["jazz", "pop"], [3, 3])],
)
def test_json_has_no_nan(truth: list[str], predicted: list[int]) -> None:
    items = Predictions.from_table(table([str(i) for i in range(len(truth))], truth, np.eye(4)[predicted]), GENRES)
    found = json.loads(json.dumps(dataclasses.asdict(score(items))), parse_constant=no_constant)
    assert found["by_genre"]["rock"]["recall"] is None
    assert found["accuracy_interval"]["low"] <= found["accuracy"] <= found["accuracy_interval"]["high"]


def test_chance_is_the_better_of_two_guesses(predictions: Predictions) -> None:
    tracks = predictions.by_track()
    assert chance(tracks, None).majority is None
    skewed = chance(tracks, {"rock": 50, "jazz": 10})
    assert skewed.majority == np.mean(tracks.truth == GENRES.index("rock")) == 0.25
    assert skewed.level == 0.25
    assert skewed.p_value < 0.05


def test_refuses_what_cannot_be_scored() -> None:
    good = np.full((1, 2), 0.5)
    with pytest.raises(RunError, match="no slice"):
        Predictions.from_table(table(["1"], ["x"], good).slice(1), ("x", "y"))
    with pytest.raises(RunError, match="'z'"):
        Predictions.from_table(table(["1"], ["z"], good), ("x", "y"))
    for bad in (np.array([[np.nan, 1.0]]), np.array([[0.2, 0.3, 0.5]])):
        with pytest.raises(RunError, match="not probabilities"):
            Predictions.from_table(table(["1"], ["x"], bad), ("x", "y"))
