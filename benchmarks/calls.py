"""CPU time of the library calls that every extraction needs, each timed alone.

    python benchmarks/calls.py FOLDER --features stft mel [--skip N]     CPU ms of each call per clip, as JSON
    python benchmarks/calls.py FOLDER --features stft mel --pool 2       the same calls in a bare process pool, untimed

The steps between the calls (windowing, decibels, rounding) run as well, so that the calls get real data, but are not
timed. Each call gets its data in its fastest form: FFT and filter bank in batches that fit into the processor's cache.
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
#: Frames per call. 64 to 512 take the same time; one call for a whole clip takes 15 % longer.
BATCH = 128


class Stopwatch:
    """Adds up the CPU seconds of calls, by name. Reading the clock costs 0.6 µs, which is 20 µs per clip."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(CALLS, 0.0)

    def __call__(self, name: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """Call a function and add its CPU time to the total of `name`."""
        start = time.process_time()
        result = function(*args, **kwargs)
        self.seconds[name] += time.process_time() - start
        return result


def clip_calls(path: Path, specs: list[FeatureSpec], timed: Stopwatch) -> None:
    """Make all calls for one clip: decode, resample to each feature's rate, transform and compress."""
    samples, rate = timed("decode", soundfile.read, path, dtype="float32", always_2d=True)
    mono = samples @ np.full(samples.shape[1], 1 / samples.shape[1], np.float32)
    for sr in dict.fromkeys(spec.sr for spec in specs):
        signal = mono if sr == rate else timed("resample", soxr.resample, mono, rate, sr, quality="HQ")
        for n_fft, hop in dict.fromkeys((spec.n_fft, spec.hop_length) for spec in specs if spec.sr == sr):
            matches = [spec for spec in specs if (spec.sr, spec.n_fft, spec.hop_length) == (sr, n_fft, hop)]
            transform_calls(signal, n_fft, hop, matches, timed)


def transform_calls(signal: np.ndarray, n_fft: int, hop: int, specs: list[FeatureSpec], timed: Stopwatch) -> None:
    """Make the calls of all features that share one FFT. As in mgc, they also share equal filter banks."""
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
        # The codec of pipeline/store/shard.py.
        timed("compress", numcodecs.blosc.compress, array, b"lz4", 5, numcodecs.blosc.BITSHUFFLE)


def run_untimed(path: Path, specs: list[FeatureSpec]) -> None:
    """Make all calls for one clip without reporting times, as a task of a process pool."""
    clip_calls(path, specs, Stopwatch())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--features", nargs="+", default=["stft"])
    parser.add_argument("--skip", type=int, default=0, help="skip the first N clips")
    parser.add_argument("--pool", type=int, help="run the calls in a pool of N processes, untimed", metavar="N")
    options = parser.parse_args()
    specs = [parse_feature(name) for name in options.features]
    paths = sorted(options.folder.glob("*.mp3"))[options.skip :]
    numcodecs.blosc.use_threads = False
    if options.pool:
        with multiprocessing.get_context("spawn").Pool(options.pool) as pool:
            pool.map(functools.partial(run_untimed, specs=specs), paths, chunksize=1)
        return
    run_untimed(paths[0], specs)  # warm-up: imports, filter banks and FFT plans
    timed = Stopwatch()
    for path in paths:
        clip_calls(path, specs, timed)
    print(json.dumps({name: 1000 * seconds / len(paths) for name, seconds in timed.seconds.items()}))


if __name__ == "__main__":
    main()
