"""Composer of the demo's music: tracks by the artists of `mgc.pipeline.demo.styles`, rendered as stereo audio.

Style and artist determine much of a track; progression, rhythms, melody and small timing errors are drawn for each. The
random generator is an argument, so the same generator state composes the same samples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.signal

from mgc.pipeline.demo.instruments import DRUMS, INSTRUMENTS, Audio, Rng
from mgc.pipeline.demo.styles import STYLES, Artist, Part, Style

#: Peak of a track, 2 dB below full scale: decoded MP3s overshoot it, by up to 1.4 dB in the demo.
PEAK = 10 ** (-2 / 20)

# ---------------------------------------------------------------- scores


@dataclass(frozen=True)
class Note:
    """A note, a chord, or a hit of a drum.

    Attributes:
        step: start, in sixteenths from the start of the track.
        length: in sixteenths.
        pitches: MIDI note numbers; empty for a drum.
        accent: True for an accented note.
    """

    step: int
    length: int
    pitches: tuple[int, ...]
    accent: bool


def _hits(rhythm: str, steps: int) -> list[tuple[int, int, bool]]:
    """Parse a rhythm into the hits of one bar: (step, steps until the next hit or the bar line, accent)."""
    starts = [step for step in range(steps) if rhythm[step % len(rhythm)] != "."]
    return [(a, b - a, rhythm[a % len(rhythm)] == "X") for a, b in zip(starts, [*starts[1:], steps], strict=True)]


def _transpose_near(pitch: int, centre: int) -> int:
    """Transpose a pitch by octaves to at most 6 semitones from `centre`."""
    return centre - 6 + (pitch - centre + 6) % 12


def _compose_accompaniment(part: Part, chords: list[tuple[int, ...]], steps: int, rng: Rng) -> Iterator[Note]:
    """Compose a drum, bass or chord part: one rhythm for the whole track, with pitches from the chord of each bar.

    Args:
        part: the part.
        chords: MIDI note numbers of each bar's chord, root first.
        steps: sixteenths per bar.
        rng: random generator that chooses the rhythm.
    """
    hits = _hits(part.rhythms[rng.integers(len(part.rhythms))], steps)
    for bar, chord in enumerate(chords):
        root = _transpose_near(chord[0], part.centre)
        close = tuple(sorted(_transpose_near(pitch, part.centre) for pitch in chord))
        for number, (step, length, accent) in enumerate(hits):
            rising = (*close, close[0] + 12)
            pitches = {
                "drum": (),
                "root": (root,),
                "power": (root, root + 7, root + 12),
                "chord": close,
                "arpeggio": (rising[number % 4],),
            }[part.role]
            yield Note(bar * steps + step, length, pitches, accent)


def _compose_melody(part: Part, chords: list[tuple[int, ...]], scale: set[int], steps: int, rng: Rng) -> Iterator[Note]:
    """Compose a melody in phrases of four bars, A B A C: each motif starts on a chord note, and C also ends on one.

    Args:
        part: the part.
        chords: MIDI note numbers of each bar's chord.
        scale: MIDI pitch classes to use.
        steps: sixteenths per bar.
        rng: random generator that chooses rhythms and intervals.
    """
    ladder = [pitch for pitch in range(part.centre - 12, part.centre + 13) if pitch % 12 in scale]
    rhythms = {name: part.rhythms[rng.integers(len(part.rhythms))] for name in "ABC"}
    moves = {name: rng.choice([-2, -1, -1, 1, 1, 2, 3, -3], steps) for name in "ABC"}
    position = len(ladder) // 2
    for bar, chord in enumerate(chords):
        name = "ABAC"[bar % 4]
        chord_positions = [i for i, pitch in enumerate(ladder) if pitch % 12 in {note % 12 for note in chord}]
        hits = _hits(rhythms[name], steps)
        if name == "C":
            hits = [(step, length, accent) for step, length, accent in hits if step <= steps // 2]
            hits[-1] = (hits[-1][0], steps - hits[-1][0], True)
        for number, (step, length, accent) in enumerate(hits):
            if number == 0 or (name == "C" and number == len(hits) - 1):
                position = min(chord_positions, key=lambda i: abs(i - position))
            else:
                position = min(max(position + int(moves[name][number]), 0), len(ladder) - 1)
            yield Note(bar * steps + step, length, (ladder[position],), accent)


# ---------------------------------------------------------------- tracks


def compose(artist: Artist, seconds: float, rng: Rng, sr: int = 44100) -> Audio:
    """Compose and render a track; it begins with a phrase and is cut off at its end, like a clip.

    Args:
        artist: the artist.
        seconds: length of the track, at least 1.
        rng: random generator for all that the artist's parameters do not determine.
        sr: sample rate in Hz, above 30000, since the hi-hats reach up to 15 kHz.

    Returns:
        Audio with its peak at PEAK, float32 `(samples, 2)`.
    """
    style = STYLES[artist.style]
    tempo = artist.tempo * rng.uniform(0.96, 1.04)
    key = artist.key if rng.random() < 0.7 else (artist.key + 7) % 12
    scale = style.scales[rng.integers(len(style.scales))]
    progression = style.progressions[rng.integers(len(style.progressions))]
    steps = 4 * style.beats
    bars = math.ceil(seconds * tempo / 60 / style.beats)
    degrees = [progression[bar % len(progression)] for bar in range(bars)]
    chords = [tuple(key + scale[(degree + third) % 7] for third in (0, 2, 4)) for degree in degrees]
    performance = _Performance(artist, rng, sr)
    mix = np.zeros((2, round(seconds * sr)), np.float32)
    for part in artist.parts:
        if part.role == "melody":
            notes = _compose_melody(part, chords, {(key + interval) % 12 for interval in scale}, steps, rng)
        else:
            notes = _compose_accompaniment(part, chords, steps, rng)
        mix += _render_part(performance, part, notes, 15 / tempo, mix.shape[1])
    return np.ascontiguousarray(_master(performance, _reverberate(performance, mix)).T)


@dataclass(frozen=True)
class _Performance:
    """Inputs of all rendering steps of one track: the artist, the random generator, and the sample rate in Hz."""

    artist: Artist
    rng: Rng
    sr: int

    @property
    def style(self) -> Style:
        """The artist's style."""
        return STYLES[self.artist.style]


