"""Sounds that are no music get no genre from a probe of a pretrained network, and music by others does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import mgc, mgc_all

from mgc.models.runs.run import Run
from mgc.models.training import typicality
from mgc.pipeline.errors import RunError
from mgc.pipeline.features import Embedding, Stats

RATE = 22050
TEXT = "Nobody knows why the quick brown fox jumps over the lazy dog every Monday morning, and nobody asks. " * 6


def write_sounds(folder: Path) -> list[Path]:
    """White and pink noise, a metronome, a tone, and speech if espeak-ng is installed; 30 s each."""
    folder.mkdir()
    rng, n = np.random.default_rng(0), 30 * RATE
    pink = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) / np.sqrt(np.arange(n // 2 + 1) + 1))
    metronome = np.zeros(n)
    for beat in range(60):
        click = np.arange(RATE // 33)
        tone = np.sin(2 * np.pi * (1500 if beat % 4 == 0 else 1000) * click / RATE)
        metronome[beat * RATE // 2 :][: len(click)] = 0.5 * tone * np.exp(-click / (0.006 * RATE))
    sounds = {
        "white": 0.1 * rng.standard_normal(n),
        "pink": 0.3 * pink / np.abs(pink).max(),
        "metronome": metronome,
        "tone": 0.3 * np.sin(2 * np.pi * 440 * np.arange(n) / RATE),
    }
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE)
    if shutil.which("espeak-ng"):
        for voice in ("en", "de"):
            subprocess.run(["espeak-ng", "-v", voice, "-w", folder / f"speech-{voice}.wav", TEXT], check=True)
    soundfile.write(folder / "silence.wav", np.zeros(n), RATE)
    return sorted(folder.iterdir())


@pytest.mark.slow
@pytest.mark.corpus
def test_noise_speech_and_a_metronome_are_of_no_genre(corpus: Path, musicnn: Path, scheduler: str, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(musicnn, data / "weights" / "musicnn")
    dataset = ("--dataset", corpus / "fma_debian", "--scheduler", scheduler)
    mgc_all(
        data,
        ("extract", "--for", "probe/logreg", *dataset),
        ("train",),
        ("evaluate", "--no-report"),
        ("evaluate", "--split", "validation", "--no-report"),
    )
    sounds = write_sounds(tmp_path / "sounds")
    [run] = (data / "runs").iterdir()
    answers = mgc("predict", run, *sounds, "--unknown", "validation", "--json", "--scheduler", scheduler)
    assert answers.code == 0, answers.err
    by_name = {Path(row["path"]).stem: row for row in answers.json}
    assert by_name.pop("silence")["reason"] == "silence"
    assert {name: (row["genre"], row["strange"]) for name, row in by_name.items()} == dict.fromkeys(
        by_name, (None, True)
    )
    assert "of 12 validation tracks are nearer" in answers.err
    test_tracks = [row for row in Run.open(run).selection.tracks.to_pylist() if row["split"] == "test"]
    files = [corpus / "fma_debian" / row["track_id"][:3] / f"{row['track_id']}.mp3" for row in test_tracks]
    music = mgc("predict", run, *files, "--json", "--scheduler", scheduler).json
    assert sum(row["strange"] for row in music) <= 2  # of 12, by artists that the run has not heard


def embedding(width: int) -> Embedding:
    return Embedding(width=width, window=16_000, hop_length=16_000, of="mel", pool="track")


def test_distances_are_those_of_mahalanobis() -> None:
    """With many tracks, those of the true covariance; deviations and other inputs do not count."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((4, 4))
    centre = np.array([3.0, -1.0, 0.5, 10.0])

    def draw(n: int) -> np.ndarray:
        means = rng.standard_normal((n, 4)) @ root.T + centre
        return np.concatenate([rng.standard_normal((n, 518)), means, 1e3 * rng.standard_normal((n, 4))], axis=1)

    specs = [Stats(), embedding(4)]
    typical = typicality.fit(specs, draw(50_000), draw(1000))
    assert typical is not None
    x = draw(200)
    deviations = x[:, 518:522] - centre
    wanted = np.sqrt(np.einsum("ni,ij,nj->n", deviations, np.linalg.inv(root @ root.T), deviations))
    np.testing.assert_allclose(typical.distances(x), wanted, rtol=0.05)
    assert np.median(typical.validation) < typical.limit
    logs = np.log(typical.validation)
    assert typical.limit == pytest.approx(np.exp(logs.mean() + 2.33 * logs.std(ddof=1)))
    assert typicality.fit([Stats()], draw(10)[:, :518], draw(10)[:, :518]) is None


def test_more_values_than_tracks_and_constant_ones() -> None:
    rng = np.random.default_rng(1)
    training, validation = rng.standard_normal((20, 80)), rng.standard_normal((5, 80))
    training[:, 3] = 7.0
    typical = typicality.fit([embedding(40)], training, validation)
    assert typical is not None
    assert np.isfinite(typical.distances(rng.standard_normal((3, 80)))).all()
    assert typical.distances(training + 50).min() > typical.limit


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    run = Run(tmp_path, {})
    assert typicality.load(run) is None
    (tmp_path / typicality.FILE).write_bytes(b"PK nothing")
    with pytest.raises(RunError, match="damaged"):
        typicality.load(run)
