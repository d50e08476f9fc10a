"""padova2023/cnn2d-mel layer by layer."""

import pytest
import torch
from shapes import n_params, output_shapes

from models.padova2023 import PooledCNN, cnn2d_mel


def test_every_layer() -> None:
    model = cnn2d_mel(8)
    convolutions, pools = [0, 4, 8, 12], [3, 7, 11]
    shapes = output_shapes(model, [f"features.{i}" for i in sorted(convolutions + pools)], 1, 128, 512)
    assert list(shapes.values()) == [
        (16, 128, 512),
        (16, 32, 128),
        (32, 32, 128),
        (32, 8, 16),
        (64, 8, 16),
        (64, 2, 2),
        (128, 2, 2),
    ]
    assert [n_params(model, f"features.{i}") for i in convolutions] == [160, 4_640, 18_496, 73_856]
    assert [n_params(model, f"features.{i + 1}") for i in convolutions] == [32, 64, 128, 256]
    assert n_params(model, "normalise") == 2
    assert [n_params(model, f"head.{i}") for i in (0, 3, 6)] == [32_896, 8_256, 520]


def test_head_reads_maxima_then_means() -> None:
    model = cnn2d_mel(8).eval()
    seen = []
    model.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 1, 128, 512)
    with torch.no_grad():
        model(x)
        maps = model.features(model.normalise(x))
    assert torch.equal(seen[0], torch.cat([maps.flatten(2).max(dim=2).values, maps.flatten(2).mean(dim=2)], dim=1))


def test_least_frames_is_what_the_pools_need() -> None:
    model = cnn2d_mel(8).eval()
    assert isinstance(model, PooledCNN)
    assert model(torch.randn(1, 1, 128, 256)).shape == (1, 8)
    with pytest.raises(RuntimeError):
        model(torch.randn(1, 1, 128, 255))
