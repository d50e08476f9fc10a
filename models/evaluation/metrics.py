"""Scores of a classifier, by slice and by track.

Scikit-learn computes the scores; only those of bootstrap samples, of which there are thousands, are vectorised here.
A genre without a test item has no recall: its scores are None, and the macro averages leave it out. A genre that is
never predicted has precision 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.evaluation import calibration, intervals, joining, ranking
from mgc.models.evaluation.intervals import Chance, Interval
from mgc.pipeline.errors import RunError


@dataclass(frozen=True)
class Predictions:
    """Predictions for n items, which are slices or tracks, and their true genres.

    Attributes:
        genres: the K genres in the order of the model's outputs.
        truth: index of the true genre of each item, int64 `(n,)`.
        probabilities: float64 `(n, K)`; each row adds up to 1.
        tracks: track id of each item, `(n,)`, ascending.
        starts: start of each slice in its track in seconds, float64 `(n,)`, ascending within a track; 0 for tracks.
        groups: index of the artist of each item, int64 `(n,)`; a track of an unknown artist has an index of its own.
    """

    genres: tuple[str, ...]
    truth: np.ndarray
    probabilities: np.ndarray
    tracks: np.ndarray
    starts: np.ndarray
    groups: np.ndarray

    @classmethod
    def from_table(cls, table: pa.Table, genres: Sequence[str]) -> Predictions:
        """Convert a prediction table, one row per slice.

        Args:
            table: table with the columns `track_id`, `start_s`, `genre`, `artist_id` (null if unknown) and
                `probabilities` (list of float32); rows in any order.
            genres: genres in the order of the probabilities.

        Raises:
            RunError: the table is empty, a genre is not one of `genres`, or the values are not probabilities: NaN,
                infinite, or too few or too many.
        """
        if not len(table):
            raise RunError("there is no slice to evaluate", "choose another split with --split")
        table = table.sort_by([("track_id", "ascending"), ("start_s", "ascending")])
        truth = pc.index_in(table["genre"], value_set=pa.array(genres, pa.string()))
        if truth.null_count:
            genre = table["genre"].filter(pc.is_null(truth))[0].as_py()
            raise RunError(f"a track of genre {genre!r}, which is not a class of the run", "train a new run")
        flat = table["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        if flat.size != len(table) * len(genres) or not np.isfinite(flat).all():
            problem = "the outputs of the model are not probabilities, but NaN, infinite or of the wrong number"
            raise RunError(problem, "train it again with a lower learning rate: --lr")
        probabilities = flat.astype(np.float64).reshape(len(table), len(genres))
        tracks = table["track_id"]
        artists = pc.if_else(
            pc.is_null(table["artist_id"]),
            pc.binary_join_element_wise("track", tracks, ":"),
            pc.binary_join_element_wise("artist", table["artist_id"], ":"),
        )
        return cls(
            genres=tuple(genres),
            truth=truth.to_numpy().astype(np.int64),
            probabilities=probabilities / probabilities.sum(axis=1, keepdims=True),
            tracks=tracks.to_numpy(),
            starts=table["start_s"].to_numpy(),
            groups=np.unique(artists.to_numpy(), return_inverse=True)[1],
        )

    def by_track(self, join: str = joining.JOINS[0]) -> Predictions:
        """Join the probabilities of the slices of each track, see `joining.join`; the result has one item per track."""
        tracks, first = np.unique(self.tracks, return_index=True)
        joined = joining.join(self.probabilities, first, join)
        return Predictions(self.genres, self.truth[first], joined, tracks, np.zeros(len(tracks)), self.groups[first])

    @property
    def predicted(self) -> np.ndarray:
        """Index of the most probable genre of each item, the first one of equals, int64 `(n,)`."""
        return self.probabilities.argmax(axis=1)

    @property
    def group_sizes(self) -> np.ndarray:
        """Number of items of each group, int64 `(groups,)`."""
        return np.bincount(self.groups)


@dataclass(frozen=True)
class GenreScores:
    """Scores of one genre; if it has no item (`support` 0), they are None but for `specificity`."""

    support: int
    precision: float | None
    recall: float | None
    recall_interval: Interval | None
    f1: float | None
    specificity: float | None
    roc_auc: float | None
    average_precision: float | None


@dataclass(frozen=True)
class Scores:
    """Scores of slices or of tracks.

    Attributes:
        n: number of items.
        accuracy: share of the items whose most probable genre is the true one.
        balanced_accuracy: the same if each genre counted as much as any other: the macro recall (Brodersen et al., ICPR
            2010; scikit-learn's `balanced_accuracy_score`).
        mcc: Matthews correlation coefficient of true and predicted genre, from -1 to 1, 0 by chance (for K genres:
            Gorodkin, Comput. Biol. Chem. 28, 2004; scikit-learn's `matthews_corrcoef`); 0 if there is one true or one
            predicted genre only.
        macro_precision, macro_recall, macro_f1: unweighted means over the genres that have items.
        f1_of_means: harmonic mean of macro precision and macro recall, which padova2023 reports as F1.
        one_vs_rest_accuracy: mean over the genres of the accuracy of "this genre or not", `1 - 2 (1 - accuracy) / K`:
            78.1 % by chance for 8 genres (padova2023).
        rmse: root of the mean squared difference between probabilities and one-hot truth, over items and genres.
        cross_entropy: mean of -ln p(true genre), in nats; a probability of 0 counts as 2.2e-16.
        roc_auc, average_precision: unweighted means over the genres for which they are defined, see
            `ranking.OneVsRest`; None if there is none.
        top_k: share of the items whose true genre is among the 2, 3 and 5 most probable, see `ranking.top_k`.
        ece: expected calibration error, see `calibration.expected_calibration_error`.
        reliability: bins of a reliability diagram.
        confusion: number of items by true genre (row) and predicted genre (column).
        by_genre: scores of each genre.
    """

    n: int
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    mcc: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    macro_f1_interval: Interval
    f1_of_means: float
    one_vs_rest_accuracy: float
    rmse: float
    cross_entropy: float
    roc_auc: float | None
    average_precision: float | None
    top_k: dict[str, float | None]
    ece: float
    reliability: tuple[calibration.Bin, ...]
    confusion: tuple[tuple[int, ...], ...]
    by_genre: dict[str, GenreScores]


def score(predictions: Predictions, *, n_resamples: int = 2000, seed: int = 0) -> Scores:
    """Compute all scores, with confidence intervals from `n_resamples` bootstrap samples of the groups."""
    from sklearn import metrics

    truth, predicted, n_genres = predictions.truth, predictions.predicted, len(predictions.genres)
    probabilities = predictions.probabilities
    labels = np.arange(n_genres)
    confusion = metrics.confusion_matrix(truth, predicted, labels=labels)
    present = np.flatnonzero(confusion.sum(axis=1))
    macro = metrics.precision_recall_fscore_support(truth, predicted, labels=present, average="macro", zero_division=0)
    precision, recall, f1 = (float(value) for value in macro[:3])
    accuracy = float(metrics.accuracy_score(truth, predicted))
    counts = tally(predictions)
    resampled = rates(intervals.resample(counts, n_resamples, seed))
    sizes = predictions.group_sizes
    one_vs_rest = ranking.one_vs_rest(truth, probabilities)
    bins = calibration.reliability(truth, probabilities)
    return Scores(
        n=len(truth),
        accuracy=accuracy,
        accuracy_interval=intervals.interval(accuracy, resampled.accuracy, sizes),
        balanced_accuracy=recall,
        mcc=_matthews(confusion),
        macro_precision=precision,
        macro_recall=recall,
        macro_f1=f1,
        macro_f1_interval=intervals.interval(f1, resampled.macro_f1, sizes),
        f1_of_means=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        one_vs_rest_accuracy=1 - 2 * (1 - accuracy) / n_genres,
        rmse=float(np.sqrt(np.mean((probabilities - np.eye(n_genres)[truth]) ** 2))),
        cross_entropy=float(metrics.log_loss(truth, probabilities, labels=labels)),
        roc_auc=ranking.mean([genre.roc_auc for genre in one_vs_rest]),
        average_precision=ranking.mean([genre.average_precision for genre in one_vs_rest]),
        top_k=ranking.top_k(truth, probabilities),
        ece=calibration.expected_calibration_error(bins),
        reliability=bins,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        by_genre=_by_genre(predictions, confusion, resampled.recall, counts[:, 1], one_vs_rest),
    )


def _matthews(confusion: np.ndarray) -> float:
    """Matthews correlation coefficient of a confusion matrix, `(K, K)`; 0 if it is undefined."""
    n, right = float(confusion.sum()), float(confusion.trace())
    true, predicted = confusion.sum(axis=1).astype(float), confusion.sum(axis=0).astype(float)
    spread = (n**2 - true @ true) * (n**2 - predicted @ predicted)
    return float((n * right - true @ predicted) / np.sqrt(spread)) if spread else 0.0


def headline(predictions: Predictions) -> dict[str, float]:
    """Compute accuracy and macro F1 only, without intervals."""
    point = rates(tally(predictions).sum(axis=0))
    return {"accuracy": float(point.accuracy), "macro_f1": float(point.macro_f1)}


def chance(predictions: Predictions, training_tracks: dict[str, int] | None) -> Chance:
    """Test whether a model is better than guessing; see `intervals.chance`.

    Args:
        predictions: predictions by track.
        training_tracks: number of training tracks of each genre; None if unknown.
    """
    majority = None
    if training_tracks:
        commonest = max(predictions.genres, key=lambda genre: training_tracks.get(genre, 0))
        majority = float(np.mean(predictions.truth == predictions.genres.index(commonest)))
    correct = int(np.sum(predictions.predicted == predictions.truth))
    return intervals.chance(correct, predictions.group_sizes, 1 / len(predictions.genres), majority)


@dataclass(frozen=True)
class Rates:
    """Accuracy `(...)`, macro F1 `(...)` and recall `(..., K)` of bootstrap samples; NaN if undefined."""

    accuracy: np.ndarray
    macro_f1: np.ndarray
    recall: np.ndarray


def rates(counts: np.ndarray) -> Rates:
    """Compute the scores that get confidence intervals, from counts as of `tally`, `(..., 3, K)`.

    The macro F1 is the mean over the genres that a sample has items of: since few artists play each genre, many
    bootstrap samples lack a genre, and counting it as 0 would bias the distribution.
    """
    hits, support, predicted = np.moveaxis(counts, -2, 0)
    with np.errstate(invalid="ignore"):  # 0/0 is NaN: undefined
        recall = hits / support
        f1 = np.where(support > 0, 2 * hits / (support + predicted), 0)
        return Rates(hits.sum(axis=-1) / support.sum(axis=-1), f1.sum(axis=-1) / (support > 0).sum(axis=-1), recall)


def tally(predictions: Predictions) -> np.ndarray:
    """Count the items of each group and genre: correct, true and predicted ones, int64 `(groups, 3, K)`."""
    shape = len(predictions.group_sizes), len(predictions.genres)
    groups, truth, predicted = predictions.groups, predictions.truth, predictions.predicted
    right = truth == predicted
    cells = (groups[right], truth[right]), (groups, truth), (groups, predicted)
    counts = [np.bincount(np.ravel_multi_index(cell, shape), minlength=shape[0] * shape[1]) for cell in cells]
    return np.stack(counts).reshape(3, *shape).swapaxes(0, 1)


def _by_genre(
    predictions: Predictions,
    confusion: np.ndarray,
    resampled_recall: np.ndarray,
    group_supports: np.ndarray,
    one_vs_rest: Sequence[ranking.OneVsRest],
) -> dict[str, GenreScores]:
    """Compute the scores of each genre.

    Args:
        predictions: predictions of the items.
        confusion: confusion matrix of the items, `(K, K)`.
        resampled_recall: recall of each bootstrap sample, `(resamples, K)`.
        group_supports: number of items of each group and genre, `(groups, K)`.
        one_vs_rest: ROC-AUC and average precision of each genre.
    """
    from sklearn import metrics

    table = metrics.precision_recall_fscore_support(
        predictions.truth, predictions.predicted, labels=np.arange(len(predictions.genres)), zero_division=0
    )
    n, predicted = confusion.sum(), confusion.sum(axis=0)
    scores = {}
    for k, (genre, precision, recall, f1, support) in enumerate(zip(predictions.genres, *table, strict=True)):
        others = n - support
        specificity = float(1 - (predicted[k] - confusion[k, k]) / others) if others else None
        ranks = one_vs_rest[k].roc_auc, one_vs_rest[k].average_precision
        if support:
            sizes = group_supports[:, k]
            spread = intervals.interval(float(recall), resampled_recall[:, k], sizes[sizes > 0])
            scores[genre] = GenreScores(
                int(support), float(precision), float(recall), spread, float(f1), specificity, *ranks
            )
        else:
            scores[genre] = GenreScores(0, None, None, None, None, specificity, *ranks)
    return scores
