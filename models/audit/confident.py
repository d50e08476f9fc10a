"""Confident learning: labels that out-of-fold probabilities contradict.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ConfidentJoint:
    """Counts of given labels and of the labels that a model is confident of.

    Attributes:
        thresholds: mean probability of each class over the items labelled so, float64 `(K,)`; NaN for a class without
            items (equation 2 of the paper).
        counts: number of items by given label (row) and confident label (column), int64 `(K, K)`: the confident joint
            (equation 1). Items that reach the threshold of no class are not counted.
        suspects: rows of the items whose confident label is not the given one, and more probable than it; by falling
            margin. (The paper's off-diagonal items may have a given label that is the most probable one; a model does
            not contradict such a label, and they are left out here.)
        labels: confident label of each suspect, int64 `(suspects,)`.
        margins: how much more probable it is than the given label, float64 `(suspects,)`.
    """

    thresholds: np.ndarray
    counts: np.ndarray
    suspects: np.ndarray
    labels: np.ndarray
    margins: np.ndarray


def confident_joint(probabilities: np.ndarray, labels: np.ndarray) -> ConfidentJoint:
    """Compute the confident joint, and rank the items that it contradicts by their margin.

    Args:
        probabilities: out-of-fold probabilities, float64 `(n, K)`.
        labels: given labels, int64 `(n,)`.
    """
    n, n_classes = probabilities.shape
    own = probabilities[np.arange(n), labels]
    support = np.bincount(labels, minlength=n_classes)
    with np.errstate(invalid="ignore"):  # 0/0 is NaN, which no probability reaches
        thresholds = np.bincount(labels, own, minlength=n_classes) / support
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    best = reached.argmax(axis=1)
    is_confident = reached.max(axis=1) >= 0
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (labels[is_confident], best[is_confident]), 1)
    margins = probabilities[np.arange(n), best] - own
    rows = np.flatnonzero(is_confident & (best != labels) & (margins > 0))
    rows = rows[np.argsort(-margins[rows], kind="stable")]
    return ConfidentJoint(thresholds, counts, rows, best[rows], margins[rows])


def noise(joint: ConfidentJoint, labels: np.ndarray) -> float:
    """Estimate the share of wrong labels: the mass beside the diagonal of the calibrated joint (equation 3).

    Args:
        joint: the confident joint.
        labels: the given labels that it was computed from, int64 `(n,)`.
    """
    support, counted = np.bincount(labels, minlength=len(joint.counts)), joint.counts.sum(axis=1)
    right = np.divide(joint.counts.diagonal(), counted, out=np.ones(len(counted)), where=counted > 0)
    return float(1 - right @ support / support.sum())
