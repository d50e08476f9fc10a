"""Findings of an audit, their severity, and their forms as text and JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mgc.pipeline.wrapping import wrap

#: From harmless to serious. An `error` makes scores of the test split too high; a `warning` may, or weakens training;
#: an `info` limits what the scores can show.
SEVERITIES = ("info", "warning", "error")
#: Findings of one kind and severity that the text lists one by one.
LISTED = 10


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a dataset or its splits.

    Attributes:
        kind: `duplicate`, `near-duplicate`, `version`, `artist`, `album`, `component`, `shortcut`,
            `label`, `sound` or `balance`.
        severity: one of `SEVERITIES`.
        tracks: ids of the tracks concerned.
        detail: a sentence that says what was found.
        effect: a sentence that says what it does to the scores.
        remedy: the command that mends it; empty if there is none.
        values: further values for JSON. Those of two tracks: `a`, `b`, their `splits`, and how they were compared.
    """

    kind: str
    severity: str
    tracks: tuple[str, ...]
    detail: str
    effect: str
    remedy: str = ""
    values: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as an object for JSON."""
        common = {"kind": self.kind, "severity": self.severity, "tracks": list(self.tracks), "detail": self.detail}
        return common | {"effect": self.effect, "remedy": self.remedy} | (self.values or {})


def is_clean(findings: Iterable[Finding], fail_on: str) -> bool:
    """Tell whether no finding is as severe as `fail_on`, one of `SEVERITIES`."""
    least = SEVERITIES.index(fail_on)
    return all(SEVERITIES.index(finding.severity) < least for finding in findings)


def render(findings: list[Finding], width: int) -> list[str]:
    """Write findings as lines: the most severe kinds first, with the effect and the remedy once for each kind."""
    blocks: dict[tuple[int, str, str, str], list[Finding]] = {}
    for finding in findings:
        rank = -SEVERITIES.index(finding.severity)
        blocks.setdefault((rank, finding.kind, finding.effect, finding.remedy), []).append(finding)
    lines = []
    for (rank, kind, effect, remedy), block in sorted(blocks.items(), key=lambda item: item[0][0]):
        lines.append(f"{SEVERITIES[-rank]}: {kind} ({len(block)})")
        for finding in block[:LISTED]:
            lines += wrap(f"  - {finding.detail}", width, indent=4)
        if len(block) > LISTED:
            lines.append(f"  - and {len(block) - LISTED} more (--json lists all)")
        lines += wrap(f"  {effect}", width, indent=2)
        if remedy:
            lines += wrap(f"  Remedy: {remedy}", width, indent=4)
        lines.append("")
    return lines
