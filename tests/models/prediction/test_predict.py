"""`mgc predict`: the frames, cuts and probabilities of training and evaluation, for files that are in no store."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import hazards
import matplotlib.image
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from commands import MGC, Outcome, mgc, mgc_all, mgc_process, tree
from genres import LONG_GENRES
from music import RATE, write_clip, write_genres, write_silence
from tiny import TINY

from mgc.models.prediction import frames, results
from mgc.models.prediction.prediction import FilePrediction, timeline
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.pipeline import features
from mgc.pipeline.datasets.tags import read_tags
from mgc.pipeline.store.store import Store

FEATURE = "mel:n_mels=8,n_fft=512"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(systems._systems, TINY.id, TINY)


@pytest.fixture(scope="module")
def data(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a dataset, two mel stores, and a run on each: a classical one and, the latest, a network's."""
    data = tmp_path_factory.mktemp("here") / "data"
    write_genres(data / "songs", tracks=6, seconds=3)
    narrow = data / "features" / "songs" / f"mel-{features.parse_feature(FEATURE).digest}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        mgc_all(
            data,
            ("extract", "--feature", FEATURE, "--slice", 1.6, "--scheduler", scheduler),
            ("extract", "--feature", "mel", "--slice", 1, "--scheduler", scheduler),
            ("train", "--model", "moments/logreg"),
            ("evaluate",),
            ("train", "--model", TINY.id, "--epochs", 1, "--store", narrow),
            ("evaluate",),
            ("evaluate", "--split", "validation", "--no-report"),
        )
    return data


@pytest.fixture
def predict(data: Path, scheduler: str):
    """Run `mgc predict` on the shared scheduler."""

    def call(*words: object) -> Outcome:
        return mgc("predict", *words, "--data-dir", data, "--scheduler", scheduler)

    return call


