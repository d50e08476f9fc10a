"""Power spectra of real frames whose length is a power of two, from samples to power without leaving the first cache.

A frame of 1,024 samples takes a third of the time that windowing, `scipy.fft.rfft` and squaring take one after the
other over many frames (docs/decisions.md), and has the same bits on every processor.

A real transform of `2 m` samples is a complex one of `m` (even samples real, odd ones imaginary), untangled afterwards
(Press et al., Numerical Recipes, 12.3.2). The complex one is Stockham's (Van Loan, Computational Frameworks for the
FFT, 1.7): passes of radix 8, one of 4 or 2 at the end, each from one half of a work array into the other, results in
order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from mgc.pipeline.dsp.kernels import compiled, inlined

#: Lengths that are transformed here; the others are left to scipy.
LENGTHS = (256, 512, 1024, 2048, 4096)

#: Values between the real and the imaginary parts: the one that repeats the first, and what keeps both aligned.
_GAP = 16
_ROOT = np.float32(np.sqrt(0.5))
_QUARTER = np.float32(0.25)


class Transform:
    """Windowed power spectra of frames of one length.

    Args:
        window: float32 `(n_fft,)`, `n_fft` one of `LENGTHS`.
    """

    def __init__(self, window: np.ndarray) -> None:
        n_fft = len(window)
        points = n_fft // 2
        self._run = _compiled_for(points)
        turns = []
        length = points
        while length > 8:  # the twiddles of all passes but the last
            some = np.arange(length // 8)
            turns += [some * k / length for k in range(1, 8)]
            length //= 8
        turns.append(np.arange(points + 1) / n_fft)
        angles = -2 * np.pi * np.concatenate(turns)
        self._tables = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        self._window = window[0::2].copy(), window[1::2].copy()
        self._work = _aligned(2 * (points + _GAP)), _aligned(4 * (points + _GAP))

    def __call__(self, signal: np.ndarray, hop: int, out: np.ndarray) -> None:
        """Squared magnitudes of frames of a signal.

        Args:
            signal: float32 `(samples,)`, contiguous.
            hop: samples between frames.
            out: float32 `(n, 1 + n_fft/2)`, contiguous: how many frames are wanted, and where they go.
        """
        self._run(signal, hop, *self._window, *self._tables, *self._work, out)


@inlined
def _four(a0, a1, a2, a3, b0, b1, b2, b3):  # type: ignore[no-untyped-def]
    """The Fourier transform of four complex numbers `a + ib`: real parts, then imaginary ones."""
    s0, t0, d0, e0 = a0 + a2, b0 + b2, a0 - a2, b0 - b2
    s1, t1, d1, e1 = a1 + a3, b1 + b3, a1 - a3, b1 - b3
    return s0 + s1, d0 + e1, s0 - s1, d0 - e1, t0 + t1, e0 - d1, t0 - t1, e0 + d1


@inlined
def _eight(a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7):  # type: ignore[no-untyped-def]
    """The Fourier transform of eight complex numbers `a + ib`: real parts, then imaginary ones."""
    d1, e1, d3, e3 = a1 - a5, b1 - b5, a3 - a7, b3 - b7
    # The differences, turned by 0, 45, 90 and 135 degrees.
    f1, g1, f3, g3 = (d1 + e1) * _ROOT, (e1 - d1) * _ROOT, (e3 - d3) * _ROOT, (d3 + e3) * -_ROOT
    x0, x2, x4, x6, y0, y2, y4, y6 = _four(a0 + a4, a1 + a5, a2 + a6, a3 + a7, b0 + b4, b1 + b5, b2 + b6, b3 + b7)
    x1, x3, x5, x7, y1, y3, y5, y7 = _four(a0 - a4, f1, b2 - b6, f3, b0 - b4, g1, a6 - a2, g3)
    return x0, x1, x2, x3, x4, x5, x6, x7, y0, y1, y2, y3, y4, y5, y6, y7


@inlined
def _pass(v, w, cos, sin, points, stride, x, y, at):  # type: ignore[no-untyped-def]
    """A pass of radix 8 from offset `x` of `v` to `y` of `w`, its twiddles `at` in the tables."""
    lanes, xi, yi = points // 8, x + points + _GAP, y + points + _GAP
    groups = lanes // stride
    for p in range(groups):
        c1, c2, c3, c4 = cos[at + p], cos[at + groups + p], cos[at + 2 * groups + p], cos[at + 3 * groups + p]
        c5, c6, c7 = cos[at + 4 * groups + p], cos[at + 5 * groups + p], cos[at + 6 * groups + p]
        s1, s2, s3, s4 = sin[at + p], sin[at + groups + p], sin[at + 2 * groups + p], sin[at + 3 * groups + p]
        s5, s6, s7 = sin[at + 4 * groups + p], sin[at + 5 * groups + p], sin[at + 6 * groups + p]
        for q in range(stride):
            i = p * stride + q
            j, k = x + i, xi + i
            a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7 = _eight(
                v[j], v[j + lanes], v[j + 2 * lanes], v[j + 3 * lanes],
                v[j + 4 * lanes], v[j + 5 * lanes], v[j + 6 * lanes], v[j + 7 * lanes],
                v[k], v[k + lanes], v[k + 2 * lanes], v[k + 3 * lanes],
                v[k + 4 * lanes], v[k + 5 * lanes], v[k + 6 * lanes], v[k + 7 * lanes],
            )  # fmt: skip
            i = p * stride * 8 + q
            j, k = y + i, yi + i
            w[j], w[k] = a0, b0
            w[j + stride], w[k + stride] = a1 * c1 - b1 * s1, a1 * s1 + b1 * c1
            w[j + 2 * stride], w[k + 2 * stride] = a2 * c2 - b2 * s2, a2 * s2 + b2 * c2
            w[j + 3 * stride], w[k + 3 * stride] = a3 * c3 - b3 * s3, a3 * s3 + b3 * c3
            w[j + 4 * stride], w[k + 4 * stride] = a4 * c4 - b4 * s4, a4 * s4 + b4 * c4
            w[j + 5 * stride], w[k + 5 * stride] = a5 * c5 - b5 * s5, a5 * s5 + b5 * c5
            w[j + 6 * stride], w[k + 6 * stride] = a6 * c6 - b6 * s6, a6 * s6 + b6 * c6
            w[j + 7 * stride], w[k + 7 * stride] = a7 * c7 - b7 * s7, a7 * s7 + b7 * c7


@inlined
def _last_eight(w, points, x, y):  # type: ignore[no-untyped-def]
    """The last pass, of radix 8, without twiddles."""
    n = points // 8
    for i in range(n):
        j, k = x + i, x + points + _GAP + i
        a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7 = _eight(
            w[j], w[j + n], w[j + 2 * n], w[j + 3 * n], w[j + 4 * n], w[j + 5 * n], w[j + 6 * n], w[j + 7 * n],
            w[k], w[k + n], w[k + 2 * n], w[k + 3 * n], w[k + 4 * n], w[k + 5 * n], w[k + 6 * n], w[k + 7 * n],
        )  # fmt: skip
        j, k = y + i, y + points + _GAP + i
        w[j], w[j + n], w[j + 2 * n], w[j + 3 * n] = a0, a1, a2, a3
        w[j + 4 * n], w[j + 5 * n], w[j + 6 * n], w[j + 7 * n] = a4, a5, a6, a7
        w[k], w[k + n], w[k + 2 * n], w[k + 3 * n] = b0, b1, b2, b3
        w[k + 4 * n], w[k + 5 * n], w[k + 6 * n], w[k + 7 * n] = b4, b5, b6, b7


@inlined
def _last_four(w, points, x, y):  # type: ignore[no-untyped-def]
    """The last pass, of radix 4."""
    n = points // 4
    for i in range(n):
        j, k = x + i, x + points + _GAP + i
        a0, a1, a2, a3, b0, b1, b2, b3 = _four(
            w[j], w[j + n], w[j + 2 * n], w[j + 3 * n], w[k], w[k + n], w[k + 2 * n], w[k + 3 * n]
        )
        j, k = y + i, y + points + _GAP + i
        w[j], w[j + n], w[j + 2 * n], w[j + 3 * n] = a0, a1, a2, a3
        w[k], w[k + n], w[k + 2 * n], w[k + 3 * n] = b0, b1, b2, b3


@inlined
def _last_two(w, points, x, y):  # type: ignore[no-untyped-def]
    """The last pass, of radix 2."""
    n = points // 2
    for i in range(n):
        j, k = x + i, x + points + _GAP + i
        a0, a1, b0, b1 = w[j], w[j + n], w[k], w[k + n]
        j, k = y + i, y + points + _GAP + i
        w[j], w[j + n], w[k], w[k + n] = a0 + a1, a0 - a1, b0 + b1, b0 - b1


@cache
def _compiled_for(points: int) -> Any:
    """What transforms frames of `2 * points` samples. Compiled for one length: with constant offsets into one array,
    the compiler knows which numbers are independent, and takes eight at a time.
    """
    half = 2 * (points + _GAP)  # where the other half of the work array begins
    # Where the twiddles begin of the second pass, of the third, and those that untangle.
    second = 7 * (points // 8)
    third = second + 7 * (points // 64)
    turns = third + 7 * (points // 512) if points > 512 else third

    @compiled
    def run(signal, hop, even, odd, cos, sin, v, w, out):  # type: ignore[no-untyped-def]
        for number in range(len(out)):
            frame = signal[number * hop : number * hop + 2 * points]
            for i in range(points):
                v[i] = frame[2 * i] * even[i]
            for i in range(points):
                v[points + _GAP + i] = frame[2 * i + 1] * odd[i]
            # Into another array, since the numbers written are not as far apart as those that are read.
            _pass(v, w, cos, sin, points, 1, 0, half, 0)
            _pass(w, w, cos, sin, points, 8, half, 0, second)
            x, z = 0, half
            if points > 512:
                _pass(w, w, cos, sin, points, 64, 0, half, third)
                x, z = half, 0
            if points == 512:
                _last_eight(w, points, x, z)
            elif points == 256 or points == 2048:
                _last_four(w, points, x, z)
            else:
                _last_two(w, points, x, z)
            im = z + points + _GAP
            # The transform has a period: its last value is its first.
            w[z + points], w[im + points] = w[z], w[im]
            row = out[number]
            for i in range(points + 1):
                ar, ai, br, bi = w[z + i], w[im + i], w[z + points - i], -w[im + points - i]
                dr, di = ar - br, ai - bi
                c, s = cos[turns + i], sin[turns + i]
                real = ar + br + (di * c + dr * s)
                imaginary = ai + bi + (di * s - dr * c)
                row[i] = (real * real + imaginary * imaginary) * _QUARTER

    return run


def _aligned(count: int) -> np.ndarray:
    """float32 `(count,)` that begins with a line of the processor's cache."""
    whole = np.empty(count + 16, np.float32)
    first = -whole.ctypes.data // whole.itemsize % 16
    return whole[first : first + count]
