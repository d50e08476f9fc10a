"""Loops over samples and spectra, compiled by Numba to one pass over memory where NumPy would take several.

Import this module inside functions only: importing Numba takes half a second. Compiled code is cached beside this file
or in the user's cache folder. Without `fastmath`, sums are evaluated in the written order on every processor, so
results do not depend on how arrays are cut into blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

#: Largest float32 below 256: it is rounded down to 255.
_BELOW_256 = np.nextafter(np.float32(256), np.float32(0))
_ONE = np.float32(1)
#: Mask of a float32's bits without its sign.
_MAGNITUDE_BITS = np.int32(0x7FFFFFFF)
#: Bits of sqrt(1/2) as int32: mantissas are normalised to [sqrt(1/2), sqrt(2)).
_SQRT_HALF_BITS = np.float32(np.sqrt(0.5)).view(np.int32)
#: Decibels of a factor of two.
_DB_PER_OCTAVE = np.float32(10 * np.log10(2))
#: Coefficients of a polynomial for `10 log10(1 + f) / f`, highest power first, for `1 + f` in [sqrt(1/2), sqrt(2)):
#: a minimax fit, with an error of at most 2e-8 dB in the logarithm.
_LOG_COEFFICIENTS = tuple(
    np.float32(value)
    for value in (
        0.377528702, -0.633069033, 0.65437338, -0.718015935, 0.865933498,
        -1.08587897, 1.44772104, -2.17147123, 4.3429443,
    )
)  # fmt: skip


def jit(function: Callable) -> Any:
    """Compile a function with `numba.njit` without the GIL, and cache the code on disk where a folder is writable."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        return numba.njit(nogil=True, error_model="numpy")(function)


def c_callback(signature: Any) -> Callable[[Callable], Any]:
    """Return a decorator that compiles a C callback with `numba.cfunc`, cached like `jit`."""

    def decorate(function: Callable) -> Any:
        try:
            return numba.cfunc(signature, cache=True)(function)
        except RuntimeError:
            return numba.cfunc(signature)(function)

    return decorate


def inline(function: Callable) -> Any:
    """Inline a function into its compiled callers, so that constant arguments stay constants."""
    return numba.njit(inline="always", error_model="numpy")(function)


@jit
def mix_stereo(block: np.ndarray, out: np.ndarray) -> None:
    """Mix interleaved stereo down to the mean of both channels.

    Args:
        block: float32 `(2 * samples,)`, left and right in turn.
        out: float32 `(samples,)`, receives the result.
    """
    half = np.float32(0.5)
    for i in range(len(out)):
        out[i] = block[2 * i] * half + block[2 * i + 1] * half


@jit
def peak(block: np.ndarray) -> np.float32:
    """Return the largest absolute value of float32 `(samples,)`: NaN if one is NaN, else inf if one is infinite."""
    # Absolute values have the order of their bits as integers, and only integer maxima are vectorised, eight at a time.
    largest = np.int32(0)
    for i in range(len(block)):
        largest = max(largest, np.int32(np.float32(block[i]).view(np.int32) & _MAGNITUDE_BITS))
    return np.int32(largest).view(np.float32)


@jit
def count_above(values: np.ndarray, least: np.float32) -> int:
    """Count the values of float32 `(n,)` whose magnitude is at least `least`; NaN does not count."""
    count = 0
    for i in range(len(values)):
        count += abs(values[i]) >= least
    return count


@jit
def window(signal: np.ndarray, hop: int, weights: np.ndarray, out: np.ndarray) -> None:
    """Cut a signal into overlapping frames and multiply each by a window.

    Args:
        signal: `(samples,)`.
        hop: samples between the starts of frames.
        weights: the window, `(n_fft,)`.
        out: `(n, n_fft)`, receives the first `n` frames.
    """
    for i in range(len(out)):
        frame, row = signal[i * hop : i * hop + len(weights)], out[i]
        for j in range(len(weights)):
            row[j] = frame[j] * weights[j]


