"""The audit of a store: all findings on its recordings, artists, albums and splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mgc.models.audit import balance, shortcuts
from mgc.models.audit.findings import SEVERITIES, Finding, render
from mgc.models.audit.metadata import find_shared_metadata
from mgc.models.audit.recordings import find_recordings
from mgc.models.audit.sound import find_faults
from mgc.pipeline.fingerprints.codes import can_fingerprint
from mgc.pipeline.fingerprints.levels import Levels
from mgc.pipeline.fingerprints.scan import scan
from mgc.pipeline.store import last_audit
from mgc.pipeline.store.store import Store
from mgc.pipeline.wrapping import wrap

if TYPE_CHECKING:
    from mgc.models.audit.labels import Labels
    from mgc.models.runs.run import Run

_COLUMNS = [
    "track_id", "path", "genre", "split", "artist_id", "album_id", "content_hash", "status", "detail", "size",
    "duration_s", "sample_rate", "channels", "encoder", "stereo_image", "clipped",
]  # fmt: skip


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        store: the store.
        rows: its usable tracks: dicts of manifest columns.
        findings: all findings.
        notes: what could not be examined, and why.
        shortcuts: how well marks of the encoding tell the genre.
        labels: what runs say about the labels; None if no runs were given.
    """

    store: Store
    rows: list[dict[str, Any]]
    findings: list[Finding]
    notes: list[str]
    shortcuts: list[shortcuts.Shortcut]
    labels: Labels | None = None

    @property
    def labelled(self) -> list[dict[str, Any]]:
        """The usable tracks that have a genre."""
        return [row for row in self.rows if row["genre"] is not None]

    @property
    def n_test(self) -> int:
        """Number of test tracks."""
        return sum(row["split"] == "test" for row in self.rows)

    @property
    def leaked(self) -> set[str]:
        """Ids of the test tracks that share a recording or an artist with another split."""
        test = {row["track_id"] for row in self.rows if row["split"] == "test"}
        serious = (finding.tracks for finding in self.findings if finding.severity == "error")
        return test.intersection(*[set().union(*serious)])

    def record(self) -> None:
        """Write the result into the store, where `mgc split` and `mgc evaluate` look for it; see `last_audit`.

        Raises:
            MgcError: the store cannot be written.
        """
        counts: dict[str, Counter[str]] = {}
        for finding in self.findings:
            counts.setdefault(finding.kind, Counter())[finding.severity] += 1
        limits = ["recordings were not compared"] * (not can_fingerprint(self.store.spec))
        limits += ["no artist is known"] * all(row["artist_id"] is None for row in self.rows)
        last_audit.write(self.store, self.leaked, counts, limits)

    def as_dict(self, clean: bool) -> dict[str, Any]:
        """Return the audit as an object for JSON; `clean` is the verdict of `findings.is_clean`."""
        return {
            "store": str(self.store.path),
            "tracks": len(self.rows),
            "test_tracks": self.n_test,
            "leaked_test_tracks": sorted(self.leaked),
            "findings": [finding.as_dict() for finding in self.findings],
            "balance": balance.table(self.labelled),
            "shortcuts": [shortcut.as_dict() for shortcut in self.shortcuts],
            "labels": self.labels.as_dict() if self.labels else None,
            "notes": self.notes,
            "clean": clean,
        }

    def render(self, width: int) -> list[str]:
        """Write the audit as lines of at most `width` columns, but for the path."""
        n_test, leaked = self.n_test, len(self.leaked)
        counts = Counter(finding.severity for finding in self.findings)
        summary = ", ".join(f"{counts[severity]} of severity {severity}" for severity in SEVERITIES if counts[severity])
        lines = [str(self.store.path), f"  {len(self.rows)} tracks, {n_test} of them in the test split", ""]
        for note in [*self.notes, *(self.labels.sentences() if self.labels else [])]:
            lines += [*wrap(note, width), ""]
        if self.findings:
            lines += render(self.findings, width)
        lines.append(f"findings: {summary or 'none'}")
        if leaked:
            words = "share a recording or an artist with other splits"
            lines += [f"{leaked} of {n_test} test tracks ({leaked / n_test:.1%})", f"  {words}"]
        return lines


def audit(store: Store, progress: Callable[[int], AbstractContextManager], runs: Sequence[Run] = ()) -> Audit:
    """Examine a store, without decoding any file.

    Args:
        store: a finished store; recordings are compared if it holds mel, MFCC, STFT or power frames.
        progress: called with the number of tracks; its context's value is called with each increment.
        runs: runs that judge the labels, see `labels.examine`.

    Raises:
        StoreError: the store is unfinished or damaged.
        RunError: a run cannot judge the labels.
    """
    store.require_finished()
    manifest = store.tracks  # read once: `scan` and `last_audit` select their columns from it
    rows = [row for row in manifest.select(_COLUMNS).to_pylist() if row["status"] == "ok"]
    labelled = [row for row in rows if row["genre"] is not None]
    findings, notes, judged = [], [], None
    if runs:
        from mgc.models.audit import labels

        judged = labels.examine(runs, labelled)
    levels: dict[str, Levels] = {}
    if can_fingerprint(store.spec):
        with progress(len(rows)) as advance:
            recordings = scan(store, advance)
        findings += find_recordings(recordings, {row["track_id"]: row for row in rows})
        levels = recordings.levels
    else:
        notes.append(
            f"Recordings are not compared: {store.spec.name} frames do not show which tracks are copies. "
            "Nor do they show levels. Audit a mel, stft or mfcc store of the dataset for that."
        )
    findings += find_shared_metadata(labelled)
    findings += balance.find_imbalance(labelled)
    findings += judged.findings if judged else []
    measured = shortcuts.measure(labelled, levels)
    findings += shortcuts.find_shortcuts(labelled, measured)
    findings += find_faults(rows, levels)
    if unknown := sum(row["encoder"] is None for row in rows):
        notes.append(
            f"Encoder, channels and clipping of {unknown} of {len(rows)} tracks are unknown: an earlier version "
            "extracted them; `mgc extract --rebuild` records them."
        )
    return Audit(store, rows, findings, notes, measured, judged)
