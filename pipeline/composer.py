"""A small composer: six styles of music, played by invented artists, rendered as stereo audio.

A style fixes what its listeners would name: metre, tempo, scales, chord progressions, instruments and their rhythms.
An artist fixes what stays the same from one of their tracks to the next (tempo, key, tone, room, mastering), leaves out
one of the style's parts and may borrow one from another style, so that styles overlap as genres do. A track draws the
rest: progression, rhythms, melody and the small errors of a human hand. Everything is drawn from the generator passed
in, so the same generator state composes the same samples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

Audio = NDArray[np.float32]
Array = NDArray[np.float64]
Rng = np.random.Generator

PEAK = 10 ** (-2 / 20)  # 2 dB below full scale: decoded MP3s overshoot it, by up to 1.4 dB in the demo

# ---------------------------------------------------------------- tones
# A note is a table with one period of the wave per row, built from its harmonics and read at the note's pitch. That is
# exact in tune and free of aliasing, costs one batched inverse FFT, and covers pulse waves, filter sweeps and plucked
# strings alike: they differ only in how loud harmonic k is at time t.

#: Amplitudes (period, harmonic) from harmonic numbers (harmonic,), the fundamental in Hz, the times (period, 1) in
#: seconds and the artist's tone from 0, dark, to 1, bright. One row alone means a sound that does not change.
Spectrum = Callable[[Array, float, Array, float], Array]


@dataclass(frozen=True)
class Instrument:
    """A pitched sound: its harmonics and the envelope over them.

    Attributes:
        spectrum: amplitudes of the harmonics.
        attack: seconds from silence to full level.
        decay: seconds in which a held note falls by 1/e; infinite for what is blown, bowed or driven.
        release: seconds from the end of the note to silence.
        detune: cents of each of the players in unison.
        vibrato: cents, peak.
    """

    spectrum: Spectrum
    attack: float = 0.003
    decay: float = math.inf
    release: float = 0.02
    detune: tuple[float, ...] = (0.0,)
    vibrato: float = 0.0

    def play(self, f0: float, seconds: float, tone: float, rng: Rng, sr: int) -> Audio:
        """One note of `f0` Hz held for `seconds`, mono, its release included."""
        t = np.arange(int((seconds + self.release) * sr)) / sr
        k = np.arange(1.0, max(2, int(0.4 * sr / f0) + 1))
        periods = np.arange(math.ceil(f0 * t.size / sr) + 1.0)[:, None]
        amplitudes = self.spectrum(k, f0, periods / f0, tone)
        harmonics = np.pad(amplitudes, ((0, 0), (1, 0))).astype(np.complex64)  # no direct current
        size = 4 << k.size.bit_length()  # at least 4 samples per period of the highest harmonic
        table = scipy.fft.irfft(harmonics, size, axis=1, norm="forward")
        table = np.concatenate([table, table[:, :1]], axis=1)  # for the interpolation at the period's end

        speed = 5.5 * 2 * np.pi
        wobble = self.vibrato * math.log(2) / 1200 / speed * (1 - np.cos(speed * t))
        wave = np.zeros(t.size, np.float32)
        for cents in self.detune:
            wave += _read(table, rng.random() + f0 * 2 ** (cents / 1200) * (t + wobble))
        fade_in = np.minimum(t / self.attack, 1)
        fade_out = np.clip((seconds + self.release - t) / self.release, 0, 1)
        return wave * (fade_in * fade_out * np.exp(-t / self.decay)).astype(np.float32)


def _read(table: Audio, phase: Array) -> Audio:
    """`table` (period, sample + 1) at `phase`, in periods; the last row repeats."""
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
    body = 1 + 1.5 * np.exp(-(((k * f0 - 450) / 250) ** 2)) + np.exp(-(((k * f0 - 2400) / 900) ** 2))
    return (body * _low_pass(k * f0, 2500 + 3000 * tone) / k)[None]


def _blown(k: Array, f0: float, t: Array, tone: float) -> Array:
    return (0.35 ** (k - 1) * (1 + tone * (k == 2)))[None]


def _bell(k: Array, f0: float, t: Array, tone: float) -> Array:
    return np.isin(k, (1, 3, 4, 7)) / k * np.exp(-t * k * (1.2 - 0.8 * tone))


def _plucked(k: Array, f0: float, t: Array, tone: float) -> Array:
    # The string of Karplus and Strong at 22050 Hz: every sample is the mean of two neighbours one period earlier, which
    # leaves cos(pi f / 22050) of what sounds at f Hz. In closed form, all periods are computed at once.
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

# ---------------------------------------------------------------- drums


def _noise(seconds: float, band: tuple[float, float], rng: Rng, sr: int) -> Array:
    """Noise between two frequencies in Hz, of unit level."""
    sos = scipy.signal.butter(2, band, "bandpass", fs=sr, output="sos")
    noise = scipy.signal.sosfilt(sos, rng.standard_normal(int(seconds * sr)))
    return noise / noise.std()


def _drop(seconds: float, start: float, end: float, decay: float, sr: int) -> Array:
    """A sine that falls from `start` to `end` Hz within a few hundredths of a second, as a drum skin does."""
    t = np.arange(int(seconds * sr)) / sr
    return np.sin(2 * np.pi * (end * t - 0.035 * (start - end) * np.expm1(-t / 0.035))) * np.exp(-t / decay)


def _burst(seconds: float, band: tuple[float, float], decay: float, rng: Rng, sr: int) -> Array:
    noise = _noise(seconds, band, rng, sr)
    return noise * np.exp(-np.arange(noise.size) / (decay * sr))


def _chip_noise(seconds: float, step: int, decay: float, rng: Rng, sr: int) -> Array:
    """A random square wave that may change sign every `step` samples, as in early sound chips."""
    noise = np.repeat(rng.choice([-1.0, 1.0], int(seconds * sr) // step), step)
    return noise * np.exp(-np.arange(noise.size) / (decay * sr))


def _wind(tone: float, rng: Rng, sr: int) -> Array:
    noise = _noise(4, (300, 900 + 2500 * tone), rng, sr)
    return noise * np.hanning(noise.size)


#: One hit of a drum, mono, of any level, from the artist's tone (0 to 1), a generator and the sample rate.
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

# ---------------------------------------------------------------- styles

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
DORIAN, MIXOLYDIAN = (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 5, 7, 9, 10)


@dataclass(frozen=True)
class Part:
    """What one instrument does in a style.

    Attributes:
        sound: a name in INSTRUMENTS or DRUMS.
        role: how pitches follow from the chord: "chord", "power" (root, fifth, octave), "root", "arpeggio" or "melody";
            "drum" has none.
        rhythms: bars to choose from, one character a sixteenth: `X` an accent, `x` a hit, `.` neither; a note is held
            until the next hit.
        centre: MIDI note number around which the pitches lie.
        level: dB, against the other parts.
        pan: -1, left, to 1, right.
        gate: share of its time that a note is held.
        drive: RMS level at the input of an amplifier that clips at 1; 0 for no amplifier.
    """

    sound: str
    role: str
    rhythms: tuple[str, ...]
    centre: int = 60
    level: float = 0.0
    pan: float = 0.0
    gate: float = 0.95
    drive: float = 0.0


@dataclass(frozen=True)
class Style:
    """What the tracks of one genre share.

    Attributes:
        tempo: range, in quarter notes a minute.
        beats: quarter notes a bar.
        scales: scales to choose from, in semitones above the key note.
        progressions: chord progressions to choose from, one scale degree (0 the key note's) a bar.
        parts: who plays; the first one is never left out.
        room: seconds in which the reverberation falls by 60 dB.
        wet: level of the reverberation against the dry sound.
        looseness: standard deviation of the players' timing, seconds.
        pump: depth by which each beat ducks everything but the drums, 0 to 1.
    """

    tempo: tuple[float, float]
    beats: int
    scales: tuple[tuple[int, ...], ...]
    progressions: tuple[tuple[int, ...], ...]
    parts: tuple[Part, ...]
    room: float
    wet: float
    looseness: float = 0.0
    pump: float = 0.0


STYLES = {
    "Electronic": Style(
        tempo=(116, 134),
        beats=4,
        scales=(MINOR, DORIAN),
        progressions=((0, 5, 2, 6), (0, 0, 5, 6), (0, 3, 5, 4)),
        parts=(
            Part("kick", "drum", ("X...X...X...X...",), level=2),
            Part("hat", "drum", ("..x...x...x...x.", "x.xxx.xxx.xxx.xx"), level=-14, pan=0.2),
            Part("clap", "drum", ("....X.......X...", "....X.......X..x"), level=-9, pan=-0.1),
            Part("synth bass", "root", ("..x...x...x...x.", "..xx..xx..xx..xx", "x..x..x.x..x..x."), 38, -1, gate=0.7),
            Part("synth", "chord", ("x..x..x...x..x..", "..x...x...x..x..", "x.....x....x...."), 62, -4, 0.3, gate=0.6),
            Part("synth", "melody", ("x.x.x...x.x.x...", "x..x..x.x...x..."), 74, -6, -0.3, gate=0.8),
        ),
        room=1.0,
        wet=0.25,
        pump=0.6,
    ),
    "Chiptune": Style(
        tempo=(126, 168),
        beats=4,
        scales=(MAJOR, MINOR),
        progressions=((0, 4, 5, 3), (0, 3, 4, 4), (0, 5, 3, 4)),
        parts=(
            Part(
                "pulse", "melody", ("x.x.x.xxx.x.x...", "x..x..x.xxx.x...", "xxx.x...x.x.x.x."), 76, 0, -0.4, gate=0.8
            ),
            Part("pulse", "arpeggio", ("xxxxxxxxxxxxxxxx",), 67, -5, 0.5, gate=0.9),
            Part("triangle", "root", ("x.x.x.x.x.x.x.x.", "x..xx..xx..xx.x."), 43, 0, gate=0.7),
            Part("chip kick", "drum", ("X...x...X...x...", "X.....x.X.x....."), level=-5),
            Part("chip snare", "drum", ("....X.......X...", "....X.......X.xx"), level=-6),
            Part("chip hat", "drum", ("x.x.x.x.x.x.x.x.", "..x...x...x...x."), level=-18),
        ),
        room=0.2,
        wet=0.02,
    ),
    "Ambient": Style(
        tempo=(54, 78),
        beats=4,
        scales=(MAJOR, DORIAN, MIXOLYDIAN),
        progressions=((0, 3), (0, 4, 3, 3), (0, 5, 1, 4)),
        parts=(
            Part("pad", "chord", ("X...............", "X.......x......."), 60, 0),
            Part("pad", "root", ("X...............",), 38, -3),
            Part("bell", "melody", ("x.......x...x...", "....x.......x...", "x.....x........."), 79, -7, 0.4),
            Part("wind", "drum", ("x.......x.......",), level=-17),
            Part("synth", "arpeggio", ("..x...x...x...x.", "x...x..x..x....."), 67, -12, -0.5, gate=0.6),
        ),
        room=3.5,
        wet=0.9,
        looseness=0.03,
    ),
    "Folk": Style(
        tempo=(96, 144),
        beats=3,
        scales=(MAJOR, MIXOLYDIAN),
        progressions=((0, 3, 0, 4), (0, 4, 5, 3), (0, 6, 3, 0)),
        parts=(
            Part("guitar", "arpeggio", ("x.x.x.x.x.x.", "x.xxx.xxx.xx"), 60, 0, -0.3),
            Part("guitar", "chord", ("....x...x...", "X.....x.x..."), 57, -3, 0.3),
            Part("bass guitar", "root", ("x...........", "x.......x..."), 40, -4),
            Part("flute", "melody", ("x...x.x.x...", "x.....x.x.x.", "x.x.x...x..."), 74, -5, 0.1),
            Part("shaker", "drum", ("x.x.x.x.x.x.", "X...x...x..."), level=-22, pan=0.4),
        ),
        room=0.7,
        wet=0.18,
        looseness=0.009,
    ),
    "Rock": Style(
        tempo=(100, 152),
        beats=4,
        scales=(MINOR, MIXOLYDIAN),
        progressions=((0, 5, 6, 0), (0, 6, 3, 0), (0, 2, 3, 5)),
        parts=(
            Part(
                "guitar", "power", ("X.x.x.x.X.x.x.x.", "X..x..x.X..x..x.", "X.......x.x.x..."), 46, 0, -0.4, drive=3.5
            ),
            Part("snare", "drum", ("....X.......X...", "....X..x....X..."), level=-3),
            Part("kick", "drum", ("X.......X.x.....", "X..x....X......."), level=-2),
            Part("hat", "drum", ("x.x.x.x.x.x.x.x.", "X...x...x...x..."), level=-16, pan=0.3),
            Part("bass guitar", "root", ("x.x.x.x.x.x.x.x.", "x..x..x.x..x..x."), 34, -1, drive=0.5),
            Part(
                "guitar", "melody", ("x...x.x.x..x....", "x.x.x...x.......", "x..x..x.x.x.x..."), 69, -3, 0.4, drive=2.5
            ),
        ),
        room=0.8,
        wet=0.12,
        looseness=0.007,
    ),
    "Orchestral": Style(
        tempo=(66, 104),
        beats=4,
        scales=(DORIAN, MINOR, MAJOR),
        progressions=((0, 6, 3, 4), (0, 3, 6, 0), (0, 5, 1, 4)),
        parts=(
            Part("strings", "chord", ("X.......x.......", "X...............", "X...x...x...x..."), 60, 0, 0.2),
            Part("strings", "root", ("x.......x.......", "x...x...x...x..."), 43, -2, 0.4),
            Part("violin", "melody", ("x...x.x.x...x...", "x.....x.x...x.x.", "x.......x.x.x.x."), 76, -2, -0.4),
            Part("flute", "melody", ("x.......x...x...", "....x.x.x......."), 81, -8, 0.0),
            Part("timpani", "drum", ("X...............", "X...........x.x."), level=-7, pan=0.2),
            Part("guitar", "arpeggio", ("x...x...x...x...", "x.x.x.x.x.x.x.x."), 67, -11, -0.5, gate=0.3),
        ),
        room=2.2,
        wet=0.5,
        looseness=0.014,
    ),
}

# ---------------------------------------------------------------- artists


@dataclass(frozen=True)
class Artist:
    """What stays the same in every track of one artist.

    Attributes:
        style: a name in STYLES.
        parts: the style's parts less one, sometimes with one of another style.
        tempo: quarter notes a minute; tracks stay within 4 % of it.
        key: MIDI pitch class of the key note most tracks are in.
        tone: brightness of the instruments, 0 to 1.
        swing: delay of every second sixteenth, as a share of its length.
        room: factor on the style's reverberation time and level.
        tilt: dB by which the treble is lifted in mastering.
        hiss: level of the tape's noise, dB against the clipper's limit.
        loudness: level, exceeded by 1 % of the samples, at the input of a soft clipper that clips at 1.
    """

    style: str
    parts: tuple[Part, ...]
    tempo: float
    key: int
    tone: float
    swing: float
    room: float
    tilt: float
    hiss: float
    loudness: float


def invent_artist(style: str, rng: Rng) -> Artist:
    """An artist of `style`, a name in STYLES."""
    own = STYLES[style]
    parts = list(own.parts)
    del parts[rng.integers(1, len(parts))]
    if rng.random() < 0.35:
        others = [part for name in STYLES if name != style for part in STYLES[name].parts]
        parts.append(others[rng.integers(len(others))])
    return Artist(
        style=style,
        parts=tuple(parts),
        tempo=rng.uniform(*own.tempo),
        key=int(rng.integers(12)),
        tone=rng.random(),
        swing=max(0.0, rng.uniform(-0.3, 0.3)),
        room=rng.uniform(0.6, 1.5),
        tilt=rng.uniform(-4, 3),
        hiss=rng.uniform(-85, -55),
        loudness=rng.uniform(0.3, 1.0),
    )


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
