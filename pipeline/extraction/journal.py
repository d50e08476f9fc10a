"""The journal of an extraction: what a plan is going to change, written down before anything is changed.

An interrupted run leaves it behind, and the next one finishes what it says.
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

#: The journal's columns: manifest rows, and whether their shard is to be extracted or only its fragment rewritten.
PLAN_SCHEMA = pa.schema([*MANIFEST_SCHEMA, pa.field("extract", pa.bool_())])


def write_journal(store: Store, plan: Plan) -> None:
    """Write down what is going to be done, then forget the fragments of the shards that are to be extracted."""
    tables = [rows.append_column("extract", pa.repeat(False, len(rows))) for rows in plan.fragments.values()]
    pending = [shard for _, shards in plan.batches for shard, _, _ in shards]
    if plan.batches:
        rows = pa.concat_tables([tracks for tracks, _ in plan.batches])
        lengths = [stop - first for _, shards in plan.batches for _, first, stop in shards]
        known = {name: rows[name] for name in DATASET_SCHEMA.names}
        known |= {"shard": pa.array(np.repeat(pending, lengths)), "extract": pa.repeat(True, len(rows))}
        columns = [known.get(field.name, pa.nulls(len(rows), field.type)) for field in PLAN_SCHEMA]
        tables.append(pa.table(columns, names=PLAN_SCHEMA.names))
    parquet.write_table(
        store.journal_path, pa.concat_tables([PLAN_SCHEMA.empty_table(), *(t.cast(PLAN_SCHEMA) for t in tables)])
    )
    concurrency.run_requests(lambda shard: store.fragment_path(shard).unlink(missing_ok=True), pending, store.path)


def rewrite_fragments(store: Store, fragments: dict[int, pa.Table]) -> None:
    """Give shards their new manifest rows; their frames stay."""

    def rewrite(shard: int) -> None:
        old = manifest.read_fragment(store, shard)
        if old is not None:
            manifest.write_fragment(store, shard, fragments[shard], manifest.fragment_files(old))

    concurrency.run_requests(rewrite, fragments, store.path)


def finish_rewrites(store: Store) -> None:
    """Do what an interrupted run had written down to do without decoding: each rewrite may be done again."""
    journal = manifest.read_rows_or_none(store.journal_path)
    if journal is None:
        return
    rows = journal.filter(pc.invert(journal["extract"])).select(MANIFEST_SCHEMA.names)
    shards = pc.unique(rows["shard"]).to_pylist()
    rewrite_fragments(store, {shard: rows.filter(pc.equal(rows["shard"], shard)) for shard in shards})
