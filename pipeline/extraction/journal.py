"""Journal of an extraction: the plan for a store, written to disk before anything else in the store is changed.

If the run is interrupted, the journal stays, and the next run completes the plan.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, MANIFEST_SCHEMA
from mgc.pipeline.extraction.planning import Plan
from mgc.pipeline.storage import concurrency, parquet
from mgc.pipeline.store import manifest
from mgc.pipeline.store.store import Store

#: Columns of the journal: those of the manifest, and `extract`. In a row with True the shard is extracted again, in one
#: with False only its fragment is rewritten.
JOURNAL_SCHEMA = pa.schema([*MANIFEST_SCHEMA, pa.field("extract", pa.bool_())])


def write_journal(store: Store, plan: Plan) -> None:
    """Write a plan to the store's journal, then delete the fragments of the shards that will be extracted."""
    tables = [rows.append_column("extract", pa.repeat(False, len(rows))) for rows in plan.fragments.values()]
    shards_to_extract = [shard for _, shards in plan.batches for shard, _, _ in shards]
    if plan.batches:
        rows = pa.concat_tables([tracks for tracks, _ in plan.batches])
        lengths = [stop - first for _, shards in plan.batches for _, first, stop in shards]
        values = {name: rows[name] for name in DATASET_SCHEMA.names}
        values |= {"shard": pa.array(np.repeat(shards_to_extract, lengths)), "extract": pa.repeat(True, len(rows))}
        columns = [values.get(field.name, pa.nulls(len(rows), field.type)) for field in JOURNAL_SCHEMA]
        tables.append(pa.table(columns, names=JOURNAL_SCHEMA.names))
    parquet.write_table(
        store.journal_path, pa.concat_tables([JOURNAL_SCHEMA.empty_table(), *(t.cast(JOURNAL_SCHEMA) for t in tables)])
    )
    concurrency.run_requests(
        lambda shard: store.fragment_path(shard).unlink(missing_ok=True), shards_to_extract, store.path
    )


def mark_unfinished(store: Store) -> None:
    """Write an empty plan: the store counts as unfinished until it is published."""
    parquet.write_table(store.journal_path, JOURNAL_SCHEMA.empty_table())


def rewrite_fragments(store: Store, fragments: dict[int, pa.Table]) -> None:
    """Replace the manifest rows of shards whose frames stay as they are.

    Args:
        store: the store, locked by the caller.
        fragments: new rows (`MANIFEST_SCHEMA`) by shard.
    """

    def rewrite(shard: int) -> None:
        old = manifest.read_fragment(store, shard)
        if old is not None:
            manifest.write_fragment(store, shard, fragments[shard], manifest.fragment_files(old))

    concurrency.run_requests(rewrite, fragments, store.path)


def finish_rewrites(store: Store) -> bool:
    """Complete the part of an interrupted run's journal that needs no decoding; repeating a rewrite does no harm.

    Returns:
        False if there is a journal, but it is damaged.
    """
    journal = manifest.read_rows_or_none(store.journal_path, JOURNAL_SCHEMA)
    if journal is None:
        return not store.journal_path.exists()
    rows = journal.filter(pc.invert(journal["extract"])).select(MANIFEST_SCHEMA.names)
    shards = pc.unique(rows["shard"]).to_pylist()
    rewrite_fragments(store, {shard: rows.filter(pc.equal(rows["shard"], shard)) for shard in shards})
    return True
