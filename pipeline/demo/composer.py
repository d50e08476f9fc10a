"""A small composer: tracks by the artists of `mgc.pipeline.demo.styles`, rendered as stereo audio.

Style and artist fix much of a track; the rest is drawn for each: progression, rhythms, melody and the small errors of a
human hand. Everything is drawn from the generator passed in, so the same generator state composes the same samples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.signal

from mgc.pipeline.demo.instruments import DRUMS, INSTRUMENTS, Audio, Rng
from mgc.pipeline.demo.styles import STYLES, Artist, Part

PEAK = 10 ** (-2 / 20)  # 2 dB below full scale: decoded MP3s overshoot it, by up to 1.4 dB in the demo

# ---------------------------------------------------------------- scores


@dataclass(frozen=True)
class Note:
    """Something to play: `step` and `length` in sixteenths, `pitches` as MIDI note numbers (none for a drum)."""

    step: int
    length: int
    pitches: tuple[int, ...]
    accent: bool


def _hits(rhythm: str, steps: int) -> list[tuple[int, int, bool]]:
    """The hits of one bar as (step, steps until the next hit or the bar line, accent)."""
    at = [step for step in range(steps) if rhythm[step % len(rhythm)] != "."]
    return [(a, b - a, rhythm[a % len(rhythm)] == "X") for a, b in zip(at, [*at[1:], steps], strict=True)]


def _near(pitch: int, centre: int) -> int:
    """`pitch`, moved by octaves to at most 6 semitones from `centre`."""
    return centre - 6 + (pitch - centre + 6) % 12


def _accompany(part: Part, chords: list[tuple[int, ...]], steps: int, rng: Rng) -> Iterator[Note]:
    """One rhythm for the whole track, its pitches taken from the chord of each bar."""
    hits = _hits(part.rhythms[rng.integers(len(part.rhythms))], steps)
    for bar, chord in enumerate(chords):
        root = _near(chord[0], part.centre)
        close = tuple(sorted(_near(pitch, part.centre) for pitch in chord))
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


def _sing(part: Part, chords: list[tuple[int, ...]], scale: set[int], steps: int, rng: Rng) -> Iterator[Note]:
    """A melody in phrases of four bars, A B A C: each motif starts on a chord note, and C comes to rest on one."""
    ladder = [pitch for pitch in range(part.centre - 12, part.centre + 13) if pitch % 12 in scale]
    rhythms = {name: part.rhythms[rng.integers(len(part.rhythms))] for name in "ABC"}
    moves = {name: rng.choice([-2, -1, -1, 1, 1, 2, 3, -3], steps) for name in "ABC"}
    place = len(ladder) // 2
    for bar, chord in enumerate(chords):
        name = "ABAC"[bar % 4]
        at_rest = [i for i, pitch in enumerate(ladder) if pitch % 12 in {note % 12 for note in chord}]
        hits = _hits(rhythms[name], steps)
        if name == "C":
            hits = [(step, length, accent) for step, length, accent in hits if step <= steps // 2]
            hits[-1] = (hits[-1][0], steps - hits[-1][0], True)
        for number, (step, length, accent) in enumerate(hits):
            if number == 0 or (name == "C" and number == len(hits) - 1):
                place = min(at_rest, key=lambda i: abs(i - place))
            else:
                place = min(max(place + int(moves[name][number]), 0), len(ladder) - 1)
            yield Note(bar * steps + step, length, (ladder[place],), accent)


# ---------------------------------------------------------------- tracks


def compose(artist: Artist, seconds: float, rng: Rng, sr: int = 44100) -> Audio:
    """A track by `artist`: it starts with a phrase and is cut after `seconds`, as a clip is.

    Args:
        artist: who plays, and how.
        seconds: of music, at least 1.
        rng: decides all that the artist leaves open.
        sr: sample rate in Hz, above 30000, as the hi-hats reach up to 15 kHz.

    Returns:
        (sample, 2), the peak at PEAK.
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
    mix = np.zeros((2, round(seconds * sr)), np.float32)
    for part in artist.parts:
        if part.role == "melody":
            notes = _sing(part, chords, {(key + interval) % 12 for interval in scale}, steps, rng)
        else:
            notes = _accompany(part, chords, steps, rng)
        mix += _perform(part, notes, artist, 15 / tempo, mix.shape[1], rng, sr)
    return np.ascontiguousarray(_master(_reverberate(mix, artist, rng, sr), artist, rng, sr).T)


