"""The front end: computes spectrograms from samples on the device, as `mgc.pipeline.features` does at extraction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mgc.models.data.adapters import Decibels, dct_matrix
from mgc.models.parallel.device import wide_dtype
from mgc.pipeline.dsp.stages import FLOAT32_RANGE_DB
from mgc.pipeline.features import FeatureSpec, Mel, Mfcc, PowerSpectrum, Spectral, Stft

#: Features that it computes. Harmonic and percussive parts need neighbouring frames, statistics the whole track.
SUPPORTED_FEATURES = (Stft, Mel, Mfcc, PowerSpectrum)
#: Values that are transformed at a time, 4 MB as float32: memory does not grow with the batch, and a CPU takes half the
#: time of transforming the whole batch at once.
_BLOCK_VALUES = 1 << 20


def supports(spec: FeatureSpec) -> bool:
    """Whether the front end can compute a feature."""
    return type(spec) in SUPPORTED_FEATURES


class FrontEnd(nn.Module):
    """Compute a spectral feature: windowed Fourier transform, filter bank, levels in dB and cosine transform.

    It computes in float32, with librosa's window and filter bank. Levels agree with librosa's to 1e-3 dB down to 60 dB
    below their frame's maximum, magnitudes to 1e-6 of the frame's largest, MFCCs to 5e-3.

    Args:
        spec: feature to compute, one of `SUPPORTED_FEATURES`.
    """

    window: Tensor
    bank: Tensor
    basis: Tensor

    def __init__(self, spec: Spectral) -> None:
        super().__init__()
        self.spec = spec
        self._wide_window = torch.hann_window(spec.n_fft, dtype=torch.float64)  # stays on the host: MPS has no float64
        self.register_buffer("window", self._wide_window.float(), persistent=False)
        if isinstance(spec, Mel):
            self.register_buffer("bank", torch.from_numpy(spec.bank()), persistent=False)
        if isinstance(spec, Mfcc):
            self.register_buffer("basis", dct_matrix(spec.n_mels, spec.n_mfcc), persistent=False)
        self._decibels = Decibels()

    def forward(self, signal: Tensor) -> Tensor:
        """Compute frames without padding: frame i covers the `n_fft` samples from `i * hop_length` on.

        Args:
            signal: float32 `(batch, samples)`, full scale is 1.

        Returns:
            float32 `(batch, 1 + (samples - n_fft) // hop_length, bins)`.
        """
        frames = signal.unfold(1, self.spec.n_fft, self.spec.hop_length)
        block_size = max(1, _BLOCK_VALUES // (frames.shape[1] * frames.shape[2]))
        with torch.autocast(signal.device.type, enabled=False):
            blocks = [self._transform(block) for block in frames.split(block_size)]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

    def _transform(self, frames: Tensor) -> Tensor:
        """Compute the feature of frames of samples: `(batch, frames, n_fft)` to `(batch, frames, bins)`."""
        power = _power_spectrum(frames * self.window)
        if isinstance(self.spec, PowerSpectrum):
            return power
        levels = self._decibels(power @ self.bank if isinstance(self.spec, Mel) else power)
        return self._cepstrum(levels, power, frames) if isinstance(self.spec, Mfcc) else levels

    def _cepstrum(self, levels: Tensor, power: Tensor, frames: Tensor) -> Tensor:
        """Compute MFCCs; frames with bands deeper than float32 reaches are transformed again in float64.

        `PowerBatch.precise_log_mel` does the same at extraction.
        """
        deep = self._decibels(power.amax(dim=2)) - levels.amin(dim=2) > FLOAT32_RANGE_DB
        if deep.any():
            device = frames.device
            host = device if wide_dtype(device) == torch.float64 else torch.device("cpu")
            precise = _power_spectrum(frames[deep].to(host) * self._wide_window.to(host))
            levels[deep] = self._decibels(precise.to(device) @ self.bank)
        return levels @ self.basis


def _power_spectrum(windowed: Tensor) -> Tensor:
    """Power spectra along the last axis as float32, transformed in the precision of the input."""
    spectrum = torch.fft.rfft(windowed)
    # The sum over the last axis of `view_as_real` takes three times as long.
    return (spectrum.real.square() + spectrum.imag.square()).float()
