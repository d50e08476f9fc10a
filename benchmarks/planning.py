"""Memory and time of planning an extraction of many files, none of which a store knows: `mgc extract --dry-run`.

    python benchmarks/planning.py                       100,000 files
    python benchmarks/planning.py --tracks 10000000     ten million: some 20 minutes, 10 GB of inodes and lists
    python benchmarks/planning.py --keep FOLDER         keep the files in FOLDER, and reuse those already there
    python benchmarks/planning.py --smoke               smallest sizes; the figures mean nothing

The files are holes: they have a size and no blocks on the disk. All sizes are different, so that no file is read to
find copies, and they are those of WAV files of 30 s and more. The dataset is a list in CSV with path, genre, artist,
album and title; an artist has 12 tracks. Private memory is what only the process has. Resident memory also counts pages
of mapped files, which the system takes back when it needs room. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import common
from common import table

MGC = Path(sysconfig.get_path("scripts")) / "mgc"
LIBRARIES = ("mgc", "numpy", "pyarrow")
GENRES = ("Blues", "Classical", "Electronic", "Folk", "Hip-Hop", "Jazz", "Pop", "Rock")
FOLDER_TRACKS, ARTIST_TRACKS = 1000, 12
#: Size in bytes of the smallest file: 30 s in mono, 16 bits, 44.1 kHz.
SMALLEST = 30 * 88_200


def make_list(folder: Path, n_tracks: int) -> Path:
    """Create files and the list of them, unless the list exists; return the list."""
    tracks = folder / "tracks.csv"
    if tracks.exists():
        return tracks
    unfinished = folder / "tracks.tmp"
    with unfinished.open("w", encoding="utf-8") as rows:
        rows.write("path,genre,artist,album,title\n")
        for track in range(n_tracks):
            path, artist = f"{track // FOLDER_TRACKS:05d}/{track:08d}.wav", track // ARTIST_TRACKS
            if track % FOLDER_TRACKS == 0:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(f"{folder}/{path}", os.O_CREAT | os.O_WRONLY, 0o644)
            os.ftruncate(handle, SMALLEST + track)
            os.close(handle)
            genre = GENRES[artist % len(GENRES)]
            rows.write(f"{path},{genre},Artist {artist},Album {artist},Title of track {track}\n")
    unfinished.rename(tracks)
    return tracks


def measure(tracks: Path, data: Path) -> dict[str, float]:
    """Plan the extraction in a process of its own; return peaks in MB (10^6 bytes) and CPU seconds by name."""
    command = [MGC, "extract", "--dry-run", "--dataset", tracks, "--data-dir", data, "--feature", "mel"]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=subprocess.STDOUT)
        with common.MemoryWatch(process.pid) as memory:
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(map(str, command))} failed:\n{output.read()}")
    figures = {"private MB": memory.private / 1e6, "resident MB": memory.resident / 1e6}
    return figures | {"user s": usage.ru_utime, "system s": usage.ru_stime}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, nargs="+", default=[100_000], help="numbers of files, one row each")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files here, and reuse them")
    parser.add_argument("--smoke", action="store_true", help="300 files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to a file")
    options = parser.parse_args()
    if options.smoke:
        options.tracks = [300]
    if min(options.tracks) < len(GENRES) * ARTIST_TRACKS:
        parser.error(f"--tracks {min(options.tracks)}: give at least {len(GENRES) * ARTIST_TRACKS}")
    return options


def main() -> None:
    options = parse_arguments()
    facts = {"command": common.command_line(), **common.environment(LIBRARIES)}
    common.print_facts(facts)
    kept = common.folders(options.keep, options.tracks)
    results = {n: measure(make_list(folder, n), folder / "data") for n, folder in kept}
    names = ("private MB", "resident MB", "user s", "system s")
    rows = [(f"{n:,}", *(figures[name] for name in names)) for n, figures in results.items()]
    print(f"\nPeaks of memory, and CPU time, of planning\n\n{table(('tracks', *names), rows)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(facts | {"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