def _perform(
    part: Part, notes: Iterable[Note], artist: Artist, step_s: float, n_samples: int, rng: Rng, sr: int
) -> Audio:
    """The notes of one part, played, placed, amplified and set to the part's level: (channel, sample)."""
    style = STYLES[artist.style]

    @functools.cache  # music repeats itself: three of four notes have been heard before
    def sound(pitch: int | None, length: int) -> Audio:
        if pitch is None:
            return DRUMS[part.sound](artist.tone, rng, sr).astype(np.float32)
        f0 = 440 * 2 ** ((pitch - 69) / 12)
        return INSTRUMENTS[part.sound].play(f0, part.gate * length * step_s, artist.tone, rng, sr)

    played = np.zeros((2, n_samples), np.float32)
    for note in notes:
        velocity = (1.0 if note.accent else 0.7) * rng.uniform(0.85, 1.15)
        due_s = (note.step + artist.swing * (note.step % 2)) * step_s
        for number, pitch in enumerate(note.pitches or (None,)):
            start = max(0, round((due_s + style.looseness * rng.standard_normal()) * sr))
            wave = sound(pitch, note.length if note.pitches else 0)[: max(0, n_samples - start)]
            # Of a chord, each note stands a little further to the right than the one below it.
            angle = (part.pan + 0.15 * number + 1) * np.pi / 4
            for channel, gain in zip(played, (math.cos(angle), math.sin(angle)), strict=True):
                channel[start : start + wave.size] += velocity * gain * wave
    if part.drive:
        cabinet = scipy.signal.butter(2, (70, 3000 + 3000 * artist.tone), "bandpass", fs=sr, output="sos")
        played = scipy.signal.sosfilt(cabinet, np.tanh(part.drive / _rms(played) * played)).astype(np.float32)
    played *= 10 ** (part.level / 20) / _rms(played)
    if style.pump and part.role != "drum":
        beats = np.arange(n_samples) / sr / (4 * step_s)
        played *= (1 - style.pump * np.exp(-4 * (beats % 1))).astype(np.float32)
    return played


def _rms(audio: Audio) -> float:
    return float(np.sqrt(np.mean(audio**2))) or 1.0  # a part may rest throughout


def _reverberate(dry: Audio, artist: Artist, rng: Rng, sr: int) -> Audio:
    """`dry` (channel, sample) with the echo of its room: noise that dies away, another for each ear."""
    style = STYLES[artist.style]
    seconds = style.room * artist.room
    t = np.arange(round(seconds * sr)) / sr
    echo = rng.standard_normal((2, t.size)) * 10 ** (-3 * t / seconds)
    echo = scipy.signal.lfilter([0.3], [1, -0.7], echo)  # walls swallow the treble
    echo *= style.wet * artist.room / np.linalg.norm(echo, axis=1, keepdims=True)
    return dry + scipy.signal.oaconvolve(dry, echo.astype(np.float32), axes=1)[:, : dry.shape[1]]


def _master(mix: Audio, artist: Artist, rng: Rng, sr: int) -> Audio:
    """`mix` (channel, sample) with the artist's tilt, loudness and hiss, its ends faded, its peak at PEAK."""
    high_pass = scipy.signal.butter(1, 2000, "highpass", fs=sr)
    treble = scipy.signal.lfilter(*(c.astype(np.float32) for c in high_pass), mix)
    mix = mix + np.float32(10 ** (artist.tilt / 20) - 1) * treble
    mix = np.tanh(np.float32(artist.loudness / np.quantile(np.abs(mix), 0.99)) * mix)
    mix += np.float32(10 ** (artist.hiss / 20)) * rng.standard_normal(mix.shape, np.float32)
    ramp = np.linspace(0, 1, round(0.02 * sr), dtype=np.float32)
    mix[:, : ramp.size] *= ramp
    mix[:, -ramp.size :] *= ramp[::-1]
    return mix * np.float32(PEAK / np.abs(mix).max())
