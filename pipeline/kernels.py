"""Loops over samples and spectra that NumPy makes several passes over memory of: compiled by Numba, one pass each.

Whoever needs them imports this module inside a function: Numba takes half a second. What was compiled is kept beside
this file, or in the user's cache folder. Sums are formed in the order in which they stand here, whatever the
processor: nothing is compiled with `fastmath`, so results do not depend on how arrays are cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

#: What still rounds down to 255.
_LAST = np.nextafter(np.float32(256), np.float32(0))


def _compiled(function: Callable) -> Any:
    """`function` in machine code; kept for later processes where there is a folder to keep it in."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package nor the user has a folder that can be written
        return numba.njit(nogil=True)(function)


@_compiled
def mix_stereo(block: np.ndarray, out: np.ndarray) -> None:
    """The mean of both channels of float32 `(samples, 2)`, into `(samples,)`."""
    half = np.float32(0.5)
    for i in range(len(out)):
        out[i] = block[i, 0] * half + block[i, 1] * half


@_compiled
def window(signal: np.ndarray, hop: int, weights: np.ndarray, out: np.ndarray) -> None:
    """Frames of `(samples,)`, each `hop` samples after the one before, times `(n_fft,)` weights, into `(n, n_fft)`."""
    for i in range(len(out)):
        frame, row = signal[i * hop : i * hop + len(weights)], out[i]
        for j in range(len(weights)):
            row[j] = frame[j] * weights[j]


@_compiled
def power(spectrum: np.ndarray, out: np.ndarray) -> None:
    """Squared magnitudes of complex `(n, bins)`, into float32 `(n, bins)`."""
    for i in range(len(out)):
        values, row = spectrum[i], out[i]
        for j in range(len(row)):
            row[j] = values[j].real * values[j].real + values[j].imag * values[j].imag


@_compiled
def quantise(rows: np.ndarray, scale: np.float32, shift: np.float32, out: np.ndarray) -> int:
    """`rows * scale + shift`, `(n, bins)`, rounded down and held within uint8; how many values were outside."""
    outside = 0
    for i in range(len(rows)):
        values, row = rows[i], out[i]
        count = np.int32(0)
        for j in range(len(values)):
            step = values[j] * scale + shift
            held = min(max(step, np.float32(0)), _LAST)
            count += np.int32(held != step)
            row[j] = np.uint8(np.int32(held))
        outside += int(count)
    return outside
