"""Opening of the stores of an extraction: create a new one, and restore the head of one that has lost it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets import Dataset
from mgc.pipeline.datasets.labels import Labelling, Recorded
from mgc.pipeline.datasets.lookup import Lookup
from mgc.pipeline.errors import MgcError, StoreError
from mgc.pipeline.extraction.batches import hash_keys
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.variants import Variant, variants_digest
from mgc.pipeline.storage import files
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.store import head, manifest
from mgc.pipeline.store.siblings import open_by_head
from mgc.pipeline.store.store import Store

#: Seeds that are tried, besides that of the call, when the seed of a store is looked for in its shards.
_SEEDS = range(256)


def store_path(out: Place, spec: FeatureSpec, variants: tuple[Variant, ...] = ()) -> Place:
    """Return the folder or URL of the store of a feature, below the folder of a dataset's stores."""
    return out / "-".join([spec.name, spec.digest, *([variants_digest(variants)] if variants else [])])


def open_or_create(
    out: Place,
    spec: FeatureSpec,
    dataset: Dataset,
    seed: int,
    variants: tuple[Variant, ...] = (),
    *,
    echo: Callable[[str], None] = lambda line: None,
) -> Store:
    """Open the store of a feature in a folder, or create it. A damaged or missing head is restored.

    Args:
        out: folder or URL of the stores.
        spec: the feature.
        dataset: the dataset.
        seed: seed that a new store records.
        variants: augmentation variants of the store.
        echo: function that prints a line for the user.

    Raises:
        StoreError: the store cannot be read, its lost head is that of a store of other files, or its folder holds
            other files.
    """
    path = store_path(out, spec, variants)
    new_head = head.Head(spec, describe(dataset, seed), {}, variants)
    if is_new(path):
        return Store.create(path, spec, new_head.dataset, variants)
    try:
        return Store.open(path)
    except head.HeadLost:
        return _restore(path, new_head, dataset, echo)


def is_new(path: Place) -> bool:
    """Return True if there is no store at a path.

    Raises:
        StoreError: the folder holds other files, or is none.
    """
    if isinstance(path, Path) and path.is_file():
        raise StoreError(f"{path}: a file exists where a folder is needed", "move it away or choose another folder")
    if (path / "store.json").exists() or _has_shards(path):
        return False
    if path.exists() and any(p for p in path.iterdir() if not p.name.startswith(".") and p.name != "shards"):
        raise StoreError(f"{path}: holds something that is not a feature store", "choose another folder with --out")
    return True


def describe(dataset: Dataset, seed: int) -> dict[str, Any]:
    """Return the description of the dataset that a store records, see `Store.dataset`."""
    return {
        "name": dataset.name,
        "root": str(dataset.root),
        "source": str(dataset.source),
        "format": dataset.format,
        "genres": list(dataset.genres),
        "seed": seed,
        **({"options": dict(dataset.options)} if dataset.options else {}),
        **({"labels": labels} if (labels := dataset.labelling.as_dict()) else {}),
    }


def recorded_labels(folder: Place, root: Place | None) -> Recorded | None:
    """Return what the stores in a folder record of their dataset's genres: those of the store that was changed last.

    Args:
        folder: folder of a dataset's stores.
        root: audio root of the dataset; stores of another one do not count. None if the dataset has moved.
    """
    stores = []
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(MgcError, OSError):
            store = open_by_head(path)
            if path.name.endswith(".old") or (root is not None and store.dataset["root"] != str(root)):
                continue
            head_path = path / "store.json"
            time_ns = head_path.stat().st_mtime_ns if isinstance(head_path, Path) and head_path.exists() else 0
            stores.append((time_ns, str(path), store))
    if not stores:
        return None
    store = max(stores, key=lambda entry: entry[:2])[2]
    genres: list[str] = []
    with contextlib.suppress(MgcError, OSError):
        rows = manifest.history(store, ["track_id", "genre"])
        genres = sorted(rows["genre"].drop_null().unique().to_pylist())
    return Recorded(Labelling.from_dict(store.dataset.get("labels", {})), genres)


