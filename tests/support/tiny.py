"""A system that is trained in a second."""

from pathlib import Path

from torch import nn

from mgc.models.registry.systems import InputSpec, System


def build(n_classes: int) -> nn.Module:
    """A convolution with batch norm, and dropout before the last layer."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d((1, 8)),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8 * 8 * 8, n_classes),
    )


INPUT = InputSpec("relative", features=("mel",), bands=8, frames=64)
TINY = System("test/tiny", "neural", INPUT, build, Path(__file__).with_name("tiny.toml"))
