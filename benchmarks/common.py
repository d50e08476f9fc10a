"""Helpers of the benchmarks: selection of clips, CPU time of commands, medians, Markdown tables."""

from __future__ import annotations

import contextlib
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
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mgc.pipeline.versions import versions

REPOSITORY = Path(__file__).resolve().parents[1]

# One thread per library; otherwise CPU seconds include threads that wait for each other. Import this module before
# NumPy. The measured commands inherit the variables.
os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "BLIS")})

#: Unit of `ru_maxrss` in bytes.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024

#: MPEG-1 Layer III: bit rates in kbit/s and sample rates in Hz by header index, and samples per frame.
_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_RATES = (44100, 48000, 32000)
_SAMPLES = 1152


class Spread(NamedTuple):
    """Median, minimum and maximum of repeated measurements."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Compute the spread of values."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.minimum:.2f} to {self.maximum:.2f})"


class Cost(NamedTuple):
    """Cost of a command in seconds: CPU time of all its processes, and wall-clock time."""

    cpu: float
    wall: float


def run(command: Sequence[str | Path], cwd: Path) -> Cost:
    """Run a command and measure it with all its descendants. If it fails, exit with its output."""
    before, start = _children_cpu(), time.perf_counter()
    process = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    cost = Cost(_children_cpu() - before, time.perf_counter() - start)
    if process.returncode:
        sys.exit(f"{shlex.join(map(str, command))} failed:\n{process.stderr or process.stdout}")
    return cost


def _children_cpu() -> float:
    """CPU seconds of all child processes so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def memory(name: str, pid: int | str = "self") -> int:
    """An entry of /proc/PID/status in bytes, such as `VmRSS`.

    Raises:
        OSError: there is no such file.
        KeyError: it lacks the entry, as that of a process that has ended does.
    """
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def peak_mb() -> float:
    """Peak memory of this process since `reset_peak`, in MB (10^6 bytes)."""
    try:  # not ru_maxrss: after a fork it starts at the parent's peak
        return memory("VmHWM") / 1e6
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e6


def reset_peak() -> None:
    """Reset the peak memory of this process; only Linux can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class MemoryWatch:
    """Looks at the memory of a process every 20 ms; a context manager. Linux only.

    Private memory is what only the process has. Resident memory also counts pages of files that it maps, which the
    system takes back when it needs room.

    Attributes:
        private: the most private memory in bytes (`RssAnon`).
        resident: the most resident memory in bytes (`VmRSS`).
    """

    def __init__(self, pid: int | str = "self") -> None:
        self._pid = pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.private = self.resident = 0

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            with contextlib.suppress(OSError, KeyError):  # the process has ended
                self.private = max(self.private, memory("RssAnon", self._pid))
                self.resident = max(self.resident, memory("VmRSS", self._pid))

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def command_line() -> str:
    """The command that started this benchmark."""
    return " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]])


def print_facts(facts: Mapping[str, str]) -> None:
    """Print what a table was measured with, a line each."""
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)


def folders(keep: Path | None, numbers: Iterable[int]) -> Iterator[tuple[int, Path]]:
    """Yield numbers, and a folder called like each of them, below `keep`, or else a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="mgc-") as temporary:
        for number in numbers:
            folder = (keep or Path(temporary)).absolute() / f"{number}"
            folder.mkdir(parents=True, exist_ok=True)
            yield number, folder


def default_folder() -> Path:
    """Folder of clips of the test corpus, in $MGC_TEST_CORPUS or else beside the repository."""
    corpus = os.environ.get("MGC_TEST_CORPUS", REPOSITORY.parent / "shared" / "corpus")
    return Path(corpus) / "fma_debian"


def find_clips(folder: Path, *, everything: bool = False) -> list[Path]:
    """List the MP3s below a folder in a seeded random order.

    Args:
        folder: folder to search.
        everything: list all MP3s with audio; otherwise only stereo clips of 30 s with 128 kbit/s at 44.1 kHz.
    """
    clips = [path for path in sorted(folder.rglob("*.mp3")) if (everything or _is_standard(path)) and _frames(path)]
    if not clips:
        sys.exit(f"{folder}: no {'MP3' if everything else '30 s MP3 at 128 kbit/s, 44.1 kHz, stereo'} in it")
    random.Random(5).shuffle(clips)
    return clips


def _is_standard(path: Path) -> bool:
    """Whether all MPEG frames have 128 kbit/s, 44.1 kHz and two channels, and last 30 s, give or take half a second."""
    frames = _frames(path)
    return set(frames) == {(128, 44100, True)} and abs(len(frames) * _SAMPLES / 44100 - 30) < 0.5


def _frames(path: Path) -> list[tuple[int, int, bool]]:
    """Read (kbit/s, sample rate, stereo) of the MPEG-1 Layer III frames, up to the first gap between two frames."""
    data = path.read_bytes()
    offset = 0
    if data[:3] == b"ID3":
        offset = 10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(data[6:10]))
    frames = []
    while offset + 4 <= len(data) and data[offset] == 0xFF and data[offset + 1] & 0xFE == 0xFA:
        bit_rate, rate = data[offset + 2] >> 4, data[offset + 2] >> 2 & 3
        if bit_rate in (0, 15) or rate == 3:
            break
        frames.append((_KBITS[bit_rate], _RATES[rate], data[offset + 3] >> 6 != 3))
        offset += _SAMPLES // 8 * _KBITS[bit_rate] * 1000 // _RATES[rate] + (data[offset + 2] >> 1 & 1)
    return frames


def copy_set(clips: Sequence[Path], n: int, folder: Path) -> Path:
    """Fill a folder with `n` MP3s, repeating clips under new names if needed, and a `list.csv` of them."""
    folder.mkdir()
    rows = ["path,genre"]
    for i in range(n):
        shutil.copyfile(clips[i % len(clips)], folder / f"{i:06d}.mp3")
        rows.append(f"{i:06d}.mp3,{'ab'[i % 2]}")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    return folder


def environment(libraries: Iterable[str]) -> dict[str, str]:
    """Describe the environment of the measurements: date, processor, system and library versions."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": f"{_processor()}, {os.cpu_count()} visible",
        "system": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(
            [
                f"Python {platform.python_version()}",
                *(f"{name} {version}" for name, version in versions(libraries).items()),
            ]
        ),
    }


def _processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table with aligned columns; floats get two decimals, None and NaN an empty cell."""
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
