"""TensorBoard logging: the history of a run as scalars in event files, for `tensorboard --logdir`."""

from __future__ import annotations

from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from mgc.models.runs import seal
from mgc.models.runs.run import Run
from mgc.pipeline.errors import MgcError
from mgc.pipeline.storage import files


def require_tensorboard() -> None:
    """Raise `MgcError` if TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        raise MgcError("--tensorboard: TensorBoard is not installed", "`pip install 'mgc-music[tensorboard]'`")


class TensorBoardLogger:
    """Writes the scores of each epoch to event files in `events/` of a run.

    Epochs that the run's history already holds are written again. TensorBoard shows these instead of the events of an
    interrupted training, which may lack an epoch.

    Args:
        run: run to log.

    Raises:
        MgcError: the event files cannot be written.
    """

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._run = run
        self._folder = run.path / "events"
        with files.translate_write_errors(self._folder):
            self._writer = SummaryWriter(str(self._folder), purge_step=1)
        for entry in run.history:
            self.add(entry)

    def add(self, entry: dict[str, Any]) -> None:
        """Write the scores of an epoch.

        Args:
            entry: history entry, see `Progress.end_epoch`.

        Raises:
            MgcError: the event files cannot be written.
        """
        with files.translate_write_errors(self._folder):
            for name, value in entry.items():
                if name != "epoch":
                    # TensorBoard groups plots by the part of the tag before the slash: training and validation scores
                    # of one metric appear side by side.
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
        with files.translate_write_errors(self._folder):
            seal.add_existing(self._run.path, [f"events/{file.name}" for file in self._folder.iterdir()])
