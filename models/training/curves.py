"""Learning curves: plot the history of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgc.models.runs import pictures
from mgc.models.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Curves of each plot: labels by key of a history entry. A label has the same colour in all plots.
_PLOTS = {
    "loss": {"train_loss": "training", "validation_loss": "validation"},
    "accuracy": {
        "train_accuracy": "training",
        "validation_accuracy": "validation",
        "validation_track_accuracy": "validation, by track",
    },
}
_COLOURS = {"training": "C0", "validation": "C1", "validation, by track": "C2"}
#: Ratio of the highest to the lowest learning rate above which its axis is logarithmic.
_LOG_RATIO = 20


def draw(run: Run) -> Path:
    """Plot loss, accuracy and learning rate over the epochs, as `curves.png` in the folder of the run.

    Args:
        run: run with at least one finished epoch.

    Returns:
        Path of the picture.

    Raises:
        MgcError: the picture cannot be written.
    """
    title = f"{run.model}, seed {run.config['seed']}"
    figure = draw_history(run.history, title, run.summary.get("best_epoch"))
    run.write_files({"curves.png": pictures.png(figure)})
    return run.path / "curves.png"


def draw_history(history: Sequence[dict[str, Any]], title: str, best_epoch: int | None = None) -> Figure:
    """Plot a history of at least one epoch, with one legend below all plots."""
    from matplotlib.ticker import MaxNLocator

    epochs = [entry["epoch"] for entry in history]
    figure = pictures.new_figure(12, 3.8, title)
    *plots, rates = figure.subplots(1, len(_PLOTS) + 1)
    for axes, (name, curves) in zip(plots, _PLOTS.items(), strict=True):
        axes.set_title(name)
        for key, label in curves.items():
            axes.plot(epochs, [entry[key] for entry in history], marker=".", label=label, color=_COLOURS[label])
    rates.set_title("learning rate at the end of the epoch")
    rates.plot(epochs, [entry["lr"] for entry in history], marker=".", color="C3")
    _scale_rates(rates, [entry["lr"] for entry in history])
    for axes in (*plots, rates):
        if best_epoch:
            axes.axvline(best_epoch, color="0.7", linestyle=":", label="best epoch")
        axes.set(xlabel="epoch", xlim=(min(epochs) - 0.5, max(epochs) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    handles, labels = plots[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _scale_rates(axes: Axes, rates: Sequence[float]) -> None:
    """Scale the axis of the learning rate: logarithmic if it falls far, else from 0; ticks are plain numbers."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    if min(rates) > 0 and max(rates) > _LOG_RATIO * min(rates):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, 1.08 * max(rates) or 1)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
