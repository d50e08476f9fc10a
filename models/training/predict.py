"""Prediction: the probabilities that a run gives to slices of its own tracks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import nn

from mgc.models import classical
from mgc.models.data import adapters
from mgc.models.data.computed import Computed
from mgc.models.data.joint import Joint
from mgc.models.data.parts import keep_resident, open_part
from mgc.models.data.stream import Stream
from mgc.models.network import Network, outputs, outputs_by_batch
from mgc.models.parallel.device import choose
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.pipeline.errors import RunError
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.store.store import Store

#: Slices per batch where nothing says how many.
BATCH_SIZE = 32


def predict(
    run: Run, *, split: str = "test", device: str = "auto", batch_size: int | None = None, store: Path | None = None
) -> pa.Table:
    """The probabilities of every slice of a split, from the weights of the best epoch.

    Tracks, splits and slicing are those of the run, whatever the store says by now. Windows shorter than a slice are
    cut from its centre.

    Args:
        run: the run.
        split: training, validation or test.
        device: see `mgc.models.parallel.device.choose`.
        batch_size: slices per batch; the one of the training if None.
        store: another store of the same tracks and feature, such as one of another dtype; of the first of several.

    Returns:
        One row per slice: track_id, start_s, split, genre (the true one), artist_id (null where unknown), and
        probabilities, list<float32>, in the order of `run.selection.classes`.

    Raises:
        RunError: the run has no weights or no such tracks, was trained on one of them, or the store does not fit; or
            the training is unfinished, which must not see the test split.
        StoreError: the store is missing, unfinished or damaged.
    """
    selection = run.selection
    if split == "test" and not run.finished:
        remedy = f"continue it: `mgc train --resume --run {run.path}`, or try --split validation"
        raise RunError(f"{run.path}: its training is unfinished, so its test tracks are kept for later", remedy)
    refuse_trained(run, split)
    stores = open_stores(run, store)
    where = choose(device)
    training = run.config["training"] or {}
    part = open_part(
        selection,
        stores,
        run.slicing,
        split,
        frames=[source.frames for source in run.sources],
        batch_size=batch_size or training.get("batch_size", BATCH_SIZE),
        device=where,
        squeeze=systems.get(run.model).squeezes(run.slicing),
    )
    slices, labels = part.slices, part.stream.labels
    if not len(slices):
        raise RunError(f"{run.path}: the run has no {split} tracks", "choose another split")
    keep_resident([part], where)
    probabilities = _probabilities(run, [opened.spec for opened in stores], part.stream)
    artist = selection.tracks["artist_id"].take(
        pc.index_in(slices["track_id"], value_set=selection.tracks["track_id"].combine_chunks())
    )
    values, offsets = probabilities.ravel(), np.arange(len(slices) + 1) * probabilities.shape[1]
    return pa.table(
        {
            "track_id": slices["track_id"],
            "start_s": slices["start_s"],
            "split": slices["split"],
            "genre": pa.array(selection.classes).take(pa.array(labels)),
            "artist_id": artist,
            "probabilities": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.float32())),
        }
    )


def open_stores(run: Run, first: Path | None = None) -> list[Store]:
    """The run's stores, the first of them or another one of the same feature; how frames are stored may differ.

    Raises:
        RunError: one holds another feature.
        StoreError: one is missing, unfinished or damaged.
    """
    stores: list[Store] = []
    for source in run.sources:
        store = Store.open(source.path if stores or first is None else first)
        store.require_finished()
        held = source.waveform or source.spec
        if _identity(store.spec) != _identity(held):
            raise RunError(f"{store.path} holds {store.spec}, the run was trained on {held}", "name another store")
        stores.append(store if source.waveform is None else Computed.of(store, source.spec))
    return stores


def refuse_trained(run: Run, split: str) -> None:
    """Raise `RunError`, naming it, where a track of another split is one the run was trained on."""
    tracks = run.selection.tracks
    trained = tracks["track_id"].filter(pc.equal(tracks["split"], "training"))
    wanted = tracks["track_id"].filter(pc.equal(tracks["split"], split))
    both = wanted.filter(pc.is_in(wanted, value_set=trained.combine_chunks()))
    if split != "training" and len(both):
        raise RunError(
            f"{run.path}: the run was trained on track {both[0]}, which is in its {split} split", "train a new run"
        )


def vectors(system: systems.System, spec: FeatureSpec, stream: Stream | Joint, what: str) -> classical.Vectors:
    """What a classical system is given of each slice: the adapter's tensor, flat."""
    module = nn.Sequential(adapters.adapter(system.input, spec), nn.Flatten())
    return lambda: ((rows, values.numpy()) for rows, values in outputs_by_batch(module, stream, what))


def _probabilities(run: Run, specs: Sequence[FeatureSpec], stream: Stream | Joint) -> np.ndarray:
    """float32 `(slices, classes)`."""
    system = systems.get(run.model)
    if system.kind == "classical":
        estimator = classical.load(run.path / "model.skops")
        return classical.probabilities(estimator, vectors(system, specs[0], stream, "features"), len(stream.labels))
    network = Network(system, specs, len(run.classes)).to(stream.device)
    weights = run.load("best.pt")
    try:
        network.load(weights)
    except (KeyError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise RunError(
            f"{run.path / 'best.pt'}: not the weights of {run.model} ({first_line})", "train a new run"
        ) from error
    return outputs(network, stream, "prediction").softmax(dim=1).numpy()


def _identity(spec: FeatureSpec) -> dict[str, Any]:
    return spec.as_dict() | {"dtype": None}
