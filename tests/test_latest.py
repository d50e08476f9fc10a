"""The latest store and run: those that a command made last. Reading, failure and interruption move neither."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import mgc
from music import write_genres
from tiny import TINY

from mgc import cli
from mgc.models.registry import systems
from mgc.models.training.loop import Trainer
from mgc.pipeline.extraction.dispatcher import Dispatcher

MEL = ("--feature", "mel:n_mels=8,n_fft=512", "--slice", "1.6")
TRAIN = ("train", "--model", TINY.id, "--epochs", "1")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(systems._systems, TINY.id, TINY)


@pytest.fixture(scope="module")
def made(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one dataset, one of whose ten files is empty, two stores, and two runs of the first store.

    The second store and the second run are the latest.
    """
    data = tmp_path_factory.mktemp("here") / "data"
    songs = write_genres(data / "songs", tracks=5, seconds=2.1)
    next(songs.rglob("*.wav")).write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        for words in (
            ("extract", *MEL, "--scheduler", scheduler),
            TRAIN,
            ("evaluate",),
            TRAIN,
            ("evaluate",),
            ("extract", "--feature", "stft:n_fft=512", "--slice", "1.6", "--scheduler", scheduler),
        ):
            outcome = mgc(*words, "--data-dir", data)
            assert outcome.code == 0, outcome.err
    shutil.copytree(data, data.with_name("as made"))
    return data


@pytest.fixture
def data(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That workspace, as it was made, in the folder that the test stands in."""
    shutil.rmtree(made)
    shutil.copytree(made.with_name("as made"), made)
    monkeypatch.chdir(made.parent)
    monkeypatch.delenv("MGC_DATA")
    return made


def latest(data: Path) -> dict[str, Path]:
    """The latest store and run, by kind: their paths."""
    return {kind: data / name for kind, name in json.loads((data / "latest.json").read_bytes()).items()}


def others(data: Path) -> dict[str, Path]:
    """The store and the run that are not the latest, by kind, and the latest ones under `last-store` and `last-run`."""
    last = latest(data)
    (store,) = set(data.glob("features/songs/mel-*"))
    run = min((data / "runs").iterdir(), key=lambda path: (len(path.name), path.name))
    assert last["store"] != store
    assert last["run"] != run
    return {"store": store, "run": run, "last-store": last["store"], "last-run": last["run"]}


class New:
    """A folder that does not exist yet, another one each time that it is named."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent

    def __format__(self, spec: str) -> str:
        return str(self._parent / f"new-{len(list(self._parent.iterdir()))}")


#: Commands that read, one entry or more for each that there is: none moves the latest store or run.
READING = {
    "info": ("info {store}", "info {run}", "info"),
    "audit": ("audit {store} --fail-on error", "audit --fail-on error"),
    "compare": ("compare {run} {last-run}", "compare"),
    "completion": ("completion bash",),
    "config": ("config train", "config"),
    "list": ("list", "list --data-dir {store}/../../.."),
    "remove": ("remove {run} --dry-run --data-dir {store}/../../..", "remove songs --dry-run"),
    "download": ("download",),
    "verify": ("verify {store}", "verify {run}", "verify"),
    "evaluate": ("evaluate {run}", "evaluate"),
    "segments": ("segments {run} --out {new}",),
    "export": ("export {run} --from features --format torch --out {new}",),
    "predict": ("predict {run} {song} --scheduler {scheduler}", "predict {song} --scheduler {scheduler}"),
    "report": ("report {run}", "report", "report {run} {last-run}"),
    "split": ("split {store}", "split"),
    "models": ("models",),
    "new": ("new model acme",),
    "plot": ("plot {store} --out {store}/../picture.png", "plot --out picture.png"),
    "train": ("train --resume --run {run}", "train --resume"),
}
#: Commands that make something: the latest of which kind moves, and whether to the one that was named.
MAKING = {
    "extract": ("extract --feature mel:n_mels=8,n_fft=512 --slice 1.6 --scheduler {scheduler}", "store", True),
    "slice": ("slice {store} --slice 1.5", "store", True),
    "split": ("split {store} --redo", "store", True),
    "train": (f"train --model {TINY.id} --epochs 1 --store {{store}}", "run", False),
    "embed": ("embed {run} {store}", "store", False),
    "reproduce": (f"reproduce {TINY.id} --dataset data/songs --epochs 1 --scheduler {{scheduler}}", "run", False),
}


def test_every_command_is_reading_or_making() -> None:
    # `serve` does not end by itself (tests/models/service), `search` needs embeddings (tests/models/search).
    own_tests = {"demo", "serve", "search"}
    assert {*READING, *MAKING, *own_tests} == set(cli.COMMANDS)


@pytest.mark.parametrize("words", [words for each in READING.values() for words in each])
def test_reading_moves_nothing_and_writes_nothing_where_one_stands(
    words: str, data: Path, scheduler: str, tmp_path: Path, monkeypatch
):
    (tmp_path / "new").mkdir()
    names = {**others(data), "song": max((data / "songs").rglob("*.wav")), "scheduler": scheduler}
    before, names["new"] = latest(data), New(tmp_path / "new")
    first = mgc(*words.format(**names).split())
    assert first.code == 0, first.err
    assert latest(data) == before
    if "{run}" in words or "{store}" in words:  # and elsewhere, where there is no workspace
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        again = mgc(*words.format(**names).split())
        assert again.code == 0, again.err
        assert not list((tmp_path / "elsewhere").iterdir())
        assert latest(data) == before


@pytest.mark.parametrize("command", MAKING)
def test_what_a_command_made_is_the_latest(command: str, data: Path, scheduler: str):
    words, kind, is_named = MAKING[command]
    before, names = latest(data), others(data)
    outcome = mgc(*words.format(**names, scheduler=scheduler).split())
    assert outcome.code == 0, outcome.err
    after = latest(data)
    assert {name for name in after if after[name] != before.get(name)} == {kind}
    assert after.keys() == before.keys()
    assert after[kind] == names[kind] if is_named else after[kind] not in (names["run"], names["last-run"])


@pytest.mark.parametrize("features", ["stft mel mfcc", "mfcc stft mel", "stft chroma", "chroma waveform"])
def test_of_several_stores_the_order_of_the_features_does_not_decide(features: str, data: Path, scheduler: str):
    """It decides only among features that have no default model."""
    words = [word for feature in features.split() for word in ("--feature", feature)]
    outcome = mgc("extract", *words, "--slice", 1.6, "--scheduler", scheduler)
    assert outcome.code == 0, outcome.err
    expected = "mel" if "mel" in features else features.split()[0]
    assert latest(data)["store"].name.startswith(f"{expected}-")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("info", "store: {last-store}"),
        ("verify", "store: {last-store}"),
        ("split", "store: {last-store}"),
        ("plot --out picture.png", "store: {last-store}"),
        ("slice --slice 1.5", "store: {last-store}"),
        ("evaluate", "run: {last-run}"),
        ("evaluate --json", "run: {last-run}"),
        ("train --resume", "run: {last-run}"),
        (
            f"train --model {TINY.id} --epochs 1",
            f"store: {{store}} (the latest, {{last-store.name}}, does not fit {TINY.id})",
        ),
        ("extract --feature stft:n_fft=512 --slice 1.6", "dataset: {data}/songs"),
    ],
)
def test_without_a_name_one_line_says_what_was_taken(words: str, said: str, data: Path):
    names = {name: path.relative_to(data.parent) for name, path in (others(data) | {"data": data}).items()}
    outcome = mgc(*words.split())
    assert outcome.code == 0, outcome.err
    expected = said.replace("{last-store.name}", names["last-store"].name).format(**names)
    assert [line for line in outcome.err.splitlines() if line.startswith(expected.split()[0])] == [expected]


