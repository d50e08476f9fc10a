"""Typicality: how far a track is from the music that a run was trained on.

A classifier divides all that it hears among its genres: white noise, too. The embeddings of a pretrained network know
more, and so do summaries of the sound itself: those of noise, speech or a metronome are far from those of music.
Distances are those of Mahalanobis, after K. Lee et al., "A simple unified framework for detecting out-of-distribution
samples", NeurIPS 2018, here with one Gaussian for all genres, whose covariance is shrunk by O. Ledoit and M. Wolf, "A
well-conditioned estimator for large-dimensional covariance matrices", 2004, since there may be more values than tracks.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.models import classical
from mgc.models.data.split_data import RunInputs, SplitData
from mgc.models.data.stream import Batching
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.training import sound_summary
from mgc.models.training.assembly import RunData
from mgc.models.training.predict import BATCH_SIZE, vectors
from mgc.pipeline.errors import RunError
from mgc.pipeline.features import Embedding
from mgc.pipeline.store.store import Store

#: File of a run.
FILE = "typical.npz"
#: Standard deviations of the logarithm of distances that are still typical: 99 % of a normal distribution.
_DEVIATIONS = 2.33
#: Tracks of each split that a Gaussian is fitted on and measured by.
MOST_TRACKS = 1000


@dataclass(frozen=True)
class Gaussian:
    """The training tracks of a run, as a Gaussian.

    Attributes:
        first: position of its values in the vectors of tracks.
        mean: means of the training tracks, float64 `(d,)`.
        whitening: matrix that makes their covariance the identity, float32 `(d, d)`.
        validation: distances of the validation tracks, float64 `(n,)`.
    """

    first: int
    mean: np.ndarray
    whitening: np.ndarray
    validation: np.ndarray

    def distances(self, vectors: np.ndarray) -> np.ndarray:
        """Distances of tracks, float64 `(n,)`, from their vectors `(n, values)`; NaN for those without its values."""
        own = vectors[:, self.first : self.first + len(self.mean)]
        return np.linalg.norm((own - self.mean) @ self.whitening.astype(np.float64), axis=1)

    @property
    def limit(self) -> float:
        """The distance beyond which a track is not typical.

        99 % of tracks like those for validation are nearer, if the logarithms of their distances are normally
        distributed.
        """
        logs = np.log(np.maximum(self.validation, 1e-12))
        return float(np.exp(logs.mean() + _DEVIATIONS * (logs.std(ddof=1) if len(logs) > 1 else 0.0)))


@dataclass(frozen=True)
class Typicality:
    """What is typical of the training tracks of a run.

    Attributes:
        gaussians: Gaussians of several descriptions of the tracks. A track is judged by the first one whose values it
            has.
        validation: result of `distances` for the validation tracks, float64 `(n,)`.
    """

    gaussians: tuple[Gaussian, ...]
    validation: np.ndarray

    def distances(self, vectors: np.ndarray) -> np.ndarray:
        """Distances of tracks, float64 `(n,)`, from their vectors `(n, values)`.

        They are relative to the limit of their Gaussian: what is farther than 1 is strange. NaN if none applies.
        """
        distances = np.full(len(vectors), np.nan)
        for gaussian in self.gaussians:
            distances = np.where(np.isnan(distances), gaussian.distances(vectors) / gaussian.limit, distances)
        return distances

    def encode(self) -> bytes:
        """Encode as a NumPy file, without pickled objects."""
        buffer = io.BytesIO()
        arrays = {f"{name}{i}": value for i, one in enumerate(self.gaussians) for name, value in vars(one).items()}
        np.savez(buffer, distances=self.validation, **arrays)
        return buffer.getvalue()


def fit(run: Run, stores: Sequence[Store], data: RunData) -> Typicality | None:
    """Fit the typicality of a run on its training tracks; see `track_vectors`.

    Args:
        run: the run.
        stores: store of each input.
        data: its data.

    Returns:
        None if the run has no input that tells, or there are fewer than two training or validation tracks.
    """
    if not any(isinstance(source.spec, Embedding) or sound_summary.supports(source.spec) for source in run.sources):
        return None
    known, held_out = (track_vectors(run, split) for split in _some_tracks(run, stores, data))
    return fit_vectors(known, held_out, _widths(run) or [known.shape[1]])


def fit_vectors(training: np.ndarray, validation: np.ndarray, widths: Sequence[int]) -> Typicality | None:
    """Fit Gaussians on the vectors of tracks `(n, values)`.

    Args:
        training, validation: vectors of the tracks of these splits. Where a track lacks a description, it is NaN.
        widths: number of values of each description, one behind the other.

    Returns:
        None if no description is known of two tracks of both splits.
    """
    firsts = np.cumsum([0, *widths]).tolist()
    fitted = [_fit_gaussian(training, validation, first, stop) for first, stop in itertools.pairwise(firsts)]
    gaussians = tuple(gaussian for gaussian in fitted if gaussian is not None)
    if not gaussians:
        return None
    distances = Typicality(gaussians, np.zeros(0)).distances(validation)
    return Typicality(gaussians, distances[np.isfinite(distances)])


def _fit_gaussian(training: np.ndarray, validation: np.ndarray, first: int, stop: int) -> Gaussian | None:
    """Fit a Gaussian on columns of vectors, without the rows that are NaN there; None if fewer than two remain."""
    from sklearn.covariance import ledoit_wolf

    columns = [np.asarray(vectors, np.float64)[:, first:stop] for vectors in (training, validation)]
    x, held_out = (values[np.isfinite(values).all(axis=1)] for values in columns)
    if min(len(x), len(held_out)) < 2:
        return None
    scale = x.std(axis=0)
    scale[scale < 1e-9] = 1.0
    covariance, _ = ledoit_wolf((x - x.mean(axis=0)) / scale, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    whitening = (vectors / np.sqrt(np.maximum(values, 1e-9))) / scale[:, None]
    gaussian = Gaussian(0, x.mean(axis=0), whitening.astype(np.float32), np.zeros(0))
    return replace(gaussian, first=first, validation=gaussian.distances(held_out))


def _widths(run: Run) -> list[int]:
    """Number of values of each description of a track in `track_vectors`, if there are several; else empty."""
    specs = [source.spec for source in run.sources]
    store = sound_summary.best_input(specs)
    if store is None or any(isinstance(spec, Embedding) for spec in specs):
        return []
    return sound_summary.summary_widths(specs[store])


def track_vectors(run: Run, data: SplitData) -> np.ndarray:
    """Compute what the typicality of each track is judged by, float64 `(tracks, values)`.

    For a probe these are the means of its embeddings over the windows (their deviations tell less), for other systems
    the summaries of the sound by the input that tells most of it, see `sound_summary.best_input`.
    """
    specs = [source.spec for source in run.sources]
    if not any(isinstance(spec, Embedding) for spec in specs):
        store = sound_summary.best_input(specs)
        assert store is not None  # `fit` gives only such runs a typicality
        return sound_summary.summarise(data, store, specs[store])
    columns, first = [], 0
    for spec in specs:
        if isinstance(spec, Embedding):
            columns.append(np.arange(first, first + spec.width))
        first += spec.bins
    batches = vectors(systems.of_run(run.config), specs, data.stream, "features")()
    rows = classical.map_blocks(np.asarray, batches, len(data))
    return rows[:, np.concatenate(columns)].astype(np.float64)


def _some_tracks(run: Run, stores: Sequence[Store], data: RunData) -> list[SplitData]:
    """The training and the validation tracks, evenly some of them if they are many, without augmentation."""
    chosen = []
    for name in ("training", "validation"):
        tracks = run.selection.tracks.filter(pc.equal(run.selection.tracks["split"], name))
        rows = np.linspace(0, len(tracks) - 1, min(len(tracks), MOST_TRACKS)).astype(int)
        chosen.append(tracks.take(pa.array(rows)))
    selection = replace(run.selection, tracks=pa.concat_tables(chosen))
    inputs = RunInputs(selection, stores, run.slicing, [source.frames for source in run.sources])
    batching = Batching(BATCH_SIZE, data.training.stream.device, squeeze=data.system.squeezes(run.slicing))
    splits = [inputs.split(name, batching) for name in ("training", "validation")]
    for one in (one for split in splits for one in split.streams):
        one.skip_damaged = bool(run.config.get("skip_damaged", False))
        one.residency = "stream"  # frames are read once, and few tracks of each shard are wanted
    return splits


def load(run: Run) -> Typicality | None:
    """Load the typicality of a run; None if it has none, or an earlier version of mgc trained it.

    Raises:
        RunError: the file is damaged.
    """
    if not (run.path / FILE).exists():
        return None
    try:
        with np.load(io.BytesIO(run.read(FILE)), allow_pickle=False) as arrays:
            if "mean" in arrays:  # of an earlier version of mgc, which knew one description
                only = Gaussian(0, arrays["mean"], arrays["whitening"], arrays["validation"])
                return Typicality((only,), only.validation / only.limit)
            count = sum(name.startswith("mean") for name in arrays.files)
            fields = [{name: arrays[f"{name}{i}"] for name in Gaussian.__dataclass_fields__} for i in range(count)]
            gaussians = tuple(Gaussian(**one | {"first": int(one["first"])}) for one in fields)
            return Typicality(gaussians, arrays["distances"])
    except (KeyError, ValueError, OSError) as error:
        raise RunError(f"{run.path / FILE}: damaged ({error})", "train a new run") from error
