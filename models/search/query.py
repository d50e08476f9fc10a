"""Embedding of an audio file, to search with."""

from __future__ import annotations

import numpy as np

from mgc.models.data.pooled_view import PooledView
from mgc.models.embedding.computed_view import ComputedView
from mgc.models.embedding.embedder import of_spec
from mgc.models.prediction import frames
from mgc.pipeline.errors import MgcError
from mgc.pipeline.features import Embedding, parse_feature
from mgc.pipeline.workspace import Workspace


def embed_file(path: str, spec: Embedding, workspace: Workspace, device: str = "auto") -> np.ndarray:
    """Decode a file and embed it as the tracks of a store were; return the mean over its windows, float64 `(width,)`.

    Args:
        path: path of the file.
        spec: feature of the store.
        workspace: workspace that holds the network.
        device: see `mgc.models.parallel.device.choose_device`.

    Raises:
        MgcError: the network is not there, or the file cannot be used.
    """
    embedder = of_spec(spec, workspace, device)
    for batches in frames.extract([path], [parse_feature(spec.of)], frames.Decoding(workers=1)):
        [batch] = batches
        view = ComputedView.of(batch, spec, embedder)
        [row] = view.tracks.to_pylist()
        if row["status"] != "ok":
            problem = f"{path}: {row['reason']}" + (f" ({row['detail']})" if row["detail"] else "")
            raise MgcError(problem, "name another file")
        vector = PooledView.of(view).read(batch.shard)[0, : spec.width].astype(np.float64)
    return vector
