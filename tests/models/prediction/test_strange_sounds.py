"""Sounds that are no music are strange to a run and get no genre, and music by other artists does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import soundfile
import torch
from commands import mgc, mgc_all

from mgc.models.data.adapters import MelBands
from mgc.models.runs.run import Run
from mgc.models.training import typicality
from mgc.models.training.sound_summary import (
    SoundSummary,
    best_input,
    summary_module,
    summary_widths,
    supports,
)
from mgc.pipeline.errors import RunError
from mgc.pipeline.features import Mel, Mfcc, Stft

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
@pytest.mark.parametrize(
    ("model", "feature"),
    [("probe/logreg", "mel"), ("moments/svm", "mel"), ("vit2021/cnn", "mel"), ("mgc/stft", "stft")],
)
def test_noise_speech_and_a_metronome_are_of_no_genre(
    model, feature, corpus: Path, request, scheduler: str, tmp_path: Path
):
    data = tmp_path / "data"
    wanted = ("--feature", feature)
    if model.startswith("probe/"):
        shutil.copytree(request.getfixturevalue("musicnn"), data / "weights" / "musicnn")
        wanted = ("--for", model)
    mgc_all(
        data,
        ("extract", *wanted, "--dataset", corpus / "fma_debian", "--scheduler", scheduler),
        ("train", "--model", model, *(("--epochs", 1) if model in ("vit2021/cnn", "mgc/stft") else ())),
        ("evaluate", "--no-report"),
        ("evaluate", "--split", "validation", "--no-report"),
    )
    sounds = write_sounds(tmp_path / "sounds")
    [run] = (data / "runs").iterdir()
    answers = mgc("predict", run, *sounds, "--unknown", "validation", "--json", "--scheduler", scheduler)
    assert answers.code == 0, answers.err
    by_name = {Path(row["path"]).stem: row for row in answers.json}
    assert by_name.pop("silence")["reason"] == "silence"
    if feature == "stft":  # its resolution at low frequencies is too coarse to tell noise
        by_name = {name: row for name, row in by_name.items() if name not in ("white", "pink")}
    assert {name: (row["genre"], row["strange"]) for name, row in by_name.items()} == dict.fromkeys(
        by_name, (None, True)
    )
    assert "of 12 validation tracks are nearer" in answers.err
    if feature == "mel":
        assert f"{len(by_name)} of {len(sounds)} files are unlike the music that the run was trained on" in answers.err
    test_tracks = [row for row in Run.open(run).selection.tracks.to_pylist() if row["split"] == "test"]
    files = [corpus / "fma_debian" / row["track_id"][:3] / f"{row['track_id']}.mp3" for row in test_tracks]
    music = mgc("predict", run, *files, "--json", "--scheduler", scheduler).json
    assert sum(row["strange"] for row in music) <= 2  # of 12, by artists that the run has not heard
    for low_rate in [] if model.startswith("probe/") else [RATE, 16000, 8000]:  # want of treble alone is not strange
        low = [tmp_path / f"{file.stem}.wav" for file in files]
        for file, copy in zip(files, low, strict=True):
            samples, rate = soundfile.read(file, always_2d=True)
            soundfile.write(copy, scipy.signal.resample_poly(samples.mean(axis=1), low_rate, rate), low_rate)
        music = mgc("predict", run, *low, "--json", "--scheduler", scheduler).json
        assert sum(row["strange"] for row in music) <= 2, low_rate


def test_distances_are_those_of_mahalanobis() -> None:
    """With many tracks, those of the true covariance."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((4, 4))
    centre = np.array([3.0, -1.0, 0.5, 10.0])

    def draw(n: int) -> np.ndarray:
        return rng.standard_normal((n, 4)) @ root.T + centre

    typical = typicality.fit_vectors(draw(50_000), draw(1000), [4])
    assert typical is not None
    [gaussian] = typical.gaussians
    x = draw(200)
    wanted = np.sqrt(np.einsum("ni,ij,nj->n", x - centre, np.linalg.inv(root @ root.T), x - centre))
    np.testing.assert_allclose(gaussian.distances(x), wanted, rtol=0.05)
    np.testing.assert_array_equal(typical.distances(x), gaussian.distances(x) / gaussian.limit)
    assert np.median(typical.validation) < 1
    logs = np.log(gaussian.validation)
    assert gaussian.limit == pytest.approx(np.exp(logs.mean() + 2.33 * logs.std(ddof=1)))
    assert typicality.fit_vectors(draw(10), np.full((10, 4), np.nan), [4]) is None


