"""Exit codes of every command: 0 done, 1 an error in what is on disk, 2 wrong usage, 130 interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import click
import pytest
from commands import MGC, mgc
from stores import make_store

from mgc import cli
from mgc.pipeline import option_types
from mgc.pipeline.workspace import Workspace

#: Arguments, with `{store}` and `{nowhere}` for paths, and the exit code.
CASES = [
    ("audit {nowhere}", 1),
    ("audit --fail-on often", 2),
    ("audit {store} --runs {nowhere}", 1),
    ("compare", 1),
    ("compare {nowhere}", 1),
    ("compare {store}", 1),
    ("compare --latex --csv", 2),
    ("completion bash", 0),
    ("completion powershell", 2),
    ("config", 0),
    ("config trian", 2),
    ("demo --epochs many", 2),
    ("download", 0),
    ("download fma-tiny", 2),
    ("download gtzan --mirror ftp://host", 2),
    ("download gtzan {nowhere}", 2),
    ("download gtzan {nowhere} --check", 1),
    ("download gtzan --check", 1),
    ("download gtzan --mirror http://127.0.0.1:9 --retries 0", 1),
    ("evaluate {nowhere}", 1),
    ("evaluate {store}", 1),
    ("evaluate --split exam", 2),
    ("evaluate", 1),
    ("embed", 2),
    ("embed nothing {store}", 1),
    ("embed {nowhere} {store}", 1),
    ("embed musicnn {nowhere}", 1),
    ("embed nothing --dtype int8", 2),
    ("export", 1),
    ("export {nowhere}", 1),
    ("export --format tflite", 2),
    ("export --half --format torch", 2),
    ("extract", 1),
    ("extract --dataset {nowhere}", 1),
    ("extract --dataset {nowhere} --feature mle", 2),
    ("extract --dataset {nowhere} --slice 4 --frames 3", 2),
    ("extract --dataset {nowhere} --for kth2021/cnn", 2),
    ("extract --dataset {nowhere} --for kth2021", 2),
    ("extract --dataset {nowhere} --format zip", 2),
    ("extract --dataset {nowhere} --subset tiny", 2),
    ("extract --dataset {nowhere} --max-dropped many", 2),
    ("extract --dataset {nowhere} --augment echo", 2),
    ("info {store}", 0),
    ("info {nowhere}", 1),
    ("info --jsn", 2),
    ("list", 0),
    ("list songs", 2),
    ("models", 0),
    ("models --what", 2),
    ("new model Bad-Name", 2),
    ("new zoo good_name", 2),
    ("new model json --out {nowhere}", 1),
    ("plot {nowhere}", 1),
    ("plot {store} --start 1", 2),
    ("plot --out picture.gif", 2),
    ("remove", 2),
    ("remove {nowhere} --yes", 1),
    ("reproduce kth2020/cnn", 1),
    ("reproduce --table", 1),
    ("reproduce kth2020/cn", 2),
    ("reproduce", 2),
    ("reproduce all --protocol leaky", 2),
    ("segments", 1),
    ("segments {nowhere}", 1),
    ("segments --count 0", 2),
    ("search", 2),
    ("search nobody", 1),
    ("search nobody --store {store}", 1),
    ("search nobody --top-k 0", 2),
    ("predict", 2),
    ("predict {nowhere}", 1),
    ("predict --unknown 1 {store}", 2),
    ("report", 1),
    ("report {nowhere}", 1),
    ("report {store}", 1),
    ("report --split exam", 2),
    ("serve {nowhere}", 1),
    ("serve {store}", 1),
    ("serve --port 65536", 2),
    ("serve --unknown 1", 2),
    ("slice {store}", 2),
    ("slice {store} --slice 999", 1),
    ("slice {store} --default nothing", 1),
    ("slice {nowhere} --slice 1", 1),
    ("split {store}", 0),
    ("split {nowhere}", 1),
    ("split {store} --seed x", 2),
    ("train --model cnn --store {store}", 2),
    ("train --model kth2020/cnn --recipe kth2020/cnn", 2),
    ("train --model test/none", 2),
    ("train --seeds 0,x", 2),
    ("train --seeds 0,4294967296", 2),
    ("train --folds 99 --store {store}", 1),
    ("train --folds 1", 2),
    ("train --augment time-masks=x", 2),
    ("train --nproc 257 --store {nowhere}", 2),
    ("train --store {nowhere}", 1),
    ("train --device gpu --store {store}", 2),
    ("train --device cuda:999 --store {store}", 1),
    ("train --run {nowhere}", 2),
    ("train --resume --run {nowhere}", 1),
    ("train --weights {nowhere} --store {store}", 1),
    ("train --weights {nowhere}/a --model svm --store {store}", 2),
    ("train --weights musicnn --model pons2019/musicnn --store {store}", 1),
    ("train --thaw 2 --store {store}", 2),
    ("download musicnn --check", 1),
    ("download musicnn --keep-archives", 2),
    ("verify {store}", 0),
    ("verify {nowhere}", 1),
    ("verify {store} twice", 2),
    ("exract", 2),
    ("", 0),
]


#: Values that no numeric option takes, by the type of its values.
BAD = {int: ("-1", "1.5", "x", "nan"), float: ("-1", "nan", "inf", "-inf", "x")}
#: Options of which 0 is a valid value.
ZERO = {
    "--clip", "--ema", "--fmin", "--label-smoothing", "--min-confidence", "--offset", "--overlap", "--plateau-patience",
    "--port", "--retries", "--seed", "--start", "--thaw", "--unknown", "--warmup", "--weight-decay",
}  # fmt: skip
#: Options of which 1 is no valid value either.
BELOW_ONE = {
    "--batch-size", "--ema", "--label-smoothing", "--min-confidence", "--overlap", "--plateau-factor", "--unknown",
}  # fmt: skip


def numeric_options() -> list[tuple[str, str, str]]:
    """Each numeric option of each command with each of its bad values."""
    rows = []
    for name in cli.COMMANDS:
        command = cli.main.get_command(click.Context(cli.main), name)
        for option in command.params:
            kind = {"integer": int, "integer range": int, "float": float, "float range": float}.get(option.type.name)
            if not isinstance(option, click.Option) or kind is None:
                continue
            flag = option.opts[0]
            values = [*BAD[kind], *["0"] * (flag not in ZERO), *["1"] * (flag in BELOW_ONE)]
            if isinstance(option.type, option_types.Whole):
                values.append(str(2**64))
            rows += [(name, flag, value) for value in values]
    return rows


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with one mel store."""
    workspace = Workspace(tmp_path_factory.mktemp("workspace") / "data")
    workspace.remember("store", make_store(workspace.features("songs") / "mel").path)
    return workspace


