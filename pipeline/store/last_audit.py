"""The record of a store's last audit, `audit.json`: what `mgc audit` found out about the test split.

It belongs to the labels and splits that the audit looked at: when `mgc split` or `mgc extract` changes them, it no
longer counts. It holds its own digest, and is no part of what `mgc verify` checks: a damaged record counts as none.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from mgc.pipeline.errors import MgcError
from mgc.pipeline.storage import files
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.storage.urls import require_writable
from mgc.pipeline.store.siblings import siblings
from mgc.pipeline.store.store import Store
from mgc.pipeline.versions import versions

NAME = "audit.json"

#: Manifest columns that an audit of the splits depends on.
_COLUMNS = ["track_id", "content_hash", "genre", "artist_id", "album_id", "split"]


@dataclass(frozen=True)
class Record:
    """What an audit found out about the test split of a dataset.

    Attributes:
        labels: digest of the labels and splits that it looked at, see `labels_digest`.
        test_tracks: number of test tracks.
        leaked: ids of the test tracks that share a recording or an artist with another split, sorted.
        findings: `{kind: {severity: number of findings}}`.
        limits: what it could not examine, such as `recordings were not compared`.
        date: UTC, ISO 8601.
        version: version of mgc.
    """

    labels: str
    test_tracks: int
    leaked: tuple[str, ...]
    findings: dict[str, dict[str, int]]
    limits: tuple[str, ...] = ()
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    version: str = field(default_factory=lambda: versions(["mgc"])["mgc"])

    def verdict(self, tests: Iterable[str] | None = None) -> dict[str, Any]:
        """Say in one sentence whether the test split is clean.

        Args:
            tests: ids of the test tracks of a run; None for those of the store.

        Returns:
            `clean` (no test track leaked), `test_tracks` and `leaked` (their numbers), and `line`.
        """
        ids = None if tests is None else set(tests)
        count = self.test_tracks if ids is None else len(ids)
        leaked = len(self.leaked if ids is None else ids.intersection(self.leaked))
        found = "no test track that shares" if not leaked else f"{leaked:,} of {count:,} test tracks that share"
        line = f"The last audit ({self.date[:10]}) found {found} a recording or an artist with another split"
        return {
            "clean": not leaked,
            "test_tracks": count,
            "leaked": leaked,
            "line": "; ".join([line, *self.limits]) + ".",
        }


def labels_digest(store: Store) -> str:
    """Digest of labels and splits of the usable tracks; it does not depend on the feature or the shards."""
    tracks = store.read_tracks([*_COLUMNS, "status"])
    tracks = tracks.filter(pc.equal(tracks["status"], "ok")).select(_COLUMNS).sort_by("track_id")
    return files.digest(json.dumps(tracks.to_pydict(), ensure_ascii=False).encode())


def write(
    store: Store, leaked: Iterable[str], findings: Mapping[str, Mapping[str, int]], limits: Iterable[str]
) -> None:
    """Record an audit in the store, atomically.

    Args:
        store: the store that was audited.
        leaked, findings, limits: see `Record`.

    Raises:
        MgcError: the store cannot be written.
    """
    require_writable(store.path)
    splits = store.read_tracks(["split", "status"])
    n_test = pc.sum(pc.and_(pc.equal(splits["split"], "test"), pc.equal(splits["status"], "ok"))).as_py() or 0
    counts = {kind: dict(by_severity) for kind, by_severity in findings.items()}
    record = Record(labels_digest(store), n_test, tuple(sorted(leaked)), counts, tuple(limits))
    with files.translate_write_errors(store.path / NAME):
        files.write_json_with_digest(store.path / NAME, asdict(record))


def read(store: Store) -> Record | None:
    """Read the last audit of a store's dataset, with the labels and splits that the store has now.

    An audit of another store of the dataset counts as well, as their splits are the same; one with fewer
    limits is preferred. At a URL, only the store itself is looked at.

    Returns:
        The record; None if there is none, or the labels or splits have changed since.

    Raises:
        StoreError: the manifest is missing or damaged.
    """
    places = [store.path]
    if not isinstance(store.path, RemotePath):
        places += [other.path for other in siblings(store)]
    records = [record for path in places if (record := _read(path)) is not None]
    if not records:
        return None
    labels = labels_digest(store)
    records = [record for record in records if record.labels == labels]
    return min(records, key=lambda record: len(record.limits), default=None)  # the first of equals: the store's own


def _read(path: Place) -> Record | None:
    """The record in a store; None if there is none that this version can read."""
    with contextlib.suppress(OSError, MgcError, KeyError, TypeError, ValueError):
        values = files.read_json_with_digest(path / NAME)
        return Record(**values | {"leaked": tuple(values["leaked"]), "limits": tuple(values["limits"])})
    return None
