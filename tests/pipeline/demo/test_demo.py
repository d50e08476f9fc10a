"""The demo dataset: its music, files, metadata and folder."""

import contextlib
import csv
import json
import shutil
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile as sf

from mgc.pipeline.demo.composer import PEAK, compose
from mgc.pipeline.demo.dataset import MARKER, make_demo
from mgc.pipeline.demo.instruments import DRUMS, INSTRUMENTS
from mgc.pipeline.demo.styles import STYLES, invent_artist
from mgc.pipeline.demo.tracks import ARTIST_SETTINGS, BROKEN_TRACKS
from mgc.pipeline.errors import DatasetError, MgcError, SpecError

SECONDS = 4.0
SMALL = {"tracks_per_artist": 1, "seconds": SECONDS}


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    assert make_demo(folder, **SMALL) == folder / "fma_demo"
    return folder


@pytest.fixture(scope="module")
def rows(demo) -> list[dict[tuple[str, str], str]]:
    """Rows of tracks.csv; keys are (first header row, second header row), the track id's is ("", "track_id")."""
    groups, names, index, *body = csv.reader((demo / "fma_metadata/tracks.csv").open(encoding="utf-8"))
    columns = list(zip(groups, [index[0], *names[1:]], strict=True))
    return [dict(zip(columns, row, strict=True)) for row in body]


def path_of(demo: Path, track_id: int) -> Path:
    return demo / "fma_demo" / f"{track_id:06d}"[:3] / f"{track_id:06d}.mp3"


