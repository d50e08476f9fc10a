"""`mgc serve` as a process, asked over HTTP: answers, errors, limits, and its end."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import requests
import soundfile
from commands import Outcome, mgc, mgc_all
from filelock import FileLock
from music import write_clip, write_genres, write_silence
from openapi_spec_validator import validate
from serving import TOKEN, ServerProcess, SlowUpload, server
from validated import replace_validation

from mgc.models.evaluation.temperature import temper
from mgc.models.runs.run import Run
from mgc.models.service.scratch import scratch_folder


@pytest.fixture(scope="module")
def running(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with one decoding process and four places, small limits, and a token. The last test stops it."""
    limits = ("--workers", 1, "--queue", 3, "--max-size", 2, "--max-duration", 20, "--timeout", 60)
    with server(tmp_path_factory.mktemp("server"), run, *limits, token=TOKEN) as started:
        yield started


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("song") / "ünï song.wav", 4.3)


def test_the_answer_is_that_of_mgc_predict(running, run, song, scheduler, tmp_path) -> None:
    """To the last bit, whether the file comes as a form or as the body."""
    outcome = mgc("predict", run, song, "--timeline", "--json", "--scheduler", scheduler)
    [expected] = outcome.json
    answer = running.predict(song.read_bytes(), song.name, timeline=True, top_k=2).json()
    for key in ("duration_s", "genre", "probabilities", "timeline", "strange"):
        assert answer[key] == expected[key]
    assert [entry["start_s"] for entry in answer["timeline"]] == [0, 1, 2, 3, 4]
    shares = sorted(answer["probabilities"].values(), reverse=True)
    assert [entry["probability"] for entry in answer["top"]] == shares[:2]
    assert answer["top"][0]["genre"] == answer["genre"]
    assert {key: answer[key] for key in ("file", "model", "run", "leaky")} == {
        "file": song.name, "model": "moments/logreg", "run": run.name, "leaky": False,
    }  # fmt: skip
    assert (answer["unknown"], answer["temperature"]) == (0, None)
    raw = running.ask("POST", "/predict", data=song.read_bytes(), headers={"Content-Type": "audio/x-wav; a=b"}).json()
    assert raw["probabilities"] == expected["probabilities"]
    assert (raw["file"], "timeline" in raw) == (None, False)


def test_calibrated_answers_and_none_of_these_are_those_of_mgc_predict(run, song, scheduler, tmp_path) -> None:
    """By a server with the same options; a song that is less sure than the threshold gets no genre, others do.

    The validation tracks are made those of a model that is much too sure: they show that a temperature helps.
    """
    songs = [song, *sorted((run.parents[1] / "songs").rglob("*.wav"))]
    run = shutil.copytree(run, tmp_path / run.name)
    replace_validation(Run.open(run), make_too_sure)
    words = ("--calibrated", "--unknown", "validation")
    all_rows = mgc("predict", run, *songs, *words, "--json", "--scheduler", scheduler).json
    named = [row["genre"] is not None for row in all_rows]
    with server(tmp_path / "server", run, "--workers", 1, *words) as calibrated:
        document = calibrated.ask("GET", "/openapi.json").json()
        validate(document)
        schema = document["components"]["schemas"]["Answer"]
        page = calibrated.ask("GET", "/").text
        for path in (songs[named.index(value)] for value in (False, True)):
            outcome = mgc("predict", run, path, *words, "--timeline", "--json", "--scheduler", scheduler)
            [expected] = outcome.json
            [raw] = mgc("predict", run, path, "--json", "--scheduler", scheduler).json
            answer = calibrated.predict(path.read_bytes(), path.name, timeline=True).json()
            jsonschema.validate(answer, schema)
            for key in ("genre", "probabilities", "timeline", "strange"):
                assert answer[key] == expected[key]
            best = max(answer["probabilities"].values())
            assert (answer["genre"] is None) == (best < answer["unknown"])
            assert answer["top"][0]["probability"] == best
            shares = np.array([[*raw["probabilities"].values()]])
            tempered = temper(shares, answer["temperature"])[0].tolist()
            assert [*answer["probabilities"].values()] == pytest.approx(tempered)
            assert tempered != pytest.approx(shares[0].tolist())
        counted = calibrated.metrics()
        assert (counted["mgc_unnamed_files_total"], counted["mgc_strange_files_total"]) == (1, 0)
        for text in (document["info"]["description"], page):
            assert f"calibrated, by a temperature of {answer['temperature']:.2f}." in text
            assert f"less than {100 * answer['unknown']:.5g} %" in text
        said = calibrated.errors.read_text().splitlines()
    assert said == [line.replace("predict: ", "serve: ") for line in outcome.err.splitlines() if "validation" in line]