def _render_part(performance: _Performance, part: Part, notes: Iterable[Note], step_s: float, n_samples: int) -> Audio:
    """Render the notes of one part, panned, amplified and set to the part's level.

    Args:
        performance: artist, random generator and sample rate.
        part: the part.
        notes: its notes.
        step_s: length of a sixteenth, seconds.
        n_samples: length of the track.

    Returns:
        Audio, float32 `(2, n_samples)`.
    """
    artist, rng, sr = performance.artist, performance.rng, performance.sr
    style = performance.style

    @functools.cache  # music repeats itself: three of four notes are cached
    def sound(pitch: int | None, length: int) -> Audio:
        if pitch is None:
            return DRUMS[part.sound](artist.tone, rng, sr).astype(np.float32)
        f0 = 440 * 2 ** ((pitch - 69) / 12)
        return INSTRUMENTS[part.sound].play(f0, part.gate * length * step_s, artist.tone, rng, sr)

    audio = np.zeros((2, n_samples), np.float32)
    for note in notes:
        velocity = (1.0 if note.accent else 0.7) * rng.uniform(0.85, 1.15)
        due_s = (note.step + artist.swing * (note.step % 2)) * step_s
        for number, pitch in enumerate(note.pitches or (None,)):
            start = max(0, round((due_s + style.looseness * rng.standard_normal()) * sr))
            wave = sound(pitch, note.length if note.pitches else 0)[: max(0, n_samples - start)]
            # Each note of a chord is panned a little further to the right than the one below it.
            angle = (part.pan + 0.15 * number + 1) * np.pi / 4
            for channel, gain in zip(audio, (math.cos(angle), math.sin(angle)), strict=True):
                channel[start : start + wave.size] += velocity * gain * wave
    if part.drive:
        cabinet = scipy.signal.butter(2, (70, 3000 + 3000 * artist.tone), "bandpass", fs=sr, output="sos")
        audio = scipy.signal.sosfilt(cabinet, np.tanh(part.drive / _rms(audio) * audio)).astype(np.float32)
    audio *= 10 ** (part.level / 20) / _rms(audio)
    if style.pump and part.role != "drum":
        beats = np.arange(n_samples) / sr / (4 * step_s)
        audio *= (1 - style.pump * np.exp(-4 * (beats % 1))).astype(np.float32)
    return audio


def _rms(audio: Audio) -> float:
    return float(np.sqrt(np.mean(audio**2))) or 1.0  # a part may be silent throughout


def _reverberate(performance: _Performance, dry: Audio) -> Audio:
    """Add the reverberation of the artist's room: convolution with decaying noise, different for each channel.

    Args:
        performance: artist, random generator and sample rate.
        dry: audio, float32 `(2, samples)`.

    Returns:
        Audio, float32 `(2, samples)`.
    """
    artist, rng, sr = performance.artist, performance.rng, performance.sr
    style = performance.style
    seconds = style.room * artist.room
    t = np.arange(round(seconds * sr)) / sr
    echo = rng.standard_normal((2, t.size)) * 10 ** (-3 * t / seconds)
    echo = scipy.signal.lfilter([0.3], [1, -0.7], echo)  # walls absorb the treble
    echo *= style.wet * artist.room / np.linalg.norm(echo, axis=1, keepdims=True)
    return dry + scipy.signal.oaconvolve(dry, echo.astype(np.float32), axes=1)[:, : dry.shape[1]]


def _master(performance: _Performance, mix: Audio) -> Audio:
    """Apply the artist's tilt, loudness and hiss, fade both ends in and out, and scale the peak to PEAK.

    Args:
        performance: artist, random generator and sample rate.
        mix: audio, float32 `(2, samples)`.

    Returns:
        Audio, float32 `(2, samples)`.
    """
    artist, rng, sr = performance.artist, performance.rng, performance.sr
    high_pass = scipy.signal.butter(1, 2000, "highpass", fs=sr)
    treble = scipy.signal.lfilter(*(c.astype(np.float32) for c in high_pass), mix)
    mix = mix + np.float32(10 ** (artist.tilt / 20) - 1) * treble
    mix = np.tanh(np.float32(artist.loudness / np.quantile(np.abs(mix), 0.99)) * mix)
    mix += np.float32(10 ** (artist.hiss / 20)) * rng.standard_normal(mix.shape, np.float32)
    ramp = np.linspace(0, 1, round(0.02 * sr), dtype=np.float32)
    mix[:, : ramp.size] *= ramp
    mix[:, -ramp.size :] *= ramp[::-1]
    return mix * np.float32(PEAK / np.abs(mix).max())