def test_a_track_is_judged_by_the_first_description_that_it_has(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    training, validation = rng.standard_normal((200, 5)), rng.standard_normal((50, 5))
    training[:100, :2] = validation[:20, :2] = np.nan
    typical = typicality.fit_vectors(training, validation, [2, 3])
    assert typical is not None
    apart = [
        typicality.fit_vectors(training[100:, :2], validation[20:, :2], [2]),
        typicality.fit_vectors(training[:, 2:], validation[:, 2:], [3]),
    ]
    x = rng.standard_normal((30, 5))
    x[:10, :2] = x[20:, 2:] = np.nan  # the second description alone; both; the first alone
    x[29] = np.nan
    expected = [apart[1].distances(x[:10, 2:]), apart[0].distances(x[10:, :2])]
    np.testing.assert_allclose(typical.distances(x), np.concatenate(expected))
    assert np.isnan(typical.distances(x)[29])
    assert len(typical.validation) == 50
    (tmp_path / typicality.FILE).write_bytes(typical.encode())
    read = typicality.load(Run(tmp_path, {}))
    assert read is not None
    np.testing.assert_array_equal(read.distances(x), typical.distances(x))
    np.testing.assert_array_equal(read.validation, typical.validation)


def test_the_file_of_an_earlier_version_holds_one_description(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    typical = typicality.fit_vectors(rng.standard_normal((100, 3)), rng.standard_normal((20, 3)), [3])
    assert typical is not None
    [gaussian] = typical.gaussians
    fields = {name: value for name, value in vars(gaussian).items() if name != "first"}
    np.savez(tmp_path / typicality.FILE, **fields)
    read = typicality.load(Run(tmp_path, {}))
    assert read is not None
    x = rng.standard_normal((9, 7))  # descriptions that came later stand behind
    np.testing.assert_array_equal(read.distances(x), typical.distances(x))
    np.testing.assert_array_equal(read.validation, typical.validation)


def test_more_values_than_tracks_and_constant_ones() -> None:
    rng = np.random.default_rng(1)
    training, validation = rng.standard_normal((20, 40)), rng.standard_normal((5, 40))
    training[:, 3] = 7.0
    typical = typicality.fit_vectors(training, validation, [40])
    assert typical is not None
    assert np.isfinite(typical.distances(rng.standard_normal((3, 40)))).all()
    assert typical.distances(training + 50).min() > 1


@pytest.mark.parametrize(("n_mels", "octaves"), [(40, [(20, 40)]), (128, [(20, 40), (40, 80), (80, 128)])])
def test_a_sound_is_summarised_by_its_cepstrum(n_mels: int, octaves: list[tuple[int, int]]) -> None:
    db = np.random.default_rng(2).normal(-40, 12, (3, 50, n_mels)).astype(np.float32)
    relative = np.maximum(db - db.max(axis=(1, 2), keepdims=True), -80)
    cepstrum = scipy.fft.dct(relative, axis=2, norm="ortho")
    means, envelope = cepstrum.mean(axis=1), cepstrum[..., :20]
    fine = [np.sqrt((means[:, first:stop] ** 2).mean(axis=1)) for first, stop in octaves]
    moves = [envelope.std(axis=1), np.diff(envelope, axis=1).std(axis=1), np.stack(fine, axis=1)]
    expected = np.concatenate([means[:, :20], *(np.log(values + 0.01) for values in moves)], axis=1)
    actual = SoundSummary(n_mels)(torch.from_numpy(db)).numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3)
    silent = SoundSummary(n_mels)(torch.full((1, 50, n_mels), -100.0))
    assert torch.isfinite(silent).all()


@pytest.mark.parametrize("spec", [Mel(), Stft(), Mel(sr=16000, n_fft=512, hop_length=256, n_mels=96)])
def test_a_sound_is_summarised_as_far_as_it_reaches(spec: Mel | Stft) -> None:
    hz = torch.arange(spec.bins) * spec.sr / spec.n_fft
    if isinstance(spec, Mel):
        hz = torch.from_numpy(spec.bank().argmax(axis=0)) * spec.sr / spec.n_fft
    widths, summary = summary_widths(spec), summary_module(spec)
    assert len(widths) == 3
    db = torch.from_numpy(np.random.default_rng(6).normal(-40, 8, (2, 60, spec.bins)).astype(np.float32))
    for rate, missing in ((44100, 0), (16000, 0 if spec.sr == 16000 else 1), (11025, 2), (8000, 2), (2000, 2)):
        low = db.clone()
        low[..., hz > rate / 2] = -140.0
        values = torch.split(summary(low), widths, dim=1)
        assert [bool(torch.isnan(one).all()) for one in values] == [number < missing for number in range(3)]
        assert not any(torch.isnan(one).any() for one in values[missing:])


def test_few_bands_have_one_summary() -> None:
    assert summary_widths(Mel(n_mels=40)) == [61]


def test_only_mel_spectrograms_and_stfts_of_enough_bands_tell() -> None:
    assert supports(Mel(n_mels=40))
    assert supports(Stft())
    assert not any(map(supports, (Mel(n_mels=39), Stft(n_fft=254, hop_length=127), Mfcc())))
    assert best_input([Mfcc(), Stft(), Mel()]) == 2
    assert best_input([Mfcc(), Stft()]) == 1
    assert best_input([Mfcc()]) is None


def test_an_stft_is_summed_into_mel_bands_and_its_treble_does_not_count() -> None:
    spec = Stft()
    db = torch.from_numpy(np.random.default_rng(3).normal(-40, 12, (2, 50, spec.bins)).astype(np.float32))
    summary = summary_module(spec)
    bands = MelBands(spec.sr, spec.n_fft, 128, 11_025.0)(db)
    width = SoundSummary(128).width
    torch.testing.assert_close(summary(db)[:, :width], SoundSummary(128)(bands))
    cut = db.clone()
    cut[..., 257:] = -100.0  # above 11,025 Hz
    torch.testing.assert_close(summary(cut), summary(db))


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    run = Run(tmp_path, {})
    assert typicality.load(run) is None
    (tmp_path / typicality.FILE).write_bytes(b"PK nothing")
    with pytest.raises(RunError, match="damaged"):
        typicality.load(run)
