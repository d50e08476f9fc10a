"""Checkpoints: the state of a training in a file, from which it continues to bit-identical weights."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator

from mgc.models.parallel.device import random_state, restore_random_state
from mgc.models.runs.run import Run
from mgc.models.training.learner import Learner
from mgc.models.training.progress import Progress
from mgc.pipeline.errors import RunError

#: Components that the first checkpoints lacked; they are restored with an empty state from those.
_OPTIONAL = ("inputs", "scaler")


def save(run: Run, learner: Learner, progress: Progress, name: str = "last.pt") -> None:
    """Write the state of a training.

    All processes call this, and rank 0 writes. The other ranks contribute their random state only: everything else is
    either the same on all ranks or restored from rank 0.

    Args:
        run: run that is trained.
        learner: its learner.
        progress: its progress.
        name: name of the file.

    Raises:
        MgcError: the checkpoint cannot be written; the one before is kept.
    """
    random, *others = learner.ranks.all_gather(random_state(learner.device))
    if not learner.ranks.is_main:
        return
    state = {key: component.state_dict() for key, component in learner.components.items()}
    state |= {"random": random, "progress": dataclasses.asdict(progress)} | ({"others": others} if others else {})
    run.save(name, state)


def restore(run: Run, learner: Learner, name: str = "last.pt") -> Progress:
    """Load a state into the learner and PyTorch's random number generators; for arguments see `save`.

    Returns:
        The progress that was saved.

    Raises:
        RunError: the checkpoint is damaged, or belongs to another model.
    """
    state, ranks = run.load(name), learner.ranks
    try:
        for key, component in learner.components.items():
            component.load_state_dict(state.get(key, {}) if key in _OPTIONAL else state[key])
        random = state["random"] if ranks.is_main else state["others"][ranks.rank - 1]
        restore_random_state(random, learner.device)
        return Progress(**state["progress"])
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise RunError(f"{run.path / name}: cannot be continued ({first_line})", "train a new run") from error


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C until the block ends, so that no checkpoint is written in the middle of an update."""
    if threading.current_thread() is not threading.main_thread():  # signals only reach the main thread
        yield
        return
    signals: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: signals.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if signals:
        signal.raise_signal(signal.SIGINT)
