"""`mgc plot`: what is read from a store, and pictures in which nothing lies on anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from commands import mgc
from genres import LONG_GENRES
from geometry import assert_legible, texts
from stores import frames_of, make_store

from mgc.pipeline import console
from mgc.pipeline.errors import MgcError, StoreError
from mgc.pipeline.features import Chroma, FeatureSpec, Mel, Mfcc, PowerSpectrum, Stft, Waveform
from mgc.pipeline.plot import genres, reading, spectrogram
from mgc.pipeline.plot.view import View, view_of
from mgc.pipeline.store.store import Store
from mgc.pipeline.workspace import Workspace

HOSTILE = ("<b>Rock</b> & $x^2$", "שירי עם", "音楽 \x1b[31m", *LONG_GENRES)
progress = console.progress_bar("plot", "track")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 30 tracks of 2 and 9 s."""
    return make_store(tmp_path_factory.mktemp("songs") / "mel", seconds=(2.0, 9.0))


@pytest.fixture
def view(store: Store) -> View:
    return view_of(store.spec, store.path)


def test_a_part_of_a_track(store: Store, view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, row = frames_of(store, "training-001"), reading.find_track(store, Path("training-001"))
    monkeypatch.setattr(reading, "BLOCK", 37)
    whole = reading.read_part(store, view, row, 0, None, 1000)
    assert np.array_equal(whole.columns, frames)
    assert (whole.start_s, whole.stop_s) == (0, pytest.approx(len(frames) * 512 / 22050))
    part = reading.read_part(store, view, row, 2.0, 3.0, 50)
    first, stop = store.spec.frame_at(2), store.spec.frame_at(5) + 1
    groups = np.array_split(frames[first:stop], 50)
    assert len(part.columns) == 50
    assert part.columns.mean() == pytest.approx(frames[first:stop].mean(), abs=0.1)
    assert len(groups[0]) == 3
    assert part.columns[0] == pytest.approx(groups[0].mean(axis=0), abs=1e-4)
    assert part.start_s == pytest.approx(2, abs=0.03)
    with pytest.raises(MgcError, match=r"--start 9\.5: training-001 ends at 9\.0"):
        reading.read_part(store, view, row, 9.5, None, 50)


def test_a_waveform_is_shown_by_its_extremes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", Waveform(hop_length=64), tracks={"training": 1}, seconds=(2.0,))
    row = reading.find_track(store, Path("training-000"))
    part = reading.read_part(store, view_of(store.spec, store.path), row, 0, None, 10)
    samples = frames_of(store, "training-000")
    assert part.columns.shape == (10, 2)
    assert (part.columns.min(), part.columns.max()) == (samples.min(), samples.max())


def test_means_of_genres(store: Store, view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", 100)
    found = reading.genre_means(store, view, progress)
    assert found.counts == {"Folk": 6, "Rock": 6, "Ambient": 6}
    tracks = [
        row["track_id"] for row in store.tracks.to_pylist() if (row["genre"], row["split"]) == ("Rock", "training")
    ]
    expected = np.mean([frames_of(store, track).mean(axis=0) for track in tracks], axis=0)
    assert found.means[1] == pytest.approx(expected, abs=1e-4)


def test_tracks_by_id_path_and_file(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(store.dataset["root"]) / "training" / "003.mp3"
    monkeypatch.chdir(store.path.parent)
    for name in (Path("training-003"), Path("training/003.mp3"), file, Path("mel/training/003.mp3")):
        assert reading.find_track(store, name)["track_id"] == "training-003"
    with pytest.raises(StoreError, match="neither a store nor a track") as caught:
        reading.find_track(store, Path("training-0003"))
    assert "did you mean training-003" in caught.value.remedy
    fma = make_store(tmp_path / "fma", tracks={"training": 4}, fma=tmp_path / "set")
    assert reading.find_track(fma, Path("1002"))["track_id"] == "001002"


def test_dropped_tracks(store: Store) -> None:
    """Those that are too short to be cut have frames; of others the reason is given."""
    rows = store.tracks.to_pylist()
    rows[0] |= {"status": "dropped", "reason": "too-short"}
    rows[1] |= {"status": "dropped", "reason": "silence", "shard": None, "first_frame": None, "n_frames": None}
    dropped = Store.open(store.path)
    dropped.__dict__["tracks"] = pa.Table.from_pylist(rows, store.tracks.schema)
    assert reading.find_track(dropped, Path(rows[0]["track_id"]))["reason"] == "too-short"
    with pytest.raises(StoreError, match=r"dropped \(silence\)"):
        reading.find_track(dropped, Path(rows[1]["track_id"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "n_genres"),
    [
        (Mel(n_mels=40), 3),
        (Stft(n_fft=512), 8),
        (PowerSpectrum(n_fft=512), 19),
        (Mfcc(n_mels=40), 2),
        (Chroma(), 19),
        (Waveform(), 3),
        (Mel(n_mels=8, n_fft=512), 1),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_texts_have_space_of_their_own(
    spec: FeatureSpec, n_genres: int, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    store = make_store(tmp_path, spec, genres=HOSTILE[:n_genres], tracks={"training": n_genres}, seconds=(3.0, 2.0))
    view = view_of(spec, store.path)
    rows = reading.first_of_each_genre(store, 0)
    assert [row["genre"] for row in rows] == list(HOSTILE[:n_genres])
    parts = [reading.read_part(store, view, row, 0, None, 50) for row in rows]
    figures = [spectrogram.draw_track(view, parts[0]), spectrogram.draw_sheet(view, parts, "a title of words " * 5)]
    if spec.name == "waveform":
        with pytest.raises(StoreError, match="no mean spectrum"):
            reading.genre_means(store, view, progress)
    else:
        figures.append(genres.draw_means(view, reading.genre_means(store, view, progress), "a title of words " * 9))
    for figure in figures:
        assert_legible(figure)
        shown = [text.get_text() for text in texts(figure)]
        assert not any("\x1b" in text for text in shown)
        assert spec.name == "waveform" or view.axis.label in shown or view.curve_axis.label in shown
        assert any("time (s)" in text for text in shown) or figure is figures[-1]
    assert not [str(warning.message) for warning in recwarn if "missing from font" not in str(warning.message)]


@pytest.mark.slow
def test_161_genres(tmp_path: Path) -> None:
    store = make_store(tmp_path, genres=[f"Genre {n}" for n in range(161)], tracks={"training": 161}, seconds=(2.0,))
    view = view_of(store.spec, store.path)
    assert_legible(genres.draw_means(view, reading.genre_means(store, view, progress), "many"))
    parts = [reading.read_part(store, view, row, 0, None, 20) for row in reading.first_of_each_genre(store, 0)]
    figure = spectrogram.draw_sheet(view, parts, "many")
    assert_legible(figure)
    assert len(figure.axes) == 165  # 41 rows of four, and the colour bar


class TestCommand:
    @pytest.fixture
    def data(self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A workspace whose latest store is `store`, in the current folder."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MGC_DATA")
        Workspace(tmp_path / "data").remember("store", store.path)
        return tmp_path / "data"

    def test_the_name_of_a_new_picture(self, data: Path, store: Store) -> None:
        outcome = mgc("plot")
        assert (outcome.code, outcome.out) == (0, "picture: synthetic-genres-mel.png\n")
        assert outcome.err.startswith(f"store: {store.path}\nplot: ")
        assert Path("synthetic-genres-mel.png").read_bytes().startswith(b"\x89PNG")
        again = mgc("plot", store.path)
        assert (again.code, "exists already" in again.error, "--out" in again.error) == (1, True, True)
        before = Path("synthetic-genres-mel.png").read_bytes()
        assert mgc("plot", "--out", "synthetic-genres-mel.png").code == 0
        assert Path("synthetic-genres-mel.png").read_bytes() == before
        assert mgc("plot", "--sheet").out == "picture: synthetic-sheet-mel.png\n"
        assert mgc("plot", "training-004").out == "picture: training-004-mel.png\n"

    def test_json(self, data: Path, store: Store) -> None:
        words = ("training-000", "--start", 1, "--seconds", 0.5, "--out", "a.svg", "--json")
        result = mgc("plot", *words).json
        assert result.pop("start_s") == pytest.approx(1, abs=0.03)
        assert result.pop("stop_s") == pytest.approx(1.5, abs=0.03)
        assert result == {"picture": "a.svg", "store": str(store.path), "track": "training-000", "genre": "Folk"}
        assert Path("a.svg").read_bytes().startswith(b"<?xml")
        assert mgc("plot", "--out", "b.png", "--json").json["genres"] == {"Folk": 6, "Rock": 6, "Ambient": 6}
        assert len(mgc("plot", "--sheet", "--out", "c.png", "--json").json["tracks"]) == 3

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            ("plot nothing", 1, "neither a store nor a track"),
            ("plot --out a.jpg", 2, "unknown kind of picture"),
            ("plot --out nowhere/a.png", 1, "nowhere: no such folder"),
            ("plot --start 1", 2, "add --sheet"),
            ("plot training-000 --sheet", 2, "name a store"),
            ("plot training-000 --start 99", 1, "ends at 2"),
            ("plot --sheet --start 99", 1, "no training track is longer than 99 s"),
            ("plot {store} --store {store}/other", 1, "did you mean"),
            ("plot training-000 --store {store}/shards", 1, "did you mean"),
        ],
    )
    def test_errors(self, words: str, code: int, message: str, data: Path, store: Store) -> None:
        outcome = mgc(*words.format(store=store.path).split())
        assert (outcome.code, message in outcome.error) == (code, True), outcome.err
        assert not list(data.parent.glob("*.*"))
