"""Time stretch and pitch shift against librosa's, and against what they are for."""

import librosa
import numpy as np
import pytest
import torch
from sounds import music, tone

from mgc.models.data import vocoder

SR = 22050


@pytest.mark.parametrize("rate", [0.8, 1.0, 1.1, 1.25])
def test_a_stretched_signal_is_librosas(rate: float) -> None:
    """In float64, that is: librosa adds up the phases of a float32 signal in float32."""
    signal = music(2, SR)[:, 0]
    ours = vocoder.time_stretch(torch.from_numpy(signal), rate).numpy()
    theirs = librosa.effects.time_stretch(signal.astype(np.float64), rate=rate)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=2e-3 * np.abs(theirs).max())


@pytest.mark.parametrize("semitones", [-4.0, -1.5, 0.0, 2.0, 4.0])
def test_a_tone_has_another_pitch_and_the_level_that_librosa_gives_it(semitones: float) -> None:
    signal = tone(440, 4, SR)
    pitched = vocoder.pitch_shift(torch.from_numpy(signal), semitones).numpy()
    assert len(pitched) == 4 * SR
    middle = pitched[SR : 3 * SR] * np.hanning(2 * SR)
    spectrum = np.abs(np.fft.rfft(middle))
    frequency = np.argmax(spectrum) * SR / len(middle)
    assert frequency == pytest.approx(440 * 2 ** (semitones / 12), abs=SR / len(middle))
    theirs = librosa.effects.pitch_shift(signal, sr=SR, n_steps=semitones)
    level, librosas = (np.sqrt(np.mean(sound[SR : 3 * SR] ** 2)) for sound in (pitched, theirs))
    assert level == pytest.approx(librosas, rel=1e-3)


def test_a_stretched_tone_keeps_its_pitch() -> None:
    slower = vocoder.time_stretch(torch.from_numpy(tone(440, 4, SR)), 0.8).numpy()
    assert len(slower) == 5 * SR
    middle = slower[SR : 3 * SR] * np.hanning(2 * SR)
    assert np.argmax(np.abs(np.fft.rfft(middle))) * SR / len(middle) == pytest.approx(440, abs=0.5)
