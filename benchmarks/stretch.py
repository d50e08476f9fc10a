"""Libraries that shift pitch and stretch time: what each costs for a 30 s clip, and how well it does it.

    python benchmarks/stretch.py                 those of the libraries below that are installed
    python benchmarks/stretch.py --attempts 5

librosa is a dependency; python-stretch and pedalboard are not: install them into an environment of their own.
Figures are for mono audio at 44.1 kHz (librosa at 22.05 kHz, too). CPU is that of one core, imports and a first call
left out; memory is what a process with three minutes in hand peaks at beyond one with a minute, per minute. A sine of
440 Hz tells pitch and level of what comes out, a click every half second how much of its energy stays within 10 ms.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import common  # first: it limits the threads of the libraries
import numpy as np
from common import RSS_UNIT, Spread, table

RATE = 44100
SHIFTS = {"pitch +2": (2.0, 1.0), "pitch -2": (-2.0, 1.0), "stretch 1.1": (0.0, 1.1), "stretch 0.9": (0.0, 0.9)}

#: What a library makes of mono samples at a rate: (samples, rate in Hz, semitones, speed) -> samples.
Shift = Callable[[np.ndarray, int, float, float], np.ndarray]


def librosa_effects(samples: np.ndarray, rate: int, semitones: float, speed: float) -> np.ndarray:
    import librosa

    if semitones:
        return librosa.effects.pitch_shift(samples, sr=rate, n_steps=semitones, res_type="soxr_hq")
    return librosa.effects.time_stretch(samples, rate=speed)


def python_stretch(samples: np.ndarray, rate: int, semitones: float, speed: float) -> np.ndarray:
    import python_stretch.Signalsmith as signalsmith

    stretch = signalsmith.Stretch()
    stretch.preset(1, rate)
    stretch.setTransposeSemitones(semitones)
    stretch.timeFactor = speed
    return np.asarray(stretch.process(samples[None]))[0]


def pedalboard(samples: np.ndarray, rate: int, semitones: float, speed: float) -> np.ndarray:
    from pedalboard import time_stretch

    return time_stretch(samples[None], rate, stretch_factor=speed, pitch_shift_in_semitones=semitones)[0]


LIBRARIES: dict[str, tuple[str, str, int, Shift]] = {
    "librosa": ("librosa", "ISC", RATE, librosa_effects),
    "librosa, 22.05 kHz": ("librosa", "ISC", RATE // 2, librosa_effects),
    "python-stretch (Signalsmith)": ("python_stretch", "MIT", RATE, python_stretch),
    "pedalboard (Rubber Band)": ("pedalboard", "GPL 3", RATE, pedalboard),
}


def sounds(seconds: float, rate: int) -> np.ndarray:
    """Something like music: chords that change and noise that dies away; float32 mono."""
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * rate)) / rate
    pitches = 110 * 2 ** (rng.integers(0, 36, (4, int(seconds * 2) + 1)) / 12)
    phase = np.cumsum(np.repeat(pitches, rate // 2, axis=1)[:, : len(t)], axis=1) * (2 * np.pi / rate)
    chord = np.sin(phase).sum(axis=0)
    return (0.1 * chord + 0.1 * rng.standard_normal(len(t)) * np.exp(-10 * (t % 0.25))).astype(np.float32)


def pitch_and_level(samples: np.ndarray, rate: int) -> tuple[float, float]:
    """Frequency in Hz of the strongest partial in the middle of a sound, and its amplitude."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    windowed = middle * np.hanning(len(middle))
    n = 8 * len(middle)
    spectrum = np.abs(np.fft.rfft(windowed, n))
    peak = int(spectrum.argmax())
    return peak * rate / n, float(spectrum[peak]) * 2 / np.hanning(len(middle)).sum()


def click_energy(shift: Shift, rate: int, semitones: float, speed: float) -> float:
    """Share of the energy of clicks that stays within 10 ms of where they should be."""
    clicks = np.zeros(10 * rate, np.float32)
    clicks[rate // 4 :: rate // 2] = 0.9
    power = np.square(shift(clicks, rate, semitones, speed).astype(np.float64))
    places = np.round(np.arange(rate // 4, 10 * rate, rate // 2) / speed).astype(int)
    reach = rate // 100
    near = sum(power[max(0, at - reach) : at + reach].sum() for at in places if at < len(power))
    return float(near / power.sum())


def quality(shift: Shift, rate: int, attempts: int) -> dict[str, dict[str, object]]:
    """What a library does, by transformation."""
    clip, t = sounds(30, rate), np.arange(10 * rate) / rate
    sine = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    found: dict[str, dict[str, object]] = {}
    for name, (semitones, speed) in SHIFTS.items():
        digests, seconds = set(), []
        shift(clip[:rate], rate, semitones, speed)
        for _ in range(attempts):
            start = time.process_time()
            made = shift(clip, rate, semitones, speed)
            seconds.append(time.process_time() - start)
            digests.add(hashlib.sha256(np.ascontiguousarray(made).tobytes()).hexdigest())
        pitch, level = pitch_and_level(shift(sine, rate, semitones, speed), rate)
        found[name] = {
            "cpu": seconds,
            "length": len(made) - round(len(clip) / speed),
            "cents": 1200 * np.log2(pitch / (440 * 2 ** (semitones / 12))),
            "level": 20 * np.log10(level / 0.5),
            "clicks": click_energy(shift, rate, semitones, speed),
            "digests": sorted(digests),
        }
    return found


def peak_mb(shift: Shift, rate: int, minutes: int) -> float:
    """Peak memory of this process after the longest of the transformations, in MB."""
    import gc

    samples = sounds(60 * minutes, rate)
    gc.collect()
    shift(samples, rate, -2.0, 1.0)
    shift(samples, rate, 0.0, 0.9)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e6


def measured(name: str, *options: object) -> dict:
    """This script in a process of its own, for one library."""
    command = [sys.executable, __file__, "--one", name, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        _, _, rate, shift = LIBRARIES[given.one]
        found = peak_mb(shift, rate, given.minutes) if given.minutes else quality(shift, rate, given.attempts)
        print(json.dumps(found))
        return
    rows = []
    for name, (module, licence, _, _) in LIBRARIES.items():
        if importlib.util.find_spec(module) is None:
            continue
        # In two processes: what starts from another random number must not pass for the same.
        found, again = measured(name, "--attempts", given.attempts), measured(name, "--attempts", 1)
        one, three = (measured(name, "--minutes", minutes) for minutes in (1, 3))
        for number, (shift, values) in enumerate(found.items()):
            same = len({*values["digests"], *again[shift]["digests"]}) == 1
            rows.append(
                [
                    name if not number else "",
                    licence if not number else "",
                    shift,
                    str(Spread.of(values["cpu"])),
                    f"{values['length']:+d}",
                    f"{values['cents']:+.1f}",
                    f"{values['level']:+.2f}",
                    f"{values['clicks']:.0%}",
                    "yes" if same else "no",
                    f"{(three - one) / 2:.0f}" if not number else "",
                ]
            )
    header = ["library", "licence", "what", "CPU s", "samples off", "cents off", "dB off", "clicks kept", "same bytes"]
    print(table([*header, "MB a minute"], rows))
    print(", ".join(f"{key} {value}" for key, value in common.environment(["librosa", "numpy", "scipy"]).items()))


if __name__ == "__main__":
    main()
