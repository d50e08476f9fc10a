"""Stores of `mgc reproduce`: extraction of the features that recipes need, as by `mgc extract --for`.

With `--limit-tracks` only the tracks that a training then draws, and the test tracks, are decoded. Such stores are
filed under the dataset's name and `-limited`, beside the whole ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.data.pooled_view import as_read
from mgc.models.embedding import extracted
from mgc.models.registry import overview
from mgc.models.registry.systems import System
from mgc.models.runs.selection import limit_tracks
from mgc.models.training.loop import Echo
from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.splits import assign_splits
from mgc.pipeline.errors import MgcError
from mgc.pipeline.extraction import duplicates, extract
from mgc.pipeline.extraction.options import Options
from mgc.pipeline.extraction.signatures import with_signatures
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.variants import Variant
from mgc.pipeline.store import manifest, summary
from mgc.pipeline.store.siblings import open_by_head
from mgc.pipeline.store.store import Store
from mgc.pipeline.workspace import Workspace


def extract_for(
    chosen: Sequence[System],
    dataset: Dataset,
    workspace: Workspace,
    options: Options,
    *,
    limit: int | None,
    seeds: Sequence[int],
    echo: Echo,
    progress: Callable[[int], Any],
) -> list[Store]:
    """Extract what the recipes of systems need and the workspace lacks; each file is decoded once per set of variants.

    Args:
        chosen: the systems.
        dataset: the dataset.
        workspace: workspace whose stores are used.
        options: settings of the extraction; their variants, splits and study are replaced.
        limit: training and validation tracks per genre to extract; None for all.
        seeds: seeds that the tracks are drawn by.
        echo: prints a line.
        progress: see `mgc.pipeline.extraction.extract.extract`.

    Raises:
        MgcError: a store cannot be written, belongs to another dataset, or has no usable track.
    """
    wanted = overview.embeddings_of(chosen)
    extracted.require_networks(wanted, workspace, echo)
    features, slicing = overview.extraction_of(chosen)
    passes: dict[tuple[Variant, ...], list[FeatureSpec]] = {}
    for spec, variants in features:
        passes.setdefault(variants, []).append(spec)
    out = workspace.features(dataset.name if limit is None else f"{dataset.name}-limited")
    name = chosen[0].id if len(chosen) == 1 else chosen[0].study
    study = (name, slicing) if slicing is not None and len({system.study for system in chosen}) == 1 else None
    if limit is not None:
        options = _limited(options, dataset, out, workspace.features(dataset.name), limit, seeds)
    stores = []
    for variants, specs in passes.items():
        settings = dataclasses.replace(options, variants=variants, study=study)
        for result in extract.extract(dataset, specs, out, settings, echo=echo, progress=progress):
            summary.require_usable_tracks(summary.summarise(result.store), summary.parse_limit(None))
            stores.append(result.store)
    embedded = extracted.embed_stores(wanted, stores, workspace, progress)
    return [*stores, *(as_read(result.store) for result in embedded)]


def _limited(options: Options, dataset: Dataset, out: Path, whole: Path, limit: int, seeds: Sequence[int]) -> Options:
    """Leave out all tracks that no training draws with the limit, but those that an earlier call has extracted."""
    signed = with_signatures(dataset, dataset.tracks)
    hashes = duplicates.content_hashes(
        dataset, signed["size"].combine_chunks(), signed["mtime_ns"].combine_chunks(), _NO_HISTORY
    )
    tracks = signed.append_column("content_hash", hashes)
    known = _known(whole) | _known(out)
    tracks, _ = assign_splits(tracks, seed=options.seed, known={id: split for id, (split, _) in known.items()})
    tracks = tracks.filter(pc.and_(pc.is_valid(tracks["genre"]), pc.is_valid(tracks["split"])))
    column = tracks.schema.get_field_index("split")
    pooled = tracks.set_column(column, tracks.schema.field(column), pa.repeat("training", len(tracks)))
    # By split, and as for a split of slices, which takes all tracks together.
    drawn = {
        id
        for seed in seeds
        for table in (tracks, pooled)
        for id in limit_tracks(table, limit, seed)["track_id"].to_pylist()
    }
    drawn |= {id for id, (_, is_used) in _known(out).items() if is_used}
    splits = {track["track_id"]: track["split"] for track in tracks.select(["track_id", "split"]).to_pylist()}
    detail = f"not in the list of {limit} training and validation tracks of each genre, and the test tracks"
    return dataclasses.replace(
        options,
        splits={id: split for id, split in splits.items() if id in drawn},
        unlisted={id: detail for id in splits if id not in drawn},
    )


_NO_HISTORY = pa.table(
    {
        "track_id": pa.array([], pa.string()),
        "size": pa.array([], pa.int64()),
        "mtime_ns": pa.array([], pa.int64()),
        "content_hash": pa.array([], pa.string()),
    }
)


def _known(folder: Path) -> dict[str, tuple[str, bool]]:
    """Split of each track in the stores of a folder, and whether it is in use."""
    known: dict[str, tuple[str, bool]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            rows = manifest.history(open_by_head(path), ["track_id", "split", "status"]).to_pylist()
        except MgcError:
            continue
        for row in rows:
            if row["split"] is not None:
                known[row["track_id"]] = row["split"], row["status"] == "ok"
    return known