def healthy(rows) -> list[tuple[int, str, int]]:
    """Tracks that are not broken, as (track id, style, artist's number within the style)."""
    ids = [(int(row["", "track_id"]), row["track", "genre_top"]) for row in rows]
    return [(track_id, style, track_id // 100 % 10) for track_id, style in ids if track_id not in BROKEN_TRACKS]


# ---------------------------------------------------------------- sounds


@pytest.mark.parametrize("name", INSTRUMENTS)
@pytest.mark.parametrize("f0", [55.0, 440.0, 1234.5])
def test_notes_are_in_tune_and_free_of_aliasing(name, f0):
    sr = 44100
    note = INSTRUMENTS[name].play(f0, 1.0, 0.5, np.random.default_rng(0), sr)
    power = np.abs(np.fft.rfft(note * np.hanning(note.size), 1 << 18)) ** 2
    frequency = np.fft.rfftfreq(1 << 18, 1 / sr)
    harmonic = np.round(frequency / f0)
    # Detuned unison and vibrato spread each harmonic by some 30 cents; envelope and window by a few hertz.
    near = (harmonic > 0) & (np.abs(frequency - harmonic * f0) < 0.02 * frequency + 8)
    assert power[~near].sum() < 1e-3 * power.sum()
    first = np.abs(frequency - f0) < 0.03 * f0
    assert 1200 * abs(np.log2(frequency[first][power[first].argmax()] / f0)) < 25


def test_a_plucked_string_loses_its_treble_first():
    note = INSTRUMENTS["guitar"].play(110.0, 2.0, 0.5, np.random.default_rng(0), 44100)
    early, late = (librosa.feature.spectral_centroid(y=part, sr=44100).mean() for part in (note[:22050], note[44100:]))
    assert late < 0.7 * early


@pytest.mark.parametrize("name", DRUMS)
@pytest.mark.parametrize("sr", [44100, 48000])
def test_drums_are_short_finite_and_audible(name, sr):
    hit = DRUMS[name](0.5, np.random.default_rng(0), sr)
    assert hit.ndim == 1
    assert 0.03 * sr < hit.size <= 4 * sr
    assert np.isfinite(hit).all()
    assert hit.std() > 0.01


# ---------------------------------------------------------------- composition


@pytest.mark.parametrize("style", STYLES)
def test_a_track_follows_from_artist_and_generator(style):
    def track(artist_seed: int, seed: int) -> np.ndarray:
        return compose(invent_artist(style, np.random.default_rng(artist_seed)), 2.0, np.random.default_rng(seed))

    audio = track(0, 0)
    assert audio.shape == (88200, 2)
    assert audio.dtype == np.float32
    assert np.abs(audio).max() == pytest.approx(PEAK, rel=1e-6)
    assert np.array_equal(audio, track(0, 0))
    assert not np.array_equal(audio, track(0, 1))
    assert not np.array_equal(audio, track(1, 0))


def test_an_artist_varies_its_style():
    for name, style in STYLES.items():
        artists = [invent_artist(name, np.random.default_rng(seed)) for seed in range(20)]
        assert all(style.tempo[0] <= artist.tempo <= style.tempo[1] for artist in artists)
        assert all(artist.parts[0] == style.parts[0] for artist in artists)
        assert len({artist.parts for artist in artists}) > 5
        borrowed = [set(artist.parts) - set(style.parts) for artist in artists]
        assert {len(parts) for parts in borrowed} == {0, 1}


def test_every_rhythm_fills_a_bar_of_its_style():
    for style in STYLES.values():
        for part in style.parts:
            assert part.sound in (DRUMS if part.role == "drum" else INSTRUMENTS)
            assert all(len(rhythm) == 4 * style.beats for rhythm in part.rhythms)


def test_the_electronic_kick_falls_on_every_beat():
    artist = invent_artist("Electronic", np.random.default_rng(3))
    audio = compose(artist, 12.0, np.random.default_rng(0)).mean(axis=1)
    bass = librosa.stft(audio, n_fft=2048, hop_length=512)[2:6]  # 43 to 108 Hz
    rise = np.maximum(np.diff(np.abs(bass).sum(axis=0)), 0)
    pulse = np.abs(np.fft.rfft(rise - rise.mean(), 1 << 16))
    per_minute = 60 * np.fft.rfftfreq(1 << 16, 512 / 44100)
    plausible = (per_minute > 60) & (per_minute < 200)
    assert per_minute[plausible][pulse[plausible].argmax()] == pytest.approx(artist.tempo, rel=0.05)


@pytest.mark.slow
def test_styles_differ_as_designed(demo, rows):
    onsets: dict[str, list[float]] = {style: [] for style in STYLES}
    centroids: dict[str, list[float]] = {style: [] for style in STYLES}
    for track_id, style, _ in healthy(rows):
        audio, sr = sf.read(path_of(demo, track_id), dtype="float32", always_2d=True)
        mono = audio.mean(axis=1)
        onsets[style].append(len(librosa.onset.onset_detect(y=mono, sr=sr)) / SECONDS)
        centroids[style].append(librosa.feature.spectral_centroid(y=mono, sr=sr).mean())
    rate = {style: np.mean(values) for style, values in onsets.items()}
    centroid = {style: np.mean(values) for style, values in centroids.items()}
    # Bowed and swelling sounds have few onsets; struck, plucked and programmed ones have many.
    assert max(rate["Ambient"], rate["Orchestral"]) < 0.7 * min(
        rate[s] for s in ("Electronic", "Chiptune", "Folk", "Rock")
    )
    # Pulse waves and chip noise are the brightest, pads the darkest.
    assert min(centroid["Chiptune"], centroid["Electronic"]) > 1.3 * max(centroid["Ambient"], centroid["Orchestral"])
    assert centroid["Rock"] > 1.2 * centroid["Folk"]


# ---------------------------------------------------------------- files


@pytest.mark.slow
def test_files_decode_to_their_length_and_format(demo, rows):
    tracks = healthy(rows)
    assert len(tracks) == len(STYLES) * len(ARTIST_SETTINGS)
    for track_id, _, artist in tracks:
        settings = ARTIST_SETTINGS[artist - 1]
        path = path_of(demo, track_id)
        audio, sr = sf.read(path, dtype="float32", always_2d=True)
        assert (sr, audio.shape) == (settings.sample_rate, (round(SECONDS * sr), settings.channels))
        assert path.stat().st_size * 8 / SECONDS == pytest.approx(settings.bit_rate, rel=0.03)
        assert np.isfinite(audio).all()
        assert np.abs(audio).max() < 1.0
        assert np.sqrt(np.mean(audio**2)) > 0.03
    assert {settings.sample_rate for settings in ARTIST_SETTINGS} == {44100, 48000}
    assert {settings.channels for settings in ARTIST_SETTINGS} == {1, 2}


@pytest.mark.slow
def test_broken_files_are_broken_as_stated(demo, rows):
    listed = {int(row["", "track_id"]) for row in rows}
    assert set(BROKEN_TRACKS) <= listed
    by_fault = {fault: path_of(demo, track_id) for track_id, fault in BROKEN_TRACKS.items()}
    assert not by_fault.pop("missing").exists()
    on_disk = {int(path.stem) for path in (demo / "fma_demo").rglob("*.mp3")}
    assert on_disk == listed - {track_id for track_id, fault in BROKEN_TRACKS.items() if fault == "missing"}

    assert by_fault["empty"].stat().st_size == 0
    assert by_fault["not-audio"].read_bytes().startswith(b"<!DOCTYPE html>")
    with pytest.raises(sf.LibsndfileError):
        sf.read(by_fault["not-audio"])
    assert sf.info(by_fault["too-short"]).duration == pytest.approx(1.0)
    silence, sr = sf.read(by_fault["silence"])
    assert len(silence) == SECONDS * sr
    assert np.abs(silence).max() < 1e-4
    assert sf.info(by_fault["ok"]).duration == pytest.approx(SECONDS)  # the length in its header
    half, sr = sf.read(by_fault["ok"])
    assert len(half) / sr == pytest.approx(SECONDS / 2, abs=0.15)
    assert np.abs(half).max() > 0.5


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(demo, tmp_path):
    calls: list[int] = []

    def progress(total: int) -> contextlib.AbstractContextManager:
        calls.append(total)
        return contextlib.nullcontext(calls.append)

    make_demo(tmp_path / "again", progress=progress, **SMALL)
    n_tracks = len(STYLES) * len(ARTIST_SETTINGS) + len(BROKEN_TRACKS)
    assert calls == [n_tracks] + [1] * n_tracks

    def contents(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert contents(demo) == contents(tmp_path / "again")


# ---------------------------------------------------------------- metadata


@pytest.mark.slow
def test_metadata_has_the_layout_of_fma(demo, rows):
    header = (demo / "fma_metadata/tracks.csv").read_text(encoding="utf-8").splitlines()[:3]
    assert [line.split(",").index("set") for line in header[:1]] == [31]
    assert all(line.count(",") == 52 for line in header)
    assert header[2] == "track_id" + "," * 52
    for row in rows:
        assert row["track", "genre_top"] in STYLES
        assert row["set", "subset"] == "small"
        assert row["track", "title"]
        assert row["artist", "name"]
        assert row["album", "title"]
        assert json.loads(row["track", "genres"]) == [list(STYLES).index(row["track", "genre_top"]) + 1]
    genres = list(csv.DictReader((demo / "fma_metadata/genres.csv").open(encoding="utf-8")))
    assert [genre["title"] for genre in genres] == list(STYLES)
    assert sum(int(genre["#tracks"]) for genre in genres) == len(rows)


@pytest.mark.slow
def test_no_artist_is_in_two_splits_or_styles(rows):
    homes: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        homes.setdefault(row["artist", "id"], set()).add((row["set", "split"], row["track", "genre_top"]))
    assert all(len(home) == 1 for home in homes.values())
    assert len({row["artist", "name"] for row in rows}) == len(homes) == len(STYLES) * len(ARTIST_SETTINGS)
    for split in ("training", "validation", "test"):
        assert {style for home in homes.values() for where, style in home if where == split} == set(STYLES)


# ---------------------------------------------------------------- the folder


@pytest.mark.slow
def test_a_finished_demo_is_reused(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    assert make_demo(demo, **SMALL) == demo / "fma_demo"
    assert before == {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    assert "synthetic" in (demo / "README.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_other_content_is_refused(demo, tmp_path):
    with pytest.raises(DatasetError, match=r"seed.*choose another folder"):
        make_demo(demo, seed=1, **SMALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/song.mp3").touch()
    with pytest.raises(DatasetError, match="not a demo"):
        make_demo(tmp_path / "mine", **SMALL)
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="not a demo"):
        make_demo(tmp_path / "file", **SMALL)
    with pytest.raises(MgcError):
        make_demo(tmp_path / "file/below", **SMALL)
    copy = Path(shutil.copytree(demo, tmp_path / "copy"))
    path_of(copy, 4101).unlink()
    with pytest.raises(DatasetError, match=r"has changed.*004101\.mp3"):
        make_demo(copy, **SMALL)
    for damaged in ("", "{}", "[]", '{"recipe": 1}'):
        (copy / MARKER).write_text(damaged)
        with pytest.raises(DatasetError, match="not a demo"):
            make_demo(copy, **SMALL)


def test_an_interrupted_demo_leaves_nothing(tmp_path):
    def interrupt(files: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "demo", progress=lambda total: contextlib.nullcontext(interrupt), **SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"tracks_per_artist": 0}, {"tracks_per_artist": 99}, {"seconds": 0.5}])
def test_arguments_out_of_range(wrong, tmp_path):
    with pytest.raises(SpecError):
        make_demo(tmp_path / "demo", **wrong)
