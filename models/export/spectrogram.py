"""Features from samples as modules that can be exported: framing, Fourier transform, filter banks, quantisation.

They compute what `mgc.pipeline.features` computes at extraction, and what a store makes of it: values are rounded to
the steps of the store's integers. Frames are those of the whole track, since the window of samples includes what lies
half a transform before and after the slice.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from mgc.models.data.adapters import Decibels, dct_matrix
from mgc.pipeline.dsp.filterbanks import chroma_bank
from mgc.pipeline.features import STEP_DB, Chroma, FeatureSpec, Mel, Mfcc, PowerSpectrum, Spectral, Stft, Waveform

#: Features that can be computed in an exported file. Harmonic and percussive parts need neighbouring frames, statistics
#: the whole track.
FROM_SAMPLES = (Stft, Mel, Mfcc, PowerSpectrum, Chroma, Waveform)
#: Largest float32 below 256.
_BELOW_256 = float(np.nextafter(np.float32(256), np.float32(0)))
_FULL_SCALE = 32768


def supports(spec: FeatureSpec) -> bool:
    """Whether a feature can be computed in an exported file."""
    return type(spec) in FROM_SAMPLES


def reach(spec: FeatureSpec) -> int:
    """Samples before the start of a slice that its first frame depends on."""
    return spec.n_fft // 2 if isinstance(spec, Spectral) else 0


def length(spec: FeatureSpec, frames: int) -> int:
    """Samples from the start of a slice to the end of what its last frame depends on."""
    return (frames - 1) * spec.hop_length + reach(spec) if isinstance(spec, Spectral) else frames * spec.hop_length


class Features(nn.Module):
    """Frames of a feature from a window of samples.

    Args:
        spec: feature, one of `FROM_SAMPLES`.
        margin: samples in the window before the start of the slice; at least `reach(spec)`.
        frames: frames of a slice, or None for as many as the window holds.
        waveform: waveform store that the feature is computed from, whose steps the samples are rounded to; else None.
    """

    def __init__(self, spec: FeatureSpec, margin: int, frames: int | None, waveform: FeatureSpec | None = None) -> None:
        super().__init__()
        self._first = margin - reach(spec)
        self._stop = None if frames is None else margin + length(spec, frames)
        rounded = waveform if waveform is not None else spec
        self._round_samples = isinstance(rounded, Waveform) and rounded.quantised
        self._compute: nn.Module = (
            Power(spec, None if waveform is None else "none") if isinstance(spec, Spectral) else Blocks(spec.hop_length)
        )

    def forward(self, samples: Tensor) -> Tensor:
        """Convert `(batch, samples)` to frames `(batch, frames, bins)`, float32."""
        window = samples[:, self._first : self._stop]
        if self._round_samples:
            window = (window * _FULL_SCALE).round().clamp(-_FULL_SCALE, _FULL_SCALE - 1) / _FULL_SCALE
        return self._compute(window)


class Blocks(nn.Module):
    """Samples in blocks without overlap."""

    def __init__(self, hop: int) -> None:
        super().__init__()
        self._hop = hop

    def forward(self, samples: Tensor) -> Tensor:
        """Convert `(batch, samples)` to `(batch, blocks, hop)`."""
        return samples.reshape(samples.shape[0], -1, self._hop)


class Power(nn.Module):
    """A spectral feature: windowed Fourier transform, filter bank, levels in dB, and the store's steps.

    MFCCs are computed in float64, as `PowerBatch.precise_log_mel` does where float32 would show; the others in float32.

    Args:
        spec: the feature.
        stored_as: dtype whose steps the values are rounded to; None for the spec's, `none` for no rounding.
    """

    window: Tensor
    bank: Tensor | None
    basis: Tensor | None

    def __init__(self, spec: Spectral, stored_as: str | None = None) -> None:
        super().__init__()
        precision = torch.float64 if isinstance(spec, Mfcc) else torch.float32
        self._dtype = stored_as or spec.dtype
        self._offset = spec.offset
        self._kind = "power" if isinstance(spec, PowerSpectrum) else "chroma" if isinstance(spec, Chroma) else "levels"
        self._frames = Frames(spec.n_fft, spec.hop_length)
        self._transform = Transform(spec.n_fft, precision)
        self._decibels = Decibels()
        window = torch.hann_window(spec.n_fft, dtype=torch.float64).to(precision)
        self.register_buffer("window", window, persistent=False)
        bank = basis = None
        if isinstance(spec, Mel):
            bank = torch.from_numpy(spec.bank())
        elif isinstance(spec, Chroma):
            bank = torch.from_numpy(chroma_bank(spec.sr, spec.n_fft, spec.n_chroma, spec.tuning))
        if isinstance(spec, Mfcc):
            basis = dct_matrix(spec.n_mels, spec.n_mfcc)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Convert `(batch, samples)` to `(batch, frames, bins)`, float32."""
        power = self._transform(self._frames(samples).to(self.window.dtype) * self.window).float()
        if self.bank is not None:
            power = power @ self.bank
        if self._kind == "levels":
            values = self._decibels(power)
        elif self._kind == "chroma":
            largest = power.amax(dim=2, keepdim=True)
            values = power / torch.where(largest < torch.finfo(torch.float32).tiny, torch.ones_like(largest), largest)
        else:
            values = power
        if self.basis is not None:
            values = values @ self.basis
        return self._as_stored(values)

    def _as_stored(self, values: Tensor) -> Tensor:
        """Round values to those that the store holds; see `Spectral.encode`."""
        if self._dtype == "uint8":
            steps = values * (1 / STEP_DB) + float(np.float32(0.5 - self._offset / STEP_DB))
            return steps.clamp(0.0, _BELOW_256).floor() * STEP_DB + self._offset
        return values.half().float() if self._dtype == "float16" else values


