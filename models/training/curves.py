"""Learning curves: plot the history of a run."""

from __future__ import annotations

import io
from pathlib import Path

from mgc.models.runs.run import Run

#: Curves of each plot: labels by key of a history entry.
_PLOTS = {
    "loss": {"train_loss": "training", "validation_loss": "validation"},
    "accuracy": {
        "train_accuracy": "training",
        "validation_accuracy": "validation",
        "validation_track_accuracy": "validation, by track",
    },
    "learning rate": {"lr": "at the end of the epoch"},
}


def draw(run: Run) -> Path:
    """Plot loss, accuracy and learning rate over the epochs, as `curves.png` in the folder of the run.

    Args:
        run: run with at least one finished epoch.

    Returns:
        Path of the picture.

    Raises:
        MgcError: the picture cannot be written.
    """
    from matplotlib.figure import Figure  # not pyplot: no display, no global state

    history = run.history
    epochs = [entry["epoch"] for entry in history]
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(_PLOTS)), _PLOTS.items(), strict=True):
        for key, label in curves.items():
            axes.plot(epochs, [entry[key] for entry in history], marker=".", label=label)
        if best := run.summary.get("best_epoch"):
            axes.axvline(best, color="0.7", linestyle=":", label="best epoch")
        axes.set(title=title, xlabel="epoch")
        axes.legend(fontsize="small")
    axes.set_yscale("log" if all(entry["lr"] > 0 for entry in history) else "linear")
    figure.suptitle(f"{run.model}, seed {run.config['seed']}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    run.write_files({"curves.png": buffer.getvalue()})
    return run.path / "curves.png"
