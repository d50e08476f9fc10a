"""The front end: spectrograms made of samples on the device, as `mgc.pipeline.features` makes them at extraction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mgc.models.data.adapters import Decibels, dct_matrix
from mgc.pipeline.dsp.stages import FLOAT32_RANGE_DB
from mgc.pipeline.features import FeatureSpec, Mel, Mfcc, PowerSpectrum, Spectral, Stft

#: The features that it makes. Harmonic and percussive parts need frames on either side, statistics the whole track.
SUPPORTED_FEATURES = (Stft, Mel, Mfcc, PowerSpectrum)
#: Values that are transformed in one go, 4 MB as float32: memory does not grow with the batch, and a CPU takes half the
#: time that the whole batch in one go would take.
_TRANSFORMED = 1 << 20


def supports(spec: FeatureSpec) -> bool:
    """Whether there is a front end for a feature."""
    return type(spec) in SUPPORTED_FEATURES


class FrontEnd(nn.Module):
    """Windowed Fourier transforms, filter bank, levels and cosine transform of a feature.

    In float32, as the features do it: levels agree with librosa's to 1e-3 dB down to 60 dB below their frame's maximum,
    magnitudes to 1e-6 of the frame's largest, MFCCs to 5e-3. Filter bank and window are librosa's.

    Args:
        spec: the feature, one of `KINDS`.
    """

    window: Tensor
    bank: Tensor
    basis: Tensor

    def __init__(self, spec: Spectral) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("window", torch.hann_window(spec.n_fft, dtype=torch.float64), persistent=False)
        if isinstance(spec, Mel):
            self.register_buffer("bank", torch.from_numpy(spec.bank()), persistent=False)
        if isinstance(spec, Mfcc):
            self.register_buffer("basis", dct_matrix(spec.n_mels, spec.n_mfcc), persistent=False)
        self._levels = Decibels()

    def forward(self, signal: Tensor) -> Tensor:
        """Samples to frames without padding: frame `i` is of the `n_fft` samples from `i * hop_length` on.

        Args:
            signal: float32 `(batch, samples)`, 1 at full scale.

        Returns:
            float32 `(batch, 1 + (samples - n_fft) // hop_length, bins)`.
        """
        frames = signal.unfold(1, self.spec.n_fft, self.spec.hop_length)
        some = max(1, _TRANSFORMED // (frames.shape[1] * frames.shape[2]))
        with torch.autocast(signal.device.type, enabled=False):
            made = [self._made(part) for part in frames.split(some)]
        return made[0] if len(made) == 1 else torch.cat(made)

    def _made(self, frames: Tensor) -> Tensor:
        power = _power(frames * self.window.float())
        if isinstance(self.spec, PowerSpectrum):
            return power
        levels = self._levels(power @ self.bank if isinstance(self.spec, Mel) else power)
        return self._cepstrum(levels, power, frames) if isinstance(self.spec, Mfcc) else levels

    def _cepstrum(self, levels: Tensor, power: Tensor, frames: Tensor) -> Tensor:
        """MFCCs, of frames whose deepest bands show the rounding of float32 by way of float64: see `Mfcc.rows`."""
        deep = self._levels(power.amax(dim=2)) - levels.amin(dim=2) > FLOAT32_RANGE_DB
        if deep.any():
            levels[deep] = self._levels(_power(frames[deep] * self.window) @ self.bank)
        return levels @ self.basis


def _power(windowed: Tensor) -> Tensor:
    """float32 power spectra, transformed in the precision of what is transformed."""
    spectrum = torch.fft.rfft(windowed)
    # The sum over the last axis of `view_as_real` takes three times as long.
    return (spectrum.real.square() + spectrum.imag.square()).float()