def runs(data: Path) -> list[Path]:
    return sorted((data / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def test_frames_are_those_of_the_store_for_every_feature(scheduler: str, tmp_path: Path) -> None:
    """Also of files of other rates, lengths and formats, and wherever in a shard they are."""
    songs = write_genres(tmp_path / "songs", tracks=2, seconds=1.3)
    rng = np.random.default_rng(0)
    soundfile.write(songs / "blues" / "other.flac", rng.uniform(-0.5, 0.5, (70_000, 2)), 44_100)
    soundfile.write(songs / "disco" / "other.mp3", rng.uniform(-0.5, 0.5, 50_000), 32_000)
    specs = [features.parse_feature(name) for name in features.FEATURES]
    words = [word for name in features.FEATURES for word in ("--feature", name)]
    made = mgc("extract", songs, *words, "--whole", "--scheduler", scheduler, "--data-dir", tmp_path / "data", "--json")
    assert made.code == 0, made.err
    stores = [Store.open(Path(entry["store"])) for entry in made.json["stores"]]
    paths = [str(path) for path in sorted(songs.rglob("*.*"))][::-1]
    compared = 0
    for batches in frames.extract(paths, specs, frames.Decoding(workers=2, scheduler=scheduler)):
        for store, batch in zip(stores, batches, strict=True):
            for row in batch.tracks.to_pylist():
                path = Path(paths[int(row["track_id"])]).relative_to(songs).as_posix()
                [stored] = [one for one in store.tracks.to_pylist() if one["path"] == path]
                assert np.array_equal(_frames(batch, row), _frames(store, stored))
                compared += 1
    assert compared == len(paths) * len(specs) == 6 * 9


def _frames(store: Store, row: dict) -> np.ndarray:
    return store.read(row["shard"], row["first_frame"], row["first_frame"] + row["n_frames"])


@pytest.mark.parametrize("kind", ["classical", "network"])
def test_probabilities_are_those_of_evaluate_without_store_and_dataset(kind, data, scheduler, tmp_path) -> None:
    run = runs(data)[kind == "network"]
    table = pq.read_table(run / "track-predictions.parquet").to_pylist()
    alone = shutil.copytree(run, tmp_path / "elsewhere" / run.name)
    songs = shutil.copytree(data / "songs", tmp_path / "files")
    files = [songs / row["path"] for row in table]
    outcome = mgc("predict", alone, *files, "--scheduler", scheduler, "--json", "--data-dir", tmp_path / "none")
    assert outcome.code == 0, outcome.err
    for row, ours in zip(table, outcome.json, strict=True):
        assert ours["status"] == "ok"
        assert ours["probabilities"] == pytest.approx(
            {genre: row[f"p_{genre}"] for genre in ("blues", "disco")}, abs=1e-6
        )
        assert ours["genre"] == row["predicted"]
        assert sum(ours["probabilities"].values()) == pytest.approx(1)


def test_what_cannot_be_used_is_refused_and_stops_nothing(predict, data, tmp_path) -> None:
    folder = tmp_path / "mixed"
    write_clip(folder / "good.wav", 3)
    write_clip(folder / "short.wav", 0.5)
    write_silence(folder / "silent.wav", 3)
    (folder / "text.mp3").write_text("no music")
    (folder / "empty.flac").touch()
    (folder / "gone.ogg").symlink_to("nowhere")
    (folder / "notes.txt").write_text("not listed")
    outcome = predict(folder, "--json")
    assert outcome.code == 0
    rows = {Path(row["path"]).name: row for row in outcome.json}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "good.wav": None, "short.wav": "too-short", "silent.wav": "silence", "text.mp3": "not-audio",
        "empty.flac": "empty", "gone.ogg": "unreadable",
    }  # fmt: skip
    assert rows["short.wav"]["probabilities"] == {}
    assert "predict: 5 of 6 files were refused" in outcome.err
    (folder / "good.wav").unlink()
    outcome = predict(folder)
    assert outcome.code == 1
    assert "silent.wav  refused: silence (no sample above -80" in outcome.out
    assert outcome.err.endswith("error: none of 5 files can be predicted; see the reasons above\n")


@pytest.mark.slow
def test_a_file_that_kills_its_worker_is_refused(data, tmp_path) -> None:
    """With worker processes of its own, in which such a file is deadly."""
    for name in ("a", "deadly", "z"):
        write_clip(tmp_path / f"{name}.wav", 3)
    preload = {"DASK_DISTRIBUTED__WORKER__PRELOAD": hazards.__file__}
    outcome = mgc_process("predict", runs(data)[0], tmp_path, "--workers", 1, "--json", **preload)
    assert [row["reason"] for row in outcome.json] == [None, "crashed", None]


class TestInputs:
    @pytest.mark.slow
    def test_files_folders_playlists_and_standard_input(self, data, scheduler, tmp_path) -> None:
        """Each file once, in the order in which it was named, as it was named."""
        for name in ("one", "two", "three", "sub/four", "ünï"):
            write_clip(tmp_path / f"{name}.wav", 2)
        (tmp_path / "list.m3u8").write_bytes(
            "\ufeff#EXTM3U\n#EXTINF:3,Three\nthree.wav\nhttp://x.invalid/radio\nabsent.mp3\nünï.wav\n".encode()
        )
        (tmp_path / "old.m3u").write_bytes("#EXTM3U\r\nünï.wav\r\nsub/four.wav\r\n".encode("latin-1"))
        words = [tmp_path / "two.wav", tmp_path / "list.m3u8", tmp_path / "old.m3u", tmp_path, "-", "--json"]
        outcome = subprocess.run(
            [MGC, "predict", runs(data)[0], *words, "--scheduler", scheduler],
            input=b"\n%s/one.wav\nnot there.wav\n" % os.fsencode(tmp_path),
            capture_output=True,
            check=False,
        )
        names = [Path(row["path"]).name for row in json.loads(outcome.stdout)]
        assert names == ["two.wav", "three.wav", "absent.mp3", "ünï.wav", "four.wav", "one.wav", "not there.wav"]
        assert b"list.m3u8: 1 entries are URLs, left out" in outcome.stderr

    def test_recursive(self, predict, data) -> None:
        songs = data / "songs"
        refused = predict(songs)
        assert refused.code == 1
        assert refused.error == f"{songs}: no audio file in it; 2 folders in it were not searched; add --recursive"
        assert len(predict(songs, "--recursive", "--json").json) == 12

    @pytest.mark.parametrize(
        ("words", "code", "error"),
        [
            ([], 2, "no file to predict; name files, folders, playlists, or - for a list on standard input"),
            (["nothing.mp3"], 1, "nothing.mp3: no such file or folder; check the path"),
            (["nothing.m3u"], 1, "nothing.m3u: No such file or directory; check the path and its permissions"),
        ],
    )
    def test_errors(self, words, code, error, predict, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        outcome = predict(*words)
        assert (outcome.code, outcome.error) == (code, error)


class TestResults:
    def test_the_table_shows_the_most_probable_genres(self, predict, data) -> None:
        outcome = predict(data / "songs" / "blues" / "blues00.wav", "--top-k", 1)
        [line] = outcome.out.splitlines()
        assert line.split()[-2].isdigit()
        assert line.endswith(" %")

    def test_csv_and_parquet_hold_all_probabilities(self, predict, data, tmp_path) -> None:
        predict(data / "songs", "--recursive", "--csv", tmp_path / "a.csv", "--parquet", tmp_path / "a.parquet")
        table = pq.read_table(tmp_path / "a.parquet")
        assert table.column_names == [
            "path", "status", "reason", "detail", "duration_s", "predicted", "p_blues", "p_disco"
        ]  # fmt: skip
        rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
        assert [float(row["p_disco"]) for row in rows] == table["p_disco"].to_pylist()
        assert len(rows) == 12

    def test_a_later_call_continues(self, predict, data, tmp_path, monkeypatch) -> None:
        """Also after a kill in the middle of a line. A changed file is predicted again."""
        folder, out = shutil.copytree(data / "songs" / "blues", tmp_path / "files"), tmp_path / "results.jsonl"
        first = predict(folder, "--out", out, "--json", "--timeline").json
        lines = out.read_bytes().splitlines(keepends=True)
        assert len(lines) == 7
        out.write_bytes(b"".join(lines[:4]) + lines[4][:30])
        write_clip(folder / "blues00.wav", 4, seed=9)
        decoded = []
        decode = frames.decode
        monkeypatch.setattr(frames, "decode", lambda *call: (decoded.extend(call[1]), decode(*call))[1])
        outcome = predict(folder, "--out", out, "--json", "--timeline")
        assert outcome.code == 0, outcome.err
        again = outcome.json
        written = {json.loads(line)["path"] for line in lines[1:4]} - {str(folder / "blues00.wav")}
        assert set(decoded) == {row["path"] for row in first} - written
        for one, two in zip(first[1:], again[1:], strict=True):
            assert two["probabilities"] == pytest.approx(one["probabilities"], abs=1e-6)
            assert len(two["timeline"]) == len(one["timeline"])
        assert again[0]["duration_s"] == 4
        assert predict(folder, "--out", out, "--json", "--timeline").json == again

    def test_results_of_another_run_and_other_files_are_refused(self, predict, data, tmp_path) -> None:
        song, out = data / "songs" / "blues" / "blues00.wav", tmp_path / "results.jsonl"
        assert predict(runs(data)[0], song, "--out", out).code == 0
        before = out.read_bytes()
        for content in (before, b"notes\n", b"[]\n", before + b"[1]\n"):
            out.write_bytes(content)
            refused = predict(song, "--out", out)
            assert refused.code == 1
            assert refused.error.startswith(f"{out}: holds ")
            assert out.read_bytes() == content

    def test_unknown_answers_none_of_these(self, predict, data) -> None:
        outcome = predict(data / "songs" / "blues" / "blues00.wav", "--unknown", 0.999999)
        assert "none of these: " in outcome.out
        outcome = predict(data / "songs" / "blues" / "blues00.wav", "--unknown", 0.999999, "--json")
        assert outcome.json[0]["genre"] is None
        assert outcome.json[0]["probabilities"]

    def test_a_probability_chosen_on_validation(self, predict, data) -> None:
        """95 % of six tracks are all of them: the least sure one that is named rightly sets the probability."""
        classical, network = runs(data)
        song = data / "songs" / "blues" / "blues00.wav"
        table = pq.read_table(network / "track-predictions-validation.parquet").to_pylist()
        right = [max(row["p_blues"], row["p_disco"]) for row in table if row["true"] == row["predicted"]]
        outcome = predict(network, song, "--unknown", "validation", "--json")
        assert f"predict: none of these below {100 * min(right):.1f} %: 95 % of the {len(right)} rightly" in outcome.err
        probabilities = outcome.json[0]["probabilities"]
        assert (outcome.json[0]["genre"] is None) == (max(probabilities.values()) < min(right))
        refused = predict(classical, song, "--unknown", "validation")
        assert refused.code == 1
        assert refused.error == (
            f"--unknown validation: {classical} has not been evaluated on its validation tracks; "
            f"`mgc evaluate {classical} --split validation` does it"
        )

    def test_embeddings_are_what_the_last_layer_sees(self, predict, data, tmp_path) -> None:
        """The last layer of the tiny network, applied to them, gives the probabilities of the file."""
        network, file = runs(data)[1], tmp_path / "new" / "embeddings.parquet"
        songs = sorted((data / "songs" / "blues").iterdir())
        rows = predict(network, *songs, "--embeddings", file, "--json").json
        table = pq.read_table(file)
        assert table.column_names == ["path", "start_s", "embedding"]
        assert json.loads(table.schema.metadata[b"mgc"])["genres"] == ["blues", "disco"]
        weights = Run.open(network).load("best.pt")["model"]
        weight, bias = (next(v for k, v in reversed(weights.items()) if k.endswith(n)) for n in ("weight", "bias"))
        vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
        shares = torch.from_numpy(vectors @ weight.numpy().T + bias.numpy()).softmax(dim=1).numpy()
        paths = np.array(table["path"].to_pylist())
        for row in rows:
            mean = shares[paths == row["path"]].mean(axis=0)
            assert list(row["probabilities"].values()) == pytest.approx(mean.tolist(), abs=1e-5)
        refused = predict(runs(data)[0], songs[0], "--embeddings", file)
        assert (refused.code, refused.error) == (
            1,
            f"{runs(data)[0]}: moments/logreg has no embeddings; name the run of a single network",
        )
        assert list(file.parent.iterdir()) == [file]
        assert predict(songs[0], "--embeddings", file, "--out", tmp_path / "out").code == 2

    @pytest.mark.slow
    def test_pictures_lie_as_their_files_do(self, predict, data, tmp_path) -> None:
        broken = data / "songs" / "broken.wav"
        broken.write_text("no music")
        outcome = predict(data / "songs", "--recursive", "--pictures", tmp_path / "pictures")
        broken.unlink()
        assert outcome.code == 0, outcome.err
        made = {path.relative_to(tmp_path / "pictures").as_posix() for path in (tmp_path / "pictures").rglob("*.png")}
        assert made == {f"{genre}/{genre}{n:02}.wav.png" for genre in ("blues", "disco") for n in range(6)}
        assert matplotlib.image.imread(tmp_path / "pictures/blues/blues00.wav.png").std() > 0.1

    def test_the_timeline_has_a_row_a_second(self, predict, data) -> None:
        song = data / "songs" / "blues" / "blues05.wav"
        [row] = predict(song, "--timeline", "--json").json
        assert [entry["start_s"] for entry in row["timeline"]] == [0, 1, 2, 3]
        assert all(sum(entry["probabilities"].values()) == pytest.approx(1) for entry in row["timeline"])
        lines = predict(song, "--timeline").out.splitlines()
        assert [line.split()[0] for line in lines[1:]] == ["0:00", "0:01", "0:02", "0:03"]

    def test_lines_fit_the_terminal_with_long_and_hostile_names(self) -> None:
        shares = dict(zip(LONG_GENRES, np.arange(16) / 120, strict=True))
        odd = "/music/" + "folder/" * 20 + "\x1b[31m\u202eevil.mp3"
        predictions = [
            FilePrediction(odd, "ok", probabilities=shares, timeline=np.full((2, 16), 1 / 16)),
            FilePrediction("short.mp3", "dropped", "not-audio", "x" * 200),
        ]
        for top_k in (1, 3, 16):
            lines = list(results.text(predictions, top_k=top_k, timeline=True))
            assert max(map(len, lines)) <= 80
            assert not any("\x1b" in line or "\u202e" in line for line in lines)


class TestTimeline:
    def test_it_averages_the_slices_around_each_second(self) -> None:
        """Slices of 2 s that begin at 0, 1 and 2 s: the middle of second 1 lies in the first two of them."""
        rows = timeline(np.array([0.0, 1.0, 2.0]), 2.0, np.eye(3), 5.2)
        half = [0.5, 0.5, 0], [0, 0.5, 0.5]
        assert rows == pytest.approx(np.array([[1, 0, 0], *half, [0, 0, 1], [0, 0, 1], [0, 0, 1]]))

    def test_it_takes_the_nearest_slice_where_there_is_none(self) -> None:
        rows = timeline(np.array([2.0, 7.0]), 1.0, np.eye(2), 9.0)
        assert rows.argmax(axis=1).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]

    def test_a_slice_of_the_whole_track_is_every_second(self) -> None:
        assert timeline(np.zeros(1), np.inf, np.array([[0.3, 0.7]]), 3.0) == pytest.approx(np.tile([0.3, 0.7], (3, 1)))

    def test_it_agrees_with_a_plain_loop(self) -> None:
        rng = np.random.default_rng(1)
        for _ in range(50):
            starts, length = np.unique(rng.uniform(0, 20, rng.integers(1, 8))), rng.uniform(0.1, 6)
            shares = rng.dirichlet(np.ones(3), len(starts))
            for second, row in enumerate(timeline(starts, length, shares, 22)):
                middle = second + 0.5
                distance = np.maximum(np.maximum(starts - middle, middle - starts - length), 0)
                inside = distance == 0
                chosen = inside if inside.any() else np.arange(len(starts)) == distance.argmin()
                assert row == pytest.approx(shares[chosen].mean(axis=0))


class TestActions:
    def test_files_are_tagged_and_sorted(self, predict, data, tmp_path) -> None:
        folder, sorted_to = shutil.copytree(data / "songs" / "blues", tmp_path / "files"), tmp_path / "sorted"
        (folder / "broken.wav").write_text("no music")
        rows = predict(folder, "--json", "--write-tags", "--sort-into", sorted_to, "--copy").json
        for row in rows[:-1]:
            assert read_tags(Path(row["path"])).genre == row["genre"]
            assert (sorted_to / row["genre"] / Path(row["path"]).name).read_bytes() == Path(row["path"]).read_bytes()
        assert not list(sorted_to.rglob("broken.wav"))
        (sorted_to / rows[0]["genre"] / "blues00.wav").write_bytes(b"another")
        outcome = predict(folder, "--sort-into", sorted_to, "--move")
        assert outcome.code == 1
        assert outcome.err.endswith("error: 1 of 6 files could not be tagged or sorted; see the lines above\n")
        assert (folder / "blues00.wav").exists()

    def test_a_dry_run_changes_nothing(self, predict, data, tmp_path) -> None:
        folder = shutil.copytree(data / "songs" / "blues", tmp_path / "files")
        before = tree(tmp_path)
        outcome = predict(folder, "--write-tags", "--sort-into", tmp_path / "sorted", "--move", "--dry-run")
        assert outcome.code == 0
        assert outcome.err.count(": would be tagged ") == outcome.err.count(": would be moved to ") == 6
        assert tree(tmp_path) == before

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (["--sort-into", "x"], "--sort-into: how is not said; add --copy, --link or --move"),
            (["--move"], "--move: there is nothing to sort into; add --sort-into FOLDER"),
            (["--dry-run"], "--dry-run: there is nothing to do with the files; add --write-tags or --sort-into FOLDER"),
            (["--min-confidence", 0.5], "--min-confidence: there is nothing to do with the files; add --write-tags or"),
        ],
    )
    def test_contradictions(self, words, error, predict) -> None:
        outcome = predict("song.mp3", *words)
        assert outcome.code == 2
        assert outcome.error.startswith(error)


@pytest.mark.slow
def test_ctrl_c_ends_it_in_one_line_and_keeps_results(data, tmp_path) -> None:
    for number in range(40):
        write_clip(tmp_path / "files" / f"{number:02}.wav", 20, seed=number)
    out = tmp_path / "results.jsonl"
    process = subprocess.Popen(
        [MGC, "predict", runs(data)[0], tmp_path / "files", "--out", out, "--workers", "1"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while len(out.read_bytes().splitlines() if out.exists() else []) < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("error: interrupted; ")
    assert 2 <= len(out.read_bytes().splitlines()) < 41


def test_clips_of_other_rates_are_resampled(predict, data, tmp_path) -> None:
    """A run needs no file of its dataset's rate."""
    time = np.arange(4 * 48_000) / 48_000
    soundfile.write(tmp_path / "tone.flac", 0.1 * np.sin(2 * np.pi * 440 * time), 48_000)
    [row] = predict(tmp_path / "tone.flac", "--json").json
    assert (row["status"], row["duration_s"], RATE) == ("ok", 4.0, 22050)
