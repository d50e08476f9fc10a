"""Training for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mgc.models.data.store_candidates import StoreCandidates
from mgc.models.interface.run import Run
from mgc.models.interface.store import FeatureStore, PathLike
from mgc.models.registry import systems
from mgc.models.training import choice
from mgc.models.training import train as training
from mgc.models.training.options import Options
from mgc.pipeline.workspace import Workspace


def train(
    stores: FeatureStore | Sequence[FeatureStore],
    model: str | None = None,
    *,
    out: PathLike | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    device: str = "auto",
    limit_tracks: int | None = None,
    refit: bool | None = None,
    echo: Callable[[str], None] = lambda line: None,
) -> Run:
    """Train a system on a store, as `mgc train` does, and keep the best epoch on the validation split.

    Args:
        stores: the store, or several for a system with several inputs.
        model: id of the system, such as `kth2020/cnn`; None for the default of the feature. `mgc models` lists them.
        out: folder of runs, in which a new one is made; None for `runs` in the workspace (`$MGC_DATA`, else `data`).
        epochs: maximum number of epochs; this and the next three are the recipe's if None.
        batch_size: slices per update.
        lr: learning rate of the first update.
        seed: seed of initial weights, order, windows and dropout.
        device: `auto` (the GPU if there is one), `cpu`, `cuda`, `cuda:N` or `mps`.
        limit_tracks: maximum number of tracks of each genre for training and for validation; None for all.
        refit: train once more, on training and validation tracks, for the model in use; None for what the recipe says.
        echo: function that is called with each line on the progress of the work, such as `print`.

    Returns:
        The finished run.

    Raises:
        MgcError: there is no such system or device, or the system does not fit the stores.

    >>> import mgc
    >>> run = mgc.train(mgc.open_store("features/mel"), "kth2020/cnn", out="runs", epochs=1, device="cpu")
    >>> run.model
    'kth2020/cnn'
    """
    named = [stores] if isinstance(stores, FeatureStore) else stores
    candidates = StoreCandidates(tuple(store.core for store in named), explicit=True)
    system = systems.get(model) if model is not None else choice.default_system(candidates)[0]
    system.require_trainable(len(named))
    chosen = candidates.choose(system)
    candidates.require_all_used(chosen, system.id)
    options = Options(
        model=system.id,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        device=device,
        limit_tracks=limit_tracks,
        refit=refit,
    )
    folder = Workspace.default().runs if out is None else Path(out)
    return Run.of(training.train(chosen, options, folder, echo))
