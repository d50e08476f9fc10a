"""scikit-learn baselines on seven statistical moments of each slice's MFCCs or chroma over time.

The moments are those of the FMA baseline (Defferrard et al., "FMA: A Dataset for Music Analysis", ISMIR 2017), which
computes them over whole tracks. Here they are computed per slice, from a store of mel bands, MFCCs or chroma: 140
values for MFCCs, 84 for chroma, or 30 principal components of these with `-pca`. The baselines on all 518 statistics
of a track are xu2022's kNN, logistic regression, MLP and SVM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mgc.models.classical import calibrate
from mgc.models.registry.systems import InputSpec, system

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.pipeline import Pipeline

_MOMENTS = InputSpec("moments", features=("mel", "mfcc", "chroma"))
_NEIGHBOURS_GRID = {"n_neighbors": (5, 15, 50, 100, 200)}
_SVM_GRID = {"C": (0.1, 1.0, 10.0), "gamma": ("scale", 0.001, 0.03)}


@system("moments/knn", input=_MOMENTS, kind="classical", grid=_NEIGHBOURS_GRID)
def knn(n_classes: int) -> Pipeline:
    """The 15 nearest neighbours, with equal weights."""
    return _pipeline(_knn())


@system("moments/knn-pca", input=_MOMENTS, kind="classical", grid=_NEIGHBOURS_GRID)
def knn_pca(n_classes: int) -> Pipeline:
    """The 15 nearest neighbours, with equal weights, among 30 principal components."""
    return _pipeline(_knn(), components=30)


@system("moments/logreg", input=_MOMENTS, kind="classical", grid={"C": (0.001, 0.01, 0.1, 1.0, 10.0)})
def logreg(n_classes: int) -> Pipeline:
    """Multinomial logistic regression with C = 1."""
    from sklearn.linear_model import LogisticRegression

    return _pipeline(LogisticRegression(C=1.0, max_iter=1000))


@system("moments/mlp", input=_MOMENTS, kind="classical", grid={"alpha": (1e-4, 1e-2, 1.0)})
def mlp(n_classes: int) -> Pipeline:
    """A multilayer perceptron with one hidden layer of 100 units."""
    from sklearn.neural_network import MLPClassifier

    return _pipeline(MLPClassifier((100,), max_iter=2000, random_state=0))


@system("moments/svm", input=_MOMENTS, kind="classical", grid=_SVM_GRID)
def svm(n_classes: int) -> Pipeline:
    """A support vector machine with an RBF kernel and calibrated probabilities."""
    return _pipeline(_svm())


@system("moments/svm-pca", input=_MOMENTS, kind="classical", grid=_SVM_GRID)
def svm_pca(n_classes: int) -> Pipeline:
    """A support vector machine with an RBF kernel and calibrated probabilities, on 30 principal components."""
    return _pipeline(_svm(), components=30)


def _knn() -> ClassifierMixin:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=15, algorithm="brute")


def _svm() -> ClassifierMixin:
    from sklearn.svm import SVC

    return calibrate(SVC(kernel="rbf", C=1.0, gamma="scale", break_ties=True))


def _pipeline(classifier: ClassifierMixin, components: int | None = None) -> Pipeline:
    """Build a pipeline that standardises moments, optionally projects them to principal components, and classifies.

    Args:
        classifier: the last step.
        components: number of principal components; None leaves out the projection.
    """
    from sklearn.decomposition import IncrementalPCA
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    pca = [("pca", IncrementalPCA(components))] if components else []
    return Pipeline([("standardise", StandardScaler()), *pca, ("classify", classifier)])
