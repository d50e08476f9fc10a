"""Faults during a training: lost shards, a full disk and exhausted memory lose no finished update."""

from __future__ import annotations

import dataclasses
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stores import make_store
from tiny import INPUT, TINY, build
from torch import Tensor, nn

from mgc.models.data import sampling, split_data
from mgc.models.data.split_data import set_residency
from mgc.models.data.stream import Stream
from mgc.models.network import Network, outputs
from mgc.models.registry import systems
from mgc.models.registry.systems import System
from mgc.models.runs.run import Run
from mgc.models.training.assembly import open_run
from mgc.models.training.train import Options, resume, train
from mgc.models.training.validation import validate
from mgc.pipeline.errors import MgcError, RunError, StoreError
from mgc.pipeline.store.store import Store

pytestmark = pytest.mark.slow  # each trains several times

SHARD = 3  # a shard of training tracks: 4 tracks with 8 slices each, of 144
VALIDATION = 5  # a shard of validation tracks


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    monkeypatch.setattr(sampling, "GROUP_BYTES", 25_000)  # a shard or two
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "store")


def lose(store: Store, shard: int) -> None:
    shutil.rmtree(store.shard_path(shard))


class Lines(list[str]):
    """Collects the printed lines, and calls `action` at each line that starts with `prefix`."""

    def __init__(self, prefix: str = "nothing", action: Any = None) -> None:
        self._prefix, self._action = prefix, action

    def __call__(self, text: str) -> None:
        self.append(text)
        if text.startswith(self._prefix):
            self._action()


def quiet(store: Store, folder: Path, echo: Any = None, **options: Any) -> Run:
    chosen = Options(**{"model": TINY.id, "epochs": 3, "keep_last": True, **options})
    return train([store], chosen, folder, echo=Lines() if echo is None else echo)


def assert_same_weights(run: Run, expected: Run) -> None:
    weights, expected_weights = (each.load("last.pt")["model"] for each in (run, expected))
    assert all(torch.equal(weights[name], expected_weights[name]) for name in expected_weights)


# -- shards -----------------------------------------------------------------------------------------------------------


def test_damaged_shards_are_skipped_and_reported(store: Store, tmp_path: Path) -> None:
    lose(store, SHARD)
    lose(store, VALIDATION)
    lines = Lines()
    runs = [
        quiet(store, tmp_path / "runs", lines, skip_damaged=True, residency=residency)
        for residency in ("host", "stream")
    ]
    for run in runs:
        problems = sorted(run.summary["damaged"])
        assert len(problems) == 2
        for problem, shard, slices in zip(problems, (SHARD, VALIDATION), (32, 32), strict=True):
            assert f"{shard:05d}.zarr" in problem
            assert problem.endswith(f"{slices} slices are left out")
            assert f"goes on without {problem}" in lines
    assert_same_weights(*runs)


@pytest.mark.slow
def test_a_shard_lost_in_the_second_epoch_ends_a_run_that_goes_on_without_it(store: Store, tmp_path: Path) -> None:
    skipping = quiet(
        store, tmp_path / "a", Lines("epoch 1/3", lambda: lose(store, SHARD)), skip_damaged=True, residency="stream"
    )
    whole = make_store(tmp_path / "again", root=store.path)
    with pytest.raises(StoreError, match=r"00003.zarr"):
        quiet(whole, tmp_path / "b", Lines("epoch 1/3", lambda: lose(whole, SHARD)), residency="stream")
    (path,) = (tmp_path / "b").iterdir()
    stopped = Run.open(path)
    progress = stopped.load("last.pt")["progress"]
    assert progress["epoch"] == 1
    resume(stopped, echo=Lines(), skip_damaged=True)
    assert_same_weights(stopped, skipping)
    assert len(stopped.summary["damaged"]) == 1


def test_lost_slices_are_not_validated(store: Store, tmp_path: Path) -> None:
    run = quiet(store, tmp_path / "runs", epochs=1)
    lose(store, VALIDATION)
    skipping = dataclasses.replace(run, config=run.config | {"skip_damaged": True})
    validation = open_run(skipping, [store]).validation
    network = Network(TINY, [store.spec], 3)
    network.load(run.load("best.pt"))
    scores = validate(network, TINY.recipe.training, validation)
    logits = outputs(network, validation.stream, "")
    readable = ~validation.unreadable
    assert readable.sum() == 16
    assert torch.isnan(logits[~readable]).all()
    labels = validation.stream.labels[readable]
    p = logits[readable].softmax(dim=1).numpy()
    assert scores["accuracy"] == np.mean(p.argmax(axis=1) == labels)
    assert scores["loss"] == pytest.approx(-np.log(p[np.arange(16), labels]).mean(), rel=1e-5)
    tracks = validation.tracks[readable]
    right = [p[tracks == track].sum(axis=0).argmax() == labels[tracks == track][0] for track in set(tracks)]
    assert scores["track_accuracy"] == np.mean(right)