def interrupt(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


class TestFailureAndInterruption:
    """The latest store and run are those of before, and `--resume` finds the run that was interrupted."""

    @pytest.mark.parametrize(
        "words",
        [
            "extract --feature mel:n_mels=8 --slice 60 --scheduler {scheduler}",
            "extract --feature mel:n_mels=8,n_fft=512 --slice 1.6 --scheduler {scheduler} --max-dropped 0 --rebuild",
            "slice {store} --slice 60",
            "split {store} --splits {store}/none.csv",
            f"train --model {TINY.id} --store {{store}} --lr 1e30",
            f"train --model {TINY.id} --store {{store}} --folds 60",
            "train --model kth2020/cnn --store {store}",
            "evaluate {store}",
        ],
    )
    def test_failure(self, words: str, data: Path, scheduler: str):
        before, names = latest(data), others(data)
        outcome = mgc(*words.format(**names, scheduler=scheduler).split())
        assert outcome.code != 0
        assert {name: path for name, path in latest(data).items() if name != "training"} == before

    def test_an_interrupted_extraction(self, data: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch):
        before = latest(data)
        monkeypatch.setattr(Dispatcher, "run", interrupt)
        assert mgc("extract", "--feature", "mel:n_mels=9", "--slice", 1, "--scheduler", scheduler).code == 130
        assert latest(data) == before

    def test_an_interrupted_training_is_what_resume_continues(self, data: Path, monkeypatch: pytest.MonkeyPatch):
        before, store = latest(data), others(data)["store"]
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "fit", interrupt)
            assert mgc(*TRAIN, "--store", store).code == 130
        run = latest(data)["training"]
        assert latest(data) == before | {"training": run}
        assert f"run: {before['run'].relative_to(data.parent)}\n" in mgc("evaluate").err
        outcome = mgc("train", "--resume")
        assert (outcome.code, outcome.err) == (0, f"run: {run.relative_to(data.parent)}\n")
        assert latest(data) == before | {"run": run}

    @pytest.mark.parametrize("step", ["extract", "train", "evaluate"])
    def test_an_interrupted_demo(self, step: str, data: Path, monkeypatch: pytest.MonkeyPatch):
        """The steps before it are replaced by commands that only record what they would have made."""
        from mgc.pipeline import console
        from mgc.pipeline.demo import dataset
        from mgc.pipeline.workspace import Workspace

        before = latest(data)

        def run_command(context: object, words: list[str]) -> None:
            if words[0] == step:
                raise KeyboardInterrupt
            Workspace(data).remember({"extract": "store", "train": "run"}[words[0]], data / "demo" / words[0])

        monkeypatch.setattr(dataset, "make_demo", lambda folder, **options: folder)
        monkeypatch.setattr(console, "run_command", run_command)
        assert mgc("demo").code == 130
        assert latest(data) == before


def test_a_run_that_an_earlier_version_recorded_as_it_began(data: Path):
    """It is what `--resume` continues, but not what is evaluated."""
    names = others(data)
    (names["last-run"] / "summary.json").unlink()
    (names["last-run"] / "sealed.json").unlink()
    outcome = mgc("evaluate")
    assert (outcome.code, outcome.err) == (0, f"run: {names['run'].relative_to(data.parent)}\n")
    outcome = mgc("train", "--resume")
    assert outcome.err == f"run: {names['last-run'].relative_to(data.parent)}\n"
