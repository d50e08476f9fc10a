"""Typicality: how far a track is from the music that a probe was fitted on.

A classifier divides all that it hears among its genres: white noise, too. The embeddings of a pretrained network know
more: those of noise, speech or a metronome are far from those of music. Distances are those of Mahalanobis in the means
over the windows, after K. Lee et al., "A simple unified framework for detecting out-of-distribution samples", NeurIPS
2018, here with one Gaussian for all genres, whose covariance is shrunk by O. Ledoit and M. Wolf, "A well-conditioned
estimator for large-dimensional covariance matrices", 2004, since there are more values than tracks.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mgc.models.runs.run import Run
from mgc.pipeline.errors import RunError
from mgc.pipeline.features import Embedding, FeatureSpec

#: File of a run.
FILE = "typical.npz"
#: Standard deviations of the logarithm of distances that are still typical: 99 % of a normal distribution.
_DEVIATIONS = 2.33


@dataclass(frozen=True)
class Typicality:
    """The training tracks of a run, as a Gaussian.

    Attributes:
        columns: columns of the vectors that count, int64 `(d,)`.
        mean: their means, float64 `(d,)`.
        whitening: matrix that makes their covariance the identity, float32 `(d, d)`.
        validation: distances of the validation tracks, float64 `(n,)`.
    """

    columns: np.ndarray
    mean: np.ndarray
    whitening: np.ndarray
    validation: np.ndarray

    def distances(self, vectors: np.ndarray) -> np.ndarray:
        """Distances of tracks, float64 `(n,)`, from their vectors `(n, values)`."""
        return np.linalg.norm((vectors[:, self.columns] - self.mean) @ self.whitening.astype(np.float64), axis=1)

    @property
    def limit(self) -> float:
        """The distance beyond which a track is not typical.

        99 % of tracks like those for validation are nearer, if the logarithms of their distances are normally
        distributed.
        """
        logs = np.log(np.maximum(self.validation, 1e-12))
        return float(np.exp(logs.mean() + _DEVIATIONS * (logs.std(ddof=1) if len(logs) > 1 else 0.0)))

    def encode(self) -> bytes:
        """Encode as a NumPy file, without pickled objects."""
        buffer = io.BytesIO()
        np.savez(buffer, **vars(self))
        return buffer.getvalue()


def fit(specs: Sequence[FeatureSpec], training: np.ndarray, validation: np.ndarray) -> Typicality | None:
    """Fit the typicality of a probe; None if no input is an embedding, or there are fewer than two tracks.

    Args:
        specs: feature of each input, whose vectors stand side by side.
        training, validation: vectors of the tracks, `(n, values)`.
    """
    from sklearn.covariance import ledoit_wolf

    columns, first = [], 0
    for spec in specs:
        if isinstance(spec, Embedding):
            columns.append(np.arange(first, first + spec.width))  # the means; the deviations tell less
        first += spec.bins
    if not columns or min(len(training), len(validation)) < 2:
        return None
    chosen = np.concatenate(columns)
    x = training[:, chosen].astype(np.float64)
    scale = x.std(axis=0)
    scale[scale < 1e-9] = 1.0
    covariance, _ = ledoit_wolf((x - x.mean(axis=0)) / scale, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    whitening = (vectors / np.sqrt(np.maximum(values, 1e-9))) / scale[:, None]
    typicality = Typicality(chosen, x.mean(axis=0), whitening.astype(np.float32), np.zeros(0))
    return replace(typicality, validation=typicality.distances(validation))


def load(run: Run) -> Typicality | None:
    """Load the typicality of a run; None if it has none, or an earlier version of mgc trained it.

    Raises:
        RunError: the file is damaged.
    """
    if not (run.path / FILE).exists():
        return None
    try:
        with np.load(io.BytesIO(run.read(FILE)), allow_pickle=False) as arrays:
            return Typicality(*(arrays[name] for name in Typicality.__dataclass_fields__))
    except (KeyError, ValueError, OSError) as error:
        raise RunError(f"{run.path / FILE}: damaged ({error})", "train a new run") from error
