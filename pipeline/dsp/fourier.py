"""Windowed power spectra of real frames whose length is a power of two, computed within the first-level cache.

A frame of 1,024 samples takes a third of the time of windowing, `scipy.fft.rfft` and squaring many frames one after the
other (docs/decisions.md), and gives the same bits on every processor.

A real transform of `2 m` samples is computed as a complex one of `m` points (even samples are the real parts, odd ones
the imaginary parts) and separated afterwards (Press et al., Numerical Recipes, 12.3.2). The complex transform is
Stockham's (Van Loan, Computational Frameworks for the FFT, 1.7): passes of radix 8 and a last one of radix 8, 4 or 2,
each from one half of a work array into the other, with the results in natural order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from mgc.pipeline.dsp.kernels import inline, jit

#: Supported values of `n_fft`; `mgc.pipeline.dsp.stages` uses scipy for others.
FFT_SIZES = (256, 512, 1024, 2048, 4096)

#: Values from the end of the real parts to the imaginary parts: one repeats the first value, the rest keeps both parts
#: aligned.
_GAP = 16
_SQRT_HALF = np.float32(np.sqrt(0.5))
_QUARTER = np.float32(0.25)


class Transform:
    """Computes windowed power spectra of overlapping frames.

    Args:
        window: float32 `(n_fft,)`; `n_fft` must be in `FFT_SIZES`.
    """

    def __init__(self, window: np.ndarray) -> None:
        n_fft = len(window)
        points = n_fft // 2
        self._run = _build_kernel(points)
        rotations = []  # angles of the twiddle factors, as fractions of a full circle
        length = points
        while length > 8:  # all passes but the last, which needs no twiddle factors
            positions = np.arange(length // 8)
            rotations += [positions * k / length for k in range(1, 8)]
            length //= 8
        rotations.append(np.arange(points + 1) / n_fft)  # separation of the real transform
        angles = -2 * np.pi * np.concatenate(rotations)
        self._tables = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        self._window = window[0::2].copy(), window[1::2].copy()
        self._work = _aligned(2 * (points + _GAP)), _aligned(4 * (points + _GAP))

    def __call__(self, signal: np.ndarray, hop: int, out: np.ndarray) -> None:
        """Compute the squared magnitudes of a signal's first frames.

        Args:
            signal: float32 `(samples,)`, contiguous.
            hop: samples between the starts of frames.
            out: float32 `(n, 1 + n_fft/2)`, contiguous; receives the spectra of the first `n` frames.
        """
        self._run(signal, hop, *self._window, *self._tables, *self._work, out)


@inline
def _dft4(a0, a1, a2, a3, b0, b1, b2, b3):  # type: ignore[no-untyped-def]
    """Transform four complex numbers `a + ib`; returns the real parts, then the imaginary parts."""
    s0, t0, d0, e0 = a0 + a2, b0 + b2, a0 - a2, b0 - b2
    s1, t1, d1, e1 = a1 + a3, b1 + b3, a1 - a3, b1 - b3
    return s0 + s1, d0 + e1, s0 - s1, d0 - e1, t0 + t1, e0 - d1, t0 - t1, e0 + d1


@inline
def _dft8(a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7):  # type: ignore[no-untyped-def]
    """Transform eight complex numbers `a + ib`; returns the real parts, then the imaginary parts."""
    d1, e1, d3, e3 = a1 - a5, b1 - b5, a3 - a7, b3 - b7
    # The differences, rotated by 0, 45, 90 and 135 degrees.
    f1, g1, f3, g3 = (d1 + e1) * _SQRT_HALF, (e1 - d1) * _SQRT_HALF, (e3 - d3) * _SQRT_HALF, (d3 + e3) * -_SQRT_HALF
    x0, x2, x4, x6, y0, y2, y4, y6 = _dft4(a0 + a4, a1 + a5, a2 + a6, a3 + a7, b0 + b4, b1 + b5, b2 + b6, b3 + b7)
    x1, x3, x5, x7, y1, y3, y5, y7 = _dft4(a0 - a4, f1, b2 - b6, f3, b0 - b4, g1, a6 - a2, g3)
    return x0, x1, x2, x3, x4, x5, x6, x7, y0, y1, y2, y3, y4, y5, y6, y7


@inline
def _radix8_pass(v, w, cos, sin, points, stride, x, y, base):  # type: ignore[no-untyped-def]
    """One pass of radix 8, from offset `x` of `v` to offset `y` of `w`.

    Args:
        v: input array.
        w: output array; may be `v`.
        cos, sin: tables of twiddle factors.
        points: points of the complex transform.
        stride: product of the radices of the passes before.
        x: offset of the input in `v`.
        y: offset of the output in `w`.
        base: offset of this pass's twiddle factors in the tables.
    """
    lanes, xi, yi = points // 8, x + points + _GAP, y + points + _GAP
    groups = lanes // stride
    for p in range(groups):
        c1, c2, c3, c4 = cos[base + p], cos[base + groups + p], cos[base + 2 * groups + p], cos[base + 3 * groups + p]
        c5, c6, c7 = cos[base + 4 * groups + p], cos[base + 5 * groups + p], cos[base + 6 * groups + p]
        s1, s2, s3, s4 = sin[base + p], sin[base + groups + p], sin[base + 2 * groups + p], sin[base + 3 * groups + p]
        s5, s6, s7 = sin[base + 4 * groups + p], sin[base + 5 * groups + p], sin[base + 6 * groups + p]
        for q in range(stride):
            i = p * stride + q
            j, k = x + i, xi + i
            a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7 = _dft8(
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


@inline
def _last_radix8_pass(w, points, x, y):  # type: ignore[no-untyped-def]
    """The last pass of radix 8, within `w` from offset `x` to `y`; its twiddle factors are 1."""
    n = points // 8
    for i in range(n):
        j, k = x + i, x + points + _GAP + i
        a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7 = _dft8(
            w[j], w[j + n], w[j + 2 * n], w[j + 3 * n], w[j + 4 * n], w[j + 5 * n], w[j + 6 * n], w[j + 7 * n],
            w[k], w[k + n], w[k + 2 * n], w[k + 3 * n], w[k + 4 * n], w[k + 5 * n], w[k + 6 * n], w[k + 7 * n],
        )  # fmt: skip
        j, k = y + i, y + points + _GAP + i
        w[j], w[j + n], w[j + 2 * n], w[j + 3 * n] = a0, a1, a2, a3
        w[j + 4 * n], w[j + 5 * n], w[j + 6 * n], w[j + 7 * n] = a4, a5, a6, a7
        w[k], w[k + n], w[k + 2 * n], w[k + 3 * n] = b0, b1, b2, b3
        w[k + 4 * n], w[k + 5 * n], w[k + 6 * n], w[k + 7 * n] = b4, b5, b6, b7


@inline
def _last_radix4_pass(w, points, x, y):  # type: ignore[no-untyped-def]
    """The last pass of radix 4, within `w` from offset `x` to `y`; its twiddle factors are 1."""
    n = points // 4
    for i in range(n):
        j, k = x + i, x + points + _GAP + i
        a0, a1, a2, a3, b0, b1, b2, b3 = _dft4(
            w[j], w[j + n], w[j + 2 * n], w[j + 3 * n], w[k], w[k + n], w[k + 2 * n], w[k + 3 * n]
        )
        j, k = y + i, y + points + _GAP + i
        w[j], w[j + n], w[j + 2 * n], w[j + 3 * n] = a0, a1, a2, a3
        w[k], w[k + n], w[k + 2 * n], w[k + 3 * n] = b0, b1, b2, b3


@inline
def _last_radix2_pass(w, points, x, y):  # type: ignore[no-untyped-def]
    """The last pass of radix 2, within `w` from offset `x` to `y`; its twiddle factors are 1."""
    n = points // 2
    for i in range(n):
        j, k = x + i, x + points + _GAP + i
        a0, a1, b0, b1 = w[j], w[j + n], w[k], w[k + n]
        j, k = y + i, y + points + _GAP + i
        w[j], w[j + n], w[k], w[k + n] = a0 + a1, a0 - a1, b0 + b1, b0 - b1


@cache
def _build_kernel(points: int) -> Any:
    """Build the loop over frames of `2 * points` samples.

    It is compiled for one length: with constant offsets into one array, the compiler knows which values are
    independent, and computes eight at a time.
    """
    half = 2 * (points + _GAP)  # offset of the second half of the work array
    # Offsets in the tables: twiddle factors of the second and third pass, factors of the separation.
    second = 7 * (points // 8)
    third = second + 7 * (points // 64)
    separation = third + 7 * (points // 512) if points > 512 else third

    @jit
    def run(signal, hop, even, odd, cos, sin, v, w, out):  # type: ignore[no-untyped-def]
        for t in range(len(out)):
            frame = signal[t * hop : t * hop + 2 * points]
            for i in range(points):
                v[i] = frame[2 * i] * even[i]
            for i in range(points):
                v[points + _GAP + i] = frame[2 * i + 1] * odd[i]
            # The first pass reads from another array, since it writes values closer together than it reads them.
            _radix8_pass(v, w, cos, sin, points, 1, 0, half, 0)
            _radix8_pass(w, w, cos, sin, points, 8, half, 0, second)
            x, z = 0, half
            if points > 512:
                _radix8_pass(w, w, cos, sin, points, 64, 0, half, third)
                x, z = half, 0
            if points == 512:
                _last_radix8_pass(w, points, x, z)
            elif points == 256 or points == 2048:
                _last_radix4_pass(w, points, x, z)
            else:
                _last_radix2_pass(w, points, x, z)
            im = z + points + _GAP
            # The transform is periodic: value `points` equals value 0.
            w[z + points], w[im + points] = w[z], w[im]
            row = out[t]
            for i in range(points + 1):
                ar, ai, br, bi = w[z + i], w[im + i], w[z + points - i], -w[im + points - i]
                dr, di = ar - br, ai - bi
                c, s = cos[separation + i], sin[separation + i]
                real = ar + br + (di * c + dr * s)
                imaginary = ai + bi + (di * s - dr * c)
                row[i] = (real * real + imaginary * imaginary) * _QUARTER

    return run


def _aligned(count: int) -> np.ndarray:
    """Allocate float32 `(count,)` at the start of a cache line (64 bytes)."""
    buffer = np.empty(count + 16, np.float32)
    first = -buffer.ctypes.data // buffer.itemsize % 16
    return buffer[first : first + count]
