"""The seal of a run: sizes and digests of its files, in `sealed.json`.

Before a file is replaced, its new digest joins the old one in the seal, and when it stands, the old one goes: a kill in
between leaves a seal that accepts both. Runs of mgc 0.1.0 have no seal; their files are read unchecked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgc.pipeline.errors import RunError
from mgc.pipeline.storage import files

NAME = "sealed.json"
#: States of a file that the seal accepts: [size in bytes, BLAKE3-128 of its bytes], or None for an absent file.
States = list[list[Any] | None]

#: Advice for files of a finished run that only its training can make.
RESTORE = "restore it from a copy, or train a new run"
#: Advice for files without which no command can use a run.
NEEDED = f"{RESTORE}: no command can use the run without it"
#: What still works without a file, or how to get it back.
_REMEDIES = {
    "config.json": NEEDED,
    "tracks.parquet": NEEDED,
    "summary.json": "restore it from a copy; `mgc evaluate` works without it",
    "history.jsonl": "restore it from a copy; `mgc evaluate` and `mgc train --resume` work without it",
    "best.pt": "restore it from a copy, train a new run, or continue an unfinished one with `mgc train --resume`",
    "last.pt": "train a new run; `mgc evaluate` works without it (--split validation if the run is unfinished)",
    "refit.pt": "restore it from a copy, or train a new run; `mgc evaluate --split validation` works without it",
    "refit-last.pt": "delete it: `mgc train --resume` then begins the refit anew",
    NAME: "restore it from a copy, or delete it to use the run unchecked",
}


def damage_error(path: Path, description: str) -> RunError:
    """The error for a damaged file of a run; it says what still works.

    Args:
        path: the file.
        description: what is wrong with it.
    """
    remedy = _REMEDIES.get(path.name, RESTORE)
    if path.name.startswith("metrics"):
        remedy = "delete it and evaluate again: it holds scores and their number of evaluations, no part of the model"
    if path.name.startswith(("predictions", "track-predictions", "confusion")):
        remedy = "`mgc evaluate` writes it anew"
    if path.name.startswith("report"):
        remedy = "`mgc report` writes it anew"
    return RunError(f"{path}: damaged ({description})", remedy)


def read(run: Path) -> dict[str, States] | None:
    """Read the seal of a run.

    Args:
        run: folder of the run.

    Returns:
        Accepted states of each file by its name; None if the run has no seal.

    Raises:
        RunError: the seal is damaged.
    """
    path = run / NAME
    try:
        return files.read_json_with_digest(path)["files"]
    except FileNotFoundError:
        return None
    except (OSError, KeyError) as error:
        description = error.strerror if isinstance(error, OSError) else "it lists no files"
        raise damage_error(path, description or "unreadable") from None


def create(run: Path, contents: Mapping[str, bytes]) -> None:
    """Write the seal of a new run, which lists files that are written after it or already stand.

    Args:
        run: folder of the run.
        contents: bytes of each file, by name.
    """
    _write(run, {name: [_state(data)] for name, data in contents.items()})


def read_file(run: Path, name: str) -> bytes:
    """Read a file of a run, and check it against the seal.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        RunError: its bytes, or those of the seal, are not those that were written.
    """
    data = (run / name).read_bytes()
    states = (read(run) or {}).get(name)
    if states is not None and _state(data) not in states:
        raise damage_error(run / name, files.CHECKSUM_MISMATCH)
    return data


def write_files(run: Path, contents: Mapping[str, bytes]) -> None:
    """Write or replace files of a run, one after the other, each atomically, and seal them.

    Raises:
        OSError: a file cannot be written; it and those after it stay as they were.
        RunError: the seal is damaged.
    """
    with _updating(run, {name: _state(data) for name, data in contents.items()}):
        for name, data in contents.items():
            files.write_bytes(run / name, data)


def remove_file(run: Path, name: str) -> None:
    """Remove a file of a run, and its entry in the seal."""
    with _updating(run, {name: None}):
        (run / name).unlink(missing_ok=True)


def add_existing(run: Path, names: Sequence[str]) -> None:
    """Seal files that another library wrote into the run.

    Args:
        run: folder of the run.
        names: paths of the files, relative to it.
    """
    with _updating(run, {name: [(run / name).stat().st_size, files.file_digest(run / name)] for name in names}):
        pass


def problem(run: Path, name: str) -> str | None:
    """Check one file of a run.

    Returns:
        What is wrong with it, such as `missing`; None if it is as it was written, or the run has no seal.

    Raises:
        RunError: the seal is damaged.
    """
    return _problem(run / name, (read(run) or {}).get(name))


def problems(run: Path) -> Iterator[tuple[Path, str]]:
    """Check every byte of a sealed run.

    Yields:
        Path of each file that is missing or damaged, and what is wrong with it.
    """
    try:
        sealed = read(run)
    except RunError:
        yield run / NAME, files.CHECKSUM_MISMATCH
        return
    for name, states in (sealed or {}).items():
        if description := _problem(run / name, states):
            yield run / name, description


def _problem(path: Path, states: States | None) -> str | None:
    try:
        state = [path.stat().st_size, files.file_digest(path)]
    except FileNotFoundError:
        return None if states is None or None in states else "missing"
    except OSError as error:
        return error.strerror or "unreadable"
    return None if states is None or state in states else files.CHECKSUM_MISMATCH


@contextlib.contextmanager
def _updating(run: Path, states: Mapping[str, list[Any] | None]) -> Iterator[None]:
    """Accept old and new states of files while the context lasts, and only the new ones after it."""
    with _locked(run):
        sealed = read(run)
        if sealed is None:
            yield
            return
        _write(run, sealed | {name: [*sealed.get(name, [None]), state] for name, state in states.items()})
        yield
        _write(run, {name: old for name, old in sealed.items() if name not in states} | _present(states))


def _present(states: Mapping[str, list[Any] | None]) -> dict[str, States]:
    return {name: [state] for name, state in states.items() if state is not None}


def _write(run: Path, sealed: Mapping[str, States]) -> None:
    files.write_json_with_digest(run / NAME, {"files": dict(sealed)})


def _state(data: bytes) -> list[Any]:
    return [len(data), files.digest(data)]


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Keep other processes from changing the seal: one may validate a run that another one trains.

    The lock is on the folder itself, so it leaves no file behind. A file system without such locks does without.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(run, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
