"""Training and evaluation by the commands, from stores in an S3 bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import mgc
from objects import BUCKET, bucket, upload_folder
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
    """Paths of a waveform store and a mel store of the same tracks."""
    folder = tmp_path_factory.mktemp("features")
    return [make_store(folder / spec.name, spec, seconds=(4.0,), root=folder).path for spec in SPECS]


@pytest.fixture(scope="module")
def remote(local: list[Path]) -> Iterator[list[Place]]:
    """URLs of copies of the same stores."""
    with bucket():
        yield [upload_folder(path, f"{BUCKET}/features/{path.name}") for path in local]


def trained(data: Path, system: str, *options: object) -> Run:
    done = mgc("train", "--model", system, "--epochs", 2, "--keep-last", "--data-dir", data, *options)
    assert done.code == 0, done.err
    (path,) = (data / "runs").iterdir()
    return Run.open(path)


def named(*stores: Place) -> list[object]:
    return [word for store in stores for word in ("--store", store)]


def assert_same(run: Run, expected: Run) -> None:
    """The same weights of the best epoch, and the same scores on the test tracks."""
    state, expected_state = (flat(each.load("best.pt")) for each in (run, expected))
    assert state.keys() == expected_state.keys()
    for name, value in state.items():
        other = expected_state[name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
    paths = [run.path, expected.path]
    scores = [mgc("evaluate", path, "--json", "--data-dir", path.parent.parent).json for path in paths]
    for score in scores:
        del score["runs"], score["files"]
    assert scores[0] == scores[1]


def flat(state: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(state, dict):
        return {name: state}
    return {key: value for own, part in state.items() for key, value in flat(part, f"{name}/{own}").items()}


@pytest.fixture(scope="module")
def run(remote: list[Place], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a store at a URL, whose shards are fetched anew for every group."""
    return trained(tmp_path_factory.mktemp("remote"), TINY.id, *named(remote[1]), "--residency", "stream")


def test_training_from_a_url_gives_the_same_weights(run: Run, local: list[Path], tmp_path: Path) -> None:
    assert str(run.store_path) == f"{BUCKET}/features/mel"
    expected = trained(tmp_path, TINY.id, *named(local[1]))
    assert_same(run, expected)
    for name in ("summary.json", "last.pt", "best.pt"):  # as if it had been interrupted
        (run.path / name).unlink()
    assert mgc("train", "--resume", "--run", run.path).code == 0
    assert_same(run, expected)


def test_two_stores_at_urls_are_joined(local: list[Path], remote: list[Place], tmp_path: Path) -> None:
    run = trained(tmp_path / "remote", TWOFOLD.id, *named(*reversed(remote)))
    assert [source.path for source in run.sources] == remote
    assert_same(run, trained(tmp_path / "local", TWOFOLD.id, *named(*local)))


def test_a_store_is_cut_anew_and_its_run_stays_as_it_was(run: Run, remote: list[Place], tmp_path: Path) -> None:
    store, data = remote[1], ("--data-dir", tmp_path)
    assert mgc("slice", store, "--slice", 1, *data).code == 0
    described = mgc("info", *data, "--json").json  # the latest store is the one that was named
    assert (described["store"], described["slicing"]["seconds"]) == (str(store), 1)
    assert mgc("split", *data, "--json").json["splits"] == described["splits"]
    assert mgc("verify", *data).out == f"{store}: every byte is as it was written\n"
    assert f"  store     {store}\n" in mgc("info", run.path, *data).out
    tested = mgc("evaluate", run.path, "--json", *data).json
    assert tested["by_slice"]["n"] == 3 * TRACKS["test"]  # a track of 4 s has three slices of 2 s, the run's slicing
    done = mgc("train", "--model", TINY.id, "--epochs", 1, *data)
    assert done.code == 0, done.err
    assert f"store: {store}" in done.err


def test_a_lost_object_is_named_with_its_remedy(local: list[Path], remote: list[Place], tmp_path: Path) -> None:
    store = upload_folder(local[1], f"{BUCKET}/damaged/mel")
    lost = next(name for shard in Store.open(store).shard_files().values() for name in shard if "/c/" in name)
    (store / "shards" / lost).unlink()
    done = mgc("train", "--model", TINY.id, *named(store), "--epochs", 1, "--data-dir", tmp_path)
    assert done.code == 1
    assert f"{store}/shards/{lost}: No such file or directory" in done.err
    assert "mgc extract --verify" in done.err
