"""Time stretch and pitch shift against librosa's, and on a tone of known pitch."""

import librosa
import numpy as np
import pytest
import torch
from sounds import music, tone

from mgc.models.data import vocoder

SR = 22050


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.8, 1.0, 1.1, 1.25])
def test_time_stretch_equals_librosas(rate: float) -> None:
    """Equals librosa's of a float64 signal: librosa adds up the phases of a float32 signal in float32."""
    signal = music(2, SR)[:, 0]
    stretched = vocoder.time_stretch(torch.from_numpy(signal), rate).numpy()
    expected = librosa.effects.time_stretch(signal.astype(np.float64), rate=rate)
    assert stretched.shape == expected.shape
    np.testing.assert_allclose(stretched, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("n", [1500, 4 * 512, 30_001])
@pytest.mark.parametrize("rate", [0.5, 0.9, 1.0, 1.7])
def test_the_inverse_equals_torchs(n: int, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    signal = torch.from_numpy(music(2, SR)[:n, 0].astype(np.float32))
    stretched = vocoder.time_stretch(signal, rate)

    def istft(spectrum: torch.Tensor, window: torch.Tensor, length: int) -> torch.Tensor:
        return torch.istft(spectrum, vocoder.N_FFT, vocoder.HOP, window=window, length=length)

    monkeypatch.setattr(vocoder, "_inverse", istft)
    expected = vocoder.time_stretch(signal, rate)
    assert stretched.shape == expected.shape
    torch.testing.assert_close(stretched, expected, atol=2e-6 * float(expected.abs().max()), rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("semitones", [-4.0, -1.5, 0.0, 2.0, 4.0])
def test_pitch_shift_gives_a_tone_its_new_pitch_and_the_level_of_librosas(semitones: float) -> None:
    signal = tone(440, 4, SR)
    shifted = vocoder.pitch_shift(torch.from_numpy(signal), semitones).numpy()
    assert len(shifted) == 4 * SR
    middle = shifted[SR : 3 * SR] * np.hanning(2 * SR)
    spectrum = np.abs(np.fft.rfft(middle))
    frequency = np.argmax(spectrum) * SR / len(middle)
    assert frequency == pytest.approx(440 * 2 ** (semitones / 12), abs=SR / len(middle))
    expected = librosa.effects.pitch_shift(signal, sr=SR, n_steps=semitones)
    level, expected_level = (np.sqrt(np.mean(sound[SR : 3 * SR] ** 2)) for sound in (shifted, expected))
    assert level == pytest.approx(expected_level, rel=1e-3)


def test_a_stretched_tone_keeps_its_pitch() -> None:
    slower = vocoder.time_stretch(torch.from_numpy(tone(440, 4, SR)), 0.8).numpy()
    assert len(slower) == 5 * SR
    middle = slower[SR : 3 * SR] * np.hanning(2 * SR)
    assert np.argmax(np.abs(np.fft.rfft(middle))) * SR / len(middle) == pytest.approx(440, abs=0.5)
