"""Artists and albums on more than one side of a split."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mgc.models.audit.findings import Finding
from mgc.models.audit.recordings import REMEDY

_HEARD = "The model has heard other tracks of theirs: its scores say less about artists that it has not heard."

#: What follows the first artist's name: guests, by the words with which tags introduce them.
_GUESTS = re.compile(r"[\s(\[]+(feat|ft|featuring|with)\b.*$")
_NOT_LETTERS = re.compile(r"[\W_]+")


def fold_name(name: str) -> str:
    """Fold the spellings of an artist's name: case, accents, punctuation, a leading "The", "&", and guests.

    >>> fold_name("The Beyoncé & Jay-Z feat. Someone") == fold_name("beyonce and JAY Z")
    True
    """
    letters = unicodedata.normalize("NFKD", name.casefold()).replace("&", " and ")
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    words = _NOT_LETTERS.sub(" ", _GUESTS.sub("", letters)).strip()
    return words.removeprefix("the ") or name


def find_shared_metadata(rows: list[dict[str, Any]]) -> list[Finding]:
    """Find artists and albums whose tracks are in several splits.

    Args:
        rows: usable, labelled tracks: dicts with `track_id`, `split`, `artist_id` and `album_id`.

    Returns:
        Findings `artist` (also for names that seem to be spellings of one), `album`, and one `component` for tracks
        that are linked across splits by artists and albums together.
    """
    findings = []
    if rows and all(row["artist_id"] is None for row in rows):
        detail = "no artist is known, so an artist may be in several splits"
        effect = "Scores are likely too high for artists that the model has not heard; nobody can tell by how much."
        findings.append(Finding("artist", "warning", (), detail, effect, "name artists in tags or in the list"))
    findings += _crossing(rows, "artist", lambda row: row["artist_id"], "artist {!r}")
    spellings = [row for row in rows if not (row["artist_id"] or "0").isdecimal()]
    names: dict[str, set[str]] = {}
    for row in spellings:
        names.setdefault(fold_name(row["artist_id"]), set()).add(row["artist_id"])
    several = [row for row in spellings if len(names[fold_name(row["artist_id"])]) > 1]
    findings += _crossing(several, "artist", lambda row: fold_name(row["artist_id"]), "suspected: artist {!r}", names)
    findings += _crossing(rows, "album", lambda row: row["album_id"], "album {!r}")
    return findings + _components(rows)


def _crossing(
    rows: Iterable[dict[str, Any]],
    kind: str,
    key: Callable[[dict[str, Any]], Hashable],
    name: str,
    names: dict[str, set[str]] | None = None,
) -> list[Finding]:
    """Return a finding for each value of `key` whose tracks are in several splits.

    Args:
        rows: tracks.
        kind: kind of the findings.
        key: value by which tracks belong together; None for a track that belongs to no others.
        name: name of a value in the sentence, a format string.
        names: spellings of each value, where it stands for several.
    """
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        if key(row) is not None and row["split"] is not None:
            groups.setdefault(key(row), []).append(row)
    n_test = sum(row["split"] == "test" for row in rows) or 1
    findings = []
    for value, tracks in groups.items():
        splits = {row["split"] for row in tracks}
        if len(splits) == 1:
            continue
        in_test = sum(row["split"] == "test" for row in tracks)
        spelt = f", spelt {', '.join(map(repr, sorted(names[value])))}," if names else ""
        detail = f"{name.format(value)}{spelt} is in {_counts(tracks)}"
        if in_test:
            detail += f": {in_test / n_test:.1%} of the test split"
        severity = "error" if kind == "artist" and not names and in_test else "warning"
        findings.append(Finding(kind, severity, tuple(row["track_id"] for row in tracks), detail, _HEARD, REMEDY))
    return findings


def _counts(rows: list[dict[str, Any]]) -> str:
    """Say how many tracks each split has, like "training 3, test 1"."""
    splits = [row["split"] for row in rows]
    return ", ".join(
        f"{split} {splits.count(split)}" for split in ("training", "validation", "test") if split in splits
    )


def _components(rows: list[dict[str, Any]]) -> list[Finding]:
    """Return one finding if tracks are linked across splits by artists and albums, directly or through other tracks."""
    rows = [row for row in rows if row["split"] is not None]
    keys: list[list[Hashable]] = [
        [(name, row[name]) for name in ("artist_id", "album_id") if row[name] is not None] for row in rows
    ]
    crossing = [group for group in linked(rows, keys) if len({row["split"] for row in group}) > 1]
    if not crossing:
        return []
    tracks = [row for group in crossing for row in group]
    n_test = sum(row["split"] == "test" for row in rows) or 1
    in_test = sum(row["split"] == "test" for row in tracks)
    detail = (
        f"{len(crossing)} groups of tracks that artists or albums link, directly or through other tracks, are in "
        f"several splits: {_counts(tracks)}, {in_test / n_test:.1%} of the test split"
    )
    return [Finding("component", "info", tuple(row["track_id"] for row in tracks), detail, _HEARD, REMEDY)]


def linked(rows: list[dict[str, Any]], keys: list[list[Hashable]]) -> list[list[dict[str, Any]]]:
    """Group tracks that share a key, directly or through others: the connected components.

    Args:
        rows: the tracks.
        keys: keys of each track, such as its artist and its album.

    Returns:
        The tracks of each component, in their order.
    """
    numbers: dict[Hashable, int] = {}
    edges = [(track, numbers.setdefault(key, len(numbers))) for track, own in enumerate(keys) for key in own]
    size = len(keys) + len(numbers)
    first = [track for track, _ in edges]
    second = [len(keys) + number for _, number in edges]
    graph = coo_array(([1] * len(edges), (first, second)), shape=(size, size))
    groups: dict[int, list[dict[str, Any]]] = {}
    for row, number in zip(rows, connected_components(graph, directed=False)[1].tolist(), strict=False):
        groups.setdefault(number, []).append(row)  # the numbers of the tracks come first, then those of the keys
    return list(groups.values())
