"""Every command and block of code that README.md and docs/ show is run, page by page, in the order of the page.

A page begins in a workspace after `mgc demo`, at a smaller size, beside what its commands name: folders of music,
stand-ins for FMA and GTZAN, other runs. Those commands run in this process, with words expanded by bash; whatever
redirects, joins or is another program runs in bash.

A command that a page adds is run without further ado. If it takes too long, ADDED shortens it; NOT_RUN lists what no
test should run, with the reason and the test that does the same.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import requests
from commands import MGC, mgc, mgc_all
from music import write_list
from serving import server
from shown import Block, ShownCommand, blocks, commands, python_blocks
from stand_ins import tag_library, write_gtzan

from mgc.models.training.loop import Trainer
from mgc.pipeline.datasets import open_dataset
from mgc.pipeline.demo.dataset import make_demo

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SHOWN = {page.name: commands(page) for page in PAGES if commands(page) or python_blocks(page)}
PYTHON = {page.name: python_blocks(page) for page in PAGES if python_blocks(page)}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: Words that are added to commands which begin so; all that fit are added. The last of equal options counts.
ADDED = {
    r"mgc extract\b(?!.*--dry-run)": "--scheduler {scheduler}",
    r"mgc train\b(?!.*(moments/|/knn|--resume|--find-lr))": "--epochs 1 --device cpu",
    r"mgc train\b(?!.*(moments/|/knn|--resume|--folds))": "--limit-tracks 2",
    r"mgc train (?!.*moments/).*--folds": "--model vit2021/cnn --no-variants",
    r"mgc train (?!.*moments/).*--seeds": "--model vit2021/cnn",
    r"mgc train .*--find-lr": "--model vit2021/cnn --device cpu",
    r"mgc reproduce (?!--table)": "--epochs 1 --limit-tracks 3 --device cpu",
    r"mgc evaluate": "--device cpu",
}

INSTALLS = ("installs into an environment", "tests/test_install.py")
MEASURES = ("takes minutes to hours, on an idle machine", "tests/test_benchmarks.py")
FETCHES = ("needs the network, and gigabytes", "tests/pipeline/downloads/test_download.py")
TWO_MACHINES = ("needs several machines, or more processors", "tests/test_install.py")
OBJECTS = ("needs a bucket or a web server", "tests/pipeline/storage/test_remote.py")
CLUSTER = ("needs a cluster", "tests/pipeline/extraction/test_cluster.py")
ALL_SYSTEMS = ("takes hours", "tests/models/reproduction/test_reproduce.py")

#: Commands that are not run: patterns, the reason, and the test that does the same, if there is one.
NOT_RUN: dict[str, tuple[str, str | None]] = {
    "pip install *": INSTALLS,
    "python -m venv other *": ("installs libraries that mgc does not use, one of them under the GPL", None),
    "other/bin/python benchmarks/stretch.py *": ("needs that environment", None),
    "python benchmarks/*": MEASURES,
    "mgc demo": ("takes minutes; the workspace of this test is its result", "tests/test_end_to_end.py"),
    "mgc download fma-small": FETCHES,
    "mgc download gtzan": FETCHES,
    "mgc download musicnn*": ("needs a package index", "tests/pipeline/downloads/test_published_weights.py"),
    "mgc train * --weights musicnn*": ("needs these weights", "tests/models/training/test_thawing.py"),
    "mgc extract fma_small --for probe/logreg": ("needs these weights", "tests/models/zoo/test_probes.py"),
    "mgc embed musicnn *": ("needs these weights", "tests/models/embedding/test_embed.py"),
    "mgc embed network.onnx": ("needs another program's network", "tests/models/embedding/test_embed.py"),
    "mgc train --model probe/logreg *": ("needs stores of these weights", "tests/models/zoo/test_probes.py"),
    "mgc reproduce kth2020/cnn": ("needs clips of 30 s", "tests/models/reproduction/test_real_music.py"),
    "mgc reproduce xu2022 --seeds 0,1,2": ALL_SYSTEMS,
    "mgc reproduce all *": ALL_SYSTEMS,
    "mgc reproduce STUDY *": ALL_SYSTEMS,
    "mgc train --nproc *": TWO_MACHINES,
    "torchrun *": TWO_MACHINES,
    "python docs/examples/slurm.py *": ("needs SLURM", "tests/pipeline/extraction/test_slurm.py"),
    "python docs/examples/kube.py *": ("needs Kubernetes", "tests/pipeline/extraction/test_kube.py"),
    "mgc extract --dataset s3://*": OBJECTS,
    "mgc extract --dataset tracks.csv --audio-root https://*": OBJECTS,
    "mgc verify s3://*": OBJECTS,
    "mgc train --store s3://*": OBJECTS,
    "dask ssh *": CLUSTER,
    "mgc extract --dataset /shared/fma_full *": CLUSTER,
}
#: Pages whose blocks of Python are run elsewhere, or not.
PYTHON_ELSEWHERE: dict[str, tuple[str, str | None]] = {
    "python.md": ("needs what its blocks make", "tests/models/interface/test_page.py"),
    "own_system.md": ("the files of a package", "tests/journeys/test_own_package.py"),
    "weights.md": ("needs downloaded weights", "tests/models/zoo/test_pons2019.py"),
}
#: Commands that end with 1, as their page says: a copy that is not the published dataset, findings of an audit.
ENDS_WITH_1 = {"download.md": "mgc download fma-small --check", "audit.md": "mgc audit"}  # by how they begin
#: What stands for the capitals in the commands of a page, and for the tracks of datasets that the stand-ins lack.
NAMES = {
    "plot.md": {"STORE": "data/features/fma_demo/mel-500399", "TRACK": "5501"},
    "performance.md": {"FOLDER": "data/fma_debian"},
    "embeddings.md": {"000317": "005501"},
}
#: Commands that a page takes for granted, because its text names them.
BEFORE = {
    "audit.md": ["mgc extract --dataset leaky.csv --feature mel --slice 4 --overlap 0.5", "mgc audit",
                 "mgc train --model moments/svm --folds 3", "mgc train --model moments/logreg"],
    "compare.md": ["mgc train --model kth2020/knn --evaluate", "mgc train --model vit2021/cnn --evaluate"],
    "download.md": ["mgc extract ~/library --format tags --feature mel --slice 4"],
    "evaluation.md": ["mgc extract --dataset data/fma_debian --feature mel --slice 4 --overlap 0.5",
                      "mgc extract --dataset data/demo/fma_demo --feature mel"],
    "performance.md": ["mgc reproduce vit2021/cnn --dataset data/fma_debian"],
    "reproduction.md": ["mgc reproduce vit2021/cnn --dataset data/fma_debian --protocol leak-free"],
}  # fmt: skip
#: Folders, in FMA's layout with metadata beside them, that a page names.
FMA = {
    "evaluation.md": ("data/fma_debian",),
    "fma_small.md": ("data/datasets/fma-small/fma_small",),
    "download.md": ("data/datasets/fma-small/fma_small",),
    "performance.md": ("data/fma_debian",),
    "reproduction.md": ("data/fma_debian",),
}
#: Commands whose output is that of data with a fault, which the stand-ins do not have.
OTHER_OUTPUT = {("audit.md", "mgc audit")}
#: Pages that begin without stores and runs.
WITHOUT_RUNS = {"README.md", "audit.md", "download.md", "fma_small.md", "index.md", "own_music.md"}
#: Least share of the lines of shown output whose first word is in the real one, which other music makes.
ALIKE = 0.7


def exempt(words: str) -> str | None:
    """The entry of NOT_RUN for a command."""
    return next((pattern for pattern in NOT_RUN if fnmatchcase(words, pattern)), None)


def write_leaky_list(path: Path, demo: Path) -> None:
    """Write a list of the demo's tracks, of which two artists of each genre are in two splits."""
    splits = ("training", "training", "validation", "test", "training", "test")
    rows = [row for row in open_dataset(demo).tracks.to_pylist() if row["track_id"][-2:] != "99"]
    tracks = [
        {
            "path": (demo / row["path"]).relative_to(path.parent),
            "genre": row["genre"],
            "artist": f"Artist {number // 2}",
            "split": splits[number % 6],
        }
        for number, row in enumerate(rows)
    ]
    write_list(path, tracks)


