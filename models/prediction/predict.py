"""Genre probabilities of audio files, by the model of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mgc.models.data.pooled_view import PooledView
from mgc.models.data.split_data import RunInputs, SplitData, set_residency
from mgc.models.data.stream import Batching
from mgc.models.data.waveform_view import WaveformView
from mgc.models.network import outputs
from mgc.models.parallel.device import choose_device
from mgc.models.prediction import frames
from mgc.models.prediction.prediction import FilePrediction, timeline
from mgc.models.registry import systems
from mgc.models.runs.run import Run, Source
from mgc.models.runs.selection import TRACK_SCHEMA, Selection
from mgc.models.training import typicality
from mgc.models.training.ensemble import members_of
from mgc.models.training.last_layer import LastLayer
from mgc.models.training.predict import BATCH_SIZE, Slices, load_model, load_network
from mgc.pipeline.errors import RunError
from mgc.pipeline.features import Embedding, FeatureSpec, parse_feature
from mgc.pipeline.store.manifest import drop_uncut
from mgc.pipeline.store.store import Store
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.models.embedding.embedder import Embedder

#: Function from slices to probabilities, float32 `(slices, genres)`, and embeddings `(slices, d)` if they are wanted.
Score: TypeAlias = Callable[[Slices], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Detail:
    """What a prediction was made of, while the frames of the file are on disk.

    Attributes:
        store: holds the frames of the system's first input, that of the first member for an ensemble.
        row: manifest row of the file in this store.
        starts: start of each slice in seconds, float64 `(slices,)`.
        embeddings: what the last layer sees of each slice, float32 `(slices, d)`; None unless asked for.
    """

    store: Store
    row: dict[str, Any]
    starts: np.ndarray
    embeddings: np.ndarray | None


class Sink(Protocol):
    """Takes in each prediction of a usable file, with what it was made of."""

    def add(self, prediction: FilePrediction, detail: Detail) -> None:
        """Take in the prediction of a file."""


class FilePredictor:
    """Predicts genres of audio files with the features, the slicing and the weights of a run; no store is needed.

    Args:
        run: trained run, or that of an ensemble, whose members' probabilities are averaged.
        device: device name, see `mgc.models.parallel.device.choose_device`.
        embed: compute embeddings, too.

    Raises:
        RunError: the run is unfinished, or a model is missing or damaged; or it is not that of one network, and
            embeddings are asked for.
    """

    def __init__(self, run: Run, device: str = "auto", *, embed: bool = False) -> None:
        chosen = choose_device(device)
        if embed and run.config.get("kind") != "neural":
            raise RunError(f"{run.path}: {run.model} has no embeddings", "name the run of a single network")
        self._members = [_Member(member, chosen, embed) for member in members_of(run)]
        self.classes = run.classes
        #: Features that a file's frames are needed of.
        self.specs = list(dict.fromkeys(spec for member in self._members for spec in member.specs))

    def predict(
        self,
        paths: Sequence[str],
        decoding: frames.Decoding = frames.Decoding(),  # noqa: B008  # it is frozen
        advance: Callable[[int], object] = lambda n_files: None,
        sinks: Sequence[Sink] = (),
    ) -> Iterator[tuple[int, FilePrediction]]:
        """Predict the genres of files. Memory holds a few files at a time.

        Args:
            paths: paths of the files.
            decoding: how they are decoded.
            advance: function that is called with numbers of files that were decoded since the last call.
            sinks: take in each prediction of a usable file before it is yielded.

        Yields:
            Index of each file and its prediction, in the order in which files are decoded.
        """
        for batches in frames.extract(paths, self.specs, decoding, advance):
            yield from self.predict_frames(paths, batches, sinks)

    def predict_frames(
        self, paths: Sequence[str], batches: Sequence[frames.Batch], sinks: Sequence[Sink] = ()
    ) -> Iterator[tuple[int, FilePrediction]]:
        """Predict the genres of some files from their frames.

        Args:
            paths: paths of all files.
            batches: frames of some of them, as `frames.decode` yields them: one batch for each of `specs`.
            sinks: take in each prediction of a usable file before it is yielded.

        Yields:
            Index of each file in `paths` and its prediction.
        """
        stores = dict(zip(self.specs, batches, strict=True))
        answers = [member.predict([stores[spec] for spec in member.specs]) for member in self._members]
        for row in range(len(batches[0].tracks)):
            number = int(batches[0].tracks["track_id"][row].as_py())
            prediction = self._join(paths[number], [answer[row] for answer in answers])
            if prediction.status == "ok":
                first = answers[0][row]
                store = stores[self._members[0].specs[0]]
                for sink in sinks:
                    sink.add(prediction, Detail(store, first.row, first.starts, first.embeddings))
            yield number, prediction

    def _join(self, path: str, answers: Sequence[_Answer]) -> FilePrediction:
        """Average what the members say of a file."""
        row = next((answer.row for answer in answers if answer.row["status"] != "ok"), answers[0].row)
        common = {"status": row["status"], "detail": row["detail"] or "", "duration_s": row["duration_s"]}
        if row["status"] != "ok":
            return FilePrediction(path, reason=row["reason"], **common)
        means = np.mean([answer.mean for answer in answers], axis=0)
        seconds = np.mean([answer.timeline for answer in answers], axis=0)
        probabilities = dict(zip(self.classes, means.tolist(), strict=True))
        strange = any(answer.strange for answer in answers)
        return FilePrediction(path, probabilities=probabilities, timeline=seconds, strange=strange, **common)


@dataclass(frozen=True)
class _Answer:
    """What one model says of a file: manifest row, mean probabilities `(genres,)`; see `Detail`, `FilePrediction`."""

    row: dict[str, Any]
    mean: np.ndarray
    timeline: np.ndarray
    starts: np.ndarray
    embeddings: np.ndarray | None
    strange: bool


class _Member:
    """The model of one run, and how it wants its input."""

    def __init__(self, run: Run, device: torch.device, embed: bool) -> None:
        if not run.finished:
            remedy = f"continue it: `mgc train --resume --run {run.path}`"
            raise RunError(f"{run.path}: its training is unfinished", remedy)
        self._run = run
        specs = [source.spec for source in run.sources]
        self._score = _embedding_model(run, specs, device) if embed else _plain_model(run, specs, device)
        self._typical = typicality.load(run)
        training = run.config["training"] or {}
        squeeze = systems.of_run(run.config).squeezes(run.slicing)
        self._batching = Batching(training.get("batch_size", BATCH_SIZE), device, squeeze=squeeze)
        workspace = Workspace(run.path.resolve().parent.parent)
        self._embedders = {spec: _embedder(spec, workspace, device) for spec in specs if isinstance(spec, Embedding)}
        #: Features to extract, one for each input.
        self.specs = [_extracted(source) for source in run.sources]

    def predict(self, stores: Sequence[Store]) -> list[_Answer]:
        """Predict the tracks of stores, one store for each input; one answer a track, in their order."""
        views = [self._view(store, source) for store, source in zip(stores, self._run.sources, strict=True)]
        rows = _refused_by_any(views)
        data = self._data(views, rows)
        probabilities, embeddings = np.zeros((0, len(self._run.classes))), None
        strange = np.zeros(len(data), bool)
        if len(data):
            set_residency([data], self._batching.device)
            scores, embeddings = self._score(data.stream)
            probabilities = scores.astype(np.float64)
            probabilities /= probabilities.sum(axis=1, keepdims=True)
            if self._typical is not None:
                distances = self._typical.distances(typicality.track_vectors(self._run, data))
                strange = (distances > 1)[data.tracks]
        slices = data.slices
        rows = drop_uncut(rows, slices, self._run.slicing, views[0])
        owners, starts = slices["track_id"].to_numpy(), slices["start_s"].to_numpy()
        slicing = self._run.slicing
        length_s = np.inf if slicing.whole else slicing.length_s(views[0].spec)
        answers = []
        for row in rows.to_pylist():
            own = owners == row["track_id"]
            mean = probabilities[own].mean(axis=0) if own.any() else np.zeros(0)
            seconds = timeline(starts[own], length_s, probabilities[own], row["duration_s"] or 0)
            seen = None if embeddings is None else embeddings[own]
            answers.append(_Answer(row, mean, seconds, starts[own], seen, bool(strange[own].any())))
        return answers

    def _view(self, store: Store, source: Source) -> Store:
        """Present extracted frames as the feature that the system reads."""
        if isinstance(source.spec, Embedding):
            from mgc.models.embedding.computed_view import ComputedView

            spec = dataclasses.replace(source.spec, pool="windows")
            return PooledView.of(ComputedView.of(store, spec, self._embedders[source.spec]))
        return store if source.waveform is None else WaveformView.of(store, source.spec)

    def _data(self, stores: Sequence[Store], rows: pa.Table) -> SplitData:
        """Cut the usable tracks among manifest rows."""
        rows = rows.filter(pc.equal(rows["status"], "ok"))
        genre = pa.array([self._run.classes[0]] * len(rows), pa.string())  # a class is needed, and never looked at
        tracks = rows.set_column(rows.schema.get_field_index("genre"), "genre", genre)
        selection = Selection(self._run.classes, tracks.select(TRACK_SCHEMA.names).cast(TRACK_SCHEMA))
        inputs = RunInputs(selection, stores, self._run.slicing, [source.frames for source in self._run.sources])
        return inputs.split("test", self._batching)


def _embedder(spec: Embedding, workspace: Workspace, device: torch.device) -> Embedder:
    """The network of an embedding; imported here, as only probes need it."""
    from mgc.models.embedding.embedder import of_spec

    return of_spec(spec, workspace, str(device))


def _extracted(source: Source) -> FeatureSpec:
    """The feature to extract of files for an input."""
    return parse_feature(source.spec.of) if isinstance(source.spec, Embedding) else source.waveform or source.spec


def _plain_model(run: Run, specs: Sequence[FeatureSpec], device: torch.device) -> Score:
    model = load_model(run, specs, device)
    return lambda stream: (model(stream), None)


def _embedding_model(run: Run, specs: Sequence[FeatureSpec], device: torch.device) -> Score:
    tapped = LastLayer(load_network(run, specs, device), len(run.classes))

    def score(stream: Slices) -> tuple[np.ndarray, np.ndarray]:
        vectors, logits = tapped.split(outputs(tapped, stream, "prediction"))
        if not vectors.shape[1]:
            problem = f"{run.path}: {run.model} has no embeddings: no layer before the last"
            raise RunError(problem, "leave --embeddings out")
        return logits.softmax(dim=1).numpy(), vectors.numpy()

    return score


def _refused_by_any(stores: Sequence[Store]) -> pa.Table:
    """Manifest rows of the first store; of a track that another one has dropped, with its reason."""
    rows = stores[0].tracks
    for other in stores[1:]:
        dropped = pc.and_(pc.equal(rows["status"], "ok"), pc.not_equal(other.tracks["status"], "ok"))
        for name in ("status", "reason", "detail"):
            column = pc.if_else(dropped, other.tracks[name], rows[name])
            rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows
