"""AlexNet in one column, without local response normalisation.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014. The state dict has the keys and
shapes of torchvision's `alexnet`, so that public weights load.
"""

from __future__ import annotations

from torch import Tensor, nn


class AlexNet(nn.Module):
    """AlexNet: five convolutions and three dense layers, with PyTorch's default initial weights.

    With 8 classes it has 57 million parameters, 54 million of them in the dense layers.

    Args:
        n_classes: number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
        )
        self.pool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures `(batch, 3, height, width)` to logits `(batch, n_classes)`.

        The study uses 224 × 224 pixels. Below 63 × 63 the pools leave an empty map, and PyTorch raises.
        """
        return self.classifier(self.pool(self.features(x)).flatten(1))
