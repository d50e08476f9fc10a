"""Embeddings computed when they are read: frames of audio files, presented as a store of embeddings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from mgc.models.embedding.embed import embed_windows
from mgc.models.embedding.embedder import Embedder
from mgc.models.embedding.windows import Windows, manifest_rows
from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA
from mgc.pipeline.features import Embedding
from mgc.pipeline.store.store import Store


@dataclass(frozen=True)
class ComputedView(Store):
    """A store of frames presented as the store of embeddings that `mgc embed` would make of it.

    Attributes:
        spec: the embedding.
        source: the store of frames, of one shard.
        embedder: the network.
    """

    spec: Embedding
    source: Store = dataclasses.field(kw_only=True)
    embedder: Embedder = dataclasses.field(kw_only=True)

    @classmethod
    def of(cls, source: Store, spec: Embedding, embedder: Embedder) -> ComputedView:
        """View the frames of `source` as `spec`."""
        return cls(source.path, spec, source.dataset, source.versions, source=source, embedder=embedder)

    @cached_property
    def tracks(self) -> pa.Table:
        """The manifest, with windows for frames."""
        windows = Windows.of(self.spec, self.source.spec)
        rows = manifest_rows(self.source.tracks.to_pylist(), windows, self.spec.window / self.spec.sr)
        return pa.Table.from_pylist(rows, MANIFEST_SCHEMA)

    def read(self, shard: int, first: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the vectors of windows `[first, stop)` of the shard, float32 `(n, width)`."""
        return self._vectors(shard)[first:stop]

    def _vectors(self, shard: int) -> np.ndarray:
        if shard not in self._computed:
            rows = self.source.tracks.to_pylist()
            vectors = [*embed_windows(self.embedder, self.source, self.spec, shard, rows)]
            self._computed[shard] = np.concatenate([np.empty((0, self.spec.width), np.float32), *vectors])
        return self._computed[shard]

    @cached_property
    def _computed(self) -> dict[int, np.ndarray]:
        return {}
