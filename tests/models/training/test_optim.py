"""Losses and optimisers against closed forms."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from mgc.models.registry.recipes import Optimizer, Training
from mgc.models.registry.settings import Loop
from mgc.models.training.optim import (
    LOSSES,
    balanced_class_weights,
    binary_on_softmax,
    build_loss,
    build_optimizer,
    build_plateau,
    build_schedule,
)
from mgc.pipeline.errors import SpecError


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
    loss = binary_on_softmax(torch.tensor(logits), torch.tensor(target))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_binary_loss_of_a_certain_prediction_is_finite(scale: float) -> None:
    logits = (torch.eye(8)[:1] * scale).requires_grad_()
    loss = binary_on_softmax(logits, torch.tensor([0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


ADAM = Optimizer("adam", lr=0.4, betas=(0.9, 0.999), eps=1e-7)


def training(optimizer: Optimizer = ADAM, **loop: object) -> Training:
    return Training("cross-entropy", 4, 5, "accuracy", 3, 0, optimizer, loop=Loop(**loop))


def rates(recipe: Training, updates: int) -> list[float]:
    """Learning rate of each of the first updates, with ten updates per epoch."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(recipe.optimizer, [weight])
    schedule = build_schedule(optimizer, recipe, 10)
    values = []
    for _ in range(updates):
        values.append(optimizer.param_groups[0]["lr"])
        weight.grad = torch.ones(1)
        optimizer.step()
        schedule.step()
    return values


def test_rate_decays_with_the_number_of_updates() -> None:
    recipe = training(dataclasses.replace(ADAM, decay=0.5))
    assert rates(recipe, 4) == pytest.approx([0.4 / (1 + 0.5 * t) for t in range(4)])


def test_rate_warms_up_and_follows_half_a_cosine() -> None:
    expected = [0.4 * min(1, (t + 1) / 7) * (1 + math.cos(math.pi * t / 50)) / 2 for t in range(50)]
    assert rates(training(schedule="cosine", warmup=7), 50) == pytest.approx(expected, abs=1e-12)
    assert rates(training(warmup=1), 3) == [0.4] * 3
    assert rates(training(), 60) == [0.4] * 60


def test_rate_falls_without_improvement() -> None:
    recipe = training(dataclasses.replace(ADAM, decay=0.1), schedule="plateau", plateau_factor=0.5, plateau_patience=1)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(recipe.optimizer, [weight])
    schedule, plateau = build_schedule(optimizer, recipe, 10), build_plateau(optimizer, recipe)
    assert plateau is not None
    values = []
    for t, accuracy in enumerate([0.2, 0.3, 0.3, 0.3, 0.1, 0.1, 0.31], 1):
        optimizer.step()
        schedule.step()
        plateau.step(accuracy)
        values.append(optimizer.param_groups[0]["lr"] * (1 + 0.1 * t))
    # With a patience of 1, every second epoch without improvement halves the rate.
    assert values == pytest.approx([0.4, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1])
    assert build_plateau(optimizer, training()) is None


def test_smoothed_and_weighted_cross_entropy() -> None:
    rng = np.random.default_rng(1)
    logits, target = rng.standard_normal((6, 3)), np.array([0, 0, 0, 1, 1, 2])
    recipe = training(label_smoothing=0.3)
    class_weights = balanced_class_weights(np.array([0] * 6 + [1] * 3 + [2]), 3, torch.device("cpu"))
    loss = build_loss(recipe, class_weights)
    weight = compute_class_weight("balanced", classes=np.arange(3), y=[0] * 6 + [1] * 3 + [2])
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    smoothed = 0.7 * np.eye(3)[target] + 0.1
    # PyTorch weights every class of a smoothed target, and divides by the weights of the true classes.
    expected = -(smoothed * log_p * weight).sum() / weight[target].sum()
    assert loss(torch.tensor(logits).float(), torch.tensor(target)).item() == pytest.approx(expected, rel=1e-5)


def test_smoothed_and_weighted_binary_loss() -> None:
    rng = np.random.default_rng(2)
    logits, target, weight = rng.standard_normal((5, 3)), np.array([0, 0, 1, 2, 2]), np.array([0.5, 2.0, 1.5])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    hot = 0.8 * np.eye(3)[target] + 0.2 / 3
    each = -(hot * np.log(p) + (1 - hot) * np.log(1 - p)).mean(axis=1)
    expected = (each * weight[target]).sum() / weight[target].sum()
    loss = binary_on_softmax(torch.tensor(logits), torch.tensor(target), torch.tensor(weight), 0.2)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_class_without_slices_has_a_finite_weight() -> None:
    loss = build_loss(training(), balanced_class_weights(np.array([0, 0, 2, 2]), 3, torch.device("cpu")))
    assert loss(torch.zeros(2, 3), torch.tensor([0, 2])).item() == pytest.approx(math.log(3))


def test_weight_decay_of_adamw_is_beside_the_gradient() -> None:
    recipe = Optimizer("adamw", lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    weight = torch.nn.Parameter(torch.tensor([5.0]))
    optimizer = build_optimizer(recipe, [weight])
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert weight.item() == pytest.approx(5.0 * (1 - 0.1 * 0.1))


def test_sgd_has_momentum() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(Optimizer("sgd", lr=0.1, momentum=0.5), [weight])
    for gradient in (1.0, 1.0):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
    assert weight.item() == pytest.approx(-0.1 * (1 + 1.5))


def test_weight_decay_is_part_of_the_gradient() -> None:
    recipe = Optimizer("adam", lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-3)
    weight = torch.nn.Parameter(torch.tensor([5.0]))
    optimizer = build_optimizer(recipe, [weight])
    weight.grad = torch.zeros(1)
    optimizer.step()
    # Adam's first step equals the rate for any gradient; decoupled decay would move the weight by another 5e-4.
    assert weight.item() == pytest.approx(4.9, abs=1e-3)


def test_moments_and_epsilon() -> None:
    recipe = Optimizer("adam", lr=0.1, betas=(0.8, 0.9), eps=1.0)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(recipe, [weight])
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
    optimizer = build_optimizer(recipe, [weight])
    square, expected = 0.0, 0.0
    for gradient in (2.0, -1.0, 3.0):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        square = 0.9 * square + 0.1 * gradient**2
        expected -= 0.1 * gradient / (math.sqrt(square) + 0.5)
    assert weight.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("adam", {}),
        ("adamw", {"rho": 0.9}),
        ("rmsprop", {}),
        ("rmsprop", {"rho": 0.9, "betas": (0.9, 0.999)}),
        ("sgd", {}),
    ],
)
def test_optimisers_have_their_own_settings_and_no_others(name: str, settings: dict) -> None:
    with pytest.raises(SpecError, match=f"{name} needs"):
        Optimizer(name, lr=0.1, eps=1e-7, **settings)
