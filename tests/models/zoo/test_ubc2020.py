"""ubc2020: every layer of both branches, the attention that cancels out, and the ablations."""

import numpy as np
import pytest
import torch
from shapes import n_params, output_shapes
from torch import Tensor, nn

from mgc.models.registry import systems
from mgc.models.zoo.ubc2020 import (
    ConvolutionBranch,
    ParallelBranches,
    PrintedAttention,
    RecurrentBranch,
    TemporalAttention,
)

CLIP = (1, 640, 128)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return systems.get(f"ubc2020/{name}").build(8)


def input_of(module: nn.Module, model: nn.Module, x: Tensor) -> Tensor:
    """Input of one of a model's modules for the model's input `x`."""
    module_inputs: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda module, inputs: module_inputs.append(inputs[0]))
    model(x)
    hook.remove()
    return module_inputs[0]


def test_every_layer_of_the_convolutions() -> None:
    branch = ConvolutionBranch()
    convolutions = [str(3 * i) for i in range(5)]
    names = [*(str(3 * i + offset) for i in range(5) for offset in (0, 2)), "15"]
    assert list(output_shapes(branch, names, *CLIP).values()) == [
        (16, 638, 128),
        (16, 319, 64),
        (32, 317, 64),
        (32, 158, 32),
        (64, 156, 32),
        (64, 78, 16),
        (64, 76, 16),
        (64, 19, 4),
        (64, 17, 4),
        (64, 4, 1),
        (256,),
    ]
    assert [n_params(branch, name) for name in convolutions] == [64, 1_568, 6_208, 12_352, 12_352]


def test_kernels_span_three_frames_of_one_band() -> None:
    convolution = ConvolutionBranch()[0]
    x = np.random.default_rng(0).standard_normal((10, 5)).astype(np.float32)
    weight, bias = convolution.weight.detach().numpy()[:, 0, :, 0], convolution.bias.detach().numpy()
    expected = np.stack([weight @ x[frame : frame + 3] + bias[:, None] for frame in range(8)], axis=1)
    output = convolution(torch.from_numpy(x)[None, None])[0].detach().numpy()
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("units", "params"), [(64, 74_496), (128, 198_144)])
def test_the_gru_reads_the_larger_of_every_two_frames(units: int, params: int) -> None:
    branch = RecurrentBranch(units)
    x = torch.randn(2, *CLIP)
    steps = input_of(branch.gru, branch, x)
    assert steps.shape == (2, 320, 128)
    assert torch.equal(steps, torch.maximum(x[:, 0, ::2], x[:, 0, 1::2]))
    assert branch(x).shape == (2, 2 * units)
    assert n_params(branch, "gru") == params


@pytest.mark.parametrize(
    ("name", "features", "gru"),
    [
        ("prcnn", 384, 74_496),
        ("ablation-rnn", 128, 74_496),
        ("ablation-cnn5", 256, 0),
        ("ablation-cnn3", 79_872, 0),
        ("ablation-cnn-rnn1", 384, 74_496),
        ("ablation-cnn-rnn2", 384, 148_992),
    ],
)
def test_every_layer_of_the_parallel_networks(name: str, features: int, gru: int) -> None:
    model = build(name)
    assert isinstance(model, ParallelBranches)
    assert input_of(model.classify, model, torch.randn(1, *CLIP)).shape == (1, features)
    assert sum(n_params(model, name) for name, module in model.named_modules() if isinstance(module, nn.GRU)) == gru
    assert n_params(model, "classify") == 8 * features + 8


GRU_64 = {"pool": (1, 320, 128), "gru": (128,)}
GRU_128 = {"pool": (1, 320, 128), "gru": (256,)}


@pytest.mark.parametrize(
    ("name", "branches", "rest"),
    [
        ("prcnn", {"branches.0": {"": (256,)}, "branches.1": GRU_64}, {"classify": (8,)}),
        ("ablation-cnn-rnn1", {"branches.0": {"": (256,)}, "branches.1": GRU_64}, {"classify": (8,)}),
        ("ablation-cnn-rnn2", {"branches.0": {"": (256,)}, "branches.1": GRU_64}, {"classify": (8,)}),
        ("ablation-rnn", {"branches.0": GRU_64}, {"classify": (8,)}),
        ("ablation-cnn5", {"branches.0": {"14": (64, 4, 1), "": (256,)}}, {"classify": (8,)}),
        (
            "ablation-cnn3",
            {"branches.0": {"2": (16, 319, 64), "5": (32, 158, 32), "8": (64, 78, 16), "": (79_872,)}},
            {"classify": (8,)},
        ),
        ("prcnn-attention", {"convolutions": {"": (256,)}, "recurrent": GRU_128}, {"classify": (8,)}),
        ("ablation-cnn-rnn2-attention", {"convolutions": {"": (256,)}, "recurrent": GRU_128}, {"classify": (8,)}),
        (
            "prcnn-attention-temporal",
            {"convolutions": {"": (256,)}, "recurrent": {"pool": (1, 320, 128)}},
            {"score": (320,), "classify": (8,)},
        ),
    ],
)
def test_both_branches_and_the_layers_behind_them(name: str, branches: dict, rest: dict) -> None:
    expected = {
        f"{branch}.{layer}".rstrip("."): shape for branch, layers in branches.items() for layer, shape in layers.items()
    }
    assert output_shapes(build(name), [*expected, *rest], *CLIP) == expected | rest


def test_the_printed_attention_is_the_state_of_the_gru() -> None:
    model, x = build("prcnn-attention"), torch.randn(2, *CLIP)
    assert isinstance(model, PrintedAttention)
    torch.testing.assert_close(input_of(model.classify, model, x), model.recurrent(x), atol=1e-5, rtol=0)


def test_the_printed_attention_leaves_the_cnn_no_gradient_beyond_rounding() -> None:
    model = build("prcnn-attention")
    nn.functional.cross_entropy(model(torch.randn(2, *CLIP)), torch.tensor([0, 1])).backward()
    largest = {
        part: max(parameter.grad.abs().max().item() for parameter in model.get_submodule(part).parameters())
        for part in ("convolutions", "recurrent")
    }
    assert largest["recurrent"] > 1e-3
    assert largest["convolutions"] < 1e-6


def test_the_other_axis_leaves_the_softmax_scaled_by_the_sum_of_the_states() -> None:
    model, x = PrintedAttention(8, sum_axis=2), torch.randn(1, *CLIP)
    expected = model.convolutions(x).softmax(dim=1) * model.recurrent(x).sum(dim=1, keepdim=True)
    torch.testing.assert_close(input_of(model.classify, model, x), expected)


def test_temporal_attention_is_a_weighted_mean_of_the_steps() -> None:
    model, x = build("prcnn-attention-temporal").double(), torch.randn(1, *CLIP, dtype=torch.float64)
    assert isinstance(model, TemporalAttention)
    with torch.no_grad():
        score = model.score(model.convolutions(x))[0].numpy()
        states = model.recurrent.gru.gru(torch.maximum(x[:, 0, ::2], x[:, 0, 1::2]))[0][0].numpy()
        classified = input_of(model.classify, model, x)[0].numpy()
    weights = np.exp(score) / np.exp(score).sum()
    np.testing.assert_allclose(classified, sum(w * state for w, state in zip(weights, states, strict=True)), rtol=1e-9)
    assert (n_params(model, "score"), n_params(model, "recurrent"), n_params(model, "classify")) == (
        82_240,
        198_144,
        2_056,
    )
