"""Learning curves as a picture: nothing lies on anything else."""

from __future__ import annotations

import math
from typing import Any

import pytest
from geometry import assert_legible, tick_labels

from mgc.models.training.curves import draw_history

RATES = {
    "constant": lambda n, epochs: 6e-4,
    "cosine": lambda n, epochs: 5e-4 * (1 + math.cos(math.pi * n / epochs)),
    "steps": lambda n, epochs: 10.0 ** (-n // 9),
    "narrow": lambda n, epochs: 6e-4 * 0.03 ** (n / epochs),
}
TITLE = "a_plug_in_with_a_long_name/and_a_model_with_a_long_name seed $1$ "


def history(epochs: int, rates: str, loss: float = 2.0) -> list[dict[str, Any]]:
    return [
        {
            "epoch": n, "lr": RATES[rates](n, epochs), "train_loss": 2 / n, "validation_loss": loss,
            "train_accuracy": 1 - 1 / n, "validation_accuracy": 0.5, "validation_track_accuracy": 0.5,
        }
        for n in range(1, epochs + 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("epochs", "rates", "title"),
    [
        (1, "constant", "kth2020/cnn, seed 0"),
        (5, "narrow", TITLE),
        (40, "steps", "kth2020/cnn, seed 0"),
        (100, "cosine", TITLE * 4),
    ],
)
def test_texts_have_space_of_their_own(epochs: int, rates: str, title: str) -> None:
    figure = draw_history(history(epochs, rates), title, best_epoch=epochs)
    assert_legible(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "training", "validation", "validation, by track", "epoch kept",
    ]  # fmt: skip
    for axes in figure.axes:
        labels = [label.get_text() for label in tick_labels(axes) if label.get_text()]
        assert 2 <= len(labels) <= 20
        assert not any("$" in label or "e-" in label for label in labels), "a learning rate is a plain number"
        epoch_labels = [label.get_text() for label in axes.get_xticklabels() if label.get_text()]
        assert all(label.isdigit() for label in epoch_labels)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e30])
def test_a_loss_that_is_not_finite_is_a_gap(loss: float, recwarn: pytest.WarningsRecorder) -> None:
    figure = draw_history(history(3, "constant", loss), "kth2020/cnn, seed 0")
    assert_legible(figure)
    assert not [str(warning.message) for warning in recwarn]


def test_curves_say_leaky() -> None:
    figure = draw_history(history(2, "constant"), "kth2020/cnn, seed 0", alarm="LEAKY")
    assert figure.get_suptitle() == "LEAKY: kth2020/cnn, seed 0"
