"""Learning curves as a picture: nothing lies on anything else."""

from __future__ import annotations

import itertools

import pytest

from mgc.models.training.curves import draw_history


@pytest.mark.parametrize("epochs", [1, 5, 60])
@pytest.mark.parametrize("rates", ["constant", "cosine", "steps"])
def test_texts_have_space_of_their_own(epochs: int, rates: str) -> None:
    lr = {"constant": lambda n: 6e-4, "cosine": lambda n: 3e-4 * (1 - n / epochs), "steps": lambda n: 10.0 ** (-n // 9)}
    history = [
        {
            "epoch": n, "lr": lr[rates](n), "train_loss": 2 / n, "validation_loss": 2.0, "train_accuracy": 1 - 1 / n,
            "validation_accuracy": 0.5, "validation_track_accuracy": 0.5,
        }
        for n in range(1, epochs + 1)
    ]  # fmt: skip
    figure = draw_history(history, "kth2020/cnn, seed 0", best_epoch=epochs)
    figure.draw_without_rendering()
    panels = figure.axes
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "training", "validation", "validation, by track", "best epoch",
    ]  # fmt: skip
    boxes = [legend.get_window_extent(), *(axes.get_tightbbox() for axes in panels)]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(axes.get_legend() is None for axes in panels)
    for axes in panels:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            assert 1 <= len(ticks) <= 12
            labels = [tick.label1.get_window_extent() for tick in ticks]
            assert not any(one.overlaps(other) for one, other in itertools.pairwise(labels))
            assert all("$" not in tick.label1.get_text() for tick in ticks if axes is panels[-1])
