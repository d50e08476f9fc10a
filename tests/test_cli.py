"""Command line of the pipeline: error messages, help, JSON and text output, and defaults for unnamed arguments."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from commands import MGC, mgc, mgc_process, stamps, tree
from music import write_clip, write_genres, write_list

from mgc import cli
from mgc.pipeline import help_groups
from mgc.pipeline.store.store import Store

STFT = ("--feature", "stft:n_fft=512")


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two genre folders of five clips each, 0.6 to 0.8 s long, and files that cannot be read as a dataset."""
    folder = write_genres(tmp_path_factory.mktemp("music") / "songs", tracks=5, seconds=0.6)
    rows = [{"path": "blues/blues00.wav", "genre": "blues"}, {"path": "disco/disco00.wav", "genre": "disco"}]
    write_list(folder / "good.csv", rows)
    (folder / "short.csv").write_text("path,genre\nblues/blues00.wav\n")
    (folder / "outside.csv").write_text("path,genre\n../secret.wav,blues\n")
    (folder / "empty.csv").write_text("path,genre\n")
    (folder.parent / "nothing").mkdir()
    return folder


@pytest.fixture(scope="module")
def workspace(songs: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one dataset and one store; the shortest track of each genre is dropped."""
    data = tmp_path_factory.mktemp("workspace") / "data"
    data.mkdir()
    (data / "songs").symlink_to(songs)
    outcome = mgc("extract", *STFT, "--slice", "0.62", "--data-dir", data, "--scheduler", scheduler, "--json")
    assert outcome.code == 0, outcome.err
    return data


@pytest.fixture
def store(workspace: Path) -> Path:
    return next(workspace.glob("features/songs/stft-*"))


class TestErrors:
    """Every error is one line on stderr, with problem and remedy, and no file is left behind."""

    @pytest.mark.parametrize(
        ("arguments", "code", "error"),
        [
            (
                "--dataset {songs}/nowhere",
                1,
                "cannot open dataset {songs}/nowhere: No such file or directory; name a f",
            ),
            ("--dataset {songs}/../nothing", 1, "{music}/nothing is an empty folder; name a folder of audio, or a CSV"),
            ("--dataset {songs}/blues/blues00.wav", 1, "{songs}/blues/blues00.wav is one audio file; name a folder"),
            ("--dataset {songs}/empty.csv", 1, "{songs}/empty.csv has no rows; write one row per track"),
            ("--dataset {songs}/good.csv --genre-column style", 1, "{songs}/good.csv has no column style; its columns"),
            ("--genre-column style", 1, "--genre-column cannot be used with a dataset in folder format; leave it out"),
            ("--dataset {songs}/short.csv", 1, "{songs}/short.csv, line 2: the header has 2 columns, this row 1; put"),
            ("--dataset {songs}/outside.csv", 1, "{songs}/outside.csv, line 2: path '../secret.wav' leads out of"),
            ("--format zip", 2, "unknown dataset format 'zip'; choose one of auto, fma, gtzan, folder, tags, list"),
            ("--splits {songs}/none.csv", 1, "cannot read {songs}/none.csv: No such file or directory; check the"),
            ("--splits {songs}/good.csv", 1, "{songs}/good.csv has no column split; its columns are path, genre; name"),
            ("--overlap 1", 2, "--overlap 1; it must be in [0, 1): 0.5 repeats half of each slice"),
            ("--overlap -0.1", 2, "--overlap -0.1; it must be in [0, 1): 0.5 repeats half of each slice"),
            ("--overlap nan", 2, "--overlap nan; it must be in [0, 1): 0.5 repeats half of each slice"),
            (
                "--overlap half",
                2,
                "Invalid value for '--overlap': 'half' is not a valid float; see `mgc extract --help`",
            ),
            ("--slice 0", 2, "--slice 0; it must be a positive number of seconds"),
            ("--slice inf", 2, "--slice inf; it must be a positive number of seconds"),
            ("--frames 0", 2, "--frames 0; it must be at least 1"),
            ("--slice 4 --frames 3", 2, "a slice has one length; give one of --slice SECONDS, --frames N and --whole"),
            ("--offset -1", 2, "--offset -1; it must be a number of seconds, 0 or more"),
            ("--max-slices 0", 2, "--max-slices 0; it must be at least 1"),
            ("--place left", 2, "Invalid value for '--place': 'left' is not one of 'all', 'start', 'centre', 'rand"),
            ("--feature mle", 2, "unknown feature 'mle'; did you mean mel? choose from stft, mel"),
            ("--feature mel:n_mel=3", 2, "mel: 'n_mel=3' is not a parameter; write key=value with dtype, fmax, fmin,"),
            ("--feature mel:n_mels=x", 2, "mel: n_mels=x; it must be of type int"),
            ("--dtype int8", 2, "Invalid value for '--dtype': 'int8' is not one of 'uint8', 'float16', 'float32',"),
            ("--sr 7", 2, "stft: sr=7; it must be 1000 to 384000 Hz"),
            ("--workers 0", 2, "Invalid value for '--workers': 0 is not in the range x>=1; see `mgc extract --help`"),
            ("--timeout 0", 2, "--timeout 0; it must be a positive number of seconds"),
            ("--timeout nan", 2, "--timeout nan; it must be a positive number of seconds"),
            ("--max-duration -1", 2, "--max-duration -1; it must be a positive number of seconds"),
            ("--max-dropped many", 2, "--max-dropped many; it must be a number of tracks, or a share like 5%"),
            ("--max-dropped nan", 2, "--max-dropped nan; it must be a number of tracks, or a share like 5%"),
            ("--max-dropped -1", 2, "--max-dropped -1; it must be a number of tracks, or a share like 5%"),
            ("--name ../elsewhere", 2, "--name '../elsewhere'; it must be the name of a folder, without slashes"),
            ("--datset x", 2, "No such option '--datset'. (Did you mean one of: '--dataset',"),
            ("--feature", 2, "Option '--feature' requires an argument; see `mgc"),
            ("stray", 2, "stray and --dataset {songs} name two datasets; leave one of them out"),
            ("{songs} stray", 2, "Got unexpected extra argument (stray); see `mgc extract --help`"),
            ("--Dataset x", 2, "No such option '--Dataset'. Did you mean '--dataset'?; see `mgc extract --help`"),
            ("--feature MEL", 2, "unknown feature 'MEL'; did you mean mel? choose from stft, mel, mfcc"),
            ("--for KTH2020/CNN", 2, "there is no model 'KTH2020/CNN'; did you mean kth2020/cnn? `mgc models`"),
        ],
    )
    def test_of_extract(self, arguments, code, error, songs, tmp_path):
        names = {"songs": songs, "music": songs.parent}
        before = stamps(songs.parent)
        words = [word.format(**names) for word in arguments.split()]
        where = () if "--dataset" in words else ("--dataset", songs)
        outcome = mgc("extract", *STFT, *where, "--data-dir", tmp_path / "data", *words)
        assert outcome.code == code
        assert outcome.err.startswith("error: ")
        assert outcome.error.startswith(error.format(**names))
        assert outcome.out == ""
        assert not (tmp_path / "data").exists()
        assert stamps(songs.parent) == before

    @pytest.mark.parametrize(
        ("arguments", "code", "error"),
        [
            ("slice {store}", 2, "no slicing given; add --slice SECONDS, --frames N or --whole"),
            ("slice {store} --overlap 2", 2, "--overlap 2; it must be in [0, 1)"),
            (
                "slice {store} --slice 9",
                1,
                "{store}: no track holds one slice (slices of 9 s, 50% overlap); the longest",
            ),
            ("split {store} --splits {store}/none.csv", 1, "cannot read {store}/none.csv: No such file or directory"),
            (
                "info {store}/shards",
                1,
                "{store}/shards: no feature store; did you mean {store}?",
            ),
            ("verify {store}/nowhere", 1, "{store}/nowhere: no feature store; did you mean {store}?"),
            ("verify {store}/../../../nowhere", 1, "{store}/../../../nowhere: no feature store; make one with"),
            ("evaluate {store}", 1, "{store} is a feature store, not a run; name a run; `mgc info {store}` shows"),
            ("evaluate {store}x", 1, "{store}x: no run; make one with `mgc train`, or name another folder"),
            ("verify {store} twice", 2, "Got unexpected extra argument (twice); see `mgc verify --help`"),
            ("info --jsn", 2, "No such option '--jsn'. Did you mean '--json'?; see `mgc info --help`"),
            ("Extract", 2, "No such command 'Extract'. Did you mean 'extract'?; see `mgc --help`"),
            ("trian", 2, "No such command 'trian'. Did you mean 'train'?; see `mgc --help`"),
            ("extract {store} --dataset x", 2, "{store} and --dataset x name two datasets; leave one of them out"),
            ("info --data-dir {store}", 1, "no feature store in {store}; make one with `mgc extract`, or name one"),
        ],
    )
    def test_of_the_other_commands(self, arguments, code, error, store):
        before = stamps(store)
        outcome = mgc(*(word.format(store=store) for word in arguments.split()))
        assert outcome.code == code
        assert outcome.error.startswith(error.format(store=store))
        assert outcome.err.count("\n") == 1
        assert stamps(store) == before

    def test_of_an_unfinished_store(self, store, tmp_path):
        """Extraction creates `plan.parquet` first and `published.json` last."""
        for change in ("published.json is missing", "plan.parquet is there"):
            name = change.split()[0]
            unfinished = shutil.copytree(store, tmp_path / name)
            (unfinished / name).unlink() if "missing" in change else (unfinished / name).touch()
            outcome = mgc("info", unfinished)
            assert outcome.code == 1
            assert outcome.error == f"{unfinished}: its extraction is unfinished; run `mgc extract` again: it continues"

    def test_in_a_process_of_its_own(self, songs):
        """A process ends with the exit code, and without a traceback."""
        outcome = mgc_process("extract", "--dataset", songs / "nowhere", *STFT)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.error.startswith(f"cannot open dataset {songs}/nowhere: ")
        assert mgc_process("extract", "--overlap", 1, *STFT, "--dataset", songs).code == 2

    @pytest.mark.parametrize("place", [0, -1])
    def test_debug_shows_where_it_comes_from(self, place, songs):
        arguments = ["extract", "--dataset", str(songs / "nowhere"), *STFT]
        arguments.insert(place % (len(arguments) + 1), "--debug")
        outcome = mgc_process(*arguments)
        assert outcome.code == 1
        assert outcome.err.startswith("Traceback (most recent call last):\n")
        assert "mgc.pipeline.errors.DatasetError: " in outcome.err
        assert outcome.err.splitlines()[-1].startswith(f"error: cannot open dataset {songs}/nowhere: ")

    def test_a_bug_in_mgc_is_one_line_too(self, store, monkeypatch):
        def fault(*_: object) -> None:
            raise RuntimeError("several\nlines")

        monkeypatch.setattr("mgc.models.runs.commands.choose_store", fault)
        outcome = mgc("info", store)
        assert outcome.code == 1
        assert outcome.error == "RuntimeError: several lines; this is a bug in mgc; `--debug` shows where"

    def test_a_reader_that_stops_reading_gets_no_traceback(self, store):
        command = f"'{MGC}' info --json '{store}' | true; echo ${{PIPESTATUS[0]}}"
        for _ in range(3):  # the reader ends at once, or a moment later
            run = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
            assert run.stderr == ""


class TestHelp:
    def test_imports_nothing_heavy(self):
        """Imports are checked instead of times, which depend on the load of the machine."""
        for command in ("", "extract", "slice", "split", "info", "verify", "train", "evaluate", "models"):
            words = [sys.executable, "-X", "importtime", str(MGC), *command.split(), "--help"]
            run = subprocess.run(words, capture_output=True, text=True)
            assert run.returncode == 0
            assert "Usage: mgc" in run.stdout
            imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in run.stderr.splitlines() if "|" in line}
            heavy = {"numpy", "scipy", "pyarrow", "torch", "zarr", "dask", "distributed", "librosa", "sklearn"}
            assert "click" in imported
            assert not imported & heavy

    def test_every_option_is_explained(self):
        for name, command in cli.main.commands.items():
            assert command.help, name
            options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
            assert [option.name for option in options if not option.help] == [], name

    @pytest.mark.parametrize("name", ["extract", "train", "evaluate", "slice", "split"])
    def test_every_option_stands_in_a_group_and_fits_80_columns(self, name):
        command = cli.main.commands[name]
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        message = f"put it below a `@help_groups.group(NAME)` of mgc {name}"
        assert [option.opts for option in options if help_groups.group_of(option) is None] == [], message
        page = CliRunner().invoke(cli.main, [name, "--help"], prog_name="mgc", env={"COLUMNS": "80"}).stdout
        headings = [line.rstrip(":") for line in page.splitlines() if line.endswith(":") and line[0] != " "]
        assert headings == [*dict.fromkeys(filter(None, headings))]
        assert len(headings) >= 2
        assert "Options" not in headings
        assert headings[-1] == help_groups.GENERAL
        assert all(page.count(f" {option.opts[0]} ") >= 1 for option in options)
        assert max(map(len, page.splitlines())) <= 80

    def test_closed_sets_of_values_are_listed_and_upper_case_is_taken(self):
        for name, option in (("extract", "--place [all|start|centre|random]"), ("evaluate", "--split [training|")):
            assert option in mgc(name, "--help").out
        assert cli.main.commands["extract"].make_context("extract", ["--place", "ALL"]).params["place"] == "all"

    def test_no_command_at_all_is_a_question(self):
        outcome = mgc()
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith("Usage: ")

    def test_version(self):
        assert mgc("--version").out == "mgc, version 0.1.0\n"


#: Keys of the JSON report, on which scripts rely.
REPORT = {
    "audit", "store", "spec", "dataset", "root", "tracks", "ok", "rescued", "by_ffmpeg", "cancelled",
    "partly_cancelled", "dropped", "dropped_tracks", "seconds",
    "slicing", "slices", "cuts", "splits", "genres", "artists", "variants", "saturated",
    "saturated_above", "low_rate", "bytes", "versions",
}  # fmt: skip


class TestJson:
    def test_of_info_slice_and_split_is_one_report(self, store):
        report = mgc("info", store, "--json").json
        assert set(report) == REPORT
        assert (report["tracks"], report["ok"], report["dropped"]) == (10, 8, {"too-short": 2})
        assert report["genres"] == {"blues": 4, "disco": 4}
        assert sum(part["tracks"] for part in report["splits"].values()) == 8
        assert sum(part["slices"] for part in report["splits"].values()) == report["slices"] == 8
        assert [row["path"] for row in report["dropped_tracks"]] == ["blues/blues00.wav", "disco/disco00.wav"]
        assert report["seconds"] == pytest.approx(2 * (0.65 + 0.7 + 0.75 + 0.8), abs=1e-3)
        assert report["bytes"] == sum(path.stat().st_size for path in (store / "shards").rglob("*") if path.is_file())
        assert mgc("slice", store, "--slice", "0.62", "--json").json == report
        assert mgc("split", store, "--json").json == report

    def test_of_extract_is_a_report_for_each_store(self, workspace, store, songs):
        outcome = mgc("extract", *STFT, "--data-dir", workspace, "--json", "--slice", "0.62")
        assert set(outcome.json) == {"stores"}
        (report,) = outcome.json["stores"]
        assert set(report) == REPORT | {"decoded"}
        assert report["store"] == str(store)

    def test_of_extract_is_printed_before_an_error(self, workspace):
        outcome = mgc("extract", *STFT, "--data-dir", workspace, "--json", "--slice", "0.62", "--max-dropped", 0)
        assert outcome.code == 1
        assert outcome.json["stores"][0]["dropped"] == {"too-short": 2}
        assert "2 of 10 tracks were dropped, more than --max-dropped 0" in outcome.error


class TestText:
    def test_of_info(self, store):
        text = mgc("info", store).out
        for line in (
            str(store),
            "  feature   stft sr=44100 n_fft=512 hop_length=512 dtype=uint8",
            "  tracks    8 of 10 in use, 0.00 h, ",
            "  slices    8 (slices of 0.62 s, 50% overlap)",
            "  genres    blues 4, disco 4",
            "  artists   none is known: an artist may be in training and test, which flatters\n"
            "            accuracies\n",
            "  dropped   2: too-short 2",
            "            too-short   blues/blues00.wav: no slice fits (slices of 0.62 s, 50%\n"
            "                        overlap)\n",
        ):
            assert line in text

    def test_without_a_terminal_progress_is_plain_lines_on_stderr(self, store, tmp_path, scheduler, songs):
        outcome = mgc("verify", store)
        assert outcome.err.splitlines()[-1] == "verify: 3 of 3 shards"
        where = ("--dataset", songs, "--data-dir", tmp_path, "--scheduler", scheduler)
        outcome = mgc("extract", *where, *STFT, "--slice", "0.4")
        lines = outcome.err.splitlines()
        assert lines[-1] == "extract: 10 of 10 tracks"
        assert all(line.startswith("extract: ") for line in lines)


class TestWhenNothingIsNamed:
    def test_the_only_dataset_is_taken_and_said(self, workspace, songs):
        outcome = mgc("extract", *STFT, "--data-dir", workspace, "--slice", "0.62")
        assert outcome.code == 0
        assert outcome.err == f"dataset: {workspace / 'songs'}\n"

    def test_the_latest_store_is_taken_and_said(self, workspace, store):
        for command in (("info",), ("verify",), ("split",), ("slice", "--slice", "0.62")):
            outcome = mgc(*command, "--data-dir", workspace)
            assert outcome.code == 0
            assert outcome.err.startswith(f"store: {store}\n")

    def test_the_workspace_comes_from_the_environment_or_is_data(self, workspace, store, monkeypatch, tmp_path):
        monkeypatch.delenv("MGC_DATA")
        monkeypatch.chdir(workspace.parent)
        assert mgc("info").err == f"store: {Path('data') / store.relative_to(workspace)}\n"
        monkeypatch.chdir(tmp_path)
        assert mgc("info").error == "no feature store in data; make one with `mgc extract`, or name one"
        monkeypatch.setenv("MGC_DATA", str(workspace))
        assert mgc("info").err == f"store: {store}\n"
        assert mgc("info", "--data-dir", tmp_path).error.startswith(f"no feature store in {tmp_path}; ")

    def test_only_what_a_command_made_is_the_latest(self, workspace, scheduler, tmp_path):
        data = shutil.copytree(workspace, tmp_path / "data", symlinks=True)
        (store,) = data.glob("features/songs/*")
        mgc("extract", "--feature", "stft:n_fft=1024", "--slice", "0.4", "--data-dir", data, "--scheduler", scheduler)
        other = Path(mgc("info", "--json", "--data-dir", data).json["store"])
        assert other != store
        for command in ("info", "verify", "split"):
            assert mgc(command, store, "--data-dir", data).code == 0
            assert mgc(command, store, "--data-dir", tmp_path / "none").code == 0
        failed = ("--slice", "60", "--data-dir", data, "--scheduler", scheduler)
        assert mgc("extract", "--feature", "mel:n_mels=8", *failed).code == 1
        assert not (tmp_path / "none").exists()
        assert mgc("info", "--json", "--data-dir", data).json["store"] == str(other)
        assert mgc("slice", store, "--slice", "0.3", "--data-dir", data).code == 0
        assert mgc("info", "--json", "--data-dir", data).json["store"] == str(store)

    def test_nothing_is_written_beside_the_dataset(self, workspace, songs):
        assert {path.name for path in songs.iterdir()} == {
            "blues", "disco", "good.csv", "short.csv", "outside.csv", "empty.csv",
        }  # fmt: skip
        assert {path.name for path in workspace.iterdir()} == {"songs", "features", "latest.json"}


def test_labels_and_names_of_any_language_are_shown_as_they_are(tmp_path, scheduler):
    """In JSON and in text; control characters, which could move a terminal's cursor, are escaped in text."""
    for name in ("Ćao.wav", "日本.wav", "line\nbreak.wav"):
        write_clip(tmp_path / "songs" / "Ünterwelt" / name, 0.5)
    write_clip(tmp_path / "songs" / "Ünterwelt" / "good.wav", 2.0)
    where = ("--dataset", tmp_path / "songs", "--data-dir", tmp_path / "data", "--scheduler", scheduler)
    outcome = mgc("extract", *STFT, *where, "--slice", 1)
    assert outcome.code == 0
    for shown in ("Ünterwelt 1", "Ćao.wav", "日本.wav", "line\\nbreak.wav"):
        assert shown in outcome.out
    report = mgc("info", "--data-dir", tmp_path / "data", "--json")
    assert "Ünterwelt/日本.wav" in report.out
    assert {row["path"] for row in json.loads(report.out)["dropped_tracks"]} >= {"Ünterwelt/line\nbreak.wav"}
    assert Store.open(Path(report.json["store"])).genres == ["Ünterwelt"]
    assert tree(tmp_path / "songs")
