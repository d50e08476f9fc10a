"""Time stretch and pitch shift on the device: the phase vocoder of librosa's effects, in float32 and for one signal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: The STFT behind it; librosa's has a window of four times the hop, too.
N_FFT, HOP = 2048, 512


def time_stretch(signal: Tensor, rate: float) -> Tensor:
    """The signal `rate` times as fast, at its pitch (`librosa.effects.time_stretch`).

    Args:
        signal: float32 `(samples,)`.
        rate: above 0.

    Returns:
        float32 `(round(samples / rate),)`.
    """
    window = torch.hann_window(N_FFT, device=signal.device)
    spectrum = torch.stft(signal, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    length = round(len(signal) / rate)
    return torch.istft(_phase_vocoder(spectrum, rate), N_FFT, HOP, window=window, length=length)


def pitch_shift(signal: Tensor, semitones: float) -> Tensor:
    """The signal so much higher, in its length (`librosa.effects.pitch_shift`).

    It is stretched and then resampled by its Fourier transform, which any ratio suits.

    Args:
        signal: float32 `(samples,)`.
        semitones: up, or where negative down.
    """
    longer = time_stretch(signal, 2 ** (-semitones / 12))
    spectrum = torch.fft.rfft(longer)
    # irfft cuts the spectrum off, or fills it up with zeros, and scales by the length that it gives.
    return torch.fft.irfft(spectrum, n=len(signal)) * (len(signal) / len(longer))


def _phase_vocoder(spectrum: Tensor, rate: float) -> Tensor:
    """Frames at every `rate`-th place between those of an STFT `(bins, frames)`, their phases as if time went on.

    Flanagan & Golden, "Phase Vocoder", 1966; the algorithm of `librosa.phase_vocoder`, its loop as a cumulative sum.
    """
    bins, frames = spectrum.shape
    places = torch.arange(0, frames, rate, dtype=torch.float64, device=spectrum.device)
    at = places.long()
    share = (places - at).float()
    padded = torch.nn.functional.pad(spectrum, (0, 2))
    before, after = padded[:, at], padded[:, at + 1]
    magnitude = (1 - share) * before.abs() + share * after.abs()
    # float64: the sum of a long signal's advances would lose its fraction of a turn.
    expected = torch.linspace(0, math.pi * HOP, bins, dtype=torch.float64, device=spectrum.device)[:, None]
    advance = after.angle().double() - before.angle().double() - expected
    advance = expected + advance - 2 * math.pi * torch.round(advance / (2 * math.pi))
    phase = spectrum[:, :1].angle().double() + torch.cumsum(advance, dim=1) - advance
    return torch.polar(magnitude, torch.remainder(phase, 2 * math.pi).float())
