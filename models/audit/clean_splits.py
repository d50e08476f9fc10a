"""Splits without shared recordings, artists and albums, as close to the present ones as possible."""

from __future__ import annotations

import csv
import io
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

from mgc.models.audit.findings import Finding
from mgc.models.audit.metadata import fold_name, linked
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.storage import files

#: Kinds of findings whose two tracks must be in one split.
_ONE_RECORDING = ("duplicate", "near-duplicate", "version")


def groups(rows: list[dict[str, Any]], findings: Iterable[Finding]) -> list[list[dict[str, Any]]]:
    """Group the tracks that must be in one split.

    Tracks are linked by an artist (in any spelling), an album, or a recording, directly or through other tracks.

    Args:
        rows: usable, labelled tracks: dicts with `track_id`, `artist_id` and `album_id`.
        findings: findings of the audit; those of pairs link their tracks.
    """
    keys: dict[str, list[Hashable]] = {}
    for row in rows:
        artist, album = row["artist_id"], row["album_id"]
        keys[row["track_id"]] = [("artist", fold_name(artist))] if artist is not None else []
        keys[row["track_id"]] += [("album", album)] if album is not None else []
    for number, finding in enumerate(findings):
        if finding.kind in _ONE_RECORDING:
            for track in finding.tracks:
                if track in keys:
                    keys[track].append(("recording", number))
    return linked(rows, list(keys.values()))


def clean_splits(rows: list[dict[str, Any]], findings: Iterable[Finding]) -> dict[str, str]:
    """Move whole groups of linked tracks to the split that holds most of each group.

    Ties go to training, so that a doubtful track is never tested.

    Args:
        rows, findings: see `groups`; rows have a `split`, too.

    Returns:
        Split of each track that has one, by track id.
    """
    splits: dict[str, str] = {}
    for group in groups(rows, findings):
        present = [row["split"] for row in group if row["split"] is not None]
        if present:
            split = max(SPLITS, key=present.count)  # the first of equals: training
            splits |= {row["track_id"]: split for row in group}
    return splits


def write(path: Path, rows: list[dict[str, Any]], findings: Iterable[Finding]) -> int:
    """Write clean splits as CSV with the columns `track_id` and `split`, for `mgc split --splits`.

    Args:
        path: the file; it is replaced.
        rows: as for `clean_splits`.
        findings: as for `clean_splits`.

    Returns:
        The number of tracks whose split differs from the present one.

    Raises:
        MgcError: the file cannot be written.
    """
    splits = clean_splits(rows, findings)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("track_id", "split"), *splits.items()])
    with files.translate_write_errors(path):
        files.write_bytes(path, text.getvalue().encode())
    return sum(row["split"] != splits.get(row["track_id"]) for row in rows)
