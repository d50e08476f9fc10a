"""Recordings that `mgc audit` finds twice: precision and recall on real clips, and cost of large datasets.

    python benchmarks/audit.py                    all clips of the test corpus, 8,000 and 100,000 tracks
    python benchmarks/audit.py FOLDER             MP3s of another folder
    python benchmarks/audit.py --fpcalc           and Chromaprint's fpcalc on the same tracks
    python benchmarks/audit.py --smoke            smallest sizes; the figures mean nothing

- relatives: of every fourth clip, eight relatives are made: encoded again at a low and a high bit rate and as Ogg,
  trimmed at the start, amplified, cut out and mixed to mono. All pairs of tracks of one clip should be found, and no
  others.
  The table shows the bit error rates of each kind, and those of the nearest pairs of different clips at any offset.
- Chromaprint: the same pairs by the bit error rate of its fingerprints at the best offset. Its own matcher takes up to
  10 of 32 bits for the same.
- cost: time to read the frames of a store and to compute sub-fingerprints, for each track; and time and memory of
  matching many unrelated tracks with a few copies among them. Their sub-fingerprints are those of the clips, passages
  in random order with the bits of each track permuted.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
import soundfile
from common import RSS_UNIT, Spread, default_folder, table

from mgc.pipeline.fingerprints import matching
from mgc.pipeline.fingerprints.codes import Codes
from mgc.pipeline.fingerprints.scan import Scan, scan
from mgc.pipeline.store.store import Store

#: Start and stop in seconds, gain, channels, suffix and compression level (libsndfile: 0 best, 1 smallest).
RELATIVES = {
    "MP3, low bit rate": (0, 60, 1.0, 2, ".mp3", 0.8),
    "MP3, high bit rate": (0, 60, 1.0, 2, ".mp3", 0.0),
    "Ogg": (0, 60, 1.0, 2, ".ogg", None),
    "MP3 from 0.7 s on": (0.7123, 60, 1.0, 2, ".mp3", 0.8),
    "Ogg from 5 s on": (4.987, 60, 1.0, 2, ".ogg", None),
    "MP3, 6 dB softer": (0, 60, 0.5, 2, ".mp3", 0.5),
    "Ogg, 22 s, mono": (3.3, 25, 1.0, 1, ".ogg", None),
    "MP3, 10 s": (10.05, 20, 1.0, 2, ".mp3", 0.7),
}


def make_relatives(clips: list[Path], folder: Path) -> Path:
    """Write relatives of every fourth clip, and a list of all clips and relatives; `genre` is the clip's number."""
    rows = [(str(path), str(number)) for number, path in enumerate(clips)]
    for number, path in list(enumerate(clips))[::4]:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        for kind, (start, stop, gain, channels, suffix, level) in RELATIVES.items():
            part = gain * samples[int(start * rate) : int(stop * rate)]
            part = part.mean(axis=1, keepdims=True) if channels == 1 else part
            options = {} if level is None else {"bitrate_mode": "CONSTANT", "compression_level": level}
            target = folder / f"{number}-{kind}{suffix}"
            soundfile.write(target, part, rate, **options)
            rows.append((str(target), str(number)))
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "genre"), *((path.lstrip("/"), genre) for path, genre in rows)])
    return folder / "list.csv"


