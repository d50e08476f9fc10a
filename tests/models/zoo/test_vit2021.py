"""vit2021: shapes and parameters of every layer."""

import pytest
import torch
from shapes import n_params, output_shapes
from torch import nn

from mgc.models.zoo.vit2021 import SegmentCNN, SegmentLSTM, cnn_tutorial, mlp, mlp_plain

SEGMENT = (1, 130, 13)


def test_every_layer_of_the_cnn() -> None:
    model = SegmentCNN(10)
    names = [f"features.{i}" for i in (0, 2, 4, 6, 8, 10)]
    assert output_shapes(model, [*names, "head.0", "head"], *SEGMENT) == {
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


def test_every_layer_of_the_cnn_with_the_courses_pools() -> None:
    model = cnn_tutorial(10)
    names = [f"features.{i}" for i in (0, 2, 4, 6, 8, 10)]
    assert output_shapes(model, [*names, "head.0", "head"], *SEGMENT) == {
        "features.0": (32, 128, 11),
        "features.2": (32, 64, 6),
        "features.4": (32, 62, 4),
        "features.6": (32, 31, 2),
        "features.8": (32, 30, 1),
        "features.10": (32, 15, 1),
        "head.0": (480,),
        "head": (10,),
    }
    layers = [f"features.{i}" for i in (0, 3, 4, 7, 8, 11)] + ["head.1", "head.4"]
    assert [n_params(model, name) for name in layers] == [320, 64, 9_248, 64, 4_128, 64, 30_784, 650]


@pytest.mark.parametrize("course_pools", [False, True])
def test_pools_come_before_batch_norm(course_pools: bool) -> None:
    kinds = [type(layer).__name__ for layer in SegmentCNN(10, course_pools).features]
    assert kinds == ["Conv2d" if course_pools else "SameConv2d", "ReLU", "SameMaxPool2d", "BatchNorm2d"] * 3


def test_every_layer_of_the_mlp() -> None:
    model = mlp(10)
    shapes = output_shapes(model, ["0", "1", "4", "7", "10"], *SEGMENT)
    assert list(shapes.values()) == [(1690,), (512,), (256,), (128,), (10,)]
    assert [n_params(model, str(i)) for i in (1, 4, 7, 10)] == [865_792, 131_328, 32_896, 1_290]


def test_only_one_of_the_mlps_has_dropout() -> None:
    rates = [[layer.p for layer in build(10) if isinstance(layer, nn.Dropout)] for build in (mlp, mlp_plain)]
    assert rates == [[0.3] * 3, [0.0] * 3]


def test_every_layer_of_the_lstm() -> None:
    model = SegmentLSTM(10)
    assert list(output_shapes(model, ["head.0", "head"], *SEGMENT).values()) == [(64,), (10,)]
    layers = [[p.numel() for name, p in model.lstm.named_parameters() if name.endswith(f"l{i}")] for i in (0, 1)]
    assert [sum(sizes) for sizes in layers] == [20_224, 33_280]
    assert [n_params(model, f"head.{i}") for i in (0, 3)] == [4_160, 650]


def test_the_lstm_steps_along_time_and_returns_the_last_state_of_its_second_layer() -> None:
    model, x = SegmentLSTM(10).eval(), torch.randn(2, *SEGMENT)
    with torch.no_grad():
        sequence, _ = model.lstm(x[:, 0])
        torch.testing.assert_close(model(x), model.head(sequence[:, 129]))
