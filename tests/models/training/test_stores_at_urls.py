"""Training and evaluation from stores of objects, by the commands, against a server that speaks S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import mgc
from objects import BUCKET, bucket, put
from stores import TRACKS, make_store
from tiny import TINY
from twofold import TWOFOLD

from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.pipeline.features import Mel, Waveform
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.store.store import Store

pytest.importorskip("s3fs")
pytestmark = pytest.mark.slow

SPECS = (Waveform(), Mel(n_mels=8, n_fft=512, hop_length=256))


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for system in (TINY, TWOFOLD):
            patch.setitem(systems._systems, system.id, system)
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A store of waveforms and one of mel bands of the same tracks."""
    folder = tmp_path_factory.mktemp("features")
    return [make_store(folder / spec.name, spec, seconds=(4.0,), root=folder).path for spec in SPECS]


@pytest.fixture(scope="module")
def there(local: list[Path]) -> Iterator[list[Place]]:
    """The same as objects."""
    with bucket():
        yield [put(path, f"{BUCKET}/features/{path.name}") for path in local]


def trained(data: Path, system: str, *options: object) -> Run:
    done = mgc("train", "--model", system, "--epochs", 2, "--data-dir", data, *options)
    assert done.code == 0, done.err
    (path,) = (data / "runs").iterdir()
    return Run.open(path)


def named(*stores: Place) -> list[object]:
    return [word for store in stores for word in ("--store", store)]


def assert_same(ours: Run, theirs: Run) -> None:
    """The same weights of the best epoch, and the same scores on the test tracks."""
    mine, other = (flat(run.load("best.pt")) for run in (ours, theirs))
    assert mine.keys() == other.keys()
    for name, value in mine.items():
        assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name], name
    scores = [mgc("evaluate", run.path, "--json", "--data-dir", run.path.parent.parent).json for run in (ours, theirs)]
    for score in scores:
        score.pop("runs")
    assert scores[0] == scores[1]


def flat(state: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(state, dict):
        return {name: state}
    return {key: value for own, part in state.items() for key, value in flat(part, f"{name}/{own}").items()}


@pytest.fixture(scope="module")
def run(there: list[Place], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run from a URL, its shards fetched anew for every group."""
    return trained(tmp_path_factory.mktemp("there"), TINY.id, *named(there[1]), "--residency", "stream")


def test_training_from_a_url_gives_the_same_weights(run: Run, local: list[Path], tmp_path: Path) -> None:
    assert str(run.store_path) == f"{BUCKET}/features/mel"
    theirs = trained(tmp_path, TINY.id, *named(local[1]))
    assert_same(run, theirs)
    for name in ("summary.json", "last.pt", "best.pt"):  # as if it had been interrupted: it finds its store again
        (run.path / name).unlink()
    assert mgc("train", "--resume", "--run", run.path).code == 0
    assert_same(run, theirs)


def test_two_stores_at_urls_are_joined(local: list[Path], there: list[Place], tmp_path: Path) -> None:
    ours = trained(tmp_path / "there", TWOFOLD.id, *named(*reversed(there)))
    assert [source.path for source in ours.sources] == there
    assert_same(ours, trained(tmp_path / "here", TWOFOLD.id, *named(*local)))


def test_a_store_is_cut_anew_and_its_run_stays_as_it_was(run: Run, there: list[Place], tmp_path: Path) -> None:
    store, data = there[1], ("--data-dir", tmp_path)
    assert mgc("slice", store, "--slice", 1, *data).code == 0
    shown = mgc("info", *data, "--json").json  # the latest store is the one that was named
    assert (shown["store"], shown["slicing"]["seconds"]) == (str(store), 1)
    assert mgc("split", *data, "--json").json["splits"] == shown["splits"]
    assert mgc("verify", *data).out == f"{store}: every byte is as it was written\n"
    assert f"  store     {store}\n" in mgc("info", run.path, *data).out
    tested = mgc("evaluate", run.path, "--json", *data).json
    assert tested["by_slice"]["n"] == 3 * TRACKS["test"]  # three of 2 s in 4 s, as the run was trained
    done = mgc("train", "--model", TINY.id, "--epochs", 1, *data)
    assert done.code == 0, done.err
    assert f"store: {store}" in done.err


def test_a_lost_object_is_named_with_its_remedy(local: list[Path], there: list[Place], tmp_path: Path) -> None:
    store = put(local[1], f"{BUCKET}/damaged/mel")
    lost = next(name for shard in Store.open(store).shard_files().values() for name in shard if "/c/" in name)
    (store / "shards" / lost).unlink()
    done = mgc("train", "--model", TINY.id, *named(store), "--epochs", 1, "--data-dir", tmp_path)
    assert done.code == 1
    assert f"{store}/shards/{lost}: No such file or directory" in done.err
    assert "mgc extract --verify" in done.err
