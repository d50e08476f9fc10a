"""Event files, read back with TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgc.models.runs.run import Run
from mgc.models.training import board
from mgc.pipeline.errors import MgcError

pytest.importorskip("tensorboard")

HISTORY = [
    {"epoch": epoch, "train_loss": 1 / epoch, "validation_loss": 2 / epoch, "validation_track_accuracy": 0.5, "lr": 0.1}
    for epoch in (1, 2, 3)
]


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "events")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_each_epoch_is_logged_once_also_after_an_interruption(tmp_path: Path) -> None:
    run = Run(tmp_path, {})
    with board.TensorBoardLogger(run) as logger:
        for entry in HISTORY[:2]:
            logger.add(entry)
    assert [step for step, _ in scalars(run)["loss/train"]] == [1, 2]
    run.write_history(HISTORY[:2])
    with board.TensorBoardLogger(run) as logger:
        logger.add(HISTORY[2])
    curves = scalars(run)
    assert set(curves) == {"loss/train", "loss/validation", "track_accuracy/validation", "lr"}
    assert curves["loss/train"] == [(epoch, pytest.approx(1 / epoch)) for epoch in (1, 2, 3)]


def test_error_without_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "find_spec", lambda name: None)
    with pytest.raises(MgcError, match="not installed"):
        board.require_tensorboard()