def extract(tracks: Path, folder: Path, feature: str) -> Store:
    """Extract a feature of a list of absolute paths."""
    command = [sys.executable, "-m", "mgc", "extract", "--dataset", tracks, "--audio-root", "/", "--feature", feature]
    command += ["--duplicates", "keep", "--out", folder / "store", "--json"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return Store.open(Path(json.loads(result.stdout)["stores"][0]["store"]))


def lowest_error(a: np.ndarray, b: np.ndarray, bits: int, least: int) -> float:
    """Return the lowest bit error rate of two tracks at any offset with this overlap, by their cross-correlation."""
    signs = [
        np.unpackbits(codes.view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")[:, :bits] * np.float32(2) - 1
        for codes in (a, b)
    ]
    size = 1 << (len(a) + len(b)).bit_length()
    spectra = [np.fft.rfft(values, size, axis=0) for values in signs]
    agreement = np.fft.irfft((spectra[0] * spectra[1].conj()).sum(axis=1), size)
    offsets = np.concatenate([np.arange(len(a)), np.arange(1 - len(b), 0)])
    overlaps = np.minimum(len(a), offsets + len(b)) - np.maximum(0, offsets)
    errors = 0.5 - agreement[offsets] / (2 * bits * overlaps)
    return float(errors[overlaps >= least].min())


def measure_relatives(store: Store, result: Scan) -> None:
    """Print the error rates of relatives and of the nearest other pairs, precision and recall."""
    codes, rows = result.codes, {row["track_id"]: row for row in store.tracks.to_pylist()}
    clip = {track: row["genre"] for track, row in rows.items()}
    kind = {track: Path(row["path"]).stem.partition("-")[2] for track, row in rows.items()}
    pairs = matching.find_pairs(codes)
    errors: dict[str, list[float]] = {name: [] for name in RELATIVES}
    for pair in pairs:
        original, other = sorted((pair.a, pair.b), key=lambda track: kind[track] in RELATIVES)
        if clip[original] == clip[other] and kind[original] not in RELATIVES:
            errors[kind[other]].append(pair.error)
    print("\nBit error rate of a clip and its relative\n")
    print(table(["relative", "found", "error"], [(k, len(v), Spread.of(v)) for k, v in errors.items()]))
    sizes = np.unique([clip[track] for track in codes.track_ids], return_counts=True)[1]
    n_true, n_found = int((sizes * (sizes - 1) // 2).sum()), sum(clip[pair.a] == clip[pair.b] for pair in pairs)
    copies = [pair for pair in pairs if pair.kind == "near-duplicate"]
    false = sum(clip[pair.a] != clip[pair.b] for pair in copies)
    print(f"\n{n_found} of {n_true} pairs of one clip found; near-duplicates: {len(copies)}, {false} of them wrong")
    originals = [i for i, track in enumerate(codes.track_ids) if kind[track] not in RELATIVES]
    least = int(matching.LEAST_OVERLAP_S * codes.rate)
    unrelated = sorted(
        lowest_error(codes.track(a), codes.track(b), codes.bits, least)
        for place, a in enumerate(originals)
        for b in originals[:place]
    )
    nearest = ", ".join(f"{error:.2f}" for error in unrelated[:8])
    print(f"{len(unrelated)} pairs of different clips at their best offsets: nearest {nearest}")
    print(f"1 in 100 below {np.quantile(unrelated, 0.01):.2f}, median {np.median(unrelated):.2f}")


def make_tracks(codes: Codes, n_tracks: int, n_copies: int) -> Codes:
    """Make unrelated tracks of 30 s from the passages of real ones, and copies with a tenth of the bits flipped."""
    rng = np.random.default_rng(0)
    length, passage = int(30 * codes.rate), 64
    values = np.empty((n_tracks, length), np.uint32)
    for row in values:
        starts = rng.integers(0, len(codes.values) - passage, -(-length // passage))
        real = codes.values[(starts[:, None] + np.arange(passage)).reshape(-1)[:length]]
        order = rng.permutation(codes.bits)
        row[:] = sum(((real >> np.uint32(bit)) & np.uint32(1)) << np.uint32(to) for bit, to in enumerate(order))
    flips = (rng.random((n_copies, length, codes.bits)) < 0.1) @ (1 << np.arange(codes.bits, dtype=np.uint32))
    values[n_tracks - n_copies :] = values[:n_copies] ^ flips
    first = np.arange(n_tracks + 1) * length
    return Codes([f"{i:06d}" for i in range(n_tracks)], first, values.reshape(-1), codes.bits, codes.rate)


def by_chromaprint(path: str) -> np.ndarray:
    """Return the raw fingerprint of a file by fpcalc, uint32 `(n,)`, 8 a second."""
    # Its exit code is 3 for an Ogg file, whose end it takes for an error after it has printed the fingerprint.
    result = subprocess.run(["fpcalc", "-raw", "-plain", path], capture_output=True, text=True, check=False)
    if not result.stdout.strip():
        sys.exit(f"fpcalc {path}: {result.stderr.strip()}")
    return np.array(result.stdout.strip().split(","), np.uint32)


def compare_with_chromaprint(store: Store, codes: Codes) -> None:
    """Print recall and false matches of both fingerprints at their own thresholds, by the best of all offsets."""
    rows = {row["track_id"]: row for row in store.tracks.to_pylist()}
    tracks = [rows[track] for track in codes.track_ids]
    theirs = [by_chromaprint(f"/{row['path']}") for row in tracks]
    is_original = [Path(row["path"]).stem.partition("-")[2] not in RELATIVES for row in tracks]
    table_rows = []
    for name, values, bits, rate, threshold in (
        ("mgc", [codes.track(i) for i in range(len(tracks))], codes.bits, codes.rate, matching.COPY),
        ("Chromaprint", theirs, 32, 11025 / 1365, 10 / 32),
    ):
        errors: dict[bool, list[float]] = {True: [], False: []}
        for a in range(len(tracks)):
            for b in range(a):
                same = tracks[a]["genre"] == tracks[b]["genre"]
                if same or (is_original[a] and is_original[b]):
                    least = int(matching.LEAST_OVERLAP_S * rate)
                    errors[same].append(lowest_error(values[a], values[b], bits, least))
        found, wrong = (sum(error <= threshold for error in errors[same]) for same in (True, False))
        table_rows.append(
            (
                name,
                f"{threshold:.2f}",
                f"{found} of {len(errors[True])}",
                f"{wrong} of {len(errors[False])}",
                Spread.of(errors[True]),
                f"{min(errors[False]):.2f}",
            )
        )
    print("\nFingerprints at the best of all offsets\n")
    print(table(["", "threshold", "pairs found", "wrong pairs", "error of pairs", "nearest other"], table_rows))


def measure_cost(store: Store, codes: Codes, sizes: list[int]) -> None:
    """Print the processor time of reading, the time of matching, and the peak memory of this process."""
    start = time.process_time()
    scan(store)
    each = (time.process_time() - start) / len(store.read_tracks(["track_id"]))
    rows = []
    for n_tracks in sizes:
        tracks = make_tracks(codes, n_tracks, min(100, n_tracks // 4))
        start, processor = time.perf_counter(), time.process_time()
        found = len(matching.find_pairs(tracks))
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e9
        sizes_and_times = (f"{each * n_tracks:.0f}", f"{processor:.0f}", f"{seconds:.0f}")
        rows.append((f"{n_tracks:,}", *sizes_and_times, found, f"{peak:.1f}"))
    print("\nCost, one process\n")
    heads = ["tracks of 30 s", "reading CPU s (by the clips)", "matching CPU s", "matching s", "pairs found", "peak GB"]
    print(table(heads, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="folder of MP3s  [default: the test corpus]")
    parser.add_argument("--tracks", nargs="+", type=int, default=[8000, 100_000], help="sizes of the made-up datasets")
    parser.add_argument("--feature", default="mel", help="feature of the store")
    parser.add_argument("--fpcalc", action="store_true", help="compare with Chromaprint")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes")
    arguments = parser.parse_args()
    clips = sorted((arguments.folder or default_folder()).glob("**/*.mp3"))
    if arguments.smoke:
        clips, arguments.tracks = clips[:5], [100]
    for name, value in common.environment(("mgc", "numpy", "soundfile")).items():
        print(f"{name}: {value}")
    with tempfile.TemporaryDirectory() as folder:
        store = extract(make_relatives(clips, Path(folder)), Path(folder), arguments.feature)
        result = scan(store)
        measure_relatives(store, result)
        if arguments.fpcalc and shutil.which("fpcalc"):
            compare_with_chromaprint(store, result.codes)
        elif arguments.fpcalc:
            print("\nfpcalc is not installed (Debian: libchromaprint-tools)")
        measure_cost(store, result.codes, arguments.tracks)


if __name__ == "__main__":
    main()
