"""Runs for scripts and notebooks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mgc.models.interface.store import PathLike
from mgc.models.runs import run as runs

if TYPE_CHECKING:
    from mgc.models.evaluation.evaluation import Evaluation
    from mgc.models.prediction.prediction import FilePrediction


class Run:
    """A training run, as `mgc train` and `mgc.train` make them.

    Args:
        path: folder of the run.

    Raises:
        MgcError: there is no run, or a damaged one.

    >>> import mgc
    >>> run = mgc.Run("runs/cnn")
    >>> run.classes
    ('blues', 'techno')
    """

    def __init__(self, path: PathLike) -> None:
        self._run = runs.Run.open(Path(path))

    @classmethod
    def of(cls, run: runs.Run) -> Self:
        """Wrap a run that is open already."""
        wrapper = cls.__new__(cls)
        wrapper._run = run
        return wrapper

    def __repr__(self) -> str:
        return f"mgc.Run({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """Folder of the run."""
        return self._run.path

    @property
    def model(self) -> str:
        """Id of the system."""
        return self._run.model

    @property
    def classes(self) -> tuple[str, ...]:
        """Genres in the order of the model's outputs."""
        return self._run.classes

    @property
    def config(self) -> Mapping[str, Any]:
        """Contents of config.json: system, stores, settings, library versions.

        >>> run.config["kind"]
        'neural'
        """
        return self._run.config

    @property
    def finished(self) -> bool:
        """Whether the training has ended; only then can the run predict."""
        return self._run.finished

    def predict(
        self,
        files: PathLike | Iterable[PathLike],
        *,
        recursive: bool = False,
        device: str = "auto",
        workers: int | None = None,
    ) -> list[FilePrediction]:
        """Predict the genres of audio files, as `mgc predict` does; neither store nor dataset is needed.

        Files are decoded by worker processes, so that a damaged file stops no other: call this method below
        `if __name__ == "__main__":`.

        Args:
            files: a file, folder or playlist (M3U, M3U8), or several.
            recursive: also predict the files in folders below a folder.
            device: `auto` (the GPU if there is one), `cpu`, `cuda`, `cuda:N` or `mps`.
            workers: number of processes that decode; None for one per processor.

        Returns:
            One prediction per file, each once, in the order in which they are named or listed. That of a file that
            cannot be used says why.

        Raises:
            MgcError: a file does not exist, or the run is unfinished or damaged.

        >>> [prediction] = run.predict("music/blues/blues00.wav", device="cpu")
        >>> prediction.status, sorted(prediction.probabilities)
        ('ok', ['blues', 'techno'])
        """
        from mgc.models.prediction.frames import Decoding
        from mgc.models.prediction.inputs import collect
        from mgc.models.prediction.predict import FilePredictor

        named = [files] if isinstance(files, str | os.PathLike) else files
        paths = collect([os.fspath(path) for path in named], recursive=recursive).paths
        predictor = FilePredictor(self._run, device)
        predictions = dict(predictor.predict(paths, Decoding(workers)))
        return [predictions[number] for number in range(len(paths))]

    def evaluate(self, split: str = "test", *, device: str = "auto") -> Evaluation:
        """Score the run on a split of its own tracks, as `mgc evaluate --no-report` does.

        Scores and predictions are also written to the run's folder. Each evaluation is counted there: choose models by
        the validation split, and score the test split once.

        Args:
            split: `training`, `validation` or `test`.
            device: `auto` (the GPU if there is one), `cpu`, `cuda`, `cuda:N` or `mps`.

        Raises:
            MgcError: there is no such split, it has no tracks, its store is gone, or the run is unfinished.

        >>> evaluation = run.evaluate("validation", device="cpu")
        >>> evaluation.n_tracks
        2
        """
        from mgc.models.evaluation.evaluate import evaluate
        from mgc.models.interface.slices import require_split
        from mgc.models.training.predict import require_scorable

        require_split(split)
        require_scorable(self._run, split)
        return evaluate([self._run], split=split, device=device)