@pytest.mark.parametrize(("arguments", "code"), CASES)
def test_of_each_command(arguments: str, code: int, workspace: Workspace, tmp_path: Path) -> None:
    names = {"store": workspace.latest_store(), "nowhere": tmp_path / "nowhere"}
    words = [word.format(**names) for word in arguments.split()]
    # A workspace without datasets: commands that name none must say so.
    where = ["--data-dir", tmp_path / "data"] if words and words[0] in cli.COMMANDS else []
    outcome = mgc(*words, *where)
    assert outcome.code == code, outcome.err
    assert (outcome.err.count("error: "), outcome.err.count("this is a bug")) == (code > 0, 0)


@pytest.mark.parametrize(("command", "option", "value"), numeric_options())
def test_numbers_are_checked_before_anything_is_done(command: str, option: str, value: str, tmp_path: Path) -> None:
    """Without a dataset, a store or a run: that is not even looked at."""
    processes = ["--nproc", 2] if command == "train" and option != "--nproc" else []
    outcome = mgc(command, *processes, option, value, "--data-dir", tmp_path / "data")
    assert outcome.code == 2
    assert re.match(rf"({option} |Invalid value for '{option}': ).*{re.escape(value)}", outcome.error, re.DOTALL)
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_numbers_of_all_commands_are_checked() -> None:
    rows = numeric_options()
    assert {command for command, _, _ in rows} >= {"demo", "extract", "slice", "split", "train"}
    assert {option for command, option, _ in rows if command == "train"} >= {"--epochs", "--lr", "--ema", "--nproc"}


def test_every_command_has_cases_of_both_kinds() -> None:
    codes: dict[str, set[int]] = {}
    for arguments, code in CASES:
        codes.setdefault(arguments.partition(" ")[0], set()).add(code)
    assert {name for name in cli.COMMANDS if 2 not in codes.get(name, ())} == set()
    reading_nothing = {"completion", "config", "demo", "list", "models"}  # or, like `list`, all that they can
    assert {name for name in cli.COMMANDS if 1 not in codes[name]} == reading_nothing


def test_sigint_gives_130_and_sigterm_ends_the_process(tmp_path: Path) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        command = [MGC, "demo", "--data-dir", tmp_path / str(code)]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"mgc demo: ")
            time.sleep(0.1)
            process.send_signal(number)
            assert process.wait(timeout=60) == code