@pytest.fixture(scope="module")
def home(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The reader's folders: `work`, in which commands are called, `home`, and `made`: workspaces to begin with."""
    home = tmp_path_factory.mktemp("reader")
    demo = make_demo(home / "work" / "data" / "demo", tracks_per_artist=1, seconds=6)
    other = make_demo(home / "other", tracks_per_artist=1, seconds=6, seed=1)
    music = sorted(path for path in demo.rglob("*.mp3") if path.stem[-2:] != "99")  # 99 are those with faults
    for row in open_dataset(demo).tracks.to_pylist():
        if demo / row["path"] in music:
            path = home / "home" / "music" / row["genre"] / Path(row["path"]).name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(demo / row["path"], path)
    tag_library(other, home / "home" / "library")
    for folder in ("zsh", ".config/fish/completions", ".local/share/bash-completion/completions"):
        (home / "home" / folder).mkdir(parents=True)
    shutil.copy(music[0], home / "work" / "song.mp3")
    write_leaky_list(home / "work" / "leaky.csv", demo)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")))
        patch.setenv("HOME", str(home / "home"))
        patch.setenv("PATH", f"{MGC.parent}:{os.environ['PATH']}")
        patch.delenv("MGC_DATA")
        patch.chdir(home / "work")
        shutil.copytree(home / "work", home / "made" / "without runs")
        extract = ("extract", "--dataset", "data/demo/fma_demo", "--feature", "mel", "--slice", 4, "--overlap", 0.5)
        few = ("--epochs", 1, "--limit-tracks", 2, "--device", "cpu")
        mgc_all(
            Path("data"),
            (*extract, "--scheduler", scheduler),
            ("train", "--model", "moments/svm", "--evaluate"),
            ("train", "--model", "kth2020/cnn", "--evaluate", *few),
        )
        shutil.copytree(home / "work", home / "made" / "with runs")
        patch.chdir(home)
        shutil.rmtree(home / "work")
        yield home


@pytest.fixture
def work(home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, as a page finds it; always at the same place, which stores record."""
    page = request.getfixturevalue("name")
    shutil.copytree(home / "made" / ("without runs" if page in WITHOUT_RUNS else "with runs"), home / "work")
    monkeypatch.chdir(home / "work")
    yield home / "work"
    monkeypatch.chdir(home)
    shutil.rmtree(home / "work")


class Reader:
    """Types what a page shows.

    Args:
        name: of the page.
        scheduler: address of a Dask scheduler.
        patch: changes the environment until the page ends.
    """

    def __init__(self, name: str, scheduler: str, patch: pytest.MonkeyPatch) -> None:
        self._name, self._scheduler, self._patch = name, scheduler, patch

    def type(self, words: str) -> tuple[int, str]:
        """Run a command, and return its exit code and output."""
        for placeholder, value in NAMES.get(self._name, {}).items():
            words = re.sub(rf"\b{placeholder}\b", value, words)
        words = re.sub(r"data/runs/\d{8}-\d{6}-([\w-]+)", self._newest_run, words)
        for start, added in ADDED.items():
            if re.match(start, words):
                words += f" {added}".format(scheduler=self._scheduler)
        program = words.split()[0]
        if program == "export":
            name, _, value = words.removeprefix("export ").partition("=")
            self._patch.setenv(name, value.strip('"'))
            return 0, ""
        if program == "make":
            return self._bash(words.replace("make", f"make -n -C {ROOT}"))
        if program != "mgc" or re.search(r"[|;&]|>", words):
            return self._bash(words)
        echo = subprocess.run(
            ["bash", "-c", f'mgc() {{ printf "%s\\0" "$@"; }}\n{words}'], check=True, capture_output=True, text=True
        )
        outcome = mgc(*echo.stdout.split("\0")[:-1])
        return outcome.code, outcome.out + outcome.err

    def _newest_run(self, found: re.Match[str]) -> str:
        return max(map(str, Path("data/runs").glob(f"*-{found[1]}")))

    def _bash(self, words: str) -> tuple[int, str]:
        # zsh's folder of completions: bash has no such variable.
        script = f'fpath=("$HOME/zsh" "$HOME/zsh")\n{words}'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout + done.stderr


def first_word(line: str) -> str:
    """What a line begins with; digits are alike, and what is in a path stands for it."""
    return re.sub(r"\d+", "0", line.split()[0]).strip("…:,.")


def assert_alike(shown: ShownCommand, output: str) -> None:
    """Most lines of the shown output begin with words of the real one; `...` stands for lines that are left out."""
    expected = [first_word(line) for line in shown.output if line.strip() not in ("...", "…")]
    words = {re.sub(r"\d+", "0", word).strip("…:,.") for word in output.split()}
    missing = [word for word in expected if word not in words]
    assert len(missing) <= (1 - ALIKE) * len(expected), (shown.line, shown.words, missing, output)


@pytest.mark.parametrize("name", [name for name in SHOWN if name != "serve.md"])
def test_what_a_page_shows(name: str, work: Path, home: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(name, scheduler, monkeypatch)
    prepare(name, reader, home)
    parts: list[ShownCommand | Block] = [*SHOWN[name]]
    if name not in PYTHON_ELSEWHERE:
        parts += PYTHON.get(name, [])
    for part in sorted(parts, key=lambda part: part.line):
        if isinstance(part, Block):
            exec(compile("\n" * (part.line - 1) + "\n".join(part.lines), name, "exec"), {})
        elif exempt(part.words) is None:
            if part.words == "mgc train --resume":
                interrupt_a_training()
            started = time.monotonic()
            code, output = reader.type(part.words)
            print(f"{name}, line {part.line}: {part.words}: {time.monotonic() - started:.1f} s")
            expected = int(part.words.startswith(ENDS_WITH_1.get(name, "-")))
            assert code == expected, (name, part.line, part.words, output)
            assert "nothing is left to do" not in output, (part.words, output)
            if (name, part.words) not in OTHER_OUTPUT:
                assert_alike(part, output)


def prepare(name: str, reader: Reader, home: Path) -> None:
    """Write and run what a page takes for granted."""
    for place in FMA.get(name, ()):
        if not Path(place).parent.joinpath("fma_metadata").exists():
            shutil.copytree(home / "other" / "fma_metadata", Path(place).parent / "fma_metadata")
        shutil.copytree(home / "other" / "fma_demo", place)
    if name == "download.md":
        music = sorted((home / "home" / "music").rglob("*.mp3"))
        write_gtzan(Path("data/datasets/gtzan/genres"), music, {"training": 2, "validation": 1, "test": 1}, seconds=4)
    for words in BEFORE.get(name, []):
        code, output = reader.type(words)
        assert code == 0 or words == "mgc audit", (words, output)
    if name == "configuration.md":
        [toml] = [block for block in blocks(ROOT / "docs" / name) if block.language == "toml"]
        Path("mgc.toml").write_text("\n".join(toml.lines).replace("/music/mgc", "data"))


def interrupt_a_training() -> None:
    """Begin a training, and press Ctrl-C after its first epoch."""
    end_epoch = Trainer._end_epoch

    def interrupt(trainer: Trainer) -> None:
        end_epoch(trainer)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_end_epoch", interrupt)
        assert mgc("train", "--epochs", 2, "--limit-tracks", 2, "--device", "cpu").code == 130


@pytest.mark.parametrize("name", ["serve.md"])
def test_a_server_answers_the_requests_of_its_page(
    name: str, work: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *asked, validate, calibrated, make_token, second = SHOWN[name]
    reader = Reader(name, "", monkeypatch)
    with server(home / "one", *first.words.split()[2:]) as running:
        for request in asked:
            words = request.words.replace("http://127.0.0.1:8000", running.url)
            code, output = reader.type(words.replace("curl", "curl --silent --fail"))
            assert code == 0, (words, output)
            assert {"genre", "top", "timeline"} >= {"genre"} <= set(json.loads(output[output.index("{") :]))
        assert_alike(first, running.line + running.errors.read_text())
    assert reader.type(validate.words)[0] == 0
    with server(home / "three", *calibrated.words.split()[2:]) as running:
        assert requests.get(f"{running.url}/openapi.json", timeout=60).ok
    assert reader.type(make_token.words)[0] == 0
    with server(home / "two", *second.words.split()[2:]) as running:
        url = running.url.replace("0.0.0.0", "127.0.0.1")
        assert requests.get(f"{url}/healthz", timeout=60).ok
        song = Path("song.mp3").read_bytes()
        token = {"Authorization": f"Bearer {Path('token').read_text().strip()}"}
        answers = [
            requests.post(f"{url}/predict", files={"file": song}, headers=sent, timeout=60) for sent in ({}, token)
        ]
        assert [answer.status_code for answer in answers] == [401, 200]


def test_exempt_commands_have_tests_that_exist_and_are_shown() -> None:
    words = [command.words for page in SHOWN.values() for command in page]
    assert [pattern for pattern in NOT_RUN if not any(exempt(one) == pattern for one in words)] == []
    covered = [test for _, test in (*NOT_RUN.values(), *PYTHON_ELSEWHERE.values()) if test]
    assert [test for test in covered if not (ROOT / test).is_file()] == []


def test_commands_are_found() -> None:
    """The checks above find the commands at all."""
    assert sum(map(len, SHOWN.values())) > 100


def test_benchmarks_have_the_options_that_are_shown() -> None:
    shown: dict[str, set[str]] = {}
    for command in (command for page in SHOWN.values() for command in page):
        if found := re.match(r"\S*python (benchmarks/\w+\.py)", command.words):
            shown.setdefault(found[1], set()).update(re.findall(r"--[a-z-]+", command.words))
    assert len(shown) > 4
    for script, options in shown.items():
        done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True)
        assert sorted(option for option in options if option not in done.stdout) == [], (script, done.stderr)