class Frames(nn.Module):
    """Overlapping frames of a signal, put together from blocks that divide both the frame and the hop."""

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self._block = math.gcd(n_fft, hop)
        self._blocks, self._step = n_fft // self._block, hop // self._block

    def forward(self, samples: Tensor) -> Tensor:
        """Convert `(batch, samples)` to `(batch, frames, n_fft)`."""
        blocks = samples.reshape(samples.shape[0], -1, self._block)
        n_frames = (blocks.shape[1] - self._blocks) // self._step + 1
        stop = (n_frames - 1) * self._step + 1
        return torch.cat([blocks[:, k : k + stop : self._step] for k in range(self._blocks)], dim=2)


class Transform(nn.Module):
    """Power spectra of real frames by matrix products: the Fourier transform of `rows * columns` points in two steps.

    With `n = columns * n1 + n2` and `k = k1 + rows * k2` (Cooley and Tukey, "An algorithm for the machine calculation
    of complex Fourier series", Math. Comput. 19, 1965), it is a transform over `n1`, a product with twiddle factors,
    and a transform over `n2`. The matrices have a few thousand values, where that of the whole transform has millions,
    and every runtime has matrix products, while few have a fast operator for Fourier transforms.

    Args:
        n_fft: length of the frames.
        precision: dtype of frames and results.
    """

    first: Tensor
    twiddle: Tensor
    second: Tensor

    def __init__(self, n_fft: int, precision: torch.dtype) -> None:
        super().__init__()
        rows = next(n for n in range(math.isqrt(n_fft), 0, -1) if n_fft % n == 0)
        columns = n_fft // rows
        self._n_fft, self._rows, self._columns = n_fft, rows, columns
        n1, n2 = torch.arange(rows, dtype=torch.float64), torch.arange(columns, dtype=torch.float64)
        # The upper half of the spectrum mirrors the lower: rows * (columns // 2 + 1) values hold all that is needed.
        k2 = torch.arange(columns // 2 + 1, dtype=torch.float64)
        parts = {
            "first": _unit(torch.outer(n1, n1) / rows),
            "twiddle": _unit(torch.outer(n1, n2) / n_fft),
            "second": _unit(torch.outer(n2, k2) / columns),
        }
        for name, values in parts.items():
            self.register_buffer(name, torch.stack([values.real, values.imag]).to(precision), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Convert frames `(batch, frames, n_fft)` to power `(batch, frames, 1 + n_fft/2)`."""
        grid = frames.reshape(frames.shape[0], -1, self._rows, self._columns)
        real, imaginary = self.first[0] @ grid, self.first[1] @ grid
        cos, sin = self.twiddle[0], self.twiddle[1]
        real, imaginary = real * cos - imaginary * sin, real * sin + imaginary * cos
        cos, sin = self.second[0], self.second[1]
        real, imaginary = real @ cos - imaginary @ sin, real @ sin + imaginary @ cos
        power = real.square() + imaginary.square()
        return power.transpose(2, 3).flatten(2)[..., : self._n_fft // 2 + 1]


def _unit(turns: Tensor) -> Tensor:
    """Complex numbers of modulus 1 at angles of -`turns` full turns, complex128."""
    return torch.polar(torch.ones_like(turns), -2 * math.pi * (turns % 1))
