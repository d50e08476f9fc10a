"""Scores of the order of probabilities: area under the ROC curve, average precision, and top-k accuracy.

They ask whether the model ranks the right tracks or genres first, whatever its threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Numbers of genres among which the true one counts as right, besides the first.
TOP_K = (2, 3, 5)


@dataclass(frozen=True)
class OneVsRest:
    """How well the probability of a genre tells its items from all others; None without items of both kinds.

    Attributes:
        roc_auc: probability that an item of the genre has a higher probability of it than another item; a tie counts
            half (Hanley and McNeil, Radiology 143, 1982; scikit-learn's `roc_auc_score`). 0.5 by chance.
        average_precision: mean precision over the recalls, without interpolation (scikit-learn's
            `average_precision_score`). By chance, the genre's share of the items.
    """

    roc_auc: float | None
    average_precision: float | None


def one_vs_rest(truth: np.ndarray, probabilities: np.ndarray) -> list[OneVsRest]:
    """Compute ROC-AUC and average precision of each genre against the rest.

    Args:
        truth: index of the true genre of each item, `(n,)`.
        probabilities: `(n, K)`.
    """
    from sklearn import metrics

    scores = []
    for k, column in enumerate(probabilities.T):
        positive = truth == k
        if positive.any() and not positive.all():
            area, precision = metrics.roc_auc_score(positive, column), metrics.average_precision_score(positive, column)
            scores.append(OneVsRest(float(area), float(precision)))
        else:
            scores.append(OneVsRest(None, None))
    return scores


def mean(values: Sequence[float | None]) -> float | None:
    """Unweighted mean of the values that are defined; None if none is."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def top_k(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """Compute the share of the items whose true genre is among the k most probable, for each k of `TOP_K`.

    As scikit-learn's `top_k_accuracy_score`, but of equally probable genres the first comes first, as it does for the
    accuracy. Of K <= k genres, all are among the first k: the score is None.

    Args:
        truth: index of the true genre of each item, `(n,)`.
        probabilities: `(n, K)`.
    """
    own = probabilities[np.arange(len(truth)), truth][:, None]
    is_earlier = np.arange(probabilities.shape[1]) < truth[:, None]
    rank = ((probabilities > own) | ((probabilities == own) & is_earlier)).sum(axis=1)
    return {str(k): float(np.mean(rank < k)) if k < probabilities.shape[1] else None for k in TOP_K}
