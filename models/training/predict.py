"""Prediction: class probabilities of a trained system for the slices of its run's tracks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from mgc.models import classical
from mgc.models.data import adapters, nearest
from mgc.models.data.joint import JointStream
from mgc.models.data.pooled_view import as_read
from mgc.models.data.split_data import RunInputs, SplitData, set_residency
from mgc.models.data.stream import Batching, Stream
from mgc.models.data.waveform_view import WaveformView
from mgc.models.network import Network, outputs, outputs_by_batch
from mgc.models.parallel.device import choose_device
from mgc.models.registry import systems
from mgc.models.runs.run import Run, Source
from mgc.models.runs.selection import Selection
from mgc.pipeline.errors import RunError, StoreError
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.store.store import Store

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

#: Slices to predict: the frames of one store, or of several joined.
Slices: TypeAlias = Stream | JointStream
#: Slices per batch for systems whose recipe has no batch size.
BATCH_SIZE = 32


def predict(
    run: Run, *, split: str = "test", device: str = "auto", batch_size: int | None = None, store: Path | None = None
) -> pa.Table:
    """Predict the class probabilities of every slice of a split, with the weights of the best epoch.

    A run with a refit scores training and validation split by its first model, see `Run.model_file`.

    Tracks, splits and slicing are those that the run recorded, even if the store has changed them since. Windows
    shorter than a slice are cut from its centre.

    Args:
        run: trained run.
        split: `training`, `validation` or `test`.
        device: device name, see `mgc.models.parallel.device.choose_device`.
        batch_size: slices per batch; None for the batch size of the training.
        store: store to read instead of the run's first one, of the same tracks and feature, for example in another
            dtype; None for the run's.

    Returns:
        One row per slice: track_id, start_s, split, genre (the true one), artist_id (null if unknown), and
        probabilities, list<float32>, in the order of `run.selection.classes`.

    Raises:
        RunError: the run has no weights or no tracks of this split, was trained on one of the split's tracks, or does
            not fit the store; or its training is unfinished and the split is `test`.
        StoreError: the store is missing, unfinished or damaged.
    """
    require_scorable(run, split)
    return predict_slices(run, run.selection, open_stores(run, store), split, device=device, batch_size=batch_size)


def predict_slices(
    run: Run,
    selection: Selection,
    stores: Sequence[Store],
    split: str,
    *,
    device: str = "auto",
    batch_size: int | None = None,
) -> pa.Table:
    """Predict the slices of any tracks, cut by the run's slicing, with what it learnt from its own.

    Args:
        run: trained run.
        selection: tracks; its classes are those of the run.
        stores: store of the tracks for each input of the system, of the features that the run was trained on.
        split: split of the selection; `test` for tracks of another dataset, see `Run.model_file`.
        device: see `predict`.
        batch_size: see `predict`.

    Returns:
        See `predict`.

    Raises:
        RunError: the run has no weights, or there are no tracks of this split.
        StoreError: a store is damaged.
    """
    torch_device = choose_device(device)
    training = run.config["training"] or {}
    inputs = RunInputs(selection, stores, run.slicing, [source.frames for source in run.sources])
    squeeze = systems.of_run(run.config).squeezes(run.slicing)
    batch_size = batch_size or training.get("batch_size", BATCH_SIZE)
    data = inputs.split(split, Batching(batch_size, torch_device, squeeze=squeeze))
    if not len(data):
        raise RunError(f"{run.path}: the run has no {split} tracks", "choose another split")
    set_residency([data], torch_device)
    probabilities = load_model(run, [opened.spec for opened in stores], torch_device, split)(data.stream)
    return _predictions(selection, data, probabilities)


def _predictions(selection: Selection, data: SplitData, probabilities: np.ndarray) -> pa.Table:
    """Assemble the table that `predict` returns."""
    slices, tracks = data.slices, selection.tracks
    track_rows = pc.index_in(slices["track_id"], value_set=tracks["track_id"].combine_chunks())
    values, offsets = probabilities.ravel(), np.arange(len(slices) + 1) * probabilities.shape[1]
    return pa.table(
        {
            "track_id": slices["track_id"],
            "start_s": slices["start_s"],
            "split": slices["split"],
            "genre": pa.array(selection.classes).take(pa.array(data.stream.labels)),
            "artist_id": tracks["artist_id"].take(track_rows),
            "probabilities": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.float32())),
        }
    )


def open_stores(run: Run, first: Path | None = None) -> list[Store]:
    """Open the stores of a run, one for each input of its system.

    Args:
        run: run whose stores are opened.
        first: store to open instead of the run's first one, of the same feature in any dtype; None for the run's.

    Returns:
        The stores; one whose feature the device computes is wrapped in a `WaveformView`.

    Raises:
        RunError: a store holds another feature than the run was trained on.
        StoreError: a store is missing, unfinished or damaged.
    """
    stores: list[Store] = []
    for source in run.sources:
        store = as_read(_open_source(run, source) if stores or first is None else Store.open(first))
        store.require_finished()
        spec = source.waveform or source.spec
        if not same_feature(store.spec, spec):
            raise RunError(f"{store.path} holds {store.spec}, the run was trained on {spec}", "name another store")
        stores.append(store if source.waveform is None else WaveformView.of(store, source.spec))
    return stores


def match_stores(run: Run, stores: Sequence[Store]) -> list[Store]:
    """Choose the store for each input of a run's system among stores of another dataset.

    Returns:
        As `open_stores`.

    Raises:
        RunError: no store holds the feature of an input; the message names the parameters that differ.
    """
    matched = []
    stores = [as_read(store) for store in stores]
    for source in run.sources:
        wanted = source.waveform or source.spec
        store = next((store for store in stores if same_feature(store.spec, wanted)), None)
        if store is None:
            differences = {store.path: _parameters(store.spec, wanted) for store in stores}
            path = min(differences, key=lambda path: len(differences[path]))
            problem = f"{path} holds another feature than the run was trained on: {', '.join(differences[path])}"
            raise RunError(problem, f"name a store of {wanted}: `mgc extract --feature` makes it")
        matched.append(store if source.waveform is None else WaveformView.of(store, source.spec))
    return matched


def _parameters(spec: FeatureSpec, wanted: FeatureSpec) -> list[str]:
    """List the parameters of a feature, but the dtype of its frames, that differ from those wanted."""
    return [line for line in nearest.feature_differences(spec, wanted) if not line.startswith("dtype ")]


def _open_source(run: Run, source: Source) -> Store:
    """Open a store of a run; if there is none, raise a `StoreError` that says what can be done."""
    try:
        return Store.open(source.path)
    except StoreError:
        if (source.path / "store.json").exists() or (source.path / "shards").exists():
            raise
        dataset = run.config["store"]["dataset"]
        raise nearest.lost_store(source.path, source.waveform or source.spec, dataset, run.path) from None


def require_scorable(run: Run, split: str) -> None:
    """Raise `RunError` if a split must not be scored: the training is unfinished, or used its tracks."""
    if split == "test" and not run.finished:
        remedy = f"continue it: `mgc train --resume --run {run.path}`, or try --split validation"
        raise RunError(f"{run.path}: its training is unfinished, and only a finished run may be tested", remedy)
    require_unseen(run, split)


def require_unseen(run: Run, split: str) -> None:
    """Raise `RunError` if the run was trained on a track of this split; the training split itself passes.

    So does a run that splits slices instead of tracks.
    """
    tracks = run.selection.tracks
    if run.selection.split_seed is not None:
        return  # on purpose: the run is marked leaky
    training_ids = tracks["track_id"].filter(pc.equal(tracks["split"], "training"))
    split_ids = tracks["track_id"].filter(pc.equal(tracks["split"], split))
    overlap = split_ids.filter(pc.is_in(split_ids, value_set=training_ids.combine_chunks()))
    if split != "training" and len(overlap):
        problem = f"{run.path}: the run was trained on track {overlap[0]}, which is in its {split} split"
        raise RunError(problem, "train a new run")


class _SideBySide(nn.Module):
    """Adapters of several inputs, whose flattened tensors are joined."""

    def __init__(self, inputs: Sequence[nn.Module]) -> None:
        super().__init__()
        self._inputs = nn.ModuleList(inputs)

    def forward(self, frames: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Convert frames `(batch, frames, bins)` of each input to vectors `(batch, values)`."""
        each = (frames,) if isinstance(frames, Tensor) else frames
        return torch.cat([adapt(x).flatten(1) for adapt, x in zip(self._inputs, each, strict=True)], dim=1)


