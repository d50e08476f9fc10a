"""Baselines on seven moments over the time of each slice, of its MFCCs or of its chroma.

What the FMA baseline takes of whole tracks (Defferrard et al., "FMA: A Dataset for Music Analysis", ISMIR 2017), here
of slices, from a store of mel bands, MFCCs or chroma; on its 518 statistics of tracks are xu2022's kNN, logistic
regression, MLP and SVM. A slice is 140 numbers, of chroma 84, and with `-pca` 30 principal components of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mgc.models.classical import calibrated
from mgc.models.registry.systems import InputSpec, system

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.pipeline import Pipeline

_MOMENTS = InputSpec("moments", features=("mel", "mfcc", "chroma"))
_NEIGHBOURS = {"n_neighbors": (5, 15, 50, 100, 200)}
_MARGINS = {"C": (0.1, 1.0, 10.0), "gamma": ("scale", 0.001, 0.03)}


@system("moments/knn", input=_MOMENTS, kind="classical", grid=_NEIGHBOURS)
def knn(n_classes: int) -> Pipeline:
    """The 15 nearest neighbours, all of one weight."""
    return _on(_knn())


@system("moments/knn-pca", input=_MOMENTS, kind="classical", grid=_NEIGHBOURS)
def knn_pca(n_classes: int) -> Pipeline:
    """The same among principal components."""
    return _on(_knn(), components=30)


@system("moments/logreg", input=_MOMENTS, kind="classical", grid={"C": (0.001, 0.01, 0.1, 1.0, 10.0)})
def logreg(n_classes: int) -> Pipeline:
    """Multinomial logistic regression, C = 1."""
    from sklearn.linear_model import LogisticRegression

    return _on(LogisticRegression(C=1.0, max_iter=1000))


@system("moments/mlp", input=_MOMENTS, kind="classical", grid={"alpha": (1e-4, 1e-2, 1.0)})
def mlp(n_classes: int) -> Pipeline:
    """One hidden layer of 100."""
    from sklearn.neural_network import MLPClassifier

    return _on(MLPClassifier((100,), max_iter=2000, random_state=0))


@system("moments/svm", input=_MOMENTS, kind="classical", grid=_MARGINS)
def svm(n_classes: int) -> Pipeline:
    """A support vector machine with a radial kernel, its decision values calibrated into probabilities."""
    return _on(_svm())


@system("moments/svm-pca", input=_MOMENTS, kind="classical", grid=_MARGINS)
def svm_pca(n_classes: int) -> Pipeline:
    """The same on principal components."""
    return _on(_svm(), components=30)


def _knn() -> ClassifierMixin:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=15, algorithm="brute")


def _svm() -> ClassifierMixin:
    from sklearn.svm import SVC

    return calibrated(SVC(kernel="rbf", C=1.0, gamma="scale", break_ties=True))


def _on(classifier: ClassifierMixin, components: int | None = None) -> Pipeline:
    """The classifier on moments of mean 0 and deviation 1 over the training set, or on components of these."""
    from sklearn.decomposition import IncrementalPCA
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    pca = [("pca", IncrementalPCA(components))] if components else []
    return Pipeline([("standardise", StandardScaler()), *pca, ("classify", classifier)])
