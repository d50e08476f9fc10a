"""Cost and quality of libraries for pitch shifting and time stretching.

    python benchmarks/stretch.py                 all installed libraries of the table below
    python benchmarks/stretch.py --attempts 5

librosa is a dependency of mgc. python-stretch and pedalboard are not; install them into another environment. Figures
are for 30 s of mono audio at 44.1 kHz (librosa also at 22.05 kHz). CPU is the time on one core, without imports and a
first call. Memory is the difference of peak memory between processes with three minutes and one minute of audio, per
minute. A 440 Hz sine measures the pitch and the level of the output; clicks every half second measure the share of
their energy that stays within 10 ms.
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
from typing import Any

import common  # before NumPy: it limits the threads of the libraries
import numpy as np
from common import RSS_UNIT, Spread, table

RATE = 44100
#: Transformations: (semitones, speed) by name.
SHIFTS = {"pitch +2": (2.0, 1.0), "pitch -2": (-2.0, 1.0), "stretch 1.1": (0.0, 1.1), "stretch 0.9": (0.0, 0.9)}

#: Function of a library: (mono samples, sample rate in Hz, semitones, speed) -> samples.
Shift = Callable[[np.ndarray, int, float, float], np.ndarray]


def librosa_effects(samples: np.ndarray, rate: int, semitones: float, speed: float) -> np.ndarray:
    """Transform with `librosa.effects`."""
    import librosa

    if semitones:
        return librosa.effects.pitch_shift(samples, sr=rate, n_steps=semitones, res_type="soxr_hq")
    return librosa.effects.time_stretch(samples, rate=speed)


def python_stretch(samples: np.ndarray, rate: int, semitones: float, speed: float) -> np.ndarray:
    """Transform with Signalsmith Stretch."""
    import python_stretch.Signalsmith as signalsmith

    stretch = signalsmith.Stretch()
    stretch.preset(1, rate)
    stretch.setTransposeSemitones(semitones)
    stretch.timeFactor = speed
    return np.asarray(stretch.process(samples[None]))[0]


def pedalboard(samples: np.ndarray, rate: int, semitones: float, speed: float) -> np.ndarray:
    """Transform with Rubber Band."""
    from pedalboard import time_stretch

    return time_stretch(samples[None], rate, stretch_factor=speed, pitch_shift_in_semitones=semitones)[0]


#: Module, licence, sample rate in Hz and function by library.
LIBRARIES: dict[str, tuple[str, str, int, Shift]] = {
    "librosa": ("librosa", "ISC", RATE, librosa_effects),
    "librosa, 22.05 kHz": ("librosa", "ISC", RATE // 2, librosa_effects),
    "python-stretch (Signalsmith)": ("python_stretch", "MIT", RATE, python_stretch),
    "pedalboard (Rubber Band)": ("pedalboard", "GPL 3", RATE, pedalboard),
}


def synthesize(seconds: float, rate: int) -> np.ndarray:
    """Synthesize music-like float32 mono samples: a changing chord, and decaying noise bursts."""
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * rate)) / rate
    pitches = 110 * 2 ** (rng.integers(0, 36, (4, int(seconds * 2) + 1)) / 12)
    phase = np.cumsum(np.repeat(pitches, rate // 2, axis=1)[:, : len(t)], axis=1) * (2 * np.pi / rate)
    chord = np.sin(phase).sum(axis=0)
    return (0.1 * chord + 0.1 * rng.standard_normal(len(t)) * np.exp(-10 * (t % 0.25))).astype(np.float32)


def pitch_and_level(samples: np.ndarray, rate: int) -> tuple[float, float]:
    """Measure the frequency in Hz and the amplitude of the strongest partial in the middle half of a sound."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    windowed = middle * np.hanning(len(middle))
    n = 8 * len(middle)
    spectrum = np.abs(np.fft.rfft(windowed, n))
    peak = int(spectrum.argmax())
    return peak * rate / n, float(spectrum[peak]) * 2 / np.hanning(len(middle)).sum()


