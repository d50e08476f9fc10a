"""MobileNetV3-Large against the tables of its paper and the keys of the reference implementation."""

import pytest
import torch
from shapes import n_params, output_shapes

from models.xu2022 import MobileNetV3

# Output (channels, side) at 224 × 224 and parameters, by block.
BLOCKS = [
    (16, 112, 464),
    (24, 56, 3_440),
    (24, 56, 4_440),
    (40, 28, 10_328),
    (40, 28, 20_992),
    (40, 28, 20_992),
    (80, 14, 32_080),
    (80, 14, 34_760),
    (80, 14, 31_992),
    (80, 14, 31_992),
    (112, 14, 214_424),
    (112, 14, 386_120),
    (160, 7, 429_224),
    (160, 7, 797_360),
    (160, 7, 797_360),
]


@pytest.fixture(scope="module")
def model() -> MobileNetV3:
    return MobileNetV3(8)


def test_every_layer(model: MobileNetV3) -> None:
    names = [f"features.{i}" for i in range(17)]
    shapes = output_shapes(model, names, 3, 224, 224)
    assert list(shapes.values()) == [
        (16, 112, 112),
        *((channels, side, side) for channels, side, _ in BLOCKS),
        (960, 7, 7),
    ]
    assert [n_params(model, name) for name in names] == [464, *(params for *_, params in BLOCKS), 155_520]
    assert n_params(model, "classifier") == 1_240_328


def test_keys_and_shapes_are_the_reference_ones(model: MobileNetV3) -> None:
    weights = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert len(weights) == 312
    expected = {
        "features.0.0.weight": (16, 3, 3, 3),
        "features.0.1.running_var": (16,),
        "features.1.block.0.0.weight": (16, 1, 3, 3),  # the first block does not widen
        "features.1.block.1.0.weight": (16, 16, 1, 1),
        "features.2.block.0.0.weight": (64, 16, 1, 1),
        "features.4.block.1.0.weight": (72, 1, 5, 5),
        "features.4.block.2.fc1.weight": (24, 72, 1, 1),
        "features.4.block.2.fc2.bias": (72,),
        "features.4.block.3.0.weight": (40, 72, 1, 1),
        "features.7.block.2.1.num_batches_tracked": (),
        "features.13.block.1.0.weight": (672, 1, 5, 5),
        "features.15.block.3.0.weight": (160, 960, 1, 1),
        "features.16.0.weight": (960, 160, 1, 1),
        "classifier.0.weight": (1280, 960),
        "classifier.3.weight": (8, 1280),
    }
    assert expected.items() <= weights.items()


def test_activations(model: MobileNetV3) -> None:
    kinds = {i: {type(m).__name__ for m in model.features[i].modules()} & {"ReLU", "Hardswish"} for i in range(17)}
    assert kinds == {i: {"ReLU"} if 1 <= i <= 6 else {"Hardswish"} for i in range(17)}


def test_residuals_where_stride_and_width_allow(model: MobileNetV3) -> None:
    # The number of each block that adds its input, counted from 1 as in the paper's table.
    assert [i for i in range(1, 16) if model.features[i].residual] == [1, 3, 5, 6, 8, 9, 10, 12, 14, 15]


def test_squeeze_gate_is_a_hard_sigmoid(model: MobileNetV3) -> None:
    gate = model.features[4].block[2]
    x = torch.randn(2, 72, 5, 5)
    hidden = torch.relu(x.mean(dim=(2, 3)) @ gate.fc1.weight[:, :, 0, 0].T + gate.fc1.bias)
    weights = hidden @ gate.fc2.weight[:, :, 0, 0].T + gate.fc2.bias
    expected = x * ((weights + 3).clamp(0, 6) / 6)[:, :, None, None]
    torch.testing.assert_close(gate(x), expected)
