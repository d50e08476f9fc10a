"""Nearest tracks of a store of embeddings: an exact search, shard by shard."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from mgc.models.data.pooled_view import PooledView
from mgc.pipeline.errors import StoreError
from mgc.pipeline.store.store import Store


@dataclass(frozen=True)
class Neighbour:
    """A track that resembles the one that was asked for.

    Attributes:
        row: its manifest row.
        similarity: cosine of the angle between the two tracks' embeddings, from -1 to 1.
    """

    row: dict[str, Any]
    similarity: float


class Neighbours:
    """The tracks of a store of embeddings, to be searched.

    A track is the mean over its windows, standardised over all tracks of the store: what all music has in common would
    make every pair of tracks alike. Memory holds one shard; every search reads the store once.

    Args:
        store: a finished store of embeddings.

    Raises:
        StoreError: the store holds no track.
    """

    def __init__(self, store: Store) -> None:
        self._view = PooledView.of(store)
        self._width = self._view.spec.width
        tracks = self._view.tracks
        used = tracks.filter(pc.greater(tracks["n_frames"], 0))
        self._tracks = used.sort_by([("shard", "ascending"), ("first_frame", "ascending")])
        if not len(self._tracks):
            raise StoreError(
                f"{store.path}: it holds no track", "embed a store with tracks that are as long as a window"
            )
        n, total, squares = 0, np.zeros(self._width), np.zeros(self._width)
        for _, means in self._shards():
            n, total, squares = n + len(means), total + means.sum(axis=0), squares + np.square(means).sum(axis=0)
        self._mean = total / n
        self._deviation = np.sqrt(np.maximum(squares / n - np.square(self._mean), 0.0))
        self._deviation[self._deviation < 1e-9] = 1.0

    def of_track(self, track_id: str, count: int) -> list[Neighbour]:
        """Return the tracks nearest to one of the store, which is left out itself.

        Raises:
            StoreError: the store has no such track, or no window of it.
        """
        found = self._view.tracks.filter(pc.equal(self._view.tracks["track_id"], track_id))
        if not len(found):
            raise StoreError(f"{self._view.path}: no track {track_id}", "name one of `mgc.open_store(...).tracks`")
        [row] = found.to_pylist()
        if not row["n_frames"]:
            raise StoreError(
                f"{self._view.path}: no frames of track {track_id} ({row['reason']})", "name another track"
            )
        vector = self._view.read(row["shard"], row["first_frame"], row["first_frame"] + 1)[0, : self._width]
        return self.of_vector(vector, count, without=track_id)

    def of_vector(self, vector: np.ndarray, count: int, without: str | None = None) -> list[Neighbour]:
        """Return the tracks nearest to a vector, the nearest first.

        Args:
            vector: mean over the windows of a track, `(width,)`.
            count: number of tracks.
            without: id of a track to leave out.
        """
        direction = self._direction(vector[None])[0]
        best: list[tuple[float, int]] = []
        for first, means in self._shards():
            similarities = self._direction(means) @ direction
            nearest = np.argsort(-similarities, kind="stable")[: count + 1]
            best += [(float(similarities[place]), -(first + int(place))) for place in nearest]
            best = heapq.nlargest(count + 1, best)  # of equal ones, the first in the store
        rows = self._tracks.take([-place for _, place in best]).to_pylist()
        pairs = zip(rows, best, strict=True)
        return [Neighbour(row, value) for row, (value, _) in pairs if row["track_id"] != without][:count]

    def _direction(self, means: np.ndarray) -> np.ndarray:
        """Standardise vectors `(n, width)` and scale them to length 1."""
        values = (means - self._mean) / self._deviation
        return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)

    def _shards(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of the first track of each shard, and the means of all of its tracks, float64."""
        shards = self._tracks["shard"].to_numpy()
        for shard in np.unique(shards):
            yield int(np.searchsorted(shards, shard)), self._view.read(int(shard))[:, : self._width].astype(np.float64)
