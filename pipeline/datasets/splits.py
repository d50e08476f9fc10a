"""Splits: assign tracks to training, validation and test, without separating the tracks of an artist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets.catalogue import format_names
from mgc.pipeline.datasets.grouping import LabelledTracks, assign_groups, to_numpy
from mgc.pipeline.datasets.lookup import Lookup
from mgc.pipeline.datasets.tabular import read_rows
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.errors import DatasetError

#: Target share of each genre's tracks, per split.
SHARES = {"training": 0.8, "validation": 0.1, "test": 0.1}

_NO_SPLITS: Mapping[str, str] = {}

#: Share of a genre's tracks above which an artist is reported: the artist's split has no less of the genre.
LARGE_SHARE = 0.2


def read_splits(path: Path) -> dict[str, str]:
    """Read a `--splits` file.

    Args:
        path: CSV or Parquet with the columns `split` and `track_id` or `path`; aliases such as `train` are understood.

    Returns:
        `{track_id: split}`; the key is the `path` if a row has no id.

    Raises:
        DatasetError: the file cannot be read, or a row is incomplete, repeats a track or has an unknown split.
    """
    splits: dict[str, str] = {}
    for row in read_rows(path, required=("split",), optional=("track_id", "path")).each("track_id", "path", "split"):
        key, split = row.text("track_id") or row.text("path"), row.split()
        if key is None:
            raise row.error("it has no track_id and no path")
        if split is None:
            raise row.error(f"track {key!r} has no split", "write training, validation or test, or remove the row")
        if key in splits:
            raise row.error(f"track {key!r} was named before", "remove one of the rows")
        splits[key] = split
    if not splits:
        raise DatasetError(f"{path} has no rows", "write one row per track")
    return splits


def assign_splits(
    tracks: pa.Table,
    *,
    seed: int,
    known: Mapping[str, str] | pa.Table = _NO_SPLITS,
    override: Mapping[str, str] = _NO_SPLITS,
    join_copies: bool = True,
) -> tuple[pa.Table, tuple[str, ...]]:
    """Give every labelled track a split.

    A track's split is the first of these that exists: its split in `override`, in `known`, in the dataset itself, the
    split of most tracks of its group: those of its artist, and of the artists of files equal to one of these. All
    other tracks are distributed, each group as a whole, so that each genre comes as close to SHARES as possible. The
    result depends on the seed and the set of tracks, not on their order.

    Args:
        tracks: table with the columns of DATASET_SCHEMA, and any others. Tracks that have left the dataset may be
            included, so that their artists keep their splits. Rows with the same value in the column `content_hash`,
            if there is one, hold equal files.
        seed: breaks ties between artists (or tracks) of equal size.
        known: `{track_id: split}`, or a table with these columns: splits of an earlier call, which stay as they are.
        override: splits as `read_splits` returns them.
        join_copies: keep equal files in one split; otherwise they are only reported where splits separate them.

    Returns:
        The table in the same order with `split` filled (null where `genre` is null); notes for the user.

    Raises:
        DatasetError: `override` names none of the tracks.
    """
    override, notes = _by_id(override, tracks)
    labelled = LabelledTracks.of(tracks, join_copies=join_copies)
    overridden = _look_up(labelled.ids, override)
    remembered = _look_up(labelled.ids, known)
    split = np.where(overridden >= 0, overridden, np.where(remembered >= 0, remembered, labelled.dataset_split))
    free = np.flatnonzero(split < 0)
    if 0 < len(free) < len(split):
        split[free] = _splits_of_groups(labelled, split)[labelled.group[free]]
    rest = free[split[free] < 0]
    group_split = assign_groups(labelled, rest, split, seed, [SHARES[name] for name in SPLITS])
    split[rest] = group_split[labelled.group[rest]]

    column = tracks.schema.get_field_index("split")
    all_splits = np.full(len(tracks), -1, np.int8)
    all_splits[labelled.rows] = split
    unchanged = (remembered >= 0) & (overridden < 0)
    notes = (*notes, *_notes(labelled, split, len(free), unchanged, group_split))
    return tracks.set_column(column, tracks.schema.field(column), _names(all_splits)), notes


def _splits_of_groups(labelled: LabelledTracks, split: np.ndarray) -> np.ndarray:
    """Index of the split of most tracks of each group, -1 if none of them has one, int8 `(n_groups,)`.

    Args:
        labelled: all labelled tracks.
        split: index of each track's split, -1 if it has none, int8 `(n,)`.
    """
    placed = np.flatnonzero(split >= 0)
    cells = labelled.group[placed] * len(SPLITS) + split[placed]
    n_placed = np.bincount(cells, minlength=labelled.n_groups * len(SPLITS)).reshape(-1, len(SPLITS))
    return np.where(n_placed.any(axis=1), n_placed.argmax(axis=1), -1).astype(np.int8)


def _names(splits: np.ndarray) -> pa.Array:
    """Convert indices in SPLITS to names, negative ones to null."""
    return pa.array(SPLITS, pa.string()).take(pa.array(splits, mask=splits < 0))


def _look_up(ids: pa.Array, splits: Mapping[str, str] | pa.Table) -> np.ndarray:
    """Index in SPLITS of each track's split in a mapping or table, -1 if it is not there, int8 `(ids,)`."""
    if isinstance(splits, pa.Table):
        keys, names = splits["track_id"], splits["split"]
    else:
        keys, names = pa.array(splits.keys(), pa.string()), pa.array(splits.values(), pa.string())
    return to_numpy(pc.index_in(names, pa.array(SPLITS)).take(Lookup(keys).indices(ids)), np.int8)


