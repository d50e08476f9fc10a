"""TensorBoard's event files: a run's history as scalars, for `tensorboard --logdir` while it trains."""

from __future__ import annotations

from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from mgc.models.runs.run import Run
from mgc.pipeline.errors import SpecError
from mgc.pipeline.storage import files


def require_tensorboard() -> None:
    """Raise `SpecError` where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        raise SpecError("--tensorboard: TensorBoard is not installed", "`pip install 'mgc[tensorboard]'`")


class Board:
    """Writes `events/` of a run, a scalar for each value of an epoch.

    What the run's history has already is written again: TensorBoard shows that instead of what an interrupted training
    wrote, which may lack an epoch.

    Args:
        run: whose history it is.

    Raises:
        MgcError: it cannot be written.
    """

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = run.path / "events"
        with files.output_errors(self._folder):
            self._writer = SummaryWriter(str(self._folder), purge_step=1)
        for entry in run.history:
            self.add(entry)

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry of the history.

        Raises:
            MgcError: it cannot be written.
        """
        with files.output_errors(self._folder):
            for name, value in entry.items():
                if name != "epoch":
                    # Training and validation in one picture each: TensorBoard groups by what is before the slash.
                    split, _, metric = name.partition("_")
                    tag = f"{metric}/{split}" if split in ("train", "validation") else name
                    self._writer.add_scalar(tag, value, entry["epoch"])
            self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
