"""Small archives in the layouts of FMA and GTZAN, and a package that adds them to what `mgc download` offers."""

from __future__ import annotations

import csv
import hashlib
import io
import random
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
from packages import install

#: Faulty as published, in `tiny_fma`.
FAULTY = "000/000012.mp3"
_GENRES = ("Folk", "Rock")
_TRACKS = 24


def noise(n_bytes: int, seed: int = 0) -> bytes:
    """Bytes that no method compresses."""
    return random.Random(seed).randbytes(n_bytes)


def clip(suffix: str, seed: int, seconds: float = 1.0) -> bytes:
    """A second of noise, in the format of a suffix."""
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(22050 * seconds)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, 22050, format=suffix.upper())
    return file.getvalue()


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def write_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_BZIP2) -> Path:
    """Write a zip archive, compressed by bzip2 as those of FMA."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, (2017, 4, 1, 0, 0, 0))
            info.external_attr = 0o100444 << 16  # a regular file that nobody may write, as FMA's are
            archive.writestr(info, data, method)
    return path


def fma_audio() -> dict[str, bytes]:
    """Files of an audio archive of FMA: clips, a README, and their SHA-1 as sha1sum writes it."""
    names = [f"{number // 1000:03}/{number:06}.mp3" for number in range(2, 2 + _TRACKS)]
    files = {name: clip("mp3", number) for number, name in enumerate(names)}
    files["README.txt"] = b"Made up.\n"
    lines = "".join(f"{sha1(data)}  {name}\n" for name, data in files.items())
    return {f"fma_small/{name}": data for name, data in (files | {"checksums": lines.encode()}).items()}


def fma_metadata() -> dict[str, bytes]:
    """Files of the metadata archive of FMA, one of them large."""
    columns = [
        ("set", "subset"), ("set", "split"), ("track", "genre_top"), ("track", "title"), ("track", "bit_rate"),
        ("artist", "id"), ("artist", "name"), ("album", "id"),
    ]  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text)
    for level in (0, 1):
        writer.writerow(["", *(column[level] for column in columns)])
    writer.writerow(["track_id", *[""] * len(columns)])
    for row in range(_TRACKS):
        split = ("training", "training", "validation", "test")[row // 2 % 4]
        values = ["small", split, _GENRES[row % 2], f"Song {row}", 64000, row, f"Artist {row}", row]
        writer.writerow([row + 2, *values])
    files = {"tracks.csv": text.getvalue().encode(), "features.csv": noise(600_000)}
    return {f"fma_metadata/{name}": data for name, data in files.items()}


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a tar archive that is compressed by gzip, as GTZAN's."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def gtzan_audio() -> dict[str, bytes]:
    """Files of GTZAN's archive: two clips of each of two genres."""
    return {
        f"genres/{genre}/{genre}.{number:05}.au": clip("au", 10 * number + len(genre), 0.5)
        for genre in ("blues", "metal")
        for number in range(2)
    }


def many_files() -> dict[str, bytes]:
    """So many small files that unpacking them can be interrupted."""
    return {f"many/{number // 100:03}/{number:06}.bin": noise(2000, number) for number in range(3000)}


def write_archives(folder: Path) -> None:
    """Write all archives into a folder."""
    write_zip(folder / "fma_small.zip", fma_audio())
    write_zip(folder / "fma_metadata.zip", fma_metadata())
    write_tar(folder / "genres.tar.gz", gtzan_audio())
    write_zip(folder / "many.zip", many_files(), zipfile.ZIP_STORED)


def install_offers(site: Path, archives: Path, url: str = "http://127.0.0.1:9/nowhere") -> None:
    """Install a package whose layout offers the archives in a folder as `tiny-fma`, `tiny-gtzan` and `many-files`."""

    def archive(name: str, mirrors: tuple[str, ...] = ()) -> str:
        return f"Archive({f'{url}/{name}'!r}, sha1={sha1((archives / name).read_bytes())!r}, mirrors={mirrors!r})"

    def dataset(name: str, *parts: str, more: str = "") -> str:
        listed = ", ".join(parts)
        return f"PublishedDataset({name!r}, {name!r}, 'https://example.org', 'none', {_GENRES!r}, ({listed},){more})"

    faulty = f", faulty={{{FAULTY!r}: 'almost silent'}}"
    unsized = archive("fma_metadata.zip")
    lines = [
        dataset("tiny_fma", archive("fma_small.zip"), unsized, more=faulty),
        dataset("tiny_gtzan", archive("genres.tar.gz"), more=", splits='gtzan-filtered'"),
        dataset("many_files", archive("many.zip")),
        dataset("one_file", unsized),
        "PublishedDataset('fma_small', '', '', '', (), ())",
    ]
    module = (
        "from mgc.pipeline.datasets.published import Archive, PublishedDataset\n\n"
        f"downloads = [{', '.join(lines)}]\n\n"
        "def find_root(folder):\n    return None\n\n"
        "def read(root):\n    raise NotImplementedError\n"
    )
    install(site, "acme-offers", {"acme_offers.py": module}, {"mgc.datasets:acme-offers": "acme_offers"})
