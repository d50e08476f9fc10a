"""What the last audit of a run's store says about the test tracks of the run."""

from __future__ import annotations

import contextlib
from typing import Any

import pyarrow.compute as pc

from mgc.models.runs.run import Run
from mgc.pipeline.errors import MgcError
from mgc.pipeline.store import last_audit
from mgc.pipeline.store.store import Store


def verdict(run: Run, split: str) -> dict[str, Any] | None:
    """Look up what the last audit found out about the test tracks of a run.

    Args:
        run: the run.
        split: split that is scored.

    Returns:
        See `last_audit.Record.verdict`; None if the split is not `test`, the store is gone or was not audited, its
        labels or splits have changed since, or other tracks of the run are in the store's test split by now.
    """
    if split != "test":
        return None
    with contextlib.suppress(MgcError, OSError):
        store = Store.open(run.store_path)
        if (record := last_audit.read(store)) is not None:
            tracks, stored = run.selection.tracks, store.read_tracks(["track_id", "split"])
            stored_tests = stored["track_id"].filter(pc.equal(stored["split"], "test")).combine_chunks()
            if pc.is_in(tracks["track_id"], value_set=stored_tests).equals(pc.equal(tracks["split"], "test")):
                return record.verdict(tracks["track_id"].filter(pc.equal(tracks["split"], "test")).to_pylist())
    return None
