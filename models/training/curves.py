"""Learning curves: plot the history of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgc.models.runs.run import Run
from mgc.pipeline import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Curves of each plot: labels by key of a history entry. A label looks the same in all plots.
_PLOTS = {
    "loss": {"train_loss": "training", "validation_loss": "validation"},
    "accuracy": {
        "train_accuracy": "training",
        "validation_accuracy": "validation",
        "validation_track_accuracy": "validation, by track",
    },
}
_LOOKS = {"training": ("C0", "-"), "validation": ("C1", "-"), "validation, by track": ("C2", "--")}
#: Ratio of the highest to the lowest learning rate above which its axis is logarithmic.
_LOG_RATIO = 20
#: Most epochs that are marked by a dot each.
_DOTTED = 30


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
    alarm = "LEAKY" if run.config.get("leaky") else ""
    figure = draw_history(run.history, title, run.summary.get("best_epoch"), alarm)
    run.write_files({"curves.png": pictures.encode(figure)})
    return run.path / "curves.png"


@pictures.style()
def draw_history(
    history: Sequence[dict[str, Any]], title: str, best_epoch: int | None = None, alarm: str = ""
) -> Figure:
    """Plot a history of at least one epoch, with one legend below all plots. A value that is not finite is a gap.

    Args:
        history: entries of the epochs.
        title: title of the picture.
        best_epoch: epoch whose weights are kept, which is marked; None for none.
        alarm: see `pictures.new_figure`.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    epochs = [entry["epoch"] for entry in history]
    marker = "o" if len(epochs) <= _DOTTED else None
    figure = pictures.new_figure(12, 3.8, title, alarm=alarm)
    *plots, rates = figure.subplots(1, len(_PLOTS) + 1)
    for axes, (name, curves) in zip(plots, _PLOTS.items(), strict=True):
        axes.set_title(name)
        for key, label in curves.items():
            colour, dashes = _LOOKS[label]
            values = [entry[key] for entry in history]
            axes.plot(epochs, values, marker=marker, label=label, color=colour, linestyle=dashes)
    plots[-1].set_ylim(-0.02, 1.02)
    plots[-1].yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    rates.set_title("learning rate at the end of the epoch")
    rates.plot(epochs, [entry["lr"] for entry in history], marker=marker, color="C3")
    _scale_rates(rates, [entry["lr"] for entry in history])
    for axes in (*plots, rates):
        if best_epoch:
            axes.axvline(best_epoch, color="0.5", linestyle=":", label="epoch kept")
        axes.set(xlabel="epoch", xlim=(min(epochs) - 0.5, max(epochs) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        axes.grid(axis="y")
    handles, labels = plots[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _scale_rates(axes: Axes, rates: Sequence[float]) -> None:
    """Scale the axis of the learning rate: logarithmic if it falls far, else from 0; ticks are plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if min(rates) > 0 and max(rates) > _LOG_RATIO * min(rates):
        axes.set_yscale("log")
        # Less than two decades may hold a single power of ten.
        steps = (1, 2, 5) if max(rates) < 100 * min(rates) else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=8))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.08 * max(rates) or 1)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))


def _plain(value: float) -> str:
    """Write a learning rate without an exponent, from a millionth on."""
    return f"{value:.10f}".rstrip("0").rstrip(".") if value >= 1e-6 or value == 0 else f"{value:g}"
