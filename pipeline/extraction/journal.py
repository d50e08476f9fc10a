"""Journal of an extraction: the plan for a store, written to disk before anything else in the store is changed.

If the run is interrupted, the journal stays, and the next run completes the plan.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, MANIFEST_SCHEMA
from mgc.pipeline.extraction.planning import Plan
from mgc.pipeline.storage import concurrency, parquet
from mgc.pipeline.storage.servers import ServerError
from mgc.pipeline.store import manifest
from mgc.pipeline.store.store import Store

#: Columns of the journal: those of the manifest, and `extract`. In a row with True the shard is extracted again, in one
#: with False only its fragment is rewritten.
JOURNAL_SCHEMA = pa.schema([*MANIFEST_SCHEMA, pa.field("extract", pa.bool_())])

#: Fragments and batches in a row group of the journal: a million tracks with all columns would take 300 MB.
GROUP_TABLES = 256


def write_journal(store: Store, plan: Plan) -> None:
    """Write a plan to the store's journal, then delete the fragments of the shards that will be extracted."""
    with parquet.TableWriter(store.journal_path, JOURNAL_SCHEMA) as journal:
        tables = _journal_rows(plan)
        while group := list(itertools.islice(tables, GROUP_TABLES)):
            journal.write(pa.concat_tables(group).combine_chunks())
        journal.finish()
        journal.commit()
    shards_to_extract = [shard for _, shards in plan.batches for shard, _, _ in shards]
    concurrency.run_requests(
        lambda shard: store.fragment_path(shard).unlink(missing_ok=True), shards_to_extract, store.path
    )


def _journal_rows(plan: Plan) -> Iterator[pa.Table]:
    """Yield the rows (`JOURNAL_SCHEMA`) of each fragment and of each batch of a plan."""
    for fragment in plan.fragments.values():
        yield fragment.append_column("extract", pa.repeat(False, len(fragment))).cast(JOURNAL_SCHEMA)
    for rows, shards in plan.batches:
        tracks = rows.table()
        numbers, lengths = zip(*((shard, stop - first) for shard, first, stop in shards), strict=True)
        values = {name: tracks[name] for name in DATASET_SCHEMA.names}
        values |= {"shard": pa.array(np.repeat(numbers, lengths)), "extract": pa.repeat(True, len(tracks))}
        columns = [values.get(field.name, pa.nulls(len(tracks), field.type)) for field in JOURNAL_SCHEMA]
        yield pa.table(columns, names=JOURNAL_SCHEMA.names).cast(JOURNAL_SCHEMA)


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
    if not store.journal_path.exists():
        return True
    try:
        with parquet.open_native(store.journal_path) as file:
            # All row groups are read, to see damage; few hold more than tracks to decode.
            groups = parquet.read_row_groups(file, store.journal_path, None, "extract", [False, True])
            rewrites = [group.cast(JOURNAL_SCHEMA).filter(pc.invert(group["extract"])) for group in groups]
        rows = pa.concat_tables([JOURNAL_SCHEMA.empty_table(), *rewrites]).select(MANIFEST_SCHEMA.names)
    except ServerError:  # does not tell whether the journal is damaged
        raise
    except (OSError, KeyError, TypeError, ValueError):
        return False
    shards = pc.unique(rows["shard"]).to_pylist()
    rewrite_fragments(store, {shard: rows.filter(pc.equal(rows["shard"], shard)) for shard in shards})
    return True
