"""Keras layers against NumPy loops and Keras's constants."""

import math

import numpy as np
import pytest
import torch

from mgc.models.zoo.layers import (
    BatchNorm2d,
    LastStateGRU,
    SameConv2d,
    SameMaxPool2d,
    he_normal_,
    he_uniform_,
    init_keras,
    same_padding,
)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (128, 5, 2, (1, 2)),
        (64, 3, 2, (0, 1)),
        (32, 3, 1, (1, 1)),
        (130, 3, 3, (1, 1)),
        (13, 3, 3, (1, 1)),
        (44, 3, 3, (0, 1)),
        (15, 2, 1, (0, 1)),
        (6, 2, 2, (0, 0)),
        (4, 1, 3, (0, 0)),
    ],
)
def test_same_padding(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def windows(x: np.ndarray, kernel: int, stride: int, fill: float) -> np.ndarray:
    """Windows `(channel, row, column, kernel, kernel)` with `same` padding, by TensorFlow's formula."""
    out = [-(-size // stride) for size in x.shape[1:]]
    padded = np.full((len(x), out[0] * stride + kernel, out[1] * stride + kernel), fill)
    before = [max((n - 1) * stride + kernel - size, 0) // 2 for n, size in zip(out, x.shape[1:], strict=True)]
    padded[:, before[0] : before[0] + x.shape[1], before[1] : before[1] + x.shape[2]] = x
    patches = np.empty((len(x), *out, kernel, kernel))
    for row in range(out[0]):
        for column in range(out[1]):
            top, left = row * stride, column * stride
            patches[:, row, column] = padded[:, top : top + kernel, left : left + kernel]
    return patches


GEOMETRIES = [((8, 6), 5, 2), ((8, 6), 3, 2), ((8, 6), 3, 1), ((6, 4), 2, 1), ((7, 5), 3, 2), ((10, 4), 3, 3)]


@pytest.mark.parametrize(("size", "kernel", "stride"), GEOMETRIES)
def test_same_convolution(size: tuple[int, int], kernel: int, stride: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, *size))
    layer = SameConv2d(3, 4, kernel, stride).double()
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    expected = np.einsum("chwij,fcij->fhw", windows(x, kernel, stride, 0.0), weight) + bias[:, None, None]
    np.testing.assert_allclose(layer(torch.from_numpy(x)[None])[0].detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("size", "kernel", "stride"), GEOMETRIES)
def test_same_max_pool(size: tuple[int, int], kernel: int, stride: int) -> None:
    x = np.random.default_rng(0).standard_normal((3, *size)) - 5  # negative values: zero padding would win
    expected = windows(x, kernel, stride, -np.inf).max(axis=(3, 4))
    pooled = SameMaxPool2d(kernel, stride)(torch.from_numpy(x)[None])[0].numpy()
    np.testing.assert_array_equal(pooled, expected)


def test_symmetric_padding_differs() -> None:
    x = torch.randn(1, 3, 8, 8)
    layer = SameConv2d(3, 4, 3, stride=2)
    symmetric = torch.nn.functional.conv2d(x, layer.weight, layer.bias, stride=2, padding=1)
    assert symmetric.shape == layer(x).shape
    assert not torch.allclose(symmetric, layer(x))


def test_batch_norm_trains_as_pytorchs_with_keras_constants() -> None:
    layer, reference = BatchNorm2d(3), torch.nn.BatchNorm2d(3, eps=1e-3, momentum=0.01)
    for seed in range(3):
        x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) * 3 + 2
        assert torch.equal(layer(x), reference(x))
    state, expected = layer.state_dict(), reference.state_dict()
    assert list(state) == list(expected)
    for name, value in state.items():
        assert torch.equal(value, expected[name]), name


def test_running_statistics_do_not_remember_their_initial_values() -> None:
    norm = BatchNorm2d(2)
    batches = torch.randn(5, 64, 2, 3, 3, dtype=torch.float64) * 4 + 7
    norm.double()
    weights = np.array([0.99**age for age in range(4, -1, -1)])
    for batch in batches:
        norm(batch)
    shares = torch.from_numpy(weights / weights.sum())
    mean = (shares[:, None] * batches.mean(dim=(1, 3, 4))).sum(dim=0)
    variance = (shares[:, None] * batches.permute(0, 2, 1, 3, 4).flatten(2).var(dim=2)).sum(dim=0)
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    expected = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-3).sqrt()
    torch.testing.assert_close(norm.eval()(x), expected, rtol=1e-4, atol=1e-4)


def test_batch_norm_after_no_or_many_updates_is_pytorchs() -> None:
    x = torch.randn(2, 3, 4, 4)
    layer, reference = BatchNorm2d(3), torch.nn.BatchNorm2d(3, eps=1e-3)
    for updates in (0, 5000):
        layer.num_batches_tracked.fill_(updates)
        torch.testing.assert_close(layer.eval()(x), reference.eval()(x))


def test_he_initialisations_have_variance_two_over_fan_in() -> None:
    torch.manual_seed(0)
    weight = torch.empty(256, 64, 3, 3)
    fan_in = 64 * 9
    assert he_normal_(weight).std() == pytest.approx(math.sqrt(2 / fan_in), rel=0.01)
    assert weight.abs().max() <= 2 * math.sqrt(2 / fan_in) / 0.8796
    assert he_uniform_(weight).std() == pytest.approx(math.sqrt(2 / fan_in), rel=0.01)
    assert weight.abs().max() <= math.sqrt(6 / fan_in)


def test_default_kernels_are_glorot_uniform_and_biases_zero() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(300, 500)
    init_keras(layer)
    limit = math.sqrt(6 / 800)
    assert 0.99 * limit < layer.weight.abs().max() <= limit
    assert not layer.bias.any()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def keras_gru(x: np.ndarray, weights: dict[str, np.ndarray], suffix: str) -> np.ndarray:
    """Last state `(units,)` of TensorFlow 2's GRU for a sequence `(steps, input_size)`; gate order r, z, n."""
    kernel, recurrent = weights[f"weight_ih_l0{suffix}"], weights[f"weight_hh_l0{suffix}"]
    bias, recurrent_bias = weights[f"bias_ih_l0{suffix}"], weights[f"bias_hh_l0{suffix}"]
    state = np.zeros(recurrent.shape[1])
    for step in x:
        r, z, n = np.split(kernel @ step + bias, 3)
        hr, hz, hn = np.split(recurrent @ state + recurrent_bias, 3)
        update = sigmoid(z + hz)
        state = update * state + (1 - update) * np.tanh(n + sigmoid(r + hr) * hn)
    return state


def test_last_state_of_both_directions() -> None:
    layer = LastStateGRU(3, 4, bidirectional=True).double()
    weights = {name: value.detach().numpy() for name, value in layer.gru.named_parameters()}
    x = np.random.default_rng(0).standard_normal((7, 3))
    expected = np.concatenate([keras_gru(x, weights, ""), keras_gru(x[::-1], weights, "_reverse")])
    np.testing.assert_allclose(layer(torch.from_numpy(x)[None])[0].detach().numpy(), expected, rtol=1e-10)


def test_last_states_of_stacked_layers_are_those_of_the_last() -> None:
    layer = LastStateGRU(3, 4, bidirectional=True, layers=2)
    sequence, _ = layer.gru(x := torch.randn(2, 5, 3))
    torch.testing.assert_close(layer(x), torch.cat([sequence[:, -1, :4], sequence[:, 0, 4:]], dim=1))


@pytest.mark.parametrize("cell", [torch.nn.GRU, torch.nn.LSTM])
def test_recurrent_layers_are_initialised_as_in_keras(cell: type[torch.nn.RNNBase]) -> None:
    torch.manual_seed(0)
    layer = cell(300, 50, num_layers=2, bidirectional=True)
    init_keras(layer)
    for name, value in layer.named_parameters():
        if name.startswith("weight_hh"):
            torch.testing.assert_close(value.T @ value, torch.eye(50), atol=1e-5, rtol=0)
        elif name.startswith("weight_ih"):
            limit = math.sqrt(6 / (value.shape[0] + value.shape[1]))
            assert 0.99 * limit < value.abs().max() <= limit
        else:
            forgets = cell is torch.nn.LSTM and name.startswith("bias_ih")
            gates = torch.tensor([0.0, 1.0, 0.0, 0.0] if forgets else [0.0] * (len(value) // 50))
            assert torch.equal(value, gates.repeat_interleave(50)), name
