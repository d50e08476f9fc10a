"""Cutting: from slicing parameters and a manifest to the rows of a slice index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.store.placement import slice_starts
from mgc.pipeline.store.slicing import SLICE_SCHEMA, Slicing


def cut(slicing: Slicing, spec: FeatureSpec, tracks: pa.Table) -> pa.Table:
    """Cut tracks into slices; slices of the variants of training tracks come last.

    A slice lies inside its track and touches none of its gaps. A track that has left the training split may still have
    variants in the store; they are not cut.

    Args:
        slicing: slicing parameters.
        spec: feature of the store, for its frame rate.
        tracks: manifest rows of tracks with frames (`status` ok).

    Returns:
        Rows of `SLICE_SCHEMA`.
    """
    own = _cut(slicing, spec, tracks)
    variants = _variants(tracks.filter(pc.is_in(tracks["track_id"], value_set=own["track_id"].combine_chunks())))
    return pa.concat_tables([own, _cut(slicing, spec, variants)]) if len(variants) else own


def _variants(tracks: pa.Table) -> pa.Table:
    """Return one row per variant of the training tracks among manifest rows, with the columns that `_cut` reads."""
    tracks = tracks.filter(pc.and_(pc.equal(tracks["split"], "training"), pc.is_valid(tracks["variants"])))
    variants = tracks["variants"].combine_chunks()
    structs, row = pc.list_flatten(variants), pc.list_parent_indices(variants)
    columns = {name: tracks[name].take(row) for name in ("track_id", "split", "shard")}
    for field in ("variant", "duration_s", "gaps", "first_frame", "n_frames"):
        columns[field] = pc.struct_field(structs, field)
    return pa.table(columns).filter(pc.is_null(pc.struct_field(structs, "reason")))


def _cut(slicing: Slicing, spec: FeatureSpec, tracks: pa.Table) -> pa.Table:
    """Cut tracks, or variants of tracks."""
    n_frames = tracks["n_frames"].to_numpy()
    duration = tracks["duration_s"].to_numpy()
    row, starts = slice_starts(slicing, spec, tracks["track_id"], duration, n_frames, _gaps(tracks))
    # floor, not round: with it, a slice inside the track in seconds is inside the track in frames.
    first = np.floor(starts * spec.frame_rate + 1e-9).astype(np.int64)
    length = slicing.n_frames(spec)
    lengths = n_frames[row] if length is None else np.full(len(row), length)
    keep = first + lengths <= n_frames[row]
    row, first, lengths, starts = row[keep], first[keep], lengths[keep], starts[keep]
    return pa.table(
        {
            "track_id": tracks["track_id"].take(row),
            "split": tracks["split"].take(row),
            "start_s": starts,
            "shard": tracks["shard"].take(row),
            "first_frame": tracks["first_frame"].to_numpy()[row] + first,
            "n_frames": lengths.astype(np.int32),
            "variant": tracks["variant"].take(row) if "variant" in tracks.schema.names else pa.nulls(len(row)),
        },
        schema=SLICE_SCHEMA,
    )


def cut_alike(
    slices: pa.Table, seconds: float | None, spec: FeatureSpec, tracks: pa.Table
) -> tuple[pa.Table, np.ndarray]:
    """Cut the slices of one store from another store of the same tracks: the same times, in the other store's frames.

    A slice is left out if the other store lacks its track, or if it does not fit between the track's gaps there.

    Args:
        slices: rows of `SLICE_SCHEMA` of the first store, without variants.
        seconds: length of the slices; None for whole tracks.
        spec: feature of the other store.
        tracks: the other store's manifest rows of tracks with frames.

    Returns:
        Rows of `SLICE_SCHEMA`, and the row of `slices` that each belongs to, int64, ascending.
    """
    row = pc.index_in(slices["track_id"], value_set=tracks["track_id"].combine_chunks())
    source = np.flatnonzero(pc.is_valid(row).to_numpy())
    row, slices = row.drop_null().to_numpy(), slices.take(source)
    first = np.floor(slices["start_s"].to_numpy() * spec.frame_rate + 1e-9).astype(np.int64)
    n_frames = tracks["n_frames"].to_numpy()[row]
    lengths = n_frames if seconds is None else np.full(len(row), spec.frames(seconds))
    inside = first + lengths <= n_frames
    for damaged, gaps in _gaps(tracks).items():
        at = np.flatnonzero(row == damaged)[:, None]
        inside[at[:, 0]] &= np.all((first[at] >= gaps[:, 1]) | (first[at] + lengths[at] <= gaps[:, 0]), axis=1)
    table = pa.table(
        {
            "track_id": slices["track_id"],
            "split": slices["split"],
            "start_s": slices["start_s"],
            "shard": tracks["shard"].take(row),
            "first_frame": tracks["first_frame"].to_numpy()[row] + first,
            "n_frames": lengths.astype(np.int32),
            "variant": pa.nulls(len(row)),
        },
        schema=SLICE_SCHEMA,
    )
    return table.filter(inside), source[inside]


def widened(joined: Sequence[pa.Table], manifests: Sequence[pa.Table]) -> list[pa.Table]:
    """Extend each slice to its whole track, so that random crops can be drawn from anywhere in it.

    Slices of tracks with gaps stay as they are: they lie between the gaps.

    Args:
        joined: rows of `SLICE_SCHEMA` of one or several stores; row i is the same time of the same track in all.
        manifests: manifests of the stores.

    Returns:
        Tables with as many rows; only `start_s`, `first_frame` and `n_frames` change.
    """
    spans = [_spans(slices, tracks) for slices, tracks in zip(joined, manifests, strict=True)]
    whole = np.logical_and.reduce([whole for _, _, whole in spans])
    extended = []
    for slices, (first, n_frames, _) in zip(joined, spans, strict=True):
        columns = {"start_s": np.zeros(len(slices)), "first_frame": first, "n_frames": n_frames.astype(np.int32)}
        for name, values in columns.items():
            at = SLICE_SCHEMA.get_field_index(name)
            column = pa.array(np.where(whole, values, slices[name].to_numpy()), SLICE_SCHEMA.field(at).type)
            slices = slices.set_column(at, SLICE_SCHEMA.field(at), column)
        extended.append(slices)
    return extended


def _spans(slices: pa.Table, tracks: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the first frame in the shard, the number of frames, and whether gaps are absent, of each slice's track."""
    tracks = tracks.filter(pc.greater(tracks["n_frames"], 0))
    owners = (tracks.append_column("variant", pa.nulls(len(tracks), pa.string())), _variants(tracks))
    keys = [_keys(table) for table in (slices, *owners)]
    row = pc.index_in(keys[0], value_set=pa.chunked_array(keys[1:]).combine_chunks()).to_numpy()
    first, n_frames, gaps = (
        np.concatenate([column.to_numpy() for column in columns])[row]
        for columns in (
            [table["first_frame"] for table in owners],
            [table["n_frames"] for table in owners],
            [pc.fill_null(pc.list_value_length(table["gaps"]), 0) for table in owners],
        )
    )
    return first, n_frames, gaps == 0


def _keys(table: pa.Table) -> pa.Array:
    """Return one string per row that identifies its track and variant."""
    variant = pc.fill_null(table["variant"].cast(pa.string()), "")
    return pc.binary_join_element_wise(variant, table["track_id"], "\n").combine_chunks()


def _gaps(tracks: pa.Table) -> dict[int, np.ndarray]:
    """Return the gaps in frames, int `(gaps, 2)`, ascending, of each track that has gaps, by its row."""
    counts = pc.fill_null(pc.list_value_length(tracks["gaps"]), 0).to_numpy()
    return {int(row): np.array(sorted(tracks["gaps"][row].as_py())) for row in np.flatnonzero(counts)}
