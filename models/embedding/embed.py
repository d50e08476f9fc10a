"""Embedding of a store: every window of every track through a network, shard by shard, into a store of its own.

A shard of embeddings has the number and the tracks of the shard that it is made of. What its manifest rows must be
follows from the rows of that shard alone, so a later call knows which shards are done, which only have new labels, and
which are missing or of other audio. Batches are made within a shard: after a kill, the same bytes come out.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mgc.models.embedding.embedder import Embedder
from mgc.models.embedding.windows import Windows, manifest_rows, spans
from mgc.models.parallel.transfer import read_late
from mgc.models.training.predict import same_feature
from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA
from mgc.pipeline.errors import SpecError, StoreError
from mgc.pipeline.extraction import journal
from mgc.pipeline.extraction.opening import store_path
from mgc.pipeline.extraction.output import commit_shard, temporary_path
from mgc.pipeline.features import Embedding
from mgc.pipeline.storage import files
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.store import manifest, verify
from mgc.pipeline.store.cuts import with_default
from mgc.pipeline.store.shard import ShardWriter
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

#: Windows per call of the network.
BATCH_SIZE = 64

#: Columns of a manifest that change only if the vectors do; all others are labels.
_AUDIO = ["track_id", "content_hash", "gaps", "shard", "first_frame", "n_frames", "variants"]

Progress = Callable[[int], contextlib.AbstractContextManager[Callable[[int], Any]]]


@dataclass(frozen=True)
class _Plan:
    """What is to be done with the shards of a store of embeddings.

    Attributes:
        rows: manifest rows of each shard to embed, in the store that it is read from.
        relabelled: new manifest rows of the shards whose vectors stay.
        gone: shards that have nothing to be made of any more.
    """

    rows: dict[int, list[dict[str, Any]]]
    relabelled: dict[int, pa.Table]
    gone: list[int]

    def __bool__(self) -> bool:
        return bool(self.rows or self.relabelled or self.gone)


@dataclass(frozen=True)
class Result:
    """A finished store of embeddings.

    Attributes:
        store: the store.
        n_embedded: number of tracks that the call embedded.
    """

    store: Store
    n_embedded: int


def embed(
    embedder: Embedder,
    source: Store,
    *,
    out: Place | None = None,
    hop_s: float | None = None,
    dtype: str = "float32",
    batch_size: int = BATCH_SIZE,
    thorough: bool = False,
    progress: Progress = lambda total: contextlib.nullcontext(lambda done: None),
) -> Result:
    """Create or update the store of what a network hears in the tracks of a store.

    Memory holds the frames of one or two tracks, and a batch.

    Args:
        embedder: the network.
        source: store of the frames.
        out: folder or URL of the new store's folder; None for the folder of `source`.
        hop_s: seconds between windows; None for the length of a window.
        dtype: dtype of the stored vectors.
        batch_size: windows per call of the network.
        thorough: check every byte of the shards that are there, and make damaged ones again.
        progress: function that takes the number of tracks and returns a context manager; its value is called with the
            number of tracks that were embedded since its last call.

    Raises:
        StoreError: `source` is unfinished or damaged, or holds another feature than the network reads.
        MgcError: the store cannot be written.
    """
    source.require_finished()
    if not same_feature(source.spec, embedder.spec):
        problem = f"{source.path} holds {source.spec}, {embedder.model} reads {embedder.spec}"
        raise StoreError(problem, f"extract it: `mgc extract --feature {embedder.spec.as_option()}`")
    spec = embedder.embedding(_hop_frames(embedder, hop_s), dtype)
    path = store_path(out or source.path.parent, spec, source.variants)
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.translate_write_errors(path))
        store = _open_or_create(path, spec, source)
        stack.enter_context(store.lock())
        plan = _make_plan(store, source, thorough)
        if not plan and _is_published(store):
            return Result(Store.open(path), 0)
        journal.mark_unfinished(store)
        _clean(store, plan.gone)
        journal.rewrite_fragments(store, plan.relabelled)
        with progress(sum(len(rows) for rows in plan.rows.values())) as advance:
            for shard, rows in plan.rows.items():
                _embed_shard(embedder, source, store, shard, rows, batch_size, advance)
        cuts = manifest.known_cuts(store) or with_default((), Slicing(seconds=None, whole=True))
        manifest.publish_cuts(store, cuts)
    return Result(Store.open(path), sum(len(rows) for rows in plan.rows.values()))


def _hop_frames(embedder: Embedder, seconds: float | None) -> int:
    """Convert the hop to frames.

    Raises:
        SpecError: it is shorter than a frame.
    """
    if seconds is None:
        return embedder.window
    frames = round(seconds * embedder.spec.frame_rate)
    if frames < 1:
        least = 1 / embedder.spec.frame_rate
        raise SpecError(f"--hop {seconds:g}: shorter than a frame of {embedder.spec.name}", f"{least:.3g} s or more")
    return frames


def _is_published(store: Store) -> bool:
    """Whether the store is finished, and its tables are as they were written."""
    return not store.unfinished and store.tables_are_intact()


def _open_or_create(path: Place, spec: Embedding, source: Store) -> Store:
    """Open the store, with the dataset as `source` describes it, or create it."""
    if not (path / "store.json").exists():
        return Store.create(path, spec, source.dataset, source.variants)
    store = Store.open(path)
    return store if store.dataset == source.dataset else Store.create(path, spec, source.dataset, source.variants)


def _make_plan(store: Store, source: Store, thorough: bool) -> _Plan:
    """Compare the shards of a store of embeddings with those that they are made of."""
    assert isinstance(store.spec, Embedding)
    windows = Windows.of(store.spec, source.spec)
    plan = _Plan({}, {}, [])
    shards = manifest.expected_shards(source)
    own = manifest.read_fragments(store, shards)
    for shard, (fragment, _), old in zip(shards, manifest.require_fragments(source, shards), own, strict=True):
        rows = fragment.to_pylist()
        seconds = store.spec.window / store.spec.sr
        wanted = pa.Table.from_pylist(manifest_rows(rows, windows, seconds), MANIFEST_SCHEMA)
        if (
            old is None
            or not _equal(old, wanted, _AUDIO)
            or not manifest.has_complete_files(store, manifest.fragment_files(old))
            or (thorough and any(verify.shard_problems(store, shard, manifest.fragment_files(old))))
        ):
            plan.rows[shard] = rows
        elif not _equal(old, wanted, MANIFEST_SCHEMA.names):
            plan.relabelled[shard] = wanted
    plan.gone.extend(sorted({*store.fragments(), *store.shards()} - set(shards)))
    return plan


def _equal(left: pa.Table, right: pa.Table, columns: list[str]) -> bool:
    return left.select(columns).replace_schema_metadata().equals(right.select(columns))


def _clean(store: Store, gone: Sequence[int]) -> None:
    """Remove shards that are not wanted any more, and what an interrupted call left."""
    (store.path / "shards").mkdir(exist_ok=True)
    files.remove_temporaries(store.path / "shards")
    for shard in gone:
        store.fragment_path(shard).unlink(missing_ok=True)
        files.remove(store.shard_path(shard))


def _embed_shard(
    embedder: Embedder,
    source: Store,
    store: Store,
    shard: int,
    rows: list[dict[str, Any]],
    batch_size: int,
    advance: Callable[[int], Any],
) -> None:
    """Embed the tracks of a shard, and commit it."""
    assert isinstance(store.spec, Embedding)
    windows = Windows.of(store.spec, source.spec)
    store.fragment_path(shard).unlink(missing_ok=True)
    temporary = temporary_path(store, shard)
    try:
        writer = ShardWriter(temporary, store.spec)
        for vectors in embed_windows(embedder, source, store.spec, shard, rows, batch_size):
            writer.append(vectors)
        writer.close()
        commit_shard(store, shard, temporary, manifest_rows(rows, windows, store.spec.window / store.spec.sr))
    finally:
        files.remove(temporary)
    advance(len(rows))


def embed_windows(
    embedder: Embedder,
    source: Store,
    spec: Embedding,
    shard: int,
    rows: list[dict[str, Any]],
    batch_size: int = BATCH_SIZE,
) -> Iterator[np.ndarray]:
    """Yield the vectors of the windows of a shard, float32 `(batch, width)`, in the order of its tracks.

    Args:
        embedder: the network.
        source: store of the frames.
        spec: says how they are cut.
        shard: number of the shard.
        rows: manifest rows of its tracks.
        batch_size: windows per call of the network.
    """
    windows = Windows.of(spec, source.spec)
    batches = _batches(source, shard, spans(rows, windows), windows, batch_size)
    for _, vectors in read_late((None, embedder(batch, source.spec)) for batch in batches):
        yield vectors.numpy()


def _batches(
    source: Store, shard: int, parts: Iterator[tuple[int, int]], windows: Windows, batch_size: int
) -> Iterator[np.ndarray]:
    """Yield the windows of a shard, `(batch, length, bins)` in the stored dtype; a thread reads one track ahead."""
    read = functools.partial(windows.read, source, shard)
    pending: list[np.ndarray] = []
    n_pending = 0
    with ThreadPoolExecutor(1, "frames") as reader:
        ahead = None
        for part in [*parts, None]:
            following = reader.submit(read, *part) if part is not None else None
            cut = ahead.result() if ahead is not None else np.empty((0, windows.length, source.spec.bins))
            ahead = following
            while len(cut):
                taken, cut = cut[: batch_size - n_pending], cut[batch_size - n_pending :]
                pending.append(taken)
                n_pending += len(taken)
                if n_pending == batch_size:
                    yield np.concatenate(pending)
                    pending, n_pending = [], 0
    if pending:
        yield np.concatenate(pending)
