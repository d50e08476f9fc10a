"""A cheap classifier on the frames that a store holds: an SVM on statistics of its slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.base import clone
from torch import nn

from mgc.models.data import adapters
from mgc.models.data.stream import Batching, Stream
from mgc.models.network import outputs_by_batch
from mgc.models.registry import systems
from mgc.models.runs.selection import TRACK_SCHEMA, Selection
from mgc.pipeline.errors import ModelError
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

#: The baseline whose scaling and SVM the probe has. It is not calibrated, which changes no decision.
SYSTEM = "moments/svm"
#: Slices at most: the time of an SVM grows with the square of their number.
MAX_SLICES = 4000


@dataclass(frozen=True)
class Slices:
    """Vectors of slices.

    Attributes:
        x: float32 `(n, values)`.
        tracks: index of each slice's track, int64 `(n,)`.
        genres: index of the genre of each track, int64 `(tracks,)`.
    """

    x: np.ndarray
    tracks: np.ndarray
    genres: np.ndarray


def read(store: Store, rows: Sequence[dict[str, Any]]) -> Slices:
    """Compute the vectors of slices: all, or `MAX_SLICES`, evenly spread over each track.

    Args:
        store: store of mel, MFCC, chroma, STFT or power frames, or of statistics.
        rows: the tracks, sorted by id: dicts of manifest columns.

    Raises:
        ModelError: the store holds another feature, or a track has no slice.
    """
    module, spec = _module(store.spec), store.spec
    slicing = Slicing() if store.slicing.whole and spec.name != "stats" else store.slicing
    genres = sorted({row["genre"] for row in rows})
    table = pa.Table.from_pylist([{**row, "split": "test"} for row in rows], TRACK_SCHEMA)
    slices, labels = Selection(tuple(genres), table).slices(store, slicing, "test")
    tracks = np.searchsorted([row["track_id"] for row in rows], slices["track_id"].to_pylist())
    if len(np.unique(tracks)) < len(rows):
        raise ModelError("some tracks have no slice", "cut shorter ones: `mgc slice`")
    by_track = np.split(np.argsort(tracks, kind="stable"), np.cumsum(np.bincount(tracks))[:-1])
    kept = np.concatenate([_spread(own, MAX_SLICES // len(rows)) for own in by_track])
    batching = Batching(256, torch.device("cpu"))
    stream = Stream(store, slices.take(kept), labels[kept], slicing.n_frames(spec) or 1, batching)
    x = np.empty(0)
    for numbers, values in outputs_by_batch(module, stream, "price"):
        x = x if len(x) else np.empty((len(kept), values.shape[1]), np.float32)
        x[numbers] = values.numpy()
    return Slices(x, tracks[kept], np.array([genres.index(row["genre"]) for row in rows]))


def decide(slices: Slices, training: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Fit the probe on some slices, and return its decision values of others.

    Args:
        slices: vectors of all slices.
        training: rows to fit on, of two genres or more.
        test: rows to decide on.

    Returns:
        float64 `(test, genres)`; -inf for a genre without training slices.
    """
    model = systems.get(SYSTEM).build(int(slices.genres.max()) + 1)
    scaler, svm = clone(model[0]), clone(model[-1].estimator)
    genres = slices.genres[slices.tracks]
    svm.fit(scaler.fit_transform(slices.x[training]), genres[training])
    values = svm.decision_function(scaler.transform(slices.x[test]))
    if values.ndim == 1:  # of two genres
        values = np.stack([-values, values], axis=1)
    decisions = np.full((len(test), int(slices.genres.max()) + 1), -np.inf)
    decisions[:, svm.classes_] = values
    return decisions


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows of a track, but one at least, evenly spread."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, max(count, 1)).round().astype(int))]


def _module(spec: FeatureSpec) -> nn.Module:
    """Module from frames to vectors: seven moments of 20 coefficients or of chroma, or statistics as they are."""
    if spec.name == "stats":
        return nn.Flatten()
    if spec.name not in ("mel", "mfcc", "chroma", "stft", "power"):
        remedy = "name a store of mel, mfcc, chroma, stft or stats"
        raise ModelError(f"no probe works on {spec.name} frames", remedy)
    # The coefficients of STFT levels are those of a cepstrum with linear bands.
    levels: list[nn.Module] = [adapters.Decibels()] if spec.name == "power" else []
    return nn.Sequential(*levels, adapters.adapter(systems.get(SYSTEM).input, spec))
