"""Decoding of MP3s by libmpg123 itself, mixed to mono before or after its synthesis filter, against libsndfile.

    python benchmarks/mpg123.py                    the stereo clips of the test corpus
    python benchmarks/mpg123.py FOLDER --attempts 5
    python benchmarks/mpg123.py --smoke            two clips; the figures mean nothing

libsndfile decodes MP3s by a copy of libmpg123, so the question is what its wrapping costs, and whether mono features
gain from `MPG123_MONO_MIX`, which averages the channels before the synthesis filter and so runs it once instead of
twice. libmpg123 is the system's (Debian: `libmpg123-0`), by ctypes; where it is not installed, the command says so.

CPU milliseconds are per clip, median over the clips, the ways in turn, best of the attempts. The other figures compare
mono samples and the levels of an STFT in steps of 0.5 dB with those of libsndfile followed by the mean of the channels.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import common  # before NumPy: it limits the threads of the libraries
import numpy as np
from common import default_folder, find_clips, table

from mgc.pipeline.audio.decoding import open_libsndfile
from mgc.pipeline.audio.inspection import inspect
from mgc.pipeline.features import Stft
from mgc.pipeline.features.analysis import analyse

#: Of `mpg123.h`: results, parameters and flags.
_OK, _NEW_FORMAT, _DONE = 0, -11, -12
_ADD_FLAGS, _MONO_MIX, _QUIET, _FORCE_FLOAT, _GAPLESS = 2, 0x4, 0x20, 0x400, 0x40
_BLOCK = 131_072


class Mpg123:
    """Decoder of whole files in memory.

    Args:
        library: path of the library.
        mono: mix to mono before the synthesis filter.
    """

    def __init__(self, library: str, *, mono: bool) -> None:
        self._lib = ctypes.CDLL(library)
        self._lib.mpg123_new.restype = ctypes.c_void_p
        self._lib.mpg123_init()
        self._flags = _QUIET | _FORCE_FLOAT | _GAPLESS | (_MONO_MIX if mono else 0)

    def __call__(self, path: Path) -> np.ndarray:
        """Decode a file to mono float32 `(samples,)`: of a stereo decoder, the mean of the channels.

        Raises:
            ValueError: the library reports an error.
        """
        lib, error = self._lib, ctypes.c_int()
        handle = ctypes.c_void_p(lib.mpg123_new(None, ctypes.byref(error)))
        try:
            lib.mpg123_param(handle, _ADD_FLAGS, ctypes.c_long(self._flags), ctypes.c_double(0))
            if lib.mpg123_open_feed(handle) != _OK:
                raise ValueError(f"{path}: libmpg123 does not open it")
            data = path.read_bytes()
            lib.mpg123_feed(handle, data, ctypes.c_size_t(len(data)))
            return self._read(handle)
        finally:
            lib.mpg123_delete(handle)

    def _read(self, handle: ctypes.c_void_p) -> np.ndarray:
        buffer, done = np.empty(_BLOCK, np.float32), ctypes.c_size_t()
        rate, channels, encoding = ctypes.c_long(), ctypes.c_int(1), ctypes.c_int()
        address, blocks = buffer.ctypes.data_as(ctypes.c_char_p), []
        while True:
            status = self._lib.mpg123_read(handle, address, ctypes.c_size_t(buffer.nbytes), ctypes.byref(done))
            if status == _NEW_FORMAT:
                where = ctypes.byref(rate), ctypes.byref(channels), ctypes.byref(encoding)
                self._lib.mpg123_getformat(handle, *where)
            if done.value:
                rows = buffer[: done.value // 4].reshape(-1, channels.value)
                blocks.append(rows[:, 0].copy() if channels.value == 1 else (rows[:, 0] + rows[:, 1]) * np.float32(0.5))
            elif status not in (_OK, _NEW_FORMAT):  # all that was fed is decoded
                return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


class Libsndfile:
    """The decoder of an extraction. Files are checked before, outside of the measurement."""

    def __init__(self, clips: Sequence[Path]) -> None:
        self._files = {clip: inspect(os.fsencode(clip)) for clip in clips}
        self.rates = {clip: open_libsndfile(file).sample_rate for clip, file in self._files.items()}

    def __call__(self, path: Path) -> np.ndarray:
        """Decode a file to the mean of its channels, float32 `(samples,)`."""
        return np.concatenate(list(open_libsndfile(self._files[path]).blocks()))


def differences(samples: np.ndarray, wanted: np.ndarray, rate: int) -> dict[str, float]:
    """Compare mono samples of the same start, and the steps of 0.5 dB of their STFTs."""
    n = min(len(samples), len(wanted))
    ours, theirs = (np.round(_levels(one[:n], rate) * 2) for one in (samples, wanted))
    steps = np.abs(ours - theirs)
    return {
        "samples": float(np.abs(samples[:n] - wanted[:n]).max()),
        "missing": float(len(wanted) - len(samples)),
        "one step": float((steps == 1).mean()),
        "more": float((steps > 1).mean()),
    }


def _levels(samples: np.ndarray, rate: int) -> np.ndarray:
    """STFT in dB as it is stored, no lower than its floor."""
    spec = Stft()
    levels = np.concatenate([rows for _, rows in analyse([samples], rate, [spec])])
    return np.maximum(levels, spec.offset)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=default_folder())
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    library = ctypes.util.find_library("mpg123")
    if library is None:
        print("libmpg123 is not installed: nothing is measured")
        return
    clips = find_clips(options.folder)[: 2 if options.smoke else None]
    libsndfile = Libsndfile(clips)
    ways: dict[str, Callable[[Path], np.ndarray]] = {
        "libsndfile, mean of the channels": libsndfile,
        "libmpg123, mean of the channels": Mpg123(library, mono=False),
        "libmpg123, mixed before its filter": Mpg123(library, mono=True),
    }
    first = next(iter(ways))
    times: dict[str, list[list[float]]] = {name: [] for name in ways}
    compared: dict[str, list[dict[str, float]]] = {name: [] for name in ways if name != first}
    for clip in clips:
        taken: dict[str, list[float]] = {name: [] for name in ways}
        decoded = {}
        for _ in range(1 if options.smoke else options.attempts):
            for name, decode in ways.items():
                start = time.process_time()
                decoded[name] = decode(clip)
                taken[name].append(1000 * (time.process_time() - start))
        for name in ways:
            times[name].append(taken[name])
            if name != first:
                compared[name].append(differences(decoded[name], decoded[first], libsndfile.rates[clip]))
    costs = {name: statistics.median(min(own) for own in rows) for name, rows in times.items()}
    print(f"{len(clips)} clips; {'; '.join(common.environment(('numpy', 'soundfile')).values())}")
    head = (
        "way",
        "CPU ms",
        "ratio",
        "largest difference of a sample",
        "samples missing",
        "levels off by one step",
        "by more",
    )
    rows = []
    for name, cost in costs.items():
        row = [name, f"{cost:.1f}", f"{cost / costs[first]:.2f}", "", "", "", ""]
        if found := compared.get(name):
            row[3] = f"{max(one['samples'] for one in found):.1e}"
            row[4] = f"{max((one['missing'] for one in found), key=abs):.0f}"
            row[5:] = [f"{statistics.mean(one[key] for one in found):.1e}" for key in ("one step", "more")]
        rows.append(row)
    print(table(head, rows))
    if options.json:
        options.json.write_text(json.dumps({"clips": len(clips), "ms": costs, "differences": compared}, indent=1))


if __name__ == "__main__":
    main()