def click_energy(shift: Shift, rate: int, semitones: float, speed: float) -> float:
    """Measure the share of the output's energy within 10 ms of the clicks' expected positions."""
    clicks = np.zeros(10 * rate, np.float32)
    clicks[rate // 4 :: rate // 2] = 0.9
    power = np.square(shift(clicks, rate, semitones, speed).astype(np.float64))
    positions = np.round(np.arange(rate // 4, 10 * rate, rate // 2) / speed).astype(int)
    tolerance = rate // 100
    near = sum(
        power[max(0, position - tolerance) : position + tolerance].sum()
        for position in positions
        if position < len(power)
    )
    return float(near / power.sum())


def quality(shift: Shift, rate: int, attempts: int) -> dict[str, dict[str, object]]:
    """Measure a library: CPU seconds and quality figures by transformation."""
    clip, t = synthesize(30, rate), np.arange(10 * rate) / rate
    sine = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    figures: dict[str, dict[str, object]] = {}
    for name, (semitones, speed) in SHIFTS.items():
        digests, seconds = set(), []
        shift(clip[:rate], rate, semitones, speed)
        for _ in range(attempts):
            start = time.process_time()
            output = shift(clip, rate, semitones, speed)
            seconds.append(time.process_time() - start)
            digests.add(hashlib.sha256(np.ascontiguousarray(output).tobytes()).hexdigest())
        pitch, level = pitch_and_level(shift(sine, rate, semitones, speed), rate)
        figures[name] = {
            "cpu": seconds,
            "length": len(output) - round(len(clip) / speed),
            "cents": 1200 * np.log2(pitch / (440 * 2 ** (semitones / 12))),
            "level": 20 * np.log10(level / 0.5),
            "clicks": click_energy(shift, rate, semitones, speed),
            "digests": sorted(digests),
        }
    return figures


def peak_mb(shift: Shift, rate: int, minutes: int) -> float:
    """Measure the peak memory in MB of this process while it lowers the pitch and slows down `minutes` of audio."""
    import gc

    samples = synthesize(60 * minutes, rate)
    gc.collect()
    shift(samples, rate, -2.0, 1.0)
    shift(samples, rate, 0.0, 0.9)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e6


def measure(name: str, *options: object) -> Any:
    """Run this script for one library in a process of its own, and return its JSON output."""
    command = [sys.executable, __file__, "--one", name, *map(str, options)]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"{name} failed:\n{process.stderr}")
    return json.loads(process.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attempts", type=int, default=3, help="number of repetitions")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _, _, rate, shift = LIBRARIES[options.one]
        if options.minutes is not None:
            print(json.dumps(peak_mb(shift, rate, options.minutes)))
        else:
            print(json.dumps(quality(shift, rate, options.attempts)))
        return
    rows = []
    for name, (module, licence, _, _) in LIBRARIES.items():
        if importlib.util.find_spec(module) is None:
            continue
        # A second process reveals output that depends on a random start.
        figures, repeated_figures = measure(name, "--attempts", options.attempts), measure(name, "--attempts", 1)
        one, three = (measure(name, "--minutes", minutes) for minutes in (1, 3))
        for number, (transformation, values) in enumerate(figures.items()):
            same = len({*values["digests"], *repeated_figures[transformation]["digests"]}) == 1
            rows.append(
                [
                    name if not number else "",
                    licence if not number else "",
                    transformation,
                    str(Spread.of(values["cpu"])),
                    f"{values['length']:+d}",
                    f"{values['cents']:+.1f}",
                    f"{values['level']:+.2f}",
                    f"{values['clicks']:.0%}",
                    "yes" if same else "no",
                    f"{(three - one) / 2:.0f}" if not number else "",
                ]
            )
    header = [
        "library",
        "licence",
        "transformation",
        "CPU s",
        "samples off",
        "cents off",
        "dB off",
        "clicks kept",
        "same bytes",
    ]
    print(table([*header, "MB a minute"], rows))
    print(", ".join(f"{key} {value}" for key, value in common.environment(["librosa", "numpy", "scipy"]).items()))


if __name__ == "__main__":
    main()
