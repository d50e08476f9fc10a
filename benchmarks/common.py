"""What the benchmarks share: clips of known material, the CPU time of a command, medians, tables."""

from __future__ import annotations

import math
import os
import platform
import random
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]

#: One thread per library, or CPU seconds measure how threads wait for each other. Imported before NumPy, inherited by
#: every command that is measured.
os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "BLIS")})

#: Bytes that `ru_maxrss` counts in.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024

_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_RATES = (44100, 48000, 32000)
_SAMPLES = 1152


class Spread(NamedTuple):
    """Median, least and most of what several attempts gave."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


class Cost(NamedTuple):
    """Seconds that something took: processor time of all its processes, and time on the clock."""

    cpu: float
    wall: float


def run(command: Sequence[str | Path], cwd: Path) -> Cost:
    """Run a command to its end; what it and all its descendants took. A failure ends the benchmark."""
    before, start = _children(), time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    cost = Cost(_children() - before, time.perf_counter() - start)
    if done.returncode:
        sys.exit(f"{shlex.join(map(str, command))} failed:\n{done.stderr or done.stdout}")
    return cost


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def default_folder() -> Path:
    """The test corpus: $MGC_TEST_CORPUS, else beside the repository."""
    corpus = os.environ.get("MGC_TEST_CORPUS", REPOSITORY.parent / "shared" / "corpus")
    return Path(corpus) / "fma_debian"


def find_clips(folder: Path, *, everything: bool = False) -> list[Path]:
    """MP3s below a folder in a seeded order: 30 s clips at 128 kbit/s in stereo at 44.1 kHz, or all that hold audio."""
    clips = [path for path in sorted(folder.rglob("*.mp3")) if (everything or _is_known(path)) and _frames(path)]
    if not clips:
        sys.exit(f"{folder}: no {'MP3' if everything else '30 s MP3 at 128 kbit/s, 44.1 kHz, stereo'} in it")
    random.Random(5).shuffle(clips)
    return clips


def _is_known(path: Path) -> bool:
    """Whether all MPEG frames are 128 kbit/s, 44.1 kHz and not mono, and last 30 s (to half a second)."""
    frames = _frames(path)
    return set(frames) == {(128, 44100, True)} and abs(len(frames) * _SAMPLES / 44100 - 30) < 0.5


def _frames(path: Path) -> list[tuple[int, int, bool]]:
    """(kbit/s, sample rate, stereo) of every MPEG-1 Layer III frame, as far as they follow one another."""
    data = path.read_bytes()
    at = 0
    if data[:3] == b"ID3":
        at = 10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(data[6:10]))
    frames = []
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] & 0xFE == 0xFA:
        bit_rate, rate = data[at + 2] >> 4, data[at + 2] >> 2 & 3
        if bit_rate in (0, 15) or rate == 3:
            break
        frames.append((_KBITS[bit_rate], _RATES[rate], data[at + 3] >> 6 != 3))
        at += _SAMPLES // 8 * _KBITS[bit_rate] * 1000 // _RATES[rate] + (data[at + 2] >> 1 & 1)
    return frames


def copy_set(clips: Sequence[Path], n: int, folder: Path) -> Path:
    """A folder of n MP3s, clips repeated under new names as often as needed, and a `list.csv` that names them."""
    folder.mkdir()
    rows = ["path,genre"]
    for i in range(n):
        shutil.copyfile(clips[i % len(clips)], folder / f"{i:06d}.mp3")
        rows.append(f"{i:06d}.mp3,{'ab'[i % 2]}")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    return folder


def environment(libraries: Iterable[str]) -> dict[str, str]:
    """What the figures depend on: date, processor, versions."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": f"{_processor()}, {os.cpu_count()} visible",
        "system": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in libraries)]
        ),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, padded so that it reads well as it is; floats to two places, nothing for None."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(_pad(i, cell, width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths))
    return "\n".join([lines[0], rule + "|", *lines[1:]])


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _pad(i: int, cell: str, width: int) -> str:
    return cell.ljust(width) if i == 0 else cell.rjust(width)
