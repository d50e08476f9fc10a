"""vit2021/cnn layer by layer."""

from shapes import n_params, output_shapes

from models.vit2021 import SegmentCNN


def test_every_layer() -> None:
    model = SegmentCNN(10)
    names = [f"features.{i}" for i in (0, 2, 4, 6, 8, 10)]
    assert output_shapes(model, [*names, "head.0", "head"], 1, 130, 13) == {
        "features.0": (32, 130, 13),
        "features.2": (32, 44, 5),
        "features.4": (32, 44, 5),
        "features.6": (32, 15, 2),
        "features.8": (32, 15, 2),
        "features.10": (32, 5, 1),
        "head.0": (160,),
        "head": (10,),
    }
    layers = [f"features.{i}" for i in (0, 3, 4, 7, 8, 11)] + ["head.1", "head.4"]
    assert [n_params(model, name) for name in layers] == [320, 64, 9_248, 64, 4_128, 64, 10_304, 650]


def test_pooled_before_normalised() -> None:
    kinds = [type(layer).__name__ for layer in SegmentCNN(10).features]
    assert kinds == ["SameConv2d", "ReLU", "SameMaxPool2d", "BatchNorm2d"] * 3