def follow_labels(store: Store, dataset: Dataset) -> Store:
    """Record in a store of before how its tracks get their genres now, if that has changed; return the store."""
    now = dataset.labelling.as_dict()
    if store.dataset.get("labels", {}) == now:
        return store
    kept = {name: value for name, value in store.dataset.items() if name != "labels"}
    set_dataset(store, kept | {"genres": list(dataset.genres)} | ({"labels": now} if now else {}))
    return Store.open(store.path)


def set_dataset(store: Store, dataset: Mapping[str, Any]) -> None:
    """Write another description of its dataset into the head of a store, and into the copy of the head."""
    new_head = store.head._replace(dataset=dict(dataset))
    head.replace_head(store.path, new_head)
    with contextlib.suppress(StoreError):
        publication = store.publication | {head.COPY_KEY: head.as_dict(new_head)}
        files.write_json_with_digest(store.path / "published.json", publication)


def _has_shards(path: Place) -> bool:
    """Return whether a folder holds a shard, or the fragment of one, as only stores do."""
    folder = path / "shards"
    return folder.is_dir() and any(
        entry.stem.isdigit() for kind in ("parquet", "zarr") for entry in folder.glob(f"*.{kind}")
    )


def _restore(path: Place, new_head: head.Head, dataset: Dataset, echo: Callable[[str], None]) -> Store:
    """Write the head of a store again: from its copy in `published.json`, else from the call and the shards.

    Args:
        path: folder or URL of the store.
        new_head: the head that a new store would get.
        dataset: the dataset.
        echo: function that prints a line for the user.

    Raises:
        StoreError: without a copy, less than half of the store's tracks are in the dataset.
    """
    copy = head.read_copy(path)
    if copy is not None and (copy.spec, copy.variants) == (new_head.spec, new_head.variants):
        head.replace_head(path, copy)
        echo(f"{path.name}: store.json was lost and is restored from its copy in published.json")
        return Store.open(path)
    store = Store(path, *new_head)
    _require_tracks_of(store, dataset)
    seed = _seed_of_shards(store, new_head.dataset["seed"])
    unknown = ["library versions", *(["seed"] if seed is None else [])]
    if seed is not None:
        new_head.dataset["seed"] = seed
    head.replace_head(path, new_head)
    echo(f"{path.name}: store.json was lost and is restored from the call and the shards, without {', '.join(unknown)}")
    return Store.open(path)


def _require_tracks_of(store: Store, dataset: Dataset) -> None:
    """Require that at least half of a store's tracks have the same id and path in a dataset.

    Raises:
        StoreError: it is less.
    """
    past = manifest.history(store, ["track_id", "path"])
    rows = Lookup(dataset.tracks["track_id"]).indices(past["track_id"])
    same = pc.sum(pc.equal(past["path"], dataset.tracks["path"].take(rows))).as_py() or 0
    if 2 * same < len(past):
        problem = f"{store.path}: store.json is lost, and {len(past) - same} of its {len(past)} tracks are not in"
        raise StoreError(f"{problem} {dataset.root}", "name the dataset that the store was made from")


def _seed_of_shards(store: Store, seed: int) -> int | None:
    """Find the seed by whose hash the tracks of each shard are ordered.

    Args:
        store: the store.
        seed: the seed to try first.

    Returns:
        The seed; None if none of those tried fits. Without two tracks in any shard, every seed fits.
    """
    fragments = [rows["track_id"] for rows in manifest.read_fragments(store, store.fragments()) if rows is not None]
    for candidate in dict.fromkeys([seed, *_SEEDS]):
        if all(_is_ordered(ids, candidate) for ids in fragments):
            return candidate
    return None


def _is_ordered(ids: pa.ChunkedArray, seed: int) -> bool:
    order = np.lexsort(tuple(hash_keys(ids, seed)))
    return all(first < second for first, second in itertools.pairwise(order))