def make_too_sure(truth: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The first track as it is, the others all but certainly named wrongly."""
    n = shares.shape[1]
    wrong = np.where(np.arange(n) == (truth[:, None] + 1) % n, 1 - 1e-6, 1e-6 / (n - 1))
    return np.concatenate([shares[:1], wrong[1:]])


def test_validation_tracks_that_tell_no_temperature_leave_the_probabilities(running, run, song, tmp_path) -> None:
    """There are three of them."""
    with server(tmp_path / "server", run, "--workers", 1, "--calibrated") as calibrated:
        servers = (calibrated, running)
        answer, plain = (one.predict(song.read_bytes(), song.name, timeline=True).json() for one in servers)
        document, page = calibrated.ask("GET", "/openapi.json").json(), calibrated.ask("GET", "/").text
        said = calibrated.errors.read_text()
    jsonschema.validate(answer, document["components"]["schemas"]["Answer"])
    assert (answer.pop("temperature"), plain.pop("temperature")) == (1, None)
    assert answer == plain
    told = "told from 3 validation tracks"
    assert f"serve: probabilities are not tempered: temperature 1 (no better one can be {told})\n" in said
    for text in (document["info"]["description"], page):
        assert f"The probabilities are not calibrated: no temperature can be {told}." in text


def test_files_that_mgc_predict_refuses_are_refused_with_its_reasons(running, run, scheduler, tmp_path) -> None:
    write_clip(tmp_path / "short.wav", 0.5)
    write_silence(tmp_path / "silent.wav", 3)
    (tmp_path / "text.mp3").write_text("no music")
    outcome = mgc("predict", run, tmp_path, "--json", "--scheduler", scheduler)
    rows = {Path(row["path"]).name: row for row in outcome.json}
    assert {row["reason"] for row in rows.values()} == {"too-short", "silence", "not-audio"}
    for name, row in rows.items():
        answer = running.predict((tmp_path / name).read_bytes(), name)
        assert answer.status_code == 422
        assert {key: answer.json()[key] for key in ("reason", "detail")} == {
            key: row[key] for key in ("reason", "detail")
        }
        assert row["reason"] in answer.json()["error"]
    long = write_clip(tmp_path / "long.flac", 21)
    answer = running.predict(long.read_bytes())
    assert (answer.status_code, answer.json()["reason"]) == (422, "too-long")
    assert answer.json()["remedy"] == "send at most 20 s of audio"


#: Requests and the status of their answers: method, path, options of `requests`, status.
REQUESTS = [
    ("GET", "/", {}, 200),
    ("GET", "/healthz", {}, 200),
    ("GET", "/metrics", {}, 200),
    ("GET", "/openapi.json", {}, 200),
    ("POST", "/predict", {"files": {"file": "{song}"}}, 200),
    ("POST", "/predict?timeline=1&top_k=9", {"files": {"file": "{song}"}}, 200),
    ("POST", "/predict?top_k=0", {"files": {"file": "{song}"}}, 400),
    ("POST", "/predict?top_k=²", {"files": {"file": "{song}"}}, 400),
    ("POST", "/predict?timeline=maybe", {"files": {"file": "{song}"}}, 400),
    ("POST", "/predict?topk=1", {"files": {"file": "{song}"}}, 400),
    ("POST", "/predict", {"files": {"other": b"x"}}, 400),
    ("POST", "/predict", {"files": {"file": b""}}, 400),
    ("POST", "/predict", {"files": [("file", b"x"), ("file", b"y")]}, 400),
    ("POST", "/predict", {"data": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400),
    ("POST", "/predict", {"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
    ("POST", "/predict", {"data": b"", "headers": {"Content-Type": "audio/mpeg"}}, 400),
    ("POST", "/predict", {"headers": {"Authorization": "Bearer wrong"}}, 401),
    ("POST", "/predict", {"headers": {"Authorization": b"Bearer \xff"}}, 401),
    ("GET", "/metrics", {"headers": {"Authorization": f"Basic {TOKEN}"}}, 401),
    ("POST", "/predict", {"headers": {"Sec-Fetch-Site": "cross-site"}}, 403),
    ("POST", "/predict", {"headers": {"Origin": "https://evil.example"}}, 403),
    ("POST", "/predict", {"files": {"file": bytes(2_100_000)}}, 413),
    ("POST", "/predict", {"data": b"{}", "headers": {"Content-Type": "application/json"}}, 415),
    ("POST", "/predict", {}, 415),
    ("POST", "/predict", {"files": {"file": b"no music"}}, 422),
]


def test_the_description_is_valid_and_true(running, song) -> None:
    """Each documented path and most of its statuses, and each answer is as described."""
    document = running.ask("GET", "/openapi.json").json()
    validate(document)
    seen: dict[tuple[str, str], set[int]] = {}
    for method, path, options, status in REQUESTS:
        files = options.get("files")
        if isinstance(files, dict) and "{song}" in files.values():
            options = {"files": {"file": song.read_bytes()}}
        answer = running.ask(method, path, **options)
        assert answer.status_code == status, (method, path, options.keys(), answer.text)
        place = path.partition("?")[0]
        seen.setdefault((place, method.lower()), set()).add(status)
        described = document["paths"][place][method.lower()]["responses"][str(status)]["content"]
        kind = answer.headers["Content-Type"].partition(";")[0]
        assert kind in described, (place, status)
        if kind == "application/json":
            jsonschema.validate(answer.json(), described[kind]["schema"] | {"components": document["components"]})
            assert answer.ok or all(answer.json()[key] for key in ("error", "remedy"))
    assert seen.keys() == {(path, verb) for path, verbs in document["paths"].items() for verb in verbs}


def test_other_paths_methods_and_hosts(running) -> None:
    for method, path, headers, status in (
        ("GET", "/nothing", {}, 404),
        ("GET", "/predict", {}, 405),
        ("DELETE", "/", {}, 405),
        ("GET", "/healthz", {"Host": "evil.example"}, 421),
        ("GET", "/healthz", {"Host": "[::1]:80"}, 200),
        ("GET", "/healthz", {"Host": "LOCALHOST"}, 200),
    ):
        answer = running.ask(method, path, headers=headers)
        assert answer.status_code == status
        assert status == 200 or sorted(answer.json()) == ["error", "remedy"]
    assert running.ask("GET", "/predict").headers["Allow"] == "POST"
    assert requests.get(f"{running.url}/metrics", timeout=60).headers["WWW-Authenticate"] == "Bearer"
    assert requests.get(running.url, timeout=60).ok  # the page asks for the token


def test_the_limit_of_the_size_holds_for_bodies_of_unknown_length(running) -> None:
    """And the client can read the answer, though it still sends."""
    blocks = (bytes(100_000) for _ in range(30))
    answer = running.ask("POST", "/predict", data=blocks, headers={"Content-Type": "audio/mpeg"})
    assert answer.status_code == 413
    assert answer.json()["error"] == "the body is larger than 2 MB"


def test_beyond_the_queue_requests_are_refused_until_there_is_room(running, song) -> None:
    """Four places are taken by clients that send slowly; then one of them leaves."""
    uploads = [SlowUpload(running, song.read_bytes()) for _ in range(4)]
    while running.ask("GET", "/metrics").text.count("mgc_admitted_requests 4.0") == 0:
        time.sleep(0.05)
    refused = running.predict(song.read_bytes())
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
    assert running.ask("GET", "/healthz").ok
    uploads.pop().give_up()
    while running.ask("GET", "/metrics").text.count("mgc_admitted_requests 3.0") == 0:
        time.sleep(0.05)
    assert running.predict(song.read_bytes()).status_code == 200
    assert [upload.finish() for upload in uploads] == [200, 200, 200]


def test_metrics_count_what_was_done_and_no_file_is_left(running, song) -> None:
    before = running.metrics()
    assert running.predict(song.read_bytes()).ok
    after = running.metrics()
    assert after['mgc_files_total{outcome="ok"}'] == before.get('mgc_files_total{outcome="ok"}', 0) + 1
    assert after["mgc_audio_seconds_total"] == pytest.approx(before["mgc_audio_seconds_total"] + 4.3)
    assert after['mgc_stage_seconds_count{stage="network"}'] > 0
    assert after["mgc_unnamed_files_total"] == after["mgc_strange_files_total"] == 0
    deadline = time.monotonic() + 10  # files are removed just after the answer
    while running.left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running.left() == []


@pytest.mark.slow
def test_metrics_count_strange_files(scheduler: str, tmp_path: Path) -> None:
    """A song, a tone that is like none of them, and a file that is not used. By default strange files get a genre."""
    data = tmp_path / "data"
    write_genres(data / "songs", tracks=8, seconds=2)
    mgc_all(
        data,
        ("extract", "--feature", "mel:n_mels=64", "--slice", "1", "--scheduler", scheduler),
        ("train", "--model", "moments/logreg"),
    )
    [run] = (data / "runs").iterdir()
    songs = sorted((data / "songs").rglob("*.wav"))[:2]
    soundfile.write(tmp_path / "tone.wav", 0.3 * np.sin(2 * np.pi * 440 * np.arange(44100) / 22050), 22050)
    write_silence(tmp_path / "silence.wav", 2)
    for options, n_unnamed in (((), 0), (("--unknown", 0.01), 1)):
        with server(tmp_path / f"server-{n_unnamed}", run, "--workers", 1, *options) as started:
            answers = [started.predict(path.read_bytes()).json() for path in (*songs, tmp_path / "tone.wav")]
            assert [answer["strange"] for answer in answers] == [False, False, True]
            assert [answer["genre"] is None for answer in answers] == [False, False, bool(n_unnamed)]
            assert started.predict((tmp_path / "silence.wav").read_bytes()).status_code == 422
            counted = started.metrics()
        assert counted["mgc_strange_files_total"] == 1
        assert counted["mgc_unnamed_files_total"] == n_unnamed
        assert counted['mgc_files_total{outcome="ok"}'] == 3


class TestStart:
    """What is wrong is said in one line, before anything is loaded."""

    @pytest.fixture
    def serve(self, run: Path, tmp_path: Path):
        def call(*words: object) -> Outcome:
            return mgc("serve", *words, "--data-dir", tmp_path / "data")

        return call

    def test_addresses(self, serve, run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            outcome = serve(run, "--port", port)
            assert (outcome.code, outcome.error) == (
                1,
                f"--port {port}: in use; choose another one, or 0 for any free one",
            )
        assert serve(run, "--host", "nowhere.invalid").error.startswith("--host nowhere.invalid: no such host; ")
        assert serve(run, "--host", "192.0.2.1").error.startswith("--host 192.0.2.1: no address of this machine; ")

    def test_tokens(self, serve, run, tmp_path) -> None:
        file = tmp_path / "token"
        assert serve(run, "--token-file", file).error.startswith(
            f"--token-file {file}: No such file or directory; write"
        )
        for content, problem in (
            (b" \n", "it is empty"),
            (b"short\n", "a token is 16 or more ASCII characters without spaces"),
            (b"two words of a token", "a token is 16 or more ASCII characters without spaces"),
            (b"\xff\xfe" * 20, "it holds no text"),
        ):
            file.write_bytes(content)
            outcome = serve(run, "--token-file", file)
            assert outcome.code == 1
            assert outcome.error.startswith(f"--token-file {file}: {problem}; write one with ")
        file.write_text(TOKEN)
        file.chmod(0o644)
        assert f"other users can read {file}" in serve(tmp_path, "--token-file", file).err

    def test_runs(self, serve, run, tmp_path) -> None:
        assert serve(tmp_path / "gone").code == 1
        for name, words in {"summary.json": "its training is unfinished", "model.skops": "missing"}.items():
            copy = shutil.copytree(run, tmp_path / name / run.name)
            (copy / name).unlink()
            outcome = serve(copy, "--port", 0)
            assert outcome.code == 1
            assert words in outcome.error

    @pytest.mark.parametrize("words", ["--calibrated", "--unknown validation"])
    def test_options_that_need_an_evaluation(self, serve, run, tmp_path, words) -> None:
        copy = shutil.copytree(run, tmp_path / run.name)
        (copy / "track-predictions-validation.parquet").unlink()
        outcome = serve(copy, *words.split())
        assert outcome.code == 1
        assert outcome.error == (
            f"{words}: {copy} has not been evaluated on its validation tracks; "
            f"`mgc evaluate {copy} --split validation` does it"
        )

    def test_without_the_extra(self, serve, run, monkeypatch) -> None:
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find_spec(name))
        assert serve(run).error == "mgc serve needs uvicorn; `pip install 'mgc-music[serve]'`"


def test_the_folder_of_a_killed_server_is_removed_by_the_next(tmp_path, monkeypatch) -> None:
    """That of a running one is not, nor a folder that is no server's."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("mgc-serve-dead", "mgc-serve-alive", "mgc-serve-notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "upload-1").touch()
    (tmp_path / "mgc-serve-dead" / ".lock").touch()
    with FileLock(tmp_path / "mgc-serve-alive" / ".lock"), scratch_folder() as folder:
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == sorted(["mgc-serve-alive", "mgc-serve-notes", folder.name])
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_sigterm_lets_running_requests_finish(running, run, song) -> None:
    """The last test of this module: it stops the server, which has written nothing into the workspace."""
    upload = SlowUpload(running, song.read_bytes())
    while "mgc_admitted_requests 1.0" not in running.ask("GET", "/metrics").text:
        time.sleep(0.05)
    running.process.terminate()
    while running.ask("GET", "/healthz").status_code == 200:
        time.sleep(0.05)
    assert running.ask("GET", "/healthz").json() == {"status": "stopping"}
    refused = running.predict(song.read_bytes())
    assert (refused.status_code, refused.json()["error"]) == (503, "the server is stopping")
    assert upload.finish() == 200
    assert running.process.wait(timeout=60) == 0
    assert list(running.folder.glob("mgc-*")) == []
    assert running.errors.read_text() == ""
    assert max(path.stat().st_mtime for path in run.parents[1].rglob("*")) < running.started
