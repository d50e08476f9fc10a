"""Probes: scikit-learn classifiers on what a trained network hears in a track.

They read stores of embeddings, as `mgc embed` makes them, pooled to mean and standard deviation over each track; also
several side by side, and the 518 statistics of the FMA baseline.
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
    """The 15 nearest neighbours, nearer ones with more weight."""
    from sklearn.neighbors import KNeighborsClassifier

    return _pipeline(KNeighborsClassifier(15, weights="distance", algorithm="brute"))


@system("probe/logreg", input=_TRACK, kind="classical", grid={"C": (1e-4, 1e-3, 0.01, 0.1, 1.0)}, several=True)
def logreg(n_classes: int) -> Pipeline:
    """Multinomial logistic regression with C = 0.01."""
    from sklearn.linear_model import LogisticRegression

    return _pipeline(LogisticRegression(C=0.01, max_iter=5000))


@system("probe/mlp", input=_TRACK, kind="classical", grid={"alpha": (0.01, 1.0, 10.0, 100.0)}, several=True)
def mlp(n_classes: int) -> Pipeline:
    """A multilayer perceptron with one hidden layer of 100 units and an L2 penalty of 10."""
    from sklearn.neural_network import MLPClassifier

    return _pipeline(MLPClassifier((100,), alpha=10.0, max_iter=2000, random_state=0))


@system(
    "probe/svm",
    input=_TRACK,
    kind="classical",
    grid={"C": (0.1, 1.0, 10.0), "gamma": ("scale", 1e-4, 1e-3)},
    several=True,
)
def svm(n_classes: int) -> Pipeline:
    """A support vector machine with an RBF kernel and calibrated probabilities."""
    from sklearn.svm import SVC

    return _pipeline(calibrate(SVC(kernel="rbf", C=1.0, gamma="scale", break_ties=True)))


def _pipeline(classifier: ClassifierMixin) -> Pipeline:
    """Standardise each value over the training tracks, then classify."""
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline([("standardise", StandardScaler()), ("classify", classifier)])
