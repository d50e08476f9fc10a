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
_ONE = np.float32(1)
#: All bits of a number but its sign.
_MAGNITUDE = np.int32(0x7FFFFFFF)
#: The bits of the square root of 1/2, where the values of one exponent begin.
_MIDDLE = np.float32(np.sqrt(0.5)).view(np.int32)
#: Decibels of a power of two.
_OCTAVE = np.float32(10 * np.log10(2))
#: `10 log10(1 + f) / f` between the square roots of 1/2 and 2, highest power first: fitted for the least largest error
#: of the logarithm, 2e-8 dB.
_LEVELS = tuple(
    np.float32(value)
    for value in (
        0.377528702, -0.633069033, 0.65437338, -0.718015935, 0.865933498,
        -1.08587897, 1.44772104, -2.17147123, 4.3429443,
    )
)  # fmt: skip


def compiled(function: Callable) -> Any:
    """`function` in machine code; kept for later processes where there is a folder to keep it in."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package nor the user has a folder that can be written
        return numba.njit(nogil=True, error_model="numpy")(function)


def callback(signature: Any) -> Callable[[Callable], Any]:
    """What turns a function into machine code that C can call; kept likewise."""

    def decorate(function: Callable) -> Any:
        try:
            return numba.cfunc(signature, cache=True)(function)
        except RuntimeError:
            return numba.cfunc(signature)(function)

    return decorate


def inlined(function: Callable) -> Any:
    """`function` as a part of what is compiled and calls it: constants it is given stay constants."""
    return numba.njit(inline="always", error_model="numpy")(function)


@compiled
def mix_stereo(block: np.ndarray, out: np.ndarray) -> None:
    """The mean of both channels of float32 `(2 * samples,)`, sample by sample left and right, into `(samples,)`."""
    half = np.float32(0.5)
    for i in range(len(out)):
        out[i] = block[2 * i] * half + block[2 * i + 1] * half


@compiled
def peak(block: np.ndarray) -> np.float32:
    """The largest magnitude in float32 `(samples,)`: NaN where one is in it, else infinity, else a number."""
    # Magnitudes are in the order of their bits, and only of integers is the maximum taken eight at a time.
    most = np.int32(0)
    for i in range(len(block)):
        most = max(most, np.int32(np.float32(block[i]).view(np.int32) & _MAGNITUDE))
    return np.int32(most).view(np.float32)


@compiled
def window(signal: np.ndarray, hop: int, weights: np.ndarray, out: np.ndarray) -> None:
    """Frames of `(samples,)`, each `hop` samples after the one before, times `(n_fft,)` weights, into `(n, n_fft)`."""
    for i in range(len(out)):
        frame, row = signal[i * hop : i * hop + len(weights)], out[i]
        for j in range(len(weights)):
            row[j] = frame[j] * weights[j]


@compiled
def power(spectrum: np.ndarray, out: np.ndarray) -> None:
    """Squared magnitudes of complex `(n, bins)`, into float32 `(n, bins)`."""
    for i in range(len(out)):
        values, row = spectrum[i], out[i]
        for j in range(len(row)):
            row[j] = values[j].real * values[j].real + values[j].imag * values[j].imag


@compiled
def decibels(power: np.ndarray, floor: np.float32, out: np.ndarray) -> None:
    """`10 log10(max(power, floor))` of float32 `(n,)`, into `(n,)`, to within 3e-7 of the logarithm.

    A value is `2^e (1 + f)`, taken apart by its bits so that `f` lies around zero. What is not finite becomes NaN.
    """
    for i in range(len(out)):
        bits = np.float32(max(power[i], floor)).view(np.int32)
        exponent = np.int32(np.int32(bits - _MIDDLE) >> 23)
        f = np.int32(bits - np.int32(exponent << 23)).view(np.float32) - _ONE
        c8, c7, c6, c5, c4, c3, c2, c1, c0 = _LEVELS
        square = f * f
        low = (c0 + c1 * f) + (c2 + c3 * f) * square
        high = (c4 + c5 * f) + (c6 + c7 * f) * square + c8 * (square * square)
        series = (low + high * (square * square)) * f
        out[i] = np.float32(exponent) * _OCTAVE + series + (power[i] - power[i])


@compiled
def quantise(rows: np.ndarray, scale: np.float32, shift: np.float32, out: np.ndarray) -> int:
    """`rows * scale + shift`, `(n, bins)`, rounded down and held within uint8; how many values were outside."""
    outside = 0
    for i in range(len(rows)):
        values, row = rows[i], out[i]
        count = np.int32(0)
        for j in range(len(values)):
            step = values[j] * scale + shift
            held = min(max(step, np.float32(0)), _LAST)
            count = np.int32(count + np.int32(held != step))
            row[j] = np.uint8(np.int32(held))
        outside += int(count)
    return outside


@compiled
def walk(
    data: np.ndarray, at: int, limit: int, lengths: np.ndarray, seconds: np.ndarray, total: float
) -> tuple[int, float, int]:
    """Go from MPEG frame to MPEG frame while the next begins where the last ends, below `limit`.

    Args:
        data: uint8 `(n,)`, the bytes of a file.
        at: where a frame begins.
        limit: where not to begin another.
        lengths: bytes of a frame by the second and third byte of its header, int64 `(65536,)`, 0 for none.
        seconds: of each such frame.
        total: seconds so far.

    Returns:
        Where it stopped, seconds in all, and the bytes that are there of the frames passed.
    """
    passed = 0
    while at < limit and at + 2 < len(data) and data[at] == 0xFF:
        header = np.int64(data[at + 1]) << 8 | np.int64(data[at + 2])
        if not lengths[header]:
            break
        total += seconds[header]
        passed += min(lengths[header], len(data) - at)
        at += lengths[header]
    return at, total, passed
