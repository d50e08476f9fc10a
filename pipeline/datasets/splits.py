"""Training, validation and test: which track belongs where, without tearing an artist apart or moving what is fixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets.catalogue import format_names
from mgc.pipeline.datasets.tabular import read_rows
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.errors import DatasetError

#: Share of each genre's tracks that a split aims at.
SHARES = {"training": 0.8, "validation": 0.1, "test": 0.1}

_NONE: Mapping[str, str] = {}

#: An artist with a larger share of a genre is said aloud: where the artist goes, that share of the genre goes.
LARGE_SHARE = 0.2


def read_splits(path: Path) -> dict[str, str]:
    """A `--splits` file as `track_id` (`path`, where a row has no id) → split.

    Args:
        path: CSV or Parquet with the columns `split` and `track_id` or `path`; `train` and the like are understood.

    Raises:
        DatasetError: the file cannot be read, or a row is incomplete, repeats a track or has an unknown split.
    """
    splits: dict[str, str] = {}
    for row in read_rows(path, required=("split",), optional=("track_id", "path")):
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
    tracks: pa.Table, *, seed: int, known: Mapping[str, str] | pa.Table = _NONE, override: Mapping[str, str] = _NONE
) -> tuple[pa.Table, tuple[str, ...]]:
    """Give every labelled track a split.

    A track's split is the first of these that there is: what `override` says, what `known` says, what the dataset
    itself says, where most tracks of its artist are. The rest is dealt out, artists kept whole, so that each genre
    comes as close to SHARES as it can. The result depends on the seed and the set of tracks, not on their order.

    Args:
        tracks: columns of DATASET_SCHEMA, and any others. Tracks that have left the dataset may still be among them:
            their artists are then remembered.
        seed: decides among artists (or tracks) of equal size.
        known: `track_id` → split of the tracks that have one already, which does not change; as a mapping or a table.
        override: what `read_splits` returned.

    Returns:
        The table with `split` filled (null where `genre` is null), rows in the order given; notes for the user.

    Raises:
        DatasetError: `override` names none of the tracks.
    """
    override, notes = _by_id(override, tracks)
    labelled = _Labelled.of(tracks)
    overridden = _look_up(labelled.ids, override)
    remembered = _look_up(labelled.ids, known)
    split = np.where(overridden >= 0, overridden, np.where(remembered >= 0, remembered, labelled.own))
    free = np.flatnonzero(split < 0)
    placed = np.flatnonzero(split >= 0)
    cells = labelled.group[placed] * len(SPLITS) + split[placed]
    homes = np.bincount(cells, minlength=labelled.n_groups * len(SPLITS)).reshape(-1, len(SPLITS))
    group = labelled.group[free]
    split[free] = np.where(homes[group].any(axis=1), homes[group].argmax(axis=1), -1)
    homeless = free[split[free] < 0]
    dealt = _deal(labelled, homeless, split, seed, [SHARES[name] for name in SPLITS])
    split[homeless] = dealt[labelled.group[homeless]]

    at = tracks.schema.get_field_index("split")
    filled = np.full(len(tracks), -1)
    filled[labelled.rows] = split
    kept = (remembered >= 0) & (overridden < 0)
    remarks = _remarks(labelled, split, len(free), kept, dealt)
    return tracks.set_column(at, tracks.schema.field(at), _words(filled)), (*notes, *remarks)


def assign_folds(tracks: pa.Table, shares: Sequence[float], seed: int) -> np.ndarray:
    """Deal tracks that all have a genre into parts, whatever their split, artists kept whole.

    Args:
        tracks: columns `track_id`, `genre`, `artist_id` and `split`, and any others.
        shares: of each genre's tracks that each part aims at.
        seed: decides among artists (or tracks) of equal size.

    Returns:
        Index of each track's part, int64 `(tracks,)`.
    """
    labelled = _Labelled.of(tracks)
    nowhere = np.full(len(labelled.rows), -1)
    return _deal(labelled, np.arange(len(labelled.rows)), nowhere, seed, shares)[labelled.group]


@dataclass(frozen=True)
class _Labelled:
    """The tracks that have a genre, as numbers: a library of millions of tracks must not become millions of objects.

    Attributes:
        rows: where they stand in the table, int64 `(n,)`.
        ids: their ids.
        genres, genre: the genres, sorted, and the index of each track's, int64 `(n,)`.
        artists, group: the artists, and what may not be torn apart, int64 `(n,)`: the index of a track's artist, or
            `len(artists)` and its place where the artist is unknown.
        own: index in SPLITS of what the dataset says, -1 where it says nothing, int64 `(n,)`.
    """

    rows: np.ndarray
    ids: pa.Array
    genres: list[str]
    genre: np.ndarray
    artists: pa.Array
    group: np.ndarray
    own: np.ndarray

    @classmethod
    def of(cls, tracks: pa.Table) -> _Labelled:
        rows = np.flatnonzero(tracks["genre"].is_valid())
        columns = tracks.select(["track_id", "genre", "artist_id", "split"]).take(rows).combine_chunks()
        genres = sorted(columns["genre"].unique().to_pylist())
        genre = pc.index_in(columns["genre"], pa.array(genres, pa.string()))
        artists = pc.unique(columns["artist_id"]).drop_null()
        artist = _numbers(pc.index_in(columns["artist_id"], artists))
        group = np.where(artist >= 0, artist, len(artists) + np.arange(len(rows)))
        own = pc.index_in(columns["split"], pa.array(SPLITS))
        ids = columns["track_id"].combine_chunks()
        return cls(rows, ids, genres, _numbers(genre), artists, group, _numbers(own))

    @property
    def n_groups(self) -> int:
        """Groups at most: some numbers are not taken."""
        return len(self.artists) + len(self.rows)

    def name(self, group: int) -> tuple[str, str]:
        """("artist", artist_id), or ("track", track_id) where the artist is unknown."""
        unknown = group - len(self.artists)
        return ("track", self.ids[unknown].as_py()) if unknown >= 0 else ("artist", self.artists[group].as_py())


def _numbers(indices: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """int64, -1 where null."""
    return pc.fill_null(indices, -1).to_numpy().astype(np.int64)


def _words(splits: np.ndarray) -> pa.Array:
    """Indices of SPLITS as their names, null where negative."""
    return pa.array(SPLITS, pa.string()).take(pa.array(splits, mask=splits < 0))


def _look_up(ids: pa.Array, splits: Mapping[str, str] | pa.Table) -> np.ndarray:
    """Index in SPLITS of what is said of each track, -1 where nothing is, int64."""
    if isinstance(splits, pa.Table):
        keys, words = splits["track_id"].combine_chunks(), splits["split"].combine_chunks()
    else:
        keys, words = pa.array(splits.keys(), pa.string()), pa.array(splits.values(), pa.string())
    return _numbers(pc.index_in(words, pa.array(SPLITS)).take(pc.index_in(ids, keys)))


def _by_id(splits: Mapping[str, str], tracks: pa.Table) -> tuple[dict[str, str], tuple[str, ...]]:
    """Splits by `track_id`, for keys that are ids, paths, or ids that lost their leading zeros in a spreadsheet."""
    ids, keys = tracks["track_id"].combine_chunks(), pa.array(splits.keys(), pa.string())
    # Of several ids that differ in their zeros alone, the last one is meant.
    backwards = ids[::-1]
    bare = backwards.take(pc.index_in(keys, pc.utf8_ltrim(backwards, "0")))
    meant = pc.coalesce(
        ids.take(pc.index_in(keys, ids)), ids.take(pc.index_in(keys, tracks["path"].combine_chunks())), bare
    ).to_pylist()
    found = {track: split for track, split in zip(meant, splits.values(), strict=True) if track is not None}
    if splits and not found:
        raise DatasetError(
            f"none of the {len(splits):,} tracks of the splits file is in the dataset ({format_names(sorted(splits))})",
            f"name tracks as the dataset does ({format_names(sorted(ids.to_pylist()), 3)})",
        )
    unused = sorted(key for key, track in zip(splits, meant, strict=True) if track is None)
    if not unused:
        return found, ()
    return found, (f"splits given for tracks that are not in the dataset: {len(unused):,} ({format_names(unused)})",)


def _deal(labelled: _Labelled, tracks: np.ndarray, split: np.ndarray, seed: int, shares: Sequence[float]) -> np.ndarray:
    """A split for each group of tracks without one, given the splits of all labelled tracks, -1 where there is none.

    Groups go, largest first, to the split that is then least full, relative to its share of the group's genres; half a
    track is deducted, which for single tracks makes it the Sainte-Laguë method of apportionment. When a genre has no
    more groups left than there are splits without it, they go to those.

    scikit-learn's StratifiedGroupKFold(10), one fold each for validation and test, knows only folds of equal size: of
    102 clips by 28 artists in 6 genres it leaves 8 of the 18 pairs of genre and split empty (mean of 10 seeds), this
    none; of 8 genres with 1,000 tracks by artists of Zipf-distributed size its worst share is off by 16 points, here
    by 1.2. Nor can it take account of tracks that are already placed.

    Returns:
        Index of each group's split, -1 for groups that have one, int64 `(n_groups,)`.
    """
    n_genres = len(labelled.genres)
    total = np.bincount(labelled.genre, minlength=n_genres).tolist()
    placed = [np.bincount(labelled.genre[split == at], minlength=n_genres).tolist() for at in range(len(shares))]
    dealt = np.full(labelled.n_groups, -1)
    if not len(tracks):
        return dealt
    # Pairs of group and genre, those of a group together, in the order in which its tracks have them.
    pairs, first, counts = np.unique(
        labelled.group[tracks] * n_genres + labelled.genre[tracks], return_index=True, return_counts=True
    )
    order = np.lexsort((first, pairs // n_genres))
    group, genre, counts = pairs[order] // n_genres, pairs[order] % n_genres, counts[order]
    waiting = np.bincount(genre, minlength=n_genres).tolist()
    groups, starts = np.unique(group, return_index=True)
    stops = np.append(starts[1:], len(group))
    # Hashed, not drawn: the same with every version of every library, whatever the other tracks are.
    names = (labelled.name(int(number)) for number in groups)
    lots = b"".join(blake2b("\0".join((str(seed), *name)).encode(), digest_size=16).digest() for name in names)
    high, low = np.frombuffer(lots, ">u8").reshape(-1, 2).T
    sizes = np.add.reduceat(counts, starts)

    def missing(genre: int) -> list[int]:
        return [at for at in range(len(shares)) if not placed[at][genre]]

    def fullness(at: int, sizes: list[tuple[int, int]]) -> float:
        return sum(n * (placed[at][genre] + n - 0.5) / (shares[at] * total[genre]) for genre, n in sizes)

    for k in np.lexsort((low, high, -sizes)):
        here = slice(starts[k], stops[k])
        mine = list(zip(genre[here].tolist(), counts[here].tolist(), strict=True))
        urgent = {at for genre, _ in mine if waiting[genre] <= len(missing(genre)) for at in missing(genre)}
        # The first of equals gets the group, and without test tracks nothing can be said about a genre.
        candidates = [at for at in reversed(range(len(shares))) if not urgent or at in urgent]
        chosen = min(candidates, key=lambda at: fullness(at, mine))
        dealt[groups[k]] = chosen
        for genre_, n in mine:
            placed[chosen][genre_] += n
            waiting[genre_] -= 1
    return dealt


def _remarks(labelled: _Labelled, split: np.ndarray, n_free: int, kept: np.ndarray, dealt: np.ndarray) -> Iterator[str]:
    """What the user should know about the splits.

    Args:
        labelled: all tracks that have a split.
        split: which, int64 `(n,)`.
        n_free: how many of them had none before.
        kept: whether a track's split was known, right or wrong, bool `(n,)`.
        dealt: what `_deal` returned.
    """
    n, n_splits = len(split), len(SPLITS)
    if 0 < n_free < n:
        yield f"tracks that had no split yet, placed around the others: {n_free:,} of {n:,}"
    changed = labelled.ids.filter(pa.array(kept & (labelled.own >= 0) & (labelled.own != split)))
    if len(changed):
        yield (
            f"tracks that keep their split, against what the dataset says: {len(changed):,}"
            f" ({format_names(changed.to_pylist())})"
        )

    by_artist = labelled.group < len(labelled.artists)
    cells = np.unique(labelled.group[by_artist] * n_splits + split[by_artist]) // n_splits
    crossing = sorted(labelled.artists.take(pa.array(np.unique(cells[1:][np.diff(cells) == 0]))).to_pylist())
    if crossing:
        yield f"artists in more than one split, which flatters the scores: {len(crossing):,} ({format_names(crossing)})"

    genres = labelled.genres
    total = np.bincount(labelled.genre, minlength=len(genres))
    mine = by_artist & (dealt[labelled.group] >= 0)
    pairs, counts = np.unique(labelled.group[mine] * len(genres) + labelled.genre[mine], return_counts=True)
    large = []
    for at in np.flatnonzero((counts > 1) & (counts > LARGE_SHARE * total[pairs % max(1, len(genres))])):
        group, number = divmod(int(pairs[at]), len(genres))
        share = f"{counts[at]:,} of {total[number]:,} {genres[number]}, {SPLITS[dealt[group]]}"
        large.append((-counts[at] / total[number], f"{labelled.name(group)[1]} ({share})"))
    if large:
        yield f"artists too large to split cleanly, each kept in one split: {format_names(text for _, text in sorted(large))}"

    small = [f"{genre} ({count})" for genre, count in zip(genres, total, strict=True) if count < n_splits]
    if small:
        yield f"genres with too few tracks for three splits: {format_names(small)}"
    present = set(np.unique(labelled.genre * n_splits + split).tolist())
    for number, name in enumerate(SPLITS):
        if absent := [genre for k, genre in enumerate(genres) if k * n_splits + number not in present]:
            yield f"genres without a {name} track: {format_names(absent)}"
