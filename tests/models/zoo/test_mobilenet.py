"""MobileNets against the tables of their papers and torchvision's state-dict keys."""

import pytest
import torch
from shapes import n_params, output_shapes
from torch import nn

from mgc.models.registry.skeleton import build_on_meta
from mgc.models.zoo.mobilenet import MobileNetV1, MobileNetV2, MobileNetV3

# V3, by block: output channels, output side for 224 × 224 pixels, parameters.
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


# V3, by block: kernel, channels of the depthwise convolution, channels of the squeeze gate (None: no gate), stride.
INSIDE = [
    (3, 16, None, 1),
    (3, 64, None, 2),
    (3, 72, None, 1),
    (5, 72, 24, 2),
    (5, 120, 32, 1),
    (5, 120, 32, 1),
    (3, 240, None, 2),
    (3, 200, None, 1),
    (3, 184, None, 1),
    (3, 184, None, 1),
    (3, 480, 120, 1),
    (3, 672, 168, 1),
    (5, 672, 168, 2),
    (5, 960, 240, 1),
    (5, 960, 240, 1),
]


def test_every_layer_of_the_blocks(model: MobileNetV3) -> None:
    """Expansion (except in the first block), depthwise convolution, gate where the paper has one, and dense layers."""
    names = [f"features.{i}.block.{j}" for i in range(1, 16) for j in range(len(model.features[i].block))]
    shapes = output_shapes(model, [*names, "classifier.0", "classifier.3"], 3, 224, 224)
    side = 112
    for i, ((kernel, width, squeeze, stride), (channels, out, _)) in enumerate(zip(INSIDE, BLOCKS, strict=True), 1):
        block = model.features[i].block
        expected = [] if i == 1 else [(width, side, side)]
        expected += [(width, out, out)] * (1 if squeeze is None else 2) + [(channels, out, out)]
        assert [shapes[f"features.{i}.block.{j}"] for j in range(len(block))] == expected
        depthwise = block[0 if i == 1 else 1][0]
        assert (depthwise.kernel_size, depthwise.stride, depthwise.groups) == ((kernel,) * 2, (stride,) * 2, width)
        if squeeze is not None:
            assert block[2].fc1.out_channels == squeeze
        side = out
    assert (shapes["classifier.0"], shapes["classifier.3"]) == ((1280,), (8,))


