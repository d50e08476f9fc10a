"""Results of `mgc reproduce`: the file `results.jsonl` of a workspace, a JSON object on each line.

A result is never changed; a repetition appends another one. The file is replaced as a whole, under a lock, so a kill
leaves no half line, and two processes do not mix theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mgc.pipeline.storage import files
from mgc.pipeline.workspace import Workspace

#: Number of the layout of a line; see `record`.
FORMAT = 1
NAME = "results.jsonl"

#: A line of the file.
Result = dict[str, Any]


def path(workspace: Workspace) -> Path:
    """Path of the results of a workspace."""
    return workspace.root / NAME


def read(workspace: Workspace) -> list[Result]:
    """Read all results, the oldest first; lines that are no results, as other programs may leave, are skipped."""
    try:
        text = path(workspace).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    results = []
    for line in text.split("\n"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value.get("format") == FORMAT:
            results.append(value)
    return results


def append(workspace: Workspace, result: Result) -> None:
    """Append a result.

    Raises:
        MgcError: the file cannot be written; it is as it was then.
    """
    import filelock

    file = path(workspace)
    with files.translate_write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(file.with_name(f".{NAME}.lock")):
            for leftover in file.parent.glob(f"{files.TEMPORARY_PREFIX}*-{NAME}"):  # of a kill
                leftover.unlink()
            before = file.read_bytes() if file.exists() else b""
            if before and not before.endswith(b"\n"):
                before += b"\n"
            files.write_bytes(file, before + json.dumps(result, ensure_ascii=False).encode() + b"\n")


def find(results: Iterable[Result], key: str) -> Result | None:
    """The newest result with a key; None if there is none."""
    found = [result for result in results if result["key"] == key]
    return found[-1] if found else None


def newest(results: Iterable[Result]) -> list[Result]:
    """The newest result of each system, protocol, seed, dataset and limits, sorted by these."""
    by_job = {
        (
            result["dataset"]["name"],
            json.dumps(result["limits"]),
            result["system"],
            result["protocol"] != "published",
            result["seed"],
        ): result
        for result in results
    }
    return [by_job[job] for job in sorted(by_job)]
