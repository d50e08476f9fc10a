"""Styles of the demo's music, and the artists who play them.

A style has a metre, a tempo, scales, chord progressions, and instruments with their rhythms. An artist has a tempo, a
key, a tone, a room and a mastering of their own, leaves out one of the style's parts and may borrow one from another
style, so that styles overlap as genres do.
"""

from __future__ import annotations

from dataclasses import dataclass

from mgc.pipeline.demo.instruments import Rng

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
DORIAN, MIXOLYDIAN = (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 5, 7, 9, 10)


@dataclass(frozen=True)
class Part:
    """Part of one instrument in a style.

    Attributes:
        sound: a name in INSTRUMENTS or DRUMS.
        role: the way pitches follow from the chord: "chord", "power" (root, fifth, octave), "root", "arpeggio" or
            "melody"; "drum" for none.
        rhythms: bars to choose from, one character per sixteenth: `X` an accented hit, `x` a hit, `.` no hit; a note
            lasts until the next hit.
        centre: MIDI note number at the centre of the part's range.
        level: level relative to the other parts, dB.
        pan: position from -1 (left) to 1 (right).
        gate: length of a note as a share of the time until the next hit.
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
    """Musical parameters of one genre.

    Attributes:
        tempo: lowest and highest tempo, quarter notes per minute.
        beats: quarter notes per bar.
        scales: scales to choose from, in semitones above the key note.
        progressions: chord progressions to choose from, one scale degree (0 is the key note's) per bar.
        parts: parts of the instruments; no artist leaves out the first one.
        room: reverberation time (decay by 60 dB), seconds.
        wet: level of the reverberation relative to the dry sound.
        looseness: standard deviation of the players' timing, seconds.
        pump: depth of the ducking of all parts but the drums on each beat, 0 to 1.
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


@dataclass(frozen=True)
class Artist:
    """Parameters that all tracks of one artist share.

    Attributes:
        style: a name in STYLES.
        parts: the style's parts but one, sometimes with one of another style.
        tempo: quarter notes per minute; tracks differ from it by up to 4 %.
        key: MIDI pitch class of the key note of most tracks.
        tone: brightness of the instruments, 0 to 1.
        swing: delay of every second sixteenth, as a share of a sixteenth.
        room: factor on the style's reverberation time and level.
        tilt: gain of the treble in mastering, dB.
        hiss: level of the tape noise relative to the clipper's limit, dB.
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
    """Draw the parameters of an artist.

    Args:
        style: a name in STYLES.
        rng: random generator; the same state gives the same artist.
    """
    base = STYLES[style]
    parts = list(base.parts)
    del parts[rng.integers(1, len(parts))]
    if rng.random() < 0.35:
        others = [part for name in STYLES if name != style for part in STYLES[name].parts]
        parts.append(others[rng.integers(len(others))])
    return Artist(
        style=style,
        parts=tuple(parts),
        tempo=rng.uniform(*base.tempo),
        key=int(rng.integers(12)),
        tone=rng.random(),
        swing=max(0.0, rng.uniform(-0.3, 0.3)),
        room=rng.uniform(0.6, 1.5),
        tilt=rng.uniform(-4, 3),
        hiss=rng.uniform(-85, -55),
        loudness=rng.uniform(0.3, 1.0),
    )
