"""Training on several joined stores: accuracy, records of the run, and bit-identical repetition and resumption."""

from __future__ import annotations

import shutil
import signal
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import GENRES, frames_of, make_store
from torch import Tensor
from twofold import TWOFOLD

from mgc.models.data import split_data
from mgc.models.evaluation.evaluate import evaluate
from mgc.models.evaluation.other_dataset import open_other
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.training.optim import LOSSES
from mgc.models.training.predict import predict
from mgc.models.training.train import Options, resume, train
from mgc.pipeline.errors import ModelError, RunError, StoreError
from mgc.pipeline.features import Mel, Waveform
from mgc.pipeline.store.store import Store

pytestmark = pytest.mark.slow  # each trains several times

AUDIO, LEVELS = Waveform(), Mel(n_mels=8, n_fft=512, hop_length=256)


@pytest.fixture(autouse=True)
def twofold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(systems._systems, TWOFOLD.id, TWOFOLD)
    torch.set_num_threads(1)


def make_pair(root: Path) -> list[Store]:
    shapes = ((AUDIO, 4), (LEVELS, 6))
    return [make_store(root / spec.name, spec, seconds=(4.0,), tracks_per_shard=n, root=root) for spec, n in shapes]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    return make_pair(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def reference(stores: list[Store], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TWOFOLD.id, TWOFOLD)
        torch.set_num_threads(1)
        return quiet(stores, tmp_path_factory.mktemp("runs"))


def quiet(stores: list[Store], folder: Path, **options: object) -> Run:
    chosen = Options(**{"model": TWOFOLD.id, "keep_last": True, **options})
    return train(stores, chosen, folder, echo=lambda text: None)


def assert_same_weights(run: Run, expected: Run) -> None:
    for name in ("best.pt", "last.pt"):
        for part in ("model", "inputs"):
            weights, expected_weights = run.load(name)[part], expected.load(name)[part]
            assert weights.keys() == expected_weights.keys()
            assert all(torch.equal(weights[key], expected_weights[key]) for key in weights)


def test_it_learns_from_both(reference: Run) -> None:
    assert reference.history[-1]["validation_accuracy"] > 1 / len(GENRES) + 0.4
    assert reference.config["differences"] == ["slices of 2 s, 50% overlap for slices of 1.5 s, 50% overlap"]


def test_a_run_records_its_stores(reference: Run, stores: list[Store]) -> None:
    opened = Run.open(reference.path)
    assert [source.spec for source in opened.sources] == [AUDIO, LEVELS]
    assert [source.path.resolve() for source in opened.sources] == [store.path for store in stores]
    assert [source.frames for source in opened.sources] == [48, 96]
    assert [source.manifest_digest for source in opened.sources] == [store.manifest_digest for store in stores]


def test_statistics_are_those_of_the_training_split(tmp_path: Path) -> None:
    stores = make_pair(tmp_path)
    options = Options(model=TWOFOLD.id, epochs=1)
    run = train(stores, options, tmp_path / "runs", echo=lambda text: None)
    inputs = run.load("best.pt")["inputs"]
    tracks = [row["track_id"] for row in stores[0].tracks.to_pylist() if row["split"] == "training"]
    for number, store in enumerate(stores):
        # Overlapping windows weigh frames unevenly and leave out the ends: whole tracks agree to within two per cent.
        values = np.concatenate([frames_of(store, track) for track in tracks])
        assert float(inputs[f"{number}.1.mean"]) == pytest.approx(values.mean(), rel=0.02)
        assert float(inputs[f"{number}.1.std"]) == pytest.approx(values.std(), rel=0.02)


@pytest.mark.parametrize(("capacity", "residency"), [(0, "stream + stream"), (100_000, "stream + host")])
def test_a_seed_gives_the_same_weights_streamed_or_resident(
    stores: list[Store], reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capacity: int, residency: str
) -> None:
    monkeypatch.setattr(split_data, "fits_in_memory", lambda nbytes, device: nbytes < capacity)
    run = quiet(stores, tmp_path)
    assert run.summary["residency"] == residency
    assert reference.summary["residency"] == "host + host"
    assert_same_weights(run, reference)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 8])
def test_an_interrupted_run_continues_to_the_same_weights(
    stores: list[Store], reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    steps = iter(range(1, 1000))

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        if logits.requires_grad and next(steps) == step:
            signal.raise_signal(signal.SIGINT)
        return torch.nn.functional.cross_entropy(logits, labels)

    with monkeypatch.context() as patch:
        patch.setitem(LOSSES, "cross-entropy", loss)
        with pytest.raises(KeyboardInterrupt):
            quiet(stores, tmp_path)
    (path,) = tmp_path.iterdir()
    resume(Run.open(path), echo=lambda text: None)
    assert_same_weights(Run.open(path), reference)


def test_a_run_is_evaluated_on_its_own_stores(stores: list[Store], reference: Run) -> None:
    test = evaluate([reference], n_resamples=50)
    assert test.n_tracks == 6
    assert test.by_track.accuracy > 1 / len(GENRES) + 0.3
    # Stores of "another" dataset, in any order: what is left of its own are the test tracks, with the same scores.
    other = open_other([reference, reference], stores[::-1], {}, "test", lambda n: nullcontext(lambda done: None))
    again = evaluate([reference, reference], other=other, n_resamples=50)
    assert (again.by_track, again.by_slice) == (test.by_track, test.by_slice)
    validation = evaluate([reference], split="validation", n_resamples=50)
    assert validation.by_slice is not None
    assert validation.by_slice.accuracy == pytest.approx(reference.summary["best"]["validation_accuracy"])


@pytest.mark.slow
def test_a_workspace_of_two_stores_may_be_moved(tmp_path: Path) -> None:
    stores = make_pair(tmp_path / "here")
    run = quiet(stores, tmp_path / "here" / "runs", epochs=1)
    before = predict(run)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert predict(Run.open(tmp_path / "there" / "runs" / run.path.name)).equals(before)


def test_a_store_that_is_gone_is_named(tmp_path: Path) -> None:
    stores = make_pair(tmp_path)
    run = quiet(stores, tmp_path / "runs", epochs=1)
    shutil.rmtree(stores[1].path)
    with pytest.raises(StoreError) as lost:
        predict(run)
    assert lost.value.problem == (
        f"{stores[1].path}: no feature store, but {run.path} was trained on it; nearest is {stores[0].path.name} "
        "(waveform for mel)"
    )
    assert "restore it, or extract it again: `mgc extract --feature mel:sr=22050,n_fft=512," in lost.value.remedy
    make_store(stores[1].path, Mel(n_mels=8, n_fft=1024), root=tmp_path)
    with pytest.raises(RunError, match=r"holds mel .*n_fft=1024.*trained on mel .*n_fft=512"):
        predict(run)


def test_as_many_stores_as_inputs(stores: list[Store], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"reads 2 stores \(waveform and mel\), not 1"):
        quiet(stores[:1], tmp_path)
    with pytest.raises(ModelError, match=r"kth2020/cnn reads one store \(mel\), not 2"):
        quiet(stores, tmp_path, model="kth2020/cnn")
    assert not any(tmp_path.iterdir())
