"""A run on another dataset: which of its tracks are scored, and under which genres.

Left out are tracks of genres that the run does not know, and tracks that it has heard in training (`heard`). All others
count, whatever their split in their own dataset: the run was trained on none of them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mgc.models.data.waveform_view import WaveformView
from mgc.models.evaluation import heard
from mgc.models.evaluation.heard import Copy, Progress
from mgc.models.runs.run import Run
from mgc.models.runs.selection import TRACK_SCHEMA, Selection, usable_tracks, with_splits
from mgc.models.training.ensemble import members_of
from mgc.models.training.predict import match_stores, open_stores
from mgc.pipeline.datasets.catalogue import format_names
from mgc.pipeline.datasets.tags import fold
from mgc.pipeline.errors import MgcError, RunError, StoreError
from mgc.pipeline.fingerprints.codes import can_fingerprint
from mgc.pipeline.store.store import Store


@dataclass(frozen=True)
class OtherDataset:
    """Tracks of another dataset that a run, or an ensemble, is scored on.

    Attributes:
        name: name of the dataset.
        stores: stores for each member of the runs (`members_of`), one for each input of its system.
        selection: tracks, all of them in the split `test`.
        split: split of the dataset that they are from; None for all of it.
        stored: paths of the stores.
        unknown: number of tracks of each genre that the run does not know.
        copies: tracks that the run has heard.
        uncompared: why recordings were not compared, so that only equal files were found; None if they were.
    """

    name: str
    stores: tuple[list[Store], ...]
    selection: Selection
    split: str | None
    stored: tuple[str, ...]
    unknown: dict[str, int]
    copies: tuple[Copy, ...]
    uncompared: str | None

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON: what was scored, and what was left out."""
        return {
            "stores": list(self.stored),
            "split": self.split,
            "unknown_genres": self.unknown,
            "heard": [dataclasses.asdict(copy) for copy in self.copies],
            "recordings_not_compared": self.uncompared,
        }


def open_other(
    runs: Sequence[Run],
    stores: Sequence[Store],
    genre_map: Mapping[str, str | None],
    split: str | None,
    progress: Progress,
) -> OtherDataset:
    """Choose the tracks of another dataset to score a run on.

    Args:
        runs: the run, or several whose mean is scored.
        stores: stores of the dataset, of the features that the runs were trained on.
        genre_map: name in the run of each genre of the dataset, by folded name; None leaves it out. Genres that are not
            in it have the same name in both, whatever case and blanks.
        split: score only this split of the dataset; None for all of its tracks.
        progress: shows how many tracks have been compared.

    Raises:
        RunError: the stores hold other features, the map names genres that the run does not have, or no track is left.
        StoreError: a store is unfinished or damaged, or holds another dataset than the first one.
    """
    members = [member for run in runs for member in members_of(run)]
    name = stores[0].dataset["name"]
    for store in stores:
        store.require_finished()
        if store.dataset["name"] != name:
            raise StoreError(f"{store.path} holds {store.dataset['name']}, not {name}", "name stores of one dataset")
    matched = tuple(match_stores(member, stores) for member in members)
    tracks = _common_tracks(members, matched)
    if split is not None:
        tracks = tracks.filter(pc.equal(tracks["split"], split))
    tracks, unknown = _with_known_genres(tracks, members[0].classes, genre_map)
    copies, uncompared = _find_copies(members, matched, tracks, progress) if len(tracks) else ([], None)
    ids = pa.array([copy.track for copy in copies], pa.string())
    tracks = tracks.filter(pc.invert(pc.is_in(tracks["track_id"], value_set=ids)))
    if not len(tracks):
        genres = f": its genres {format_names(sorted(unknown))} are not the run's" if unknown else ""
        heard_too = f", and {len(copies):,} tracks are the run's own" if copies else ""
        remedy = f"name its genres in a --map; the run's are {format_names(members[0].classes, 20)}"
        raise RunError(f"{stores[0].path}: no track to score{genres}{heard_too}", remedy)
    tracks = with_splits(tracks, pa.repeat("test", len(tracks))).combine_chunks()
    paths = tuple(str(store.path) for store in stores)
    selection = Selection(members[0].classes, tracks)
    return OtherDataset(name, matched, selection, split, paths, unknown, tuple(copies), uncompared)


