"""Genres whose test split is too small to say much about them."""

from __future__ import annotations

from typing import Any

from mgc.models.audit.findings import Finding

#: Below this, one track more or less changes a genre's recall by more than ten points.
FEWEST_TRACKS = 10


def find_imbalance(rows: list[dict[str, Any]]) -> list[Finding]:
    """Find genres with few test tracks, or with test tracks by one artist only.

    Args:
        rows: usable, labelled tracks: dicts with `track_id`, `genre`, `split` and `artist_id`.
    """
    findings = []
    for genre in sorted({row["genre"] for row in rows}):
        test = [row for row in rows if row["genre"] == genre and row["split"] == "test"]
        artists = {row["artist_id"] for row in test}
        if len(test) < FEWEST_TRACKS:
            detail = f"{genre!r} has {len(test)} test tracks"
            effect = f"With fewer than {FEWEST_TRACKS} tracks, a genre's scores say little; look at their intervals."
        elif len(artists) == 1 and None not in artists:
            detail = f"all {len(test)} test tracks of {genre!r} are by one artist"
            effect = "The scores of that genre are the scores of that artist."
        else:
            continue
        findings.append(Finding("balance", "info", tuple(row["track_id"] for row in test), detail, effect))
    return findings


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count tracks, artists and albums of each genre in each split.

    Returns:
        An object for each genre and split: `genre`, `split`, `tracks`, `artists` and `albums` (known ones).
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["genre"], row["split"] or "none"), []).append(row)
    return [
        {
            "genre": genre,
            "split": split,
            "tracks": len(group),
            "artists": len({row["artist_id"] for row in group} - {None}),
            "albums": len({row["album_id"] for row in group} - {None}),
        }
        for (genre, split), group in sorted(groups.items())
    ]
