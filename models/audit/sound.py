"""Faults of sound: silence, clipping, levels far from the others', and channels that hold less than they should."""

from __future__ import annotations

import re
from collections.abc import Mapping
from statistics import median
from typing import Any, NamedTuple

from mgc.models.audit.findings import Finding
from mgc.pipeline.audio.notes import KINDS
from mgc.pipeline.fingerprints.levels import Levels

#: Share of silent frames from which on most slices of a track hold no music.
MOSTLY_SILENT = 0.5
#: Seconds of one silence that hold a whole slice.
LONG_SILENCE_S = 5.0
#: Mean level in dB of a full-scale sine below which there is hardly any sound, and decibels from the median of the
#: store beyond which a level is an outlier.
FAINT_DB, OUTLIER_DB = -60.0, 20.0
#: Share of samples at full scale from which on a track counts as clipped.
CLIPPED = 0.001
#: Tracks that a finding names.
_NAMED = 3
_CHANNELS = {"left": "left only", "right": "right only"}
_LEAVE_OUT = "remove the files, or list the others in a CSV, and run mgc extract again"


class Fault(NamedTuple):
    """A kind of fault: `words` are those of the finding, and follow `1 track: ` or `5 tracks: `."""

    severity: str
    words: str
    effect: str
    remedy: str = ""


#: Faults by their names in JSON; docs/audit.md says why the limits are where they are.
FAULTS = {
    "mostly-silent": Fault(
        "warning",
        f"silent for {MOSTLY_SILENT:.0%} of the time or more",
        "Most of their slices carry a genre and hold no music.",
        _LEAVE_OUT,
    ),
    "faint": Fault(
        "warning",
        f"a mean level below {FAINT_DB:.0f} dB of a full-scale sine",
        "They hold noise and little else; a model can only learn them by heart.",
        _LEAVE_OUT,
    ),
    "silence": Fault(
        "info",
        f"a silence of {LONG_SILENCE_S:.0f} s or more",
        "Slices of silence carry a genre. They weaken training a little, and are guessed in tests.",
    ),
    "level": Fault(
        "info",
        f"a level more than {OUTLIER_DB:.0f} dB from the median of all tracks",
        "Models that see absolute levels may not know such tracks.",
    ),
    "clipping": Fault(
        "info",
        f"{CLIPPED:.1%} of the samples or more at full scale",
        "Clipping adds overtones up to the highest frequencies. It matters where one genre has more of it than others.",
    ),
    "dead-channel": Fault(
        "info",
        "one of two channels is silent",
        "The mix is 6 dB softer than the music.",
    ),
    "cancelled": Fault(
        "info",
        "channels that cancel in their mix, wholly or in part",
        "What both channels hold in opposite phase is missing, or one channel stands for both.",
    ),
    "equal-channels": Fault(
        "info",
        "mono that is stored as stereo",
        "Frames are of the mix, so they are the same. It matters where one genre has more of it than others.",
    ),
}  # fmt: skip


def find_faults(rows: list[dict[str, Any]], levels: Mapping[str, Levels]) -> list[Finding]:
    """Find tracks with faults of sound.

    Args:
        rows: manifest rows of usable tracks: dicts with `track_id`, `path`, `detail`, `channels`, `sample_rate`,
            `duration_s`, `clipped` and `stereo_image`; the last two are None where they were not recorded.
        levels: levels by track id; empty if the store does not show them.

    Returns:
        A finding for each fault, with all its tracks; the text names those where it is worst.
    """
    middle = median(level.level_db for level in levels.values()) if levels else 0.0
    found: dict[str, list[tuple[float, dict[str, Any], str]]] = {name: [] for name in FAULTS}
    for row in rows:
        measures = _of_channels(row)
        if row["track_id"] in levels:
            measures |= _of_levels(levels[row["track_id"]], middle)
        for name, (size, words) in measures.items():
            found[name].append((size, row, words))
    findings = []
    for name, tracks in found.items():
        if not tracks:
            continue
        fault = FAULTS[name]
        tracks.sort(key=lambda track: (-track[0], track[1]["track_id"]))
        examples = [f"{row['path']} ({words})" if words else row["path"] for _, row, words in tracks[:_NAMED]]
        more = f" and {len(tracks) - _NAMED} more" if len(tracks) > _NAMED else ""
        count = "1 track" if len(tracks) == 1 else f"{len(tracks)} tracks"
        detail = f"{count}: {fault.words}: {', '.join(examples)}{more}"
        ids = tuple(row["track_id"] for _, row, _ in tracks)
        findings.append(Finding("sound", fault.severity, ids, detail, fault.effect, fault.remedy, {"fault": name}))
    return findings


def _of_levels(levels: Levels, middle: float) -> dict[str, tuple[float, str]]:
    """Return the faults that a track's levels show: how bad each is, for sorting, and in words."""
    faults = {}
    if levels.silent_share >= MOSTLY_SILENT:
        faults["mostly-silent"] = levels.silent_share, f"{levels.silent_share:.0%}"
    elif levels.longest_silence_s >= LONG_SILENCE_S:
        faults["silence"] = levels.longest_silence_s, f"{levels.longest_silence_s:.1f} s"
    difference = levels.level_db - middle
    if levels.level_db < FAINT_DB:
        faults["faint"] = -levels.level_db, f"{levels.level_db:.0f} dB"
    elif abs(difference) > OUTLIER_DB:
        faults["level"] = abs(difference), f"{difference:+.0f} dB"
    return faults


def _of_channels(row: dict[str, Any]) -> dict[str, tuple[float, str]]:
    """Return the faults that the manifest records, like `_of_levels`."""
    faults = {}
    if row["clipped"]:
        share = row["clipped"] / (row["duration_s"] * row["sample_rate"] * row["channels"])
        if share >= CLIPPED:
            faults["clipping"] = share, f"{share:.1%}"
    image = row["stereo_image"]
    if image in _CHANNELS:
        faults["dead-channel"] = 0.0, _CHANNELS[image]
    elif image == "equal":
        faults["equal-channels"] = 0.0, ""
    detail = row["detail"] or ""
    if partly := re.search(KINDS["partly_cancelled"] + r"the mix is (\d+) dB", detail):
        faults["cancelled"] = float(partly[2]), f"by {partly[2]} dB"
    elif re.search(KINDS["cancelled"], detail):
        faults["cancelled"] = 100.0, "wholly"
    return faults