@jit
def power(spectrum: np.ndarray, out: np.ndarray) -> None:
    """Compute squared magnitudes of complex `spectrum`, `(n, bins)`, into float32 `out`, `(n, bins)`."""
    for i in range(len(out)):
        values, row = spectrum[i], out[i]
        for j in range(len(row)):
            row[j] = values[j].real * values[j].real + values[j].imag * values[j].imag


@jit
def decibels(power: np.ndarray, floor: np.float32, out: np.ndarray) -> None:
    """Compute `10 log10(max(power, floor))` with a relative error of at most 3e-7; NaN for values that are not finite.

    Each value is split by its bits into `2^e (1 + f)` with `f` around zero; a polynomial gives the logarithm of
    `1 + f`.

    Args:
        power: float32 `(n,)`.
        floor: smallest power.
        out: float32 `(n,)`, receives decibels.
    """
    for i in range(len(out)):
        bits = np.float32(max(power[i], floor)).view(np.int32)
        exponent = np.int32(np.int32(bits - _SQRT_HALF_BITS) >> 23)
        f = np.int32(bits - np.int32(exponent << 23)).view(np.float32) - _ONE
        c8, c7, c6, c5, c4, c3, c2, c1, c0 = _LOG_COEFFICIENTS
        square = f * f
        low = (c0 + c1 * f) + (c2 + c3 * f) * square
        high = (c4 + c5 * f) + (c6 + c7 * f) * square + c8 * (square * square)
        series = (low + high * (square * square)) * f
        out[i] = np.float32(exponent) * _DB_PER_OCTAVE + series + (power[i] - power[i])


@jit
def quantise(rows: np.ndarray, scale: np.float32, shift: np.float32, out: np.ndarray) -> tuple[int, int]:
    """Quantise `rows * scale + shift` to uint8: rounded down and clipped to 0..255.

    Args:
        rows: float32 `(n, bins)`.
        scale: steps per unit.
        shift: step of the value 0, plus 0.5 for rounding to the nearest step.
        out: uint8 `(n, bins)`, receives the steps.

    Returns:
        Number of values that were clipped, and how many of them lay above the range.
    """
    n_clipped = n_above = 0
    for i in range(len(rows)):
        values, row = rows[i], out[i]
        count, count_above = np.int32(0), np.int32(0)
        for j in range(len(values)):
            step = values[j] * scale + shift
            clipped = min(max(step, np.float32(0)), _BELOW_256)
            count = np.int32(count + np.int32(clipped != step))
            count_above = np.int32(count_above + np.int32(clipped < step))
            row[j] = np.uint8(np.int32(clipped))
        n_clipped += int(count)
        n_above += int(count_above)
    return n_clipped, n_above


@jit
def scan_mpeg_frames(
    data: np.ndarray, position: int, limit: int, lengths: np.ndarray, seconds: np.ndarray, total_s: float
) -> tuple[int, float, int]:
    """Step from MPEG frame to MPEG frame while each begins where the one before ends, below `limit`.

    Args:
        data: bytes of a file, uint8 `(n,)`.
        position: index of the first frame's first byte.
        limit: index from which on no frame is begun.
        lengths: bytes per frame by the second and third byte of its header, int64 `(65536,)`; 0 for invalid headers.
        seconds: seconds per frame by the same index, float64 `(65536,)`.
        total_s: seconds of the frames before.

    Returns:
        Index after the last frame, total seconds, and the number of bytes of `data` in the frames.
    """
    n_bytes = 0
    while position < limit and position + 2 < len(data) and data[position] == 0xFF:
        header = np.int64(data[position + 1]) << 8 | np.int64(data[position + 2])
        if not lengths[header]:
            break
        total_s += seconds[header]
        n_bytes += min(lengths[header], len(data) - position)
        position += lengths[header]
    return position, total_s, n_bytes
