"""Sounds of the demo's music: pitched instruments (wavetable synthesis) and drums.

A note is a table with one period of the wave per row, synthesised from its harmonics and read at the note's pitch. This
is exactly in tune and free of aliasing, costs one batched inverse FFT, and covers pulse waves, filter sweeps and
plucked strings: they differ only in the amplitude of harmonic k at time t.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

Audio = NDArray[np.float32]
Array = NDArray[np.float64]
Rng = np.random.Generator

#: Function of the harmonic numbers `(harmonics,)`, the fundamental in Hz, the times `(periods, 1)` in seconds and the
#: artist's tone (0 dark, 1 bright) that returns the harmonics' amplitudes, `(periods, harmonics)`, or `(1, harmonics)`
#: for a sound that does not change.
Spectrum = Callable[[Array, float, Array, float], Array]


@dataclass(frozen=True)
class Instrument:
    """A pitched instrument: amplitudes of its harmonics, and its envelope.

    Attributes:
        spectrum: function that computes the amplitudes of the harmonics.
        attack: time from silence to full level, seconds.
        decay: time in which a held note falls by 1/e, seconds; infinite for blown, bowed and driven sounds.
        release: time from the end of the note to silence, seconds.
        detune: detuning of each player in unison, cents.
        vibrato: peak deviation of the pitch, cents.
    """

    spectrum: Spectrum
    attack: float = 0.003
    decay: float = math.inf
    release: float = 0.02
    detune: tuple[float, ...] = (0.0,)
    vibrato: float = 0.0

    def play(self, f0: float, seconds: float, tone: float, rng: Rng, sr: int) -> Audio:
        """Synthesise one note.

        Args:
            f0: fundamental, Hz.
            seconds: time for which the note is held, without its release.
            tone: brightness, 0 to 1.
            rng: random generator for the phases.
            sr: sample rate, Hz.

        Returns:
            Mono audio, float32 `(samples,)`, its release included.
        """
        t = np.arange(int((seconds + self.release) * sr)) / sr
        k = np.arange(1.0, max(2, int(0.4 * sr / f0) + 1))
        periods = np.arange(math.ceil(f0 * t.size / sr) + 1.0)[:, None]
        amplitudes = self.spectrum(k, f0, periods / f0, tone)
        harmonics = np.pad(amplitudes, ((0, 0), (1, 0))).astype(np.complex64)  # no DC component
        size = 4 << k.size.bit_length()  # at least 4 samples per period of the highest harmonic
        table = scipy.fft.irfft(harmonics, size, axis=1, norm="forward")
        table = np.concatenate([table, table[:, :1]], axis=1)  # lets the interpolation wrap at the period's end

        speed = 5.5 * 2 * np.pi
        wobble = self.vibrato * math.log(2) / 1200 / speed * (1 - np.cos(speed * t))
        wave = np.zeros(t.size, np.float32)
        for cents in self.detune:
            wave += _read(table, rng.random() + f0 * 2 ** (cents / 1200) * (t + wobble))
        fade_in = np.minimum(t / self.attack, 1)
        fade_out = np.clip((seconds + self.release - t) / self.release, 0, 1)
        return wave * (fade_in * fade_out * np.exp(-t / self.decay)).astype(np.float32)


def _read(table: Audio, phase: Array) -> Audio:
    """Read a wavetable with linear interpolation.

    Args:
        table: one period per row, `(periods, size + 1)`; beyond the last row, it repeats.
        phase: positions in periods, `(samples,)`.
    """
    whole = phase.astype(np.int64)
    position = (phase - whole) * (table.shape[1] - 1)
    column = position.astype(np.int64)
    index = np.minimum(whole, len(table) - 1) * table.shape[1] + column
    flat = table.ravel()
    return flat[index] + (position - column).astype(np.float32) * (flat[index + 1] - flat[index])


def _low_pass(frequency: Array, cutoff: Array | float) -> Array:
    return 1 / (1 + (frequency / cutoff) ** 4)


def _pulse(k: Array, f0: float, t: Array, tone: float) -> Array:
    duty = (0.5, 0.25, 0.125)[min(int(3 * tone), 2)]
    return (np.sin(np.pi * k * duty) / k)[None]


def _triangle(k: Array, f0: float, t: Array, tone: float) -> Array:
    return (k % 2 / k**2)[None]


def _swept_saw(k: Array, f0: float, t: Array, tone: float) -> Array:
    return _low_pass(k * f0, 300 + (2000 + 5000 * tone) * np.exp(-t / 0.18)) / k


def _warm(k: Array, f0: float, t: Array, tone: float) -> Array:
    return (_low_pass(k * f0, 500 + 1500 * tone) / k)[None]


def _bowed(k: Array, f0: float, t: Array, tone: float) -> Array:
    # The body of a string instrument resonates near 450 Hz and, more broadly, near 2.4 kHz.
    body = 1 + 1.5 * np.exp(-(((k * f0 - 450) / 250) ** 2)) + np.exp(-(((k * f0 - 2400) / 900) ** 2))
    return (body * _low_pass(k * f0, 2500 + 3000 * tone) / k)[None]


def _blown(k: Array, f0: float, t: Array, tone: float) -> Array:
    return (0.35 ** (k - 1) * (1 + tone * (k == 2)))[None]


def _bell(k: Array, f0: float, t: Array, tone: float) -> Array:
    return np.isin(k, (1, 3, 4, 7)) / k * np.exp(-t * k * (1.2 - 0.8 * tone))


def _plucked(k: Array, f0: float, t: Array, tone: float) -> Array:
    # Karplus and Strong's plucked string (1983) at 22050 Hz: every sample is the mean of two neighbours one period
    # earlier, which multiplies a component of f Hz by cos(pi f / 22050). In closed form, all periods are computed
    # together.
    loss = 0.997 * np.abs(np.cos(np.pi * np.minimum(k * f0 / 22050, 0.5)))
    return np.sin(np.pi * k * (0.35 - 0.2 * tone)) / k ** (1.2 - 0.5 * tone) * loss ** (f0 * t)


UNISON = (-9.0, 0.0, 8.0)

INSTRUMENTS = {
    "pulse": Instrument(_pulse, decay=0.6, vibrato=12),
    "triangle": Instrument(_triangle),
    "synth": Instrument(_swept_saw, release=0.08, detune=UNISON),
    "synth bass": Instrument(_swept_saw),
    "pad": Instrument(_warm, attack=0.9, release=1.2, detune=UNISON),
    "bell": Instrument(_bell, decay=2.0, release=1.5),
    "guitar": Instrument(_plucked, release=0.25),
    "bass guitar": Instrument(_plucked, decay=1.5, release=0.05),
    "flute": Instrument(_blown, attack=0.06, release=0.08, vibrato=15),
    "strings": Instrument(_bowed, attack=0.16, release=0.25, detune=UNISON, vibrato=10),
    "violin": Instrument(_bowed, attack=0.08, release=0.12, vibrato=22),
}


def _noise(seconds: float, band: tuple[float, float], rng: Rng, sr: int) -> Array:
    """Band-pass noise with unit standard deviation; `band` is the lower and upper frequency in Hz."""
    sos = scipy.signal.butter(2, band, "bandpass", fs=sr, output="sos")
    noise = scipy.signal.sosfilt(sos, rng.standard_normal(int(seconds * sr)))
    return noise / noise.std()


def _drop(seconds: float, start: float, end: float, decay: float, sr: int) -> Array:
    """A decaying sine whose pitch falls from `start` to `end` Hz within 0.1 s, like that of a drum skin."""
    t = np.arange(int(seconds * sr)) / sr
    return np.sin(2 * np.pi * (end * t - 0.035 * (start - end) * np.expm1(-t / 0.035))) * np.exp(-t / decay)


def _burst(seconds: float, band: tuple[float, float], decay: float, rng: Rng, sr: int) -> Array:
    """Band-pass noise that decays by 1/e in `decay` seconds."""
    noise = _noise(seconds, band, rng, sr)
    return noise * np.exp(-np.arange(noise.size) / (decay * sr))


def _chip_noise(seconds: float, step: int, decay: float, rng: Rng, sr: int) -> Array:
    """A random square wave that may change sign every `step` samples, as in early sound chips."""
    noise = np.repeat(rng.choice([-1.0, 1.0], int(seconds * sr) // step), step)
    return noise * np.exp(-np.arange(noise.size) / (decay * sr))


def _wind(tone: float, rng: Rng, sr: int) -> Array:
    noise = _noise(4, (300, 900 + 2500 * tone), rng, sr)
    return noise * np.hanning(noise.size)


#: Functions of the artist's tone (0 to 1), a random generator and the sample rate in Hz that return one hit of a drum,
#: mono, at any level.
DRUMS: dict[str, Callable[[float, Rng, int], Array]] = {
    "kick": lambda tone, rng, sr: _drop(0.4, 120 + 120 * tone, 48, 0.13, sr),
    "timpani": lambda tone, rng, sr: _drop(1.5, 95, 82 + 20 * tone, 0.5, sr),
    "snare": lambda tone, rng, sr: (
        _burst(0.3, (500, 8000), 0.05 + 0.04 * tone, rng, sr) + 2 * _drop(0.3, 260, 180, 0.06, sr)
    ),
    "clap": lambda tone, rng, sr: _burst(0.25, (900, 3500 + 3000 * tone), 0.05, rng, sr),
    "hat": lambda tone, rng, sr: _burst(0.12, (6000, 15000), 0.015 + 0.03 * tone, rng, sr),
    "shaker": lambda tone, rng, sr: _burst(0.15, (3500, 9000), 0.03, rng, sr),
    "chip kick": lambda tone, rng, sr: np.sign(_drop(0.12, 300, 55, 1.0, sr)),
    "chip snare": lambda tone, rng, sr: _chip_noise(0.12, 4, 0.04, rng, sr),
    "chip hat": lambda tone, rng, sr: _chip_noise(0.04, 1, 0.015, rng, sr),
    "wind": _wind,
}