def vectors(system: systems.System, specs: Sequence[FeatureSpec], stream: Slices, what: str) -> classical.Vectors:
    """Return a function that yields the input vectors of a classical system: the adapters' tensors, flattened.

    Args:
        system: classical system.
        specs: feature of the frames of each input.
        stream: slices to read.
        what: label of the progress bar.
    """
    inputs = _SideBySide([adapters.adapter(one, spec) for one, spec in zip(system.inputs, specs, strict=True)])
    module = inputs.to(stream.device)
    return lambda: ((rows, values.numpy()) for rows, values in outputs_by_batch(module, stream, what))


def load_model(
    run: Run, specs: Sequence[FeatureSpec], device: torch.device, split: str | None = None
) -> Callable[[Slices], np.ndarray]:
    """Load a run's model: the weights of its best epoch, or its fitted estimator; of a refit, if there is one.

    Args:
        run: trained run.
        specs: feature of the frames of each input.
        device: device of the network; estimators stay on the CPU.
        split: split of the run's own tracks that is scored; None for any other tracks. See `Run.model_file`.

    Returns:
        Function that applies the model to every slice of a stream: float32 `(slices, classes)`.

    Raises:
        RunError: the model is missing or damaged, or holds the weights of another system.
    """
    system = systems.of_run(run.config)
    if system.kind == "classical":
        estimator = load_estimator(run, split)
        return lambda stream: classical.predict_proba(
            estimator, vectors(system, specs, stream, "features"), len(stream.labels)
        )
    network = load_network(run, specs, device, split)
    return lambda stream: outputs(network, stream, "prediction").softmax(dim=1).numpy()


def load_estimator(run: Run, split: str | None = None) -> Pipeline:
    """Load the estimator of a run of kind `classical`; for arguments see `load_model`.

    Raises:
        RunError: it is missing or damaged.
    """
    name = run.model_file(split)
    return classical.load(run.path / name, run.read(name))


def load_network(run: Run, specs: Sequence[FeatureSpec], device: torch.device, split: str | None = None) -> Network:
    """Load the network of a run of kind `neural`, with the weights of its best epoch; for arguments see `load_model`.

    Raises:
        RunError: the weights are missing or damaged, or those of another system.
    """
    system = systems.of_run(run.config)
    network = Network(system, specs, len(run.classes), channels_last=device.type != "mps").to(device)
    name = run.model_file(split)
    weights = run.load(name)
    try:
        network.load(weights)
    except (KeyError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise RunError(
            f"{run.path / name}: not the weights of {run.model} ({first_line})", "train a new run"
        ) from error
    return network


def same_feature(spec: FeatureSpec, other: FeatureSpec) -> bool:
    """Whether two stores hold the same feature, in whatever dtype."""
    return spec.as_dict() | {"dtype": None} == other.as_dict() | {"dtype": None}
