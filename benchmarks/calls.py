"""The library calls that extraction cannot do without, each timed alone on the same arrays.

    python benchmarks/calls.py FOLDER --features stft mel [--skip N]     CPU ms of each call per clip, as JSON
    python benchmarks/calls.py FOLDER --features stft mel --pool 2       the same calls by a bare process pool, untimed

What lies between the calls (windowing, decibels, rounding) is done, so that the calls see real data, but not counted.
Each call gets its data the way it is fastest: FFT and filter bank in batches that fit the processor's cache.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common  # noqa: F401  first: it sets the number of threads
import numcodecs.blosc
import numpy as np
import scipy.fft
import soundfile
import soxr

from mgc.pipeline.dsp.stages import PowerBatch, hann
from mgc.pipeline.features import FeatureSpec, Mel, parse_feature

CALLS = ("decode", "resample", "rfft", "filter bank", "compress")
#: Frames per call: 64 to 512 time alike, one call for a whole clip takes 15 % longer.
BATCH = 128


class Stopwatch:
    """Adds up the CPU seconds of calls, by name. Looking at the clock takes 0.6 µs, 20 µs a clip."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(CALLS, 0.0)

    def __call__(self, name: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        result = function(*args, **kwargs)
        self.seconds[name] += time.process_time() - start
        return result


def clip_calls(path: Path, specs: list[FeatureSpec], timed: Stopwatch) -> None:
    """All calls for one clip."""
    samples, rate = timed("decode", soundfile.read, path, dtype="float32", always_2d=True)
    mono = samples @ np.full(samples.shape[1], 1 / samples.shape[1], np.float32)
    for sr in dict.fromkeys(spec.sr for spec in specs):
        signal = mono if sr == rate else timed("resample", soxr.resample, mono, rate, sr, quality="HQ")
        for n_fft, hop in dict.fromkeys((spec.n_fft, spec.hop_length) for spec in specs if spec.sr == sr):
            users = [spec for spec in specs if (spec.sr, spec.n_fft, spec.hop_length) == (sr, n_fft, hop)]
            transform_calls(signal, n_fft, hop, users, timed)


def transform_calls(signal: np.ndarray, n_fft: int, hop: int, specs: list[FeatureSpec], timed: Stopwatch) -> None:
    """The calls behind one FFT: features that share it share it here, too, and so for filter banks."""
    banks = {id(spec.bank()): spec for spec in specs if isinstance(spec, Mel)}
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(signal, n_fft // 2), n_fft)[::hop]
    stored = {spec: np.empty((len(frames), spec.bins), spec.dtype) for spec in specs}
    window = hann(n_fft).astype(np.float32)
    for first in range(0, len(frames), BATCH):
        windowed = frames[first : first + BATCH] * window
        spectrum = timed("rfft", scipy.fft.rfft, windowed, axis=1, overwrite_x=True)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        for bank in banks.values():
            timed("filter bank", bank.pool, power)
        for spec in specs:
            rows = spec.compute_frames(PowerBatch(power, frames[first : first + BATCH]))
            spec.encode(rows, stored[spec][first : first + BATCH])
    for array in stored.values():
        # The codec that pipeline/shard.py writes with.
        timed("compress", numcodecs.blosc.compress, array, b"lz4", 5, numcodecs.blosc.BITSHUFFLE)


def work(path: Path, specs: list[FeatureSpec]) -> None:
    """A pool's task."""
    clip_calls(path, specs, Stopwatch())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--features", nargs="+", default=["stft"])
    parser.add_argument("--skip", type=int, default=0, help="leave out the first N clips")
    parser.add_argument("--pool", type=int, help="run them by a pool of so many processes")
    options = parser.parse_args()
    specs = [parse_feature(name) for name in options.features]
    paths = sorted(options.folder.glob("*.mp3"))[options.skip :]
    numcodecs.blosc.use_threads = False
    if options.pool:
        with multiprocessing.get_context("spawn").Pool(options.pool) as pool:
            pool.map(functools.partial(work, specs=specs), paths, chunksize=1)
        return
    work(paths[0], specs)  # imports, filter banks and FFT plans are made before the clock runs
    timed = Stopwatch()
    for path in paths:
        clip_calls(path, specs, timed)
    print(json.dumps({name: 1000 * seconds / len(paths) for name, seconds in timed.seconds.items()}))


if __name__ == "__main__":
    main()