def test_nothing_left_to_train_on(store: Store, tmp_path: Path) -> None:
    for shard in range(5):
        lose(store, shard)
    with pytest.raises(StoreError, match="no shard of the training split can be read"):
        quiet(store, tmp_path / "runs", skip_damaged=True)


def test_batches_keep_their_numbers_and_none_has_a_lone_slice(store: Store, tmp_path: Path) -> None:
    lose(store, SHARD)
    run = quiet(store, tmp_path / "runs", epochs=1, batch_size=2, skip_damaged=True)
    training = open_run(run, [store]).training
    order = training.streams[0].order(0)
    batches = {batch.number: batch for batch in training.stream.batches(0)}
    lost = training.streams[0].shard_of == SHARD
    assert lost.sum() == 32
    expected = {}
    for number in range(72):
        rows = order.rows[2 * number : 2 * number + 2]
        if not lost[rows].any():
            expected[number] = rows.tolist()
    assert {number: batch.rows.tolist() for number, batch in batches.items()} == expected
    assert next(training.stream.batches(0, start=40)).number == min(n for n in expected if n >= 40)


# -- the disk ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(store: Store, tmp_path: Path) -> None:
    whole = quiet(store, tmp_path / "whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = Lines("epoch 1/3", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1])))
    try:
        with pytest.raises(MgcError) as caught:
            quiet(store, tmp_path / "runs", full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (path,) = (tmp_path / "runs").iterdir()
    assert "File too large" in caught.value.problem
    assert caught.value.remedy.endswith(f"`mgc train --resume --run {path}` goes on from the checkpoint before")
    assert Run.open(path).load("last.pt")["progress"]["epoch"] == 1
    assert not list(path.glob(".tmp-*"))
    resume(Run.open(path), echo=Lines())
    assert_same_weights(Run.open(path), whole)


# -- memory -----------------------------------------------------------------------------------------------------------


class Limited(nn.Module):
    """Passes batches of up to `most` slices; larger ones run out of memory in training."""

    most = 5

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most and self.training:
            raise torch.OutOfMemoryError("out of memory")
        return x


LIMITED = System(
    "test/limited", "neural", INPUT, lambda n: nn.Sequential(Limited(), build(n)), TINY.recipe_file
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("most_without_frames", "remedy"),
    [(5, "--batch-size 4"), (9, "--batch-size 4, or --residency stream --batch-size 8"),
     (16, "--batch-size 4, or --residency stream")],
)  # fmt: skip
def test_out_of_memory_error_names_what_fits(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_without_frames: int, remedy: str
) -> None:
    monkeypatch.setitem(systems._systems, LIMITED.id, LIMITED)
    monkeypatch.setattr(Limited, "most", 5)
    whole = Stream.release

    def release(self: Stream) -> None:
        whole(self)
        Limited.most = most_without_frames

    monkeypatch.setattr(Stream, "release", release)
    with pytest.raises(RunError) as caught:
        quiet(store, tmp_path / "runs", model=LIMITED.id)
    assert caught.value.problem.startswith("cpu: no memory for batches of 16 slices beside 0 MB of frames")
    assert caught.value.remedy == f"what fits: {remedy}"


@pytest.mark.parametrize(
    ("gpu", "host", "expected"), [(1e9, 0, "device"), (0, 1e9, "host"), (0, 0, "stream")]
)  # fmt: skip
def test_frames_stay_where_they_fit(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: float, host: float, expected: str
) -> None:
    run = quiet(store, tmp_path / "runs", epochs=1)
    data = open_run(run, [store])
    splits = data.training, data.validation
    capacity = {"cuda": gpu, "cpu": host}
    monkeypatch.setattr(split_data, "fits_in_memory", lambda nbytes, device: nbytes <= capacity[device.type])
    ((_, residency),) = set_residency(splits, torch.device("cuda"))
    assert residency == splits[0].streams[0].residency == expected
    ((_, residency),) = set_residency(splits, torch.device("cuda"), "stream")
    assert residency == splits[0].streams[0].residency == "stream"
