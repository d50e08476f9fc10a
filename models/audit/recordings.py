"""Recordings that a store holds twice: equal frames, copies in another form, and suspected versions of one piece."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgc.models.audit.findings import Finding
from mgc.pipeline.fingerprints import matching
from mgc.pipeline.fingerprints.scan import Scan

REMEDY = "mgc audit --write-splits splits.csv, then mgc split --splits splits.csv"

_EFFECT = {
    ("duplicate", True): "The model has heard the other copy: its scores are too high.",
    ("duplicate", False): "Copies in one split count twice in training or in the scores.",
    ("version", True): "If they are versions of one piece, the scores are somewhat too high; listen to them.",
    ("version", False): "If they are versions of one piece, it counts twice.",
}


def find_recordings(scan: Scan, tracks: Mapping[str, dict[str, Any]]) -> list[Finding]:
    """Find recordings that are in a store more than once.

    Args:
        scan: frames' digests and sub-fingerprints of the store.
        tracks: manifest rows by track id.

    Returns:
        A finding for each pair: `duplicate` for equal frames (each further track with the first one), `near-duplicate`
        for copies in another form, `version` for a suspicion.
    """
    findings = []
    for first, *others in scan.equal_tracks():
        equal = ("hold the same frames", {"error": 0.0})
        findings += [_pair(tracks, "duplicate", first, other, *equal) for other in others]
    for pair in matching.find_pairs(scan.codes):
        words = (
            f"share {pair.overlap_s:.1f} s, the second one from {pair.offset_s:+.1f} s of the first "
            f"(bit error rate {pair.error:.2f})"
        )
        measures = {"error": round(pair.error, 4), "offset_s": pair.offset_s, "overlap_s": pair.overlap_s}
        findings.append(_pair(tracks, pair.kind, pair.a, pair.b, words, measures))
    return findings


def _pair(
    tracks: Mapping[str, dict[str, Any]], kind: str, a: str, b: str, words: str, measures: dict[str, Any]
) -> Finding:
    splits = [tracks[track]["split"] for track in (a, b)]
    crosses = splits[0] != splits[1] and None not in splits
    names = " and ".join(f"{tracks[track]['path']} ({tracks[track]['split'] or 'no split'})" for track in (a, b))
    is_version = kind == "version"
    if crosses:
        severity = "warning" if is_version else "error"
    else:
        severity = "info" if is_version else "warning"
    return Finding(
        kind,
        severity,
        (a, b),
        f"{names} {words}",
        _EFFECT["version" if is_version else "duplicate", crosses],
        REMEDY if crosses else "",
        {"a": a, "b": b, "splits": splits, **measures},
    )
