"""What is there of a dataset, compared with the published checksums."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mgc.pipeline.datasets.published import PublishedDataset
from mgc.pipeline.downloads import archives, places, unpacking
from mgc.pipeline.downloads.guard import safe_path
from mgc.pipeline.downloads.parts import verify
from mgc.pipeline.downloads.places import Places
from mgc.pipeline.downloads.progress import Progress, showing
from mgc.pipeline.downloads.unpacking import Unpacked, file_crc
from mgc.pipeline.errors import DatasetError

#: File in the archives of FMA that lists the SHA-1 of each other file, as sha1sum writes it.
_CHECKSUMS = "checksums"
_CHECKSUM_LINE = re.compile(r"([0-9a-fA-F]{40}) [ *](\S.*)")
#: Clips of each genre of GTZAN, whose archive states no checksums of its own.
_CLIPS_PER_GENRE = 100


@dataclass
class Check:
    """Result of a check.

    Attributes:
        against: what the files were compared with, in prose.
        n_files: number of files that were compared.
        problems: what is wrong, by path.
        missing: paths of files that are not there.
        faulty: files that are there and are faulty as published, with the fault, by path.
    """

    against: list[str] = field(default_factory=list)
    n_files: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    faulty: dict[str, str] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """True if nothing is wrong. Faults of the published files are none of the copy."""
        return not self.problems and not self.missing


@dataclass(frozen=True)
class _Expected:
    """What is known of a file: its size and CRC-32, its SHA-1, or only that it has to be there."""

    unpacked: Unpacked | None = None
    sha1: str | None = None


def check(dataset: PublishedDataset, folder: Path, where: Places) -> Check:
    """Check the files of a dataset.

    They are compared with the archives, where these were kept, with the record of mgc's own download, and with the
    lists of SHA-1 that FMA's archives contain.

    Args:
        dataset: the dataset.
        folder: its folder, or that of its audio.
        where: the places of its download; archives are also looked for in `folder`, and beside it.

    Raises:
        DatasetError: there is no such folder, or nothing that it could be compared with.
    """
    if not folder.is_dir():
        problem = f"{folder}: no such folder"
        raise DatasetError(problem, f"get it with `mgc download {where.name}`, or name the folder that holds it")
    result = Check()
    record = places.read_record(folder, dataset)
    if record is not None:
        result.against.append("the record of its download")
    held = _from_archives(dataset, folder, where, result, with_tar=record is None)
    expected = {path: _Expected(known) for path, known in ((record or {}) | held).items()}
    for path, sha1 in _listed(folder, result):
        expected[path] = _Expected(expected.get(path, _Expected()).unpacked, sha1)
    if not expected:
        expected = {path: _Expected() for path in _clips(dataset, folder)}
        if expected:
            result.against.append("the names of its clips: without archive and record, their bytes cannot be verified")
    if not expected and not result.problems:
        problem = f"{folder} holds no list of checksums, and neither archive nor record of a download is there"
        raise DatasetError(problem, f"put an archive of {dataset.title} beside it, or download the dataset with mgc")
    _compare(folder, expected, result)
    _find_faulty(dataset, folder, result)
    return result


def _from_archives(
    dataset: PublishedDataset, folder: Path, where: Places, result: Check, *, with_tar: bool
) -> dict[str, Unpacked]:
    """Verify the archives that are there, and list their files by their path in a folder.

    Args:
        dataset: the dataset.
        folder: the folder that the archives were unpacked into, or the only one that an archive holds.
        where: the places of its download.
        result: gets what is wrong with the archives.
        with_tar: True to read tar archives as well: they have to be unpacked for that.
    """
    held: dict[str, Unpacked] = {}
    for archive in dataset.archives:
        candidates = (where.archive(archive), folder / archive.name, folder.parent / archive.name)
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            continue
        if (problem := verify(archive, path)) is not None:
            result.problems[str(path)] = problem
            continue
        result.against.append(f"{archive.name}, whose checksum is the published one")
        if archives.is_zip(path) or with_tar:
            held |= unpacking.contents(path)
    prefix = f"{folder.name}/"
    is_inner = any(path.startswith(prefix) for path in held) and not (folder / folder.name).is_dir()
    if not is_inner:
        return held
    return {path.removeprefix(prefix): file for path, file in held.items() if path.startswith(prefix)}


def _listed(folder: Path, result: Check) -> Iterator[tuple[str, str]]:
    """Yield path and SHA-1 of the files in the lists of a folder and of its subfolders."""
    for listing in sorted((*folder.glob(_CHECKSUMS), *folder.glob(f"*/{_CHECKSUMS}"))):
        prefix = listing.parent.relative_to(folder)
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
        matches = [match for line in lines if (match := _CHECKSUM_LINE.fullmatch(line))]
        name = (prefix / _CHECKSUMS).as_posix()
        if len(matches) < len([line for line in lines if line.strip()]):
            result.problems[name] = "lines of it are no checksums"
        if matches:
            result.against.append(f"the SHA-1 list {name}")
        for match in matches:
            # A list names its files from its own folder, or from the folder above.
            path = safe_path(match[2])
            above = path.startswith(f"{listing.parent.name}/") and not (listing.parent / path).exists()
            path = path.partition("/")[2] if above else path
            yield (prefix / path).as_posix(), match[1].lower()


def _clips(dataset: PublishedDataset, folder: Path) -> Iterator[str]:
    """Yield the paths that GTZAN's clips have in a folder; none for other datasets."""
    from mgc.pipeline.datasets import gtzan

    if dataset.name != "gtzan" or (root := gtzan.find_root(folder)) is None or not isinstance(root, Path):
        return
    suffixes = {path.stem: path.suffix for path in root.glob("*/*.*")}
    usual = max(set(suffixes.values()), key=list(suffixes.values()).count)
    for genre in dataset.genres:
        for number in range(_CLIPS_PER_GENRE):
            stem = f"{genre}.{number:05}"
            yield (root.relative_to(folder) / genre / f"{stem}{suffixes.get(stem, usual)}").as_posix()


