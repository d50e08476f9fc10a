"""Xu et al., "Research on Music Genre Classification Based on Residual Network", 2022: networks on STFT pictures.

The study varies the number of blocks in ResNet-101 and compares it with other networks, without naming their variants.
Of the MobileNets, V3-Large with 8 classes has the printed size of 16.2 MB; V1 and V2 are the other possible readings.
The study also adds an attention mechanism without naming it: squeeze-and-excitation or CBAM. It cites four classical
systems.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from mgc.models.registry.systems import InputSpec, system
from mgc.models.zoo.alexnet import AlexNet
from mgc.models.zoo.attention import ConvolutionalAttention, SqueezeExcitation
from mgc.models.zoo.googlenet import GoogLeNet
from mgc.models.zoo.mobilenet import MobileNetV1, MobileNetV2, MobileNetV3
from mgc.models.zoo.resnet import ResNet

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.pipeline import Pipeline

# The study also feeds power spectra, chroma and MFCCs to its best network. Any other feature of frames × bins can be
# shown as a picture, too.
_PICTURE = InputSpec("picture", features=("stft", "power", "chroma", "mfcc", "mel", "harmonic", "percussive"))
_STATISTICS = InputSpec("statistics", features=("stats",), bands=518, frames=1)
_HIDDEN = 100

#: Blocks per stage in the rows of Table 1; rows 4 and 7 have the same setting. The last is ResNet-101.
SETTINGS = (
    (3, 8, 23, 3),
    (6, 4, 23, 3),
    (3, 4, 32, 3),
    (4, 6, 25, 6),
    (5, 6, 26, 5),
    (4, 5, 24, 4),
    (3, 4, 20, 3),
    (2, 3, 22, 2),
    (3, 4, 23, 3),
)
_RESNET101 = SETTINGS[-1]

for _blocks in SETTINGS:
    system(f"xu2022/resnet-{'-'.join(map(str, _blocks))}", input=_PICTURE)(partial(ResNet, _blocks))

_resnext = partial(ResNet, _RESNET101, groups=32, width_per_group=8)


@system("xu2022/resnext101-32x8d", input=_PICTURE)
def resnext101_32x8d(n_classes: int) -> nn.Module:
    """ResNeXt-101 32x8d: 86,758,728 parameters with 8 classes."""
    return _resnext(n_classes)


@system("xu2022/se-resnet101", input=_PICTURE)
def se_resnet101(n_classes: int) -> nn.Module:
    """ResNet-101 with squeeze-and-excitation: 47,294,264 parameters with 8 classes."""
    return ResNet(_RESNET101, n_classes, attention=SqueezeExcitation)


@system("xu2022/se-resnext101-32x8d", input=_PICTURE)
def se_resnext101_32x8d(n_classes: int) -> nn.Module:
    """ResNeXt-101 32x8d with squeeze-and-excitation: 91,536,440 parameters with 8 classes."""
    return _resnext(n_classes, attention=SqueezeExcitation)


@system("xu2022/cbam-resnet101", input=_PICTURE)
def cbam_resnet101(n_classes: int) -> nn.Module:
    """ResNet-101 with CBAM: 47,262,954 parameters with 8 classes."""
    return ResNet(_RESNET101, n_classes, attention=ConvolutionalAttention)


@system("xu2022/cbam-resnext101-32x8d", input=_PICTURE)
def cbam_resnext101_32x8d(n_classes: int) -> nn.Module:
    """ResNeXt-101 32x8d with CBAM: 91,505,130 parameters with 8 classes."""
    return _resnext(n_classes, attention=ConvolutionalAttention)


@system("xu2022/mobilenet", input=_PICTURE)
def mobilenet(n_classes: int) -> nn.Module:
    """MobileNetV3-Large: 4,212,280 parameters with 8 classes."""
    return MobileNetV3(n_classes)


@system("xu2022/mobilenet-v2", input=_PICTURE)
def mobilenet_v2(n_classes: int) -> nn.Module:
    """MobileNetV2: 2,234,120 parameters with 8 classes."""
    return MobileNetV2(n_classes)


@system("xu2022/mobilenet-v1", input=_PICTURE)
def mobilenet_v1(n_classes: int) -> nn.Module:
    """MobileNetV1: 3,215,176 parameters with 8 classes."""
    return MobileNetV1(n_classes)


@system("xu2022/alexnet", input=_PICTURE)
def alexnet(n_classes: int) -> nn.Module:
    """AlexNet: 57,036,616 parameters with 8 classes."""
    return AlexNet(n_classes)


@system("xu2022/googlenet", input=_PICTURE)
def googlenet(n_classes: int) -> nn.Module:
    """GoogLeNet: 5,608,104 parameters with 8 classes, and 4,346,384 in the heads that only training uses."""
    return GoogLeNet(n_classes)


def _mlp_size(n_classes: int) -> int:
    """Number of weights and biases of the MLP."""
    # scikit-learn's MLPClassifier has a single output unit for two classes.
    outputs = n_classes if n_classes > 2 else 1
    return (518 + 1) * _HIDDEN + (_HIDDEN + 1) * outputs


@system("xu2022/knn", input=_STATISTICS, kind="classical", grid={"n_neighbors": (10, 20, 50, 100, 200)})
def knn(n_classes: int) -> Pipeline:
    """The 200 nearest neighbours, with equal weights."""
    from sklearn.neighbors import KNeighborsClassifier

    # Brute force is exact, and the fastest search in 518 dimensions.
    return _standardised_pipeline(KNeighborsClassifier(n_neighbors=200, algorithm="brute"))


@system("xu2022/logreg", input=_STATISTICS, kind="classical", grid={"C": (0.001, 0.01, 0.1, 1.0, 10.0)})
def logreg(n_classes: int) -> Pipeline:
    """Multinomial logistic regression with C = 1."""
    from sklearn.linear_model import LogisticRegression

    return _standardised_pipeline(LogisticRegression(C=1.0, max_iter=1000))


@system("xu2022/mlp", input=_STATISTICS, kind="classical", size=_mlp_size, grid={"alpha": (1e-4, 1e-2, 1.0)})
def mlp(n_classes: int) -> Pipeline:
    """A multilayer perceptron with one hidden layer of 100 units: 52,708 parameters with 8 classes."""
    from sklearn.neural_network import MLPClassifier

    return _standardised_pipeline(MLPClassifier((_HIDDEN,), max_iter=2000, random_state=0))


@system(
    "xu2022/svm",
    input=_STATISTICS,
    kind="classical",
    grid={"C": (0.1, 1.0, 10.0), "gamma": ("scale", 0.0003, 0.01)},
)
def svm(n_classes: int) -> Pipeline:
    """A support vector machine with an RBF kernel and calibrated probabilities."""
    from sklearn.svm import SVC

    from mgc.models.classical import calibrate

    # break_ties: equal votes of the one-vs-one machines go to the most confident class, as in the probabilities, and
    # not to the first one.
    return _standardised_pipeline(calibrate(SVC(kernel="rbf", C=1.0, gamma="scale", break_ties=True)))


def _standardised_pipeline(classifier: ClassifierMixin) -> Pipeline:
    """Build a pipeline that scales each statistic to mean 0 and standard deviation 1, then classifies."""
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline([("standardise", StandardScaler()), ("classify", classifier)])
