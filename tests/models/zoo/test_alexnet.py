"""AlexNet: shapes and parameters of every layer, and torchvision's state-dict keys."""

from shapes import n_params, output_shapes

from mgc.models.registry.skeleton import build_on_meta
from mgc.models.zoo.alexnet import AlexNet

# By layer: output channels, output side for 224 × 224 pixels, parameters. ReLU and dropout are left out.
FEATURES = {
    0: (64, 55, 23_296),
    2: (64, 27, 0),
    3: (192, 27, 307_392),
    5: (192, 13, 0),
    6: (384, 13, 663_936),
    8: (256, 13, 884_992),
    10: (256, 13, 590_080),
    12: (256, 6, 0),
}
CLASSIFIER = {1: (4096, 37_752_832), 4: (4096, 16_781_312), 6: (8, 32_776)}


def test_every_layer() -> None:
    model = build_on_meta(AlexNet, 8)
    names = [*(f"features.{i}" for i in FEATURES), "pool", *(f"classifier.{i}" for i in CLASSIFIER)]
    shapes = output_shapes(model, names, 3, 224, 224)
    assert list(shapes.values()) == [
        *((channels, side, side) for channels, side, _ in FEATURES.values()),
        (256, 6, 6),
        *((width,) for width, _ in CLASSIFIER.values()),
    ]
    expected = [*(params for *_, params in FEATURES.values()), 0, *(params for _, params in CLASSIFIER.values())]
    assert [n_params(model, name) for name in names] == expected
    assert n_params(model, "") == 57_036_616
    assert n_params(build_on_meta(AlexNet, 1000), "") == 61_100_840


def test_keys_are_the_reference_ones() -> None:
    layers = [*(f"features.{i}" for i in (0, 3, 6, 8, 10)), *(f"classifier.{i}" for i in (1, 4, 6))]
    expected = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
    assert list(build_on_meta(AlexNet, 8).state_dict()) == expected


def test_dropout_before_the_first_two_dense_layers() -> None:
    model = build_on_meta(AlexNet, 8)
    kinds = [(type(layer).__name__, getattr(layer, "p", None)) for layer in model.classifier]
    dropout, linear, relu = ("Dropout", 0.5), ("Linear", None), ("ReLU", None)
    assert kinds == [dropout, linear, relu, dropout, linear, relu, linear]


def test_smallest_picture() -> None:
    model = build_on_meta(AlexNet, 8)
    assert output_shapes(model, ["features.12", "classifier.6"], 3, 63, 63) == {
        "features.12": (256, 1, 1),
        "classifier.6": (8,),
    }