def _by_id(splits: Mapping[str, str], tracks: pa.Table) -> tuple[dict[str, str], tuple[str, ...]]:
    """Convert the keys of a splits file to track ids.

    Args:
        splits: `{key: split}`; a key is an id, a path, or an id that lost its leading zeros in a spreadsheet.
        tracks: table of the dataset's tracks.

    Returns:
        `{track_id: split}`; notes on keys that name no track.

    Raises:
        DatasetError: no key names a track.
    """
    if not splits:
        return {}, ()
    ids, keys = tracks["track_id"].combine_chunks(), pa.array(splits.keys(), pa.string())
    # If several ids differ only in leading zeros, the last one is meant.
    backwards = ids[::-1]
    without_zeros = backwards.take(pc.index_in(keys, pc.utf8_ltrim(backwards, "0")))
    key_ids = pc.coalesce(
        ids.take(pc.index_in(keys, ids)), ids.take(pc.index_in(keys, tracks["path"].combine_chunks())), without_zeros
    ).to_pylist()
    by_id = {track: split for track, split in zip(key_ids, splits.values(), strict=True) if track is not None}
    if not by_id:
        raise DatasetError(
            f"none of the {len(splits):,} tracks of the splits file is in the dataset ({format_names(sorted(splits))})",
            f"name tracks as the dataset does ({format_names(sorted(ids.to_pylist()), 3)})",
        )
    unused = sorted(key for key, track in zip(splits, key_ids, strict=True) if track is None)
    if not unused:
        return by_id, ()
    return by_id, (f"splits given for tracks that are not in the dataset: {len(unused):,} ({format_names(unused)})",)


def _notes(
    labelled: LabelledTracks, split: np.ndarray, n_free: int, unchanged: np.ndarray, group_split: np.ndarray
) -> Iterator[str]:
    """Yield notes on the splits for the user.

    Args:
        labelled: all labelled tracks.
        split: index of each track's split, int8 `(n,)`.
        n_free: number of tracks that had no split before.
        unchanged: True if a track has the split of an earlier call, whatever the dataset says, bool `(n,)`.
        group_split: split of each group that `assign_groups` assigned, else -1.
    """
    n, n_splits = len(split), len(SPLITS)
    if 0 < n_free < n:
        yield f"tracks that had no split yet, placed around the others: {n_free:,} of {n:,}"
    in_conflict = unchanged & (labelled.dataset_split >= 0) & (labelled.dataset_split != split)
    conflicts = labelled.ids.filter(pa.array(in_conflict))
    if len(conflicts):
        yield (
            f"tracks that keep their split although the dataset has another: {len(conflicts):,}"
            f" ({format_names(conflicts.to_pylist())})"
        )

    yield from _copies_across_splits(labelled, split)
    known_artist = labelled.artist >= 0
    cells = np.unique(labelled.artist[known_artist] * n_splits + split[known_artist]) // n_splits
    crossing = sorted(labelled.artists.take(pa.array(np.unique(cells[1:][np.diff(cells) == 0]))).to_pylist())
    if crossing:
        yield f"artists in more than one split, which flatters the scores: {len(crossing):,} ({format_names(crossing)})"

    genres = labelled.genres
    n_total = np.bincount(labelled.genre, minlength=len(genres))
    assigned = (labelled.group < len(labelled.artists)) & (group_split[labelled.group] >= 0)
    pairs, counts = np.unique(labelled.group[assigned] * len(genres) + labelled.genre[assigned], return_counts=True)
    large = []
    for index in np.flatnonzero((counts > 1) & (counts > LARGE_SHARE * n_total[pairs % max(1, len(genres))])):
        group, number = divmod(int(pairs[index]), len(genres))
        share = f"{counts[index]:,} of {n_total[number]:,} {genres[number]}, {SPLITS[group_split[group]]}"
        large.append((-counts[index] / n_total[number], f"{labelled.name(group)[1]} ({share})"))
    if large:
        artists = format_names(text for _, text in sorted(large))
        yield f"artists too large to split cleanly, each kept in one split: {artists}"

    small = [f"{genre} ({count})" for genre, count in zip(genres, n_total, strict=True) if count < n_splits]
    if small:
        yield f"genres with too few tracks for three splits: {format_names(small)}"
    present = set(np.unique(labelled.genre * n_splits + split).tolist())
    for number, name in enumerate(SPLITS):
        if absent := [genre for k, genre in enumerate(genres) if k * n_splits + number not in present]:
            yield f"genres without a {name} track: {format_names(absent)}"


def _copies_across_splits(labelled: LabelledTracks, split: np.ndarray) -> Iterator[str]:
    """Yield a note on the test tracks whose file is also a training or validation track; arguments as for `_notes`."""
    test = SPLITS.index("test")
    shared = np.isin(labelled.content, labelled.content[split != test]) & (split == test)
    if shared.any():
        names = format_names(labelled.ids.filter(pa.array(shared)).to_pylist())
        yield (
            f"test tracks whose file is also a training or validation track, byte for byte:"
            f" {shared.sum():,} of {(split == test).sum():,} ({names}); runs on these splits are marked leaky,"
            " unless --duplicates drop leaves the copies out"
        )
