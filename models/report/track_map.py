"""A map of tracks in the plane: similar tracks, as the system sees them, lie together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mgc.models.data.joint import JointStream
from mgc.models.data.stream import Batching
from mgc.models.data.waveform_view import open_stream
from mgc.models.network import outputs
from mgc.models.parallel.device import choose_device
from mgc.models.registry import systems
from mgc.models.report.results import Results
from mgc.models.runs.run import Run
from mgc.models.training.last_layer import LastLayer
from mgc.models.training.predict import BATCH_SIZE, load_network, open_stores
from mgc.pipeline.errors import MgcError

#: Most tracks of a map: t-SNE of 2,000 takes about 10 s, and their points 0.3 MB.
MOST = 2000
#: Perplexity of t-SNE, or a third of the number of tracks if there are fewer.
_PERPLEXITY = 30
_SEED = 0


@dataclass(frozen=True)
class TrackMap:
    """Positions of tracks.

    Attributes:
        rows: indices of the tracks that are shown, int64 `(n,)`.
        layouts: name and positions of each layout, float64 `(n, 2)`, the longer axis from 0 to 1.
        basis: what the positions were computed of, in words.
        captions: what each layout is, in words.
    """

    rows: np.ndarray
    layouts: dict[str, np.ndarray]
    basis: str
    captions: dict[str, str]


def make(results: Results, device: str = "auto") -> TrackMap | None:
    """Lay out the tracks of a run by PCA and t-SNE; None for fewer than three tracks.

    Args:
        results: results of the run.
        device: device of the network, see `mgc.models.parallel.device.choose_device`.
    """
    n = len(results.tracks)
    if n < 3:
        return None
    rows = np.arange(n)
    if n > MOST:
        rows = np.sort(np.random.default_rng(_SEED).choice(n, MOST, replace=False))
    vectors, basis = _vectors(results, rows, device)
    vectors = vectors - vectors.mean(axis=0)
    if not np.any(vectors):
        return None
    layouts, captions = {}, {}
    left, sizes, _ = np.linalg.svd(vectors, full_matrices=False)
    components = left[:, :2] * sizes[:2]
    components = np.pad(components, ((0, 0), (0, 2 - components.shape[1])))
    shares = sizes[:2] ** 2 / np.sum(sizes**2)
    layouts["PCA"] = _to_unit(components)
    captions["PCA"] = f"The two directions of greatest variance, with {100 * shares.sum():.0f} % of it."
    if len(rows) >= 8:
        from sklearn.manifold import TSNE

        perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
        reduced = left[:, :50] * sizes[:50]
        plane = TSNE(perplexity=perplexity, init="pca", random_state=_SEED).fit_transform(reduced.astype(np.float32))
        layouts["t-SNE"] = _to_unit(plane)
        captions["t-SNE"] = "Neighbours stay neighbours; distances between groups and their sizes mean nothing."
    return TrackMap(rows, layouts, basis, captions)


def _vectors(results: Results, rows: np.ndarray, device: str) -> tuple[np.ndarray, str]:
    """Vectors of tracks, float64 `(n, d)`, and what they are: activations of the network, else log-probabilities."""
    tracks = [results.tracks[row] for row in rows]
    run = results.run
    if run.config.get("kind") == "neural":
        try:
            activations = penultimate(run, results.split, [track.id for track in tracks], device)
        except (MgcError, RuntimeError):
            activations = None
        if activations is not None:
            return activations, "the layer before the last, for the slice in the middle of each track"
    probabilities = np.stack([track.probabilities for track in tracks])
    logs = np.log(np.maximum(probabilities, 1e-6))
    return logs - logs.mean(axis=1, keepdims=True), "the logarithms of the probabilities that it gives each genre"


def penultimate(run: Run, split: str, track_ids: list[str], device: str = "auto") -> np.ndarray | None:
    """Compute the input of a network's last layer for the slice in the middle of each track.

    Args:
        run: run of one network.
        split: split of the tracks.
        track_ids: ids of the tracks, ascending.
        device: name of the device.

    Returns:
        float64 `(tracks, d)`; None if the network has no last layer of `n_classes` outputs, or a track no slice.

    Raises:
        RunError, StoreError: weights or frames are missing or damaged.
    """
    stores = open_stores(run)
    tables, labels = run.selection.join_slices(stores, run.slicing, split)
    ids = tables[0]["track_id"].to_numpy()
    order = np.lexsort((tables[0]["start_s"].to_numpy(), ids))
    found, first, counts = np.unique(ids[order], return_index=True, return_counts=True)
    middle = dict(zip(found, order[first + counts // 2], strict=True))
    if not all(id in middle for id in track_ids):
        return None
    chosen = np.array([middle[id] for id in track_ids])
    torch_device = choose_device(device)
    system = systems.of_run(run.config)
    batch_size = (run.config["training"] or {}).get("batch_size", BATCH_SIZE)
    batching = Batching(batch_size, torch_device, squeeze=system.squeezes(run.slicing))
    streams = [
        open_stream(store, table.take(chosen), labels[chosen], source.frames, batching)
        for store, table, source in zip(stores, tables, run.sources, strict=True)
    ]
    stream = streams[0] if len(streams) == 1 else JointStream(streams, [store.spec.frame_rate for store in stores])
    specs = [store.spec for store in stores]
    tapped = LastLayer(load_network(run, specs, torch_device, split), len(run.classes))
    vectors = tapped.split(outputs(tapped, stream, "map"))[0].numpy().astype(np.float64)
    return vectors if vectors.ndim == 2 and vectors.shape[1] and np.isfinite(vectors).all() else None


def _to_unit(points: np.ndarray) -> np.ndarray:
    """Scale positions to a width of 1, both axes alike; the lowest of each axis is 0."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - low) / max(float((high - low).max()), 1e-12)