def _compare(folder: Path, expected: dict[str, _Expected], result: Check) -> None:
    """Compare the files of a folder with what is known of them."""
    with showing("check") as progress:
        progress.begin(0, sum((folder / path).stat().st_size for path in expected if (folder / path).is_file()))
        for path, known in expected.items():
            file = folder / path
            if not file.is_file():
                result.missing.append(path)
                continue
            result.n_files += 1
            try:
                problem = _difference(file, known, progress)
            except OSError as error:
                problem = f"it cannot be read ({error.strerror})"
            if problem is not None:
                result.problems[path] = problem


def _difference(file: Path, known: _Expected, progress: Progress) -> str | None:
    """Say how a file differs from what is known of it; None if it does not."""
    size = file.stat().st_size
    progress.advance(size)
    if known.unpacked is not None and size != known.unpacked.size:
        return f"{size:,} bytes instead of {known.unpacked.size:,}"
    if known.sha1 is not None:
        with file.open("rb") as opened:
            actual = hashlib.file_digest(opened, "sha1").hexdigest()
        return None if actual == known.sha1 else f"its SHA-1 is {actual}, the published one {known.sha1}"
    if known.unpacked is not None and (crc := file_crc(file)) != known.unpacked.crc:
        return f"its CRC-32 is {crc:08x}, that of the archive {known.unpacked.crc:08x}"
    return None


def _find_faulty(dataset: PublishedDataset, folder: Path, result: Check) -> None:
    """List the files that are there and faulty as published."""
    for path, fault in dataset.faulty.items():
        for candidate in (folder / path, *folder.glob(f"*/{path}")):
            if candidate.is_file():
                result.faulty[candidate.relative_to(folder).as_posix()] = fault
