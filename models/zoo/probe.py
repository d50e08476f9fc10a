"""Probes: scikit-learn classifiers on what a trained network hears in a track.

They read stores of embeddings, as `mgc embed` makes them, pooled to mean and standard deviation over each track; also
several side by side, and the 518 statistics of the FMA baseline.

A pretrained network gives hundreds of values, a small dataset has dozens of tracks: the classifiers are regularised
far more than scikit-learn does by default. docs/decisions.md says what was tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mgc.models.classical import calibrate
from mgc.models.registry.systems import InputSpec, system

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.pipeline import Pipeline

_TRACK = InputSpec("statistics", features=("embedding", "stats"))


@system("probe/knn", input=_TRACK, kind="classical", grid={"n_neighbors": (1, 3, 5, 10, 15, 30, 50)}, several=True)
def knn(n_classes: int) -> Pipeline:
    """The 5 tracks at the smallest angle, nearer ones with more weight."""
    from sklearn.neighbors import KNeighborsClassifier

    return _pipeline(KNeighborsClassifier(5, metric="cosine", weights="distance", algorithm="brute"))


@system("probe/logreg", input=_TRACK, kind="classical", grid={"C": (1e-4, 1e-3, 0.01, 0.1, 1.0)}, several=True)
def logreg(n_classes: int) -> Pipeline:
    """Multinomial logistic regression with C = 0.001, balanced genres and calibrated probabilities."""
    from sklearn.linear_model import LogisticRegression

    return _pipeline(calibrate(LogisticRegression(C=1e-3, class_weight="balanced", max_iter=5000)))


@system("probe/mlp", input=_TRACK, kind="classical", grid={"alpha": (0.1, 1.0, 10.0, 30.0)}, several=True)
def mlp(n_classes: int) -> Pipeline:
    """A multilayer perceptron with one hidden layer of 100 units and an L2 penalty of 10."""
    from sklearn.neural_network import MLPClassifier

    return _pipeline(MLPClassifier((100,), alpha=10.0, max_iter=2000, random_state=0))


@system("probe/svm", input=_TRACK, kind="classical", grid={"C": (1e-4, 1e-3, 0.01, 0.1)}, several=True)
def svm(n_classes: int) -> Pipeline:
    """A linear support vector machine with C = 0.001, balanced genres and calibrated probabilities."""
    from sklearn.svm import SVC

    return _pipeline(calibrate(SVC(kernel="linear", C=1e-3, class_weight="balanced", break_ties=True)))


def _pipeline(classifier: ClassifierMixin) -> Pipeline:
    """Standardise each value over the training tracks, then classify."""
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline([("standardise", StandardScaler()), ("classify", classifier)])
