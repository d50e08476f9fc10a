"""Time stretch and pitch shift on the device: librosa's phase vocoder, for one signal in float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mgc.models.parallel.device import wide_dtype

#: Window and hop of the STFT in samples; as in librosa, the window is four hops long.
N_FFT, HOP = 2048, 512


def time_stretch(signal: Tensor, rate: float) -> Tensor:
    """Change the speed of a signal but not its pitch, like `librosa.effects.time_stretch`.

    Args:
        signal: float32 `(samples,)`.
        rate: speed, > 0; above 1 is faster.

    Returns:
        float32 `(round(samples / rate),)`.
    """
    window = torch.hann_window(N_FFT, device=signal.device)
    spectrum = torch.stft(signal, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    length = round(len(signal) / rate)
    return _inverse(_phase_vocoder(spectrum, rate), window, length)


def pitch_shift(signal: Tensor, semitones: float) -> Tensor:
    """Change the pitch of a signal but not its length, like `librosa.effects.pitch_shift`.

    The signal is stretched, then resampled by its Fourier transform, which works for any ratio.

    Args:
        signal: float32 `(samples,)`.
        semitones: pitch shift; negative is down.

    Returns:
        float32 `(samples,)`.
    """
    longer = time_stretch(signal, 2 ** (-semitones / 12))
    spectrum = torch.fft.rfft(longer)
    # irfft truncates the spectrum or pads it with zeros, and scales by the length of its output.
    return torch.fft.irfft(spectrum, n=len(signal)) * (len(signal) / len(longer))


def _inverse(spectrum: Tensor, window: Tensor, length: int) -> Tensor:
    """Invert an STFT `(bins, frames)` like `torch.istft`, which reads a value from the device, so that the host waits.

    Args:
        spectrum: complex64.
        window: its window, float32 `(N_FFT,)`.
        length: number of samples to return.
    """
    n_frames, hops = spectrum.shape[1], N_FFT // HOP
    frames = torch.fft.irfft(spectrum.T, N_FFT) * window

    def overlap_add(frames: Tensor) -> Tensor:
        total = frames.new_zeros(n_frames + hops - 1, HOP)
        for hop, part in enumerate(frames.view(n_frames, hops, HOP).unbind(1)):
            total[hop : hop + n_frames] += part
        return total.flatten()[N_FFT // 2 : N_FFT // 2 + length]

    return overlap_add(frames) / overlap_add((window**2).repeat(n_frames, 1))


def _phase_vocoder(spectrum: Tensor, rate: float) -> Tensor:
    """Interpolate an STFT `(bins, frames)` at every `rate`-th frame, with phases that advance as in the original.

    Flanagan & Golden, "Phase Vocoder", 1966: the algorithm of `librosa.phase_vocoder`, with its loop over frames as a
    cumulative sum.
    """
    device = spectrum.device
    if wide_dtype(device) != torch.float64:
        spectrum = spectrum.cpu()
    bins, frames = spectrum.shape
    positions = torch.arange(0, frames, rate, dtype=torch.float64, device=spectrum.device)
    index = positions.long()
    fraction = (positions - index).float()
    padded = torch.nn.functional.pad(spectrum, (0, 2))
    before, after = padded[:, index], padded[:, index + 1]
    magnitude = (1 - fraction) * before.abs() + fraction * after.abs()
    # float64: in float32, the sum of a long signal's phase advances would lose its fraction of a turn.
    expected = torch.linspace(0, math.pi * HOP, bins, dtype=torch.float64, device=spectrum.device)[:, None]
    advance = after.angle().double() - before.angle().double() - expected
    advance = expected + advance - 2 * math.pi * torch.round(advance / (2 * math.pi))
    phase = spectrum[:, :1].angle().double() + torch.cumsum(advance, dim=1) - advance
    return torch.polar(magnitude, torch.remainder(phase, 2 * math.pi).float()).to(device)
