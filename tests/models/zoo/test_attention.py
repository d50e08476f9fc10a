"""Attention modules against NumPy implementations of their formulas."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch import nn

from mgc.models.zoo.attention import ConvolutionalAttention, SqueezeExcitation


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 32, 9, 5)).astype(np.float32)


def weights(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


def test_squeeze_excitation(x: np.ndarray) -> None:
    torch.manual_seed(0)
    module = SqueezeExcitation(32)
    w = weights(module)
    hidden = np.maximum(x.mean(axis=(2, 3)) @ w["fc1.weight"].T + w["fc1.bias"], 0)
    gate = sigmoid(hidden @ w["fc2.weight"].T + w["fc2.bias"])
    output = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(output, x * gate[:, :, None, None], atol=1e-6)


def test_cbam(x: np.ndarray) -> None:
    torch.manual_seed(0)
    module = ConvolutionalAttention(32)
    w = weights(module)

    def dense(pooled: np.ndarray) -> np.ndarray:
        return np.maximum(pooled @ w["fc1.weight"].T, 0) @ w["fc2.weight"].T

    scaled = x * sigmoid(dense(x.mean(axis=(2, 3))) + dense(x.max(axis=(2, 3))))[:, :, None, None]
    pooled = np.stack([scaled.mean(axis=1), scaled.max(axis=1)], axis=1)
    padded = np.pad(pooled, ((0, 0), (0, 0), (3, 3), (3, 3)))
    spatial = np.stack([correlate(planes, w["spatial.weight"][0], mode="valid") for planes in padded])
    output = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(output, scaled * sigmoid(spatial), atol=1e-6)


@pytest.mark.parametrize("channels", [256, 2048])
def test_parameters(channels: int) -> None:
    added = [
        sum(p.numel() for p in kind(channels).parameters()) for kind in (SqueezeExcitation, ConvolutionalAttention)
    ]
    assert added == [channels**2 // 8 + channels // 16 + channels, channels**2 // 8 + 98]
