"""Training, validation and test: which track belongs where, without tearing an artist apart or moving what is fixed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from pipeline.datasets.catalogue import listed
from pipeline.datasets.tabular import read_rows
from pipeline.errors import DatasetError
from pipeline.tracks import SPLITS

#: Share of each genre's tracks that a split aims at.
SHARES = {"training": 0.8, "validation": 0.1, "test": 0.1}

#: An artist with a larger share of a genre is said aloud: where the artist goes, that share of the genre goes.
LARGE_SHARE = 0.2

# ("artist", artist_id), or ("track", track_id) where the artist is unknown: what may not be torn apart.
_Group = tuple[str, str]


@dataclass
class _Track:
    track_id: str
    genre: str
    artist: str | None
    own: str | None  # what the dataset says
    split: str | None = None

    @property
    def group(self) -> _Group:
        return ("track", self.track_id) if self.artist is None else ("artist", self.artist)


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
    tracks: pa.Table, *, seed: int, known: Mapping[str, str] = {}, override: Mapping[str, str] = {}
) -> tuple[pa.Table, tuple[str, ...]]:
    """Give every labelled track a split.

    A track's split is the first of these that there is: what `override` says, what `known` says, what the dataset
    itself says, where most tracks of its artist are. The rest is dealt out, artists kept whole, so that each genre
    comes as close to SHARES as it can. The result depends on the seed and the set of tracks, not on their order.

    Args:
        tracks: columns of DATASET_SCHEMA, and any others. Tracks that have left the dataset may still be among them:
            their artists are then remembered.
        seed: decides among artists (or tracks) of equal size.
        known: `track_id` → split of the tracks that have one already, which does not change.
        override: what `read_splits` returned.

    Returns:
        The table with `split` filled (null where `genre` is null), rows in the order given; notes for the user.

    Raises:
        DatasetError: `override` names none of the tracks.
    """
    override, notes = _by_id(override, tracks)
    columns = (tracks[name].to_pylist() for name in ("track_id", "genre", "artist_id", "split"))
    labelled = [
        _Track(track_id, genre, artist, own)
        for track_id, genre, artist, own in zip(*columns, strict=True)
        if genre is not None
    ]
    for track in labelled:
        track.split = override.get(track.track_id) or known.get(track.track_id) or track.own

    homes: dict[_Group, Counter[str]] = defaultdict(Counter)
    for track in labelled:
        if track.split:
            homes[track.group][track.split] += 1
    free = [track for track in labelled if track.split is None]
    for track in free:
        if track.group in homes:
            track.split = max(SPLITS, key=homes[track.group].__getitem__)
    dealt = _deal([track for track in free if track.split is None], labelled, seed)
    for track in free:
        track.split = track.split or dealt[track.group]

    splits = {track.track_id: track.split for track in labelled}
    at = tracks.schema.get_field_index("split")
    filled = pa.array(map(splits.get, tracks["track_id"].to_pylist()), pa.string())
    remarks = _remarks(labelled, free, known.keys() - override.keys(), dealt.keys())
    return tracks.set_column(at, tracks.schema.field(at), filled), (*notes, *remarks)


def _by_id(splits: Mapping[str, str], tracks: pa.Table) -> tuple[dict[str, str], tuple[str, ...]]:
    """Splits by `track_id`, for keys that are ids, paths, or ids that lost their leading zeros in a spreadsheet."""
    ids = tracks["track_id"].to_pylist()
    paths = tracks["path"].to_pylist()
    meant = (
        {key.lstrip("0"): key for key in ids} | dict(zip(paths, ids, strict=True)) | dict(zip(ids, ids, strict=True))
    )
    found = {meant[key]: split for key, split in splits.items() if key in meant}
    if splits and not found:
        raise DatasetError(
            f"none of the {len(splits):,} tracks of the splits file is in the dataset ({listed(sorted(splits))})",
            f"name tracks as the dataset does ({listed(sorted(ids), 3)})",
        )
    unused = sorted(splits.keys() - meant.keys())
    if not unused:
        return found, ()
    return found, (f"splits given for tracks that are not in the dataset: {len(unused):,} ({listed(unused)})",)


def _deal(tracks: Sequence[_Track], labelled: Sequence[_Track], seed: int) -> dict[_Group, str]:
    """A split for each group of tracks without one, given all labelled tracks, some of which have one.

    Groups go, largest first, to the split that is then least full, relative to its share of the group's genres; half a
    track is deducted, which for single tracks makes it the Sainte-Laguë method of apportionment. When a genre has no
    more groups left than there are splits without it, they go to those.

    scikit-learn's StratifiedGroupKFold(10), one fold each for validation and test, knows only folds of equal size: of
    102 clips by 28 artists in 6 genres it leaves 8 of the 18 pairs of genre and split empty (mean of 10 seeds), this
    none; of 8 genres with 1,000 tracks by artists of Zipf-distributed size its worst share is off by 16 points, here
    by 1.2. Nor can it take account of tracks that are already placed.
    """
    total = Counter(track.genre for track in labelled)
    placed = {split: Counter(track.genre for track in labelled if track.split == split) for split in SPLITS}
    groups: dict[_Group, Counter[str]] = defaultdict(Counter)
    for track in tracks:
        groups[track.group][track.genre] += 1
    waiting = Counter(genre for sizes in groups.values() for genre in sizes)

    def order(group: _Group) -> tuple[int, bytes]:
        # Hashed, not drawn: the same with every version of every library, whatever the other tracks are.
        return -groups[group].total(), blake2b("\0".join((str(seed), *group)).encode(), digest_size=16).digest()

    def missing(genre: str) -> list[str]:
        return [split for split in SPLITS if not placed[split][genre]]

    def fullness(split: str, sizes: Counter[str]) -> float:
        return sum(n * (placed[split][genre] + n - 0.5) / (SHARES[split] * total[genre]) for genre, n in sizes.items())

    dealt: dict[_Group, str] = {}
    for group in sorted(groups, key=order):
        sizes = groups[group]
        urgent = {split for genre in sizes if waiting[genre] <= len(missing(genre)) for split in missing(genre)}
        # The first of equals gets the group, and without test tracks nothing can be said about a genre.
        candidates = [split for split in reversed(SPLITS) if not urgent or split in urgent]
        dealt[group] = min(candidates, key=lambda split: fullness(split, sizes))
        placed[dealt[group]].update(sizes)
        waiting.subtract(sizes.keys())
    return dealt


def _remarks(
    labelled: Sequence[_Track], free: Sequence[_Track], kept: Collection[str], dealt: Collection[_Group]
) -> Iterator[str]:
    """What the user should know about the splits.

    Args:
        labelled: all tracks that have a split.
        free: those of them that had none before.
        kept: ids of the tracks whose split was known, right or wrong.
        dealt: the groups that `_deal` placed.
    """
    if 0 < len(free) < len(labelled):
        yield f"tracks that had no split yet, placed around the others: {len(free):,} of {len(labelled):,}"
    changed = [track.track_id for track in labelled if track.own not in (None, track.split) and track.track_id in kept]
    if changed:
        yield f"tracks that keep their split, against what the dataset says: {len(changed):,} ({listed(changed)})"

    where: dict[str, set[str]] = defaultdict(set)
    cells: dict[_Group, Counter[tuple[str, str]]] = defaultdict(Counter)
    for track in labelled:
        if track.artist is not None and track.split is not None:
            where[track.artist].add(track.split)
            cells[track.group][track.genre, track.split] += 1
    crossing = sorted(artist for artist, splits in where.items() if len(splits) > 1)
    if crossing:
        yield f"artists in more than one split, which flatters the scores: {len(crossing):,} ({listed(crossing)})"

    total = Counter(track.genre for track in labelled)
    large = sorted(
        (-n / total[genre], f"{group[1]} ({n:,} of {total[genre]:,} {genre}, {split})")
        for group in dealt
        for (genre, split), n in cells[group].items()
        if n > 1 and n > LARGE_SHARE * total[genre]
    )
    if large:
        yield f"artists too large to split cleanly, each kept in one split: {listed(text for _, text in large)}"

    small = [f"{genre} ({n})" for genre, n in sorted(total.items()) if n < len(SPLITS)]
    if small:
        yield f"genres with too few tracks for three splits: {listed(small)}"
    present = {(track.genre, track.split) for track in labelled}
    for split in SPLITS:
        if absent := [genre for genre in sorted(total) if (genre, split) not in present]:
            yield f"genres without a {split} track: {listed(absent)}"
