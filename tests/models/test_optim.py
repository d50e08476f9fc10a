"""Losses and optimisers against closed forms."""

import math

import numpy as np
import pytest
import torch

from models.optim import LOSSES, binary_on_softmax, build_optimizer
from models.recipes import Optimizer
from pipeline.errors import SpecError


@pytest.mark.parametrize(
    ("name", "n_classes", "expected"),
    [("cross-entropy", 8, 2.0794), ("cross-entropy", 10, 2.3026), ("binary-on-softmax", 8, 0.3768)],
)
def test_loss_of_a_uniform_prediction(name: str, n_classes: int, expected: float) -> None:
    loss = LOSSES[name](torch.zeros(4, n_classes), torch.arange(4))
    assert loss.item() == pytest.approx(expected, abs=5e-5)


def test_binary_loss_is_the_mean_over_classes() -> None:
    logits = np.random.default_rng(0).standard_normal((5, 8))
    target = np.arange(5)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    hot = np.eye(8)[target]
    expected = -(hot * np.log(p) + (1 - hot) * np.log(1 - p)).mean()
    found = binary_on_softmax(torch.tensor(logits), torch.tensor(target))
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_binary_loss_of_a_certain_prediction_is_finite(scale: float) -> None:
    logits = (torch.eye(8)[:1] * scale).requires_grad_()
    loss = binary_on_softmax(logits, torch.tensor([0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_rate_decays_with_the_number_of_updates() -> None:
    recipe = Optimizer("adam", lr=2e-4, betas=(0.9, 0.999), eps=1e-7, decay=0.5)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer, schedule = build_optimizer(recipe, [weight])
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        weight.grad = torch.ones(1)
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([2e-4 / (1 + 0.5 * t) for t in range(4)])


def test_weight_decay_is_part_of_the_gradient() -> None:
    recipe = Optimizer("adam", lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-3)
    weight = torch.nn.Parameter(torch.tensor([5.0]))
    optimizer, _ = build_optimizer(recipe, [weight])
    weight.grad = torch.zeros(1)
    optimizer.step()
    # Adam's first step is the rate, whatever the gradient; decoupled decay would move the weight by 5e-4.
    assert weight.item() == pytest.approx(4.9, abs=1e-3)


def test_moments_and_epsilon() -> None:
    recipe = Optimizer("adam", lr=0.1, betas=(0.8, 0.9), eps=1.0)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer, _ = build_optimizer(recipe, [weight])
    gradients, mean, square, expected = [2.0, -1.0], 0.0, 0.0, 0.0
    for t, gradient in enumerate(gradients, 1):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        mean, square = 0.8 * mean + 0.2 * gradient, 0.9 * square + 0.1 * gradient**2
        expected -= 0.1 * (mean / (1 - 0.8**t)) / (math.sqrt(square / (1 - 0.9**t)) + 1.0)
    assert weight.item() == pytest.approx(expected, rel=1e-5)


def test_rmsprop_divides_by_the_root_mean_square() -> None:
    recipe = Optimizer("rmsprop", lr=0.1, rho=0.9, eps=0.5)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer, _ = build_optimizer(recipe, [weight])
    square, expected = 0.0, 0.0
    for gradient in (2.0, -1.0, 3.0):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        square = 0.9 * square + 0.1 * gradient**2
        expected -= 0.1 * gradient / (math.sqrt(square) + 0.5)
    assert weight.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"), [("adam", {}), ("rmsprop", {}), ("rmsprop", {"rho": 0.9, "betas": (0.9, 0.999)})]
)
def test_optimisers_have_their_own_settings_and_no_others(name: str, settings: dict) -> None:
    with pytest.raises(SpecError, match=f"{name} needs"):
        Optimizer(name, lr=0.1, eps=1e-7, **settings)