def _common_tracks(members: Sequence[Run], matched: Sequence[Sequence[Store]]) -> pa.Table:
    """Return the tracks (`TRACK_SCHEMA`) that all members can read, sorted by id."""
    tables = [
        usable_tracks(store, member.slicing if store is first else None)
        for member, (first, *others) in zip(members, matched, strict=True)
        for store in (first, *others)
    ]
    tracks = tables[0]
    for other in tables[1:]:
        tracks = tracks.filter(pc.is_in(tracks["track_id"], value_set=other["track_id"].combine_chunks()))
    return tracks.sort_by("track_id")


def _with_known_genres(
    tracks: pa.Table, classes: Sequence[str], genre_map: Mapping[str, str | None]
) -> tuple[pa.Table, dict[str, int]]:
    """Rename genres to those of the run, and leave out the tracks of others.

    Returns:
        The remaining tracks, and the number of tracks of each genre that is left out.

    Raises:
        RunError: the map has a genre that is not the run's.
    """
    known = {fold(genre): genre for genre in classes}
    if strangers := sorted({name for name in genre_map.values() if name and fold(name) not in known}):
        problem = f"--map: the run has no genre {format_names(strangers)}"
        raise RunError(problem, f"its genres are {format_names(classes, 20)}")
    genres = tracks["genre"].to_pylist()
    new = {genre: known.get(fold(genre_map.get(fold(genre), genre) or "")) for genre in set(genres)}
    unknown = Counter(genre for genre in genres if new[genre] is None)
    at = TRACK_SCHEMA.get_field_index("genre")
    renamed = pa.array([new[genre] for genre in genres], pa.string())
    kept = tracks.set_column(at, TRACK_SCHEMA.field(at).with_nullable(True), renamed).filter(pc.is_valid(renamed))
    return kept.cast(TRACK_SCHEMA), dict(sorted(unknown.items()))


def _find_copies(
    members: Sequence[Run], matched: Sequence[Sequence[Store]], tracks: pa.Table, progress: Progress
) -> tuple[list[Copy], str | None]:
    """Find the tracks that the members were trained or validated on, and say why recordings were not compared."""
    heard_tables = [
        member.selection.tracks.filter(pc.not_equal(member.selection.tracks["split"], "test")) for member in members
    ]
    known = pa.concat_tables(heard_tables).select(["track_id", "content_hash"])
    copies = heard.same_files(tracks, known)
    rest = tracks["track_id"].filter(
        pc.invert(pc.is_in(tracks["track_id"], value_set=pa.array([copy.track for copy in copies], pa.string())))
    )
    for member, others in zip(members, matched, strict=True):
        for number, store in enumerate(others):
            if isinstance(store, WaveformView) or not can_fingerprint(store.spec):
                continue
            try:
                own = open_stores(member)[number]
                unchanged = _unchanged_tracks(own, known)
                copies += heard.same_recordings(store, rest.to_pylist(), own, unchanged, progress)
            except MgcError as error:
                return copies, error.problem
            n_gone = pc.count_distinct(known["track_id"]).as_py() - len(unchanged)
            gone = f"{n_gone:,} tracks of the run are no longer in {own.path}" if n_gone else None
            return sorted(copies, key=lambda copy: copy.track), gone
    names = ", ".join(sorted({store.spec.name for others in matched for store in others}))
    return copies, f"{names} frames have too few frequency bands to tell recordings apart"


def _unchanged_tracks(store: Store, known: pa.Table) -> list[str]:
    """Return the ids of the tracks that a store still holds as the run knew them."""
    stored = store.read_tracks(["track_id", "content_hash", "n_frames"])
    stored = stored.filter(pc.greater(stored["n_frames"], 0))
    rows = pc.index_in(known["track_id"], value_set=stored["track_id"].combine_chunks())
    same = pc.fill_null(pc.equal(stored["content_hash"].take(rows), known["content_hash"]), False)
    return pc.unique(known["track_id"].filter(same)).to_pylist()