def test_keys_and_shapes_are_the_reference_ones(model: MobileNetV3) -> None:
    weights = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert len(weights) == 312
    expected = {
        "features.0.0.weight": (16, 3, 3, 3),
        "features.0.1.running_var": (16,),
        "features.1.block.0.0.weight": (16, 1, 3, 3),  # the first block has no expansion
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


# -- V2 -------------------------------------------------------------------------------------------------------------

# By block, one row per group of the paper: output channels, output side for 224 × 224 pixels, stride.
V2 = [
    *[(16, 112, 1)],
    *[(24, 56, 2), (24, 56, 1)],
    *[(32, 28, 2), (32, 28, 1), (32, 28, 1)],
    *[(64, 14, 2), (64, 14, 1), (64, 14, 1), (64, 14, 1)],
    *[(96, 14, 1), (96, 14, 1), (96, 14, 1)],
    *[(160, 7, 2), (160, 7, 1), (160, 7, 1)],
    *[(320, 7, 1)],
]


def v2_params(channels: int, filters: int, expansion: int) -> int:
    """Parameters of a block: 1×1, depthwise 3×3 and 1×1 convolutions, and two batch-norm parameters per channel."""
    width = channels * expansion
    widen = channels * width + 2 * width if expansion > 1 else 0
    return widen + 9 * width + 2 * width + width * filters + 2 * filters


def test_every_layer_of_v2() -> None:
    model = build_on_meta(MobileNetV2, 8)
    names = [f"features.{i}" for i in range(19)]
    shapes = output_shapes(model, [*names, "classifier"], 3, 224, 224)
    blocks = [(channels, side, side) for channels, side, _ in V2]
    assert list(shapes.values()) == [(32, 112, 112), *blocks, (1280, 7, 7), (8,)]
    inputs = [32, *(channels for channels, *_ in V2)]
    params = [v2_params(inputs[i], inputs[i + 1], 6 if i else 1) for i in range(17)]
    assert [n_params(model, name) for name in names] == [3 * 9 * 32 + 64, *params, 320 * 1280 + 2560]
    assert n_params(model, "") == 2_234_120
    assert n_params(build_on_meta(MobileNetV2, 1000), "") == 3_504_872
    inside = output_shapes(model, [f"features.{i}.conv.{j}" for i in range(1, 18) for j in (0, 1)], 3, 224, 224)
    sides = [112, *(side for _, side, _ in V2)]
    assert inside["features.1.conv.0"] == (32, 112, 112)  # depthwise: the first block has no expansion
    for i in range(1, 17):
        width = 6 * inputs[i]
        assert inside[f"features.{i + 1}.conv.0"] == (width, sides[i], sides[i])
        assert inside[f"features.{i + 1}.conv.1"] == (width, sides[i + 1], sides[i + 1])
    residual = [model.features[i + 1].residual for i in range(17)]
    assert residual == [stride == 1 and inputs[i] == inputs[i + 1] for i, (*_, stride) in enumerate(V2)]


def test_keys_of_v2_are_the_reference_ones() -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    convolutions = {"features.0.0", "features.18.0", "features.1.conv.0.0", "features.1.conv.1"}
    norms = {"features.0.1", "features.18.1", "features.1.conv.0.1", "features.1.conv.2"}
    for i in range(2, 18):
        convolutions |= {f"features.{i}.conv.{j}" for j in ("0.0", "1.0", "2")}
        norms |= {f"features.{i}.conv.{j}" for j in ("0.1", "1.1", "3")}
    expected = {f"{name}.weight" for name in convolutions} | {f"{name}.{part}" for name in norms for part in norm}
    model = build_on_meta(MobileNetV2, 8)
    assert set(model.state_dict()) == expected | {"classifier.1.weight", "classifier.1.bias"}
    assert {(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-5, 0.1)}


def test_v2_has_linear_bottlenecks() -> None:
    model = build_on_meta(MobileNetV2, 8)
    assert [type(layer).__name__ for layer in model.features[2].conv] == [
        "Sequential",
        "Sequential",
        "Conv2d",
        "BatchNorm2d",
    ]
    assert {type(m).__name__ for m in model.modules() if "ReLU" in type(m).__name__} == {"ReLU6"}


# -- V1 -------------------------------------------------------------------------------------------------------------

# By block: output channels, output side for 224 × 224 pixels.
V1 = [(64, 112), (128, 56), (128, 56), (256, 28), (256, 28), (512, 14), *[(512, 14)] * 5, (1024, 7), (1024, 7)]


def test_every_layer_of_v1() -> None:
    model = build_on_meta(MobileNetV1, 8)
    names = [f"features.{i}" for i in range(14)]
    shapes = output_shapes(model, [*names, "classifier"], 3, 224, 224)
    assert list(shapes.values()) == [(32, 112, 112), *((channels, side, side) for channels, side in V1), (8,)]
    inputs = [32, *(channels for channels, _ in V1)]
    depthwise = output_shapes(model, [f"features.{i}.0" for i in range(1, 14)], 3, 224, 224)
    assert list(depthwise.values()) == [(inputs[i], side, side) for i, (_, side) in enumerate(V1)]
    # Depthwise 3×3 and 1×1 convolutions, each with two batch-norm parameters per channel.
    params = [9 * inputs[i] + 2 * inputs[i] + inputs[i] * inputs[i + 1] + 2 * inputs[i + 1] for i in range(13)]
    assert [n_params(model, name) for name in names] == [3 * 9 * 32 + 64, *params]
    assert n_params(model, "") == 3_215_176
    assert n_params(build_on_meta(MobileNetV1, 1000), "") == 4_231_976
