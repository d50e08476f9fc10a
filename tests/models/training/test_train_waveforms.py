"""Training with --frontend device: as on stored frames, with augmented samples, recorded and resumed."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import mgc
from sounds import extract_frames
from stores import make_store
from tiny import TINY
from twofold import TWOFOLD

from mgc.models.data.store_candidates import StoreCandidates
from mgc.models.data.waveform_view import FrontEndStream, WaveformView
from mgc.models.evaluation.evaluate import evaluate
from mgc.models.registry import systems
from mgc.models.registry.augmentation import Augmentation
from mgc.models.registry.systems import System
from mgc.models.runs.run import Run
from mgc.models.training import loop
from mgc.models.training.assembly import build_learner, open_run
from mgc.models.training.predict import predict
from mgc.models.training.preparation import prepare
from mgc.models.training.train import Options, resume, train
from mgc.pipeline.errors import MgcError, ModelError, RunError
from mgc.pipeline.features import Mel, Stft, Waveform
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

pytestmark = pytest.mark.slow  # each trains several times

TRACKS = {"training": 6, "validation": 3, "test": 3}
SOUND = Augmentation(noise=0.05, polarity=0.5, gain=6.0, time_masks=1, time_width=8, band_masks=1, band_width=2)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    for system in (TINY, TWOFOLD):
        monkeypatch.setitem(systems._systems, system.id, system)


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A waveform store in float32, without rounding."""
    root = tmp_path_factory.mktemp("stores")
    return make_store(root / "wave", Waveform(dtype="float32"), tracks=TRACKS, seconds=(4.0,), root=root)


def with_front_end(store: Store, system: System = TINY) -> list[Store]:
    return StoreCandidates((store,), True, frontend=True).choose(system)


def quiet(stores: list[Store], folder: Path, **options: object) -> Run:
    chosen = Options(**{"model": TINY.id, "epochs": 2, "batch_size": 4, "keep_last": True, **options})
    return train(stores, chosen, folder, echo=lambda text: None)


@pytest.fixture(scope="module")
def augmented(waves: Store, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run on augmented samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        torch.set_num_threads(1)
        return quiet(with_front_end(waves), tmp_path_factory.mktemp("runs"), augmentation=SOUND)


def test_training_is_as_on_stored_frames(waves: Store, tmp_path: Path) -> None:
    spec = dataclasses.replace(TINY.recipe.features, dtype="float32")
    samples = {row["track_id"]: row for row in waves.tracks.to_pylist()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stores._levels", lambda name, *_: _frames(waves, samples, name, spec))
        stored = make_store(tmp_path / "mel", spec, tracks=TRACKS, seconds=(4.0,), root=waves.path.parent)
    run, expected_run = (quiet(stores, tmp_path / "runs") for stores in (with_front_end(waves), [stored]))
    assert run.config["differences"] == expected_run.config["differences"] == ["epochs 2 for 6", "batch size 4 for 16"]
    assert run.frames == expected_run.frames == 64
    for entry, expected_entry in zip(run.history, expected_run.history, strict=True):
        for name in ("train_loss", "validation_loss"):
            assert entry[name] == pytest.approx(expected_entry[name], rel=1e-3)
    probabilities, expected = (np.stack(predict(each)["probabilities"].to_pylist()) for each in (run, expected_run))
    np.testing.assert_allclose(probabilities, expected, atol=2e-3)


def _frames(waves: Store, tracks: dict, name: str, spec: Mel) -> np.ndarray:
    split, number = name.split("-")
    row = tracks[f"{split}-{int(number):03d}"]
    blocks = waves.read(row["shard"])[row["first_frame"] : row["first_frame"] + row["n_frames"]]
    return extract_frames([blocks.ravel()], spec.sr, spec)[: spec.frames(row["duration_s"])]


def test_a_run_records_the_front_end(augmented: Run, waves: Store) -> None:
    (source,) = Run.open(augmented.path).sources
    assert source.spec == dataclasses.replace(TINY.recipe.features, dtype="float32")
    assert source.waveform == waves.spec
    assert augmented.config["differences"] == [
        "epochs 2 for 6", "batch size 4 for 16", f"augmentation {SOUND} for none",
    ]  # fmt: skip
    assert evaluate([augmented], n_resamples=10).n_tracks == TRACKS["test"]


def test_an_interrupted_run_is_continued_to_the_same_result(
    augmented: Run, waves: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = loop.Learner.update
    steps = iter(range(100))

    def interrupted(self, batch, epoch):
        if next(steps) == 5:
            signal.raise_signal(signal.SIGINT)
        return update(self, batch, epoch)

    monkeypatch.setattr(loop.Learner, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quiet(with_front_end(waves), tmp_path / "runs", augmentation=SOUND)
    monkeypatch.undo()
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    (path,) = (tmp_path / "runs").iterdir()
    run = Run.open(path)
    assert not run.finished
    resume(run, echo=lambda text: None)
    weights, expected = (each.load("last.pt")["model"] for each in (run, augmented))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_samples_are_augmented_before_the_front_end_and_frames_after_it(waves: Store, tmp_path: Path) -> None:
    (view,) = with_front_end(waves)
    options = Options(model=TINY.id, augmentation=SOUND, batch_size=4)
    run = prepare([view], options, tmp_path, lambda text: None)
    data = open_run(run, [view])
    training, validation = data.training, data.validation
    augmenter = build_learner(run, data).augmenter
    assert isinstance(training.stream, FrontEndStream)
    assert isinstance(validation.stream, FrontEndStream)
    assert validation.stream.transform is None
    batch = next(training.stream.batches(1))
    training.stream.transform = None
    plain = next(training.stream.batches(1))
    assert augmenter is not None
    samples = []
    training.stream.transform = lambda signal, epoch, draws: samples.append(signal) or signal
    next(training.stream.batches(1))
    changed = augmenter.augment_samples(samples[0], 1, batch.draws)
    assert isinstance(batch.frames, torch.Tensor)
    assert isinstance(plain.frames, torch.Tensor)
    torch.testing.assert_close(training.stream._front_end(changed), batch.frames)
    assert (batch.frames - plain.frames).abs().mean() > 1
    masked = augmenter.augment(batch.frames, 1, batch.draws)
    assert not torch.equal(masked, batch.frames)
    same = masked == batch.frames  # only masks are left: the gain was applied to the samples
    assert same.float().mean() > 0.4


def test_the_augmentation_of_padova2023_reaches_its_network_on_log_mel(tmp_path: Path) -> None:
    system = systems.get("padova2023/cnn2d-mel")
    wave = Waveform(sr=44100)
    tracks = {"training": 3, "validation": 3}
    store = make_store(tmp_path / "w", wave, Slicing(seconds=None, whole=True), tracks=tracks, seconds=(3.1,))
    (view,) = with_front_end(store, system)
    assert str(view.spec) == str(dataclasses.replace(system.recipe.features, dtype="float32"))
    run = prepare([view], Options(model=system.id, epochs=1), tmp_path / "runs", lambda text: None)
    assert run.config["differences"] == ["frames 268 for 512", "epochs 1 for 20", "mel computed of int16 samples"]
    data = open_run(run, [view])
    training = data.training
    assert build_learner(run, data).recipe.augmentation == system.recipe.training.augmentation
    first, again, later = (next(training.stream.batches(epoch)) for epoch in (0, 0, 1))
    assert torch.equal(first.frames, again.frames)
    by_row = [dict(zip(batch.rows.tolist(), batch.frames, strict=True)) for batch in (first, later)]
    assert any(not torch.equal(by_row[0][row], by_row[1][row]) for row in by_row[0])


class TestStores:
    def test_another_sample_rate_is_a_difference(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "w", Waveform(sr=24000), tracks=TRACKS, seconds=(4.0,))
        (view,) = with_front_end(store)
        assert view.spec.sr == 24000
        run = prepare([view], Options(model=TINY.id), tmp_path / "runs", lambda text: None)
        *differences, rounded = run.config["differences"]
        assert differences == ["rate 24000 for 22050", "fmax 12000 for 11025"]
        assert rounded == "mel computed of int16 samples"

    def test_one_of_the_studys_rate_comes_first(self, waves: Store, tmp_path: Path) -> None:
        other = make_store(tmp_path / "w", Waveform(sr=16000), tracks=TRACKS, seconds=(4.0,))
        assert StoreCandidates((other, waves), False, frontend=True).choose(TINY)[0].path == waves.path
        assert StoreCandidates((other,), False, frontend=True).choose(TINY)[0].path == other.path
        with pytest.raises(ModelError, match=r"needs samples at 22050 Hz.*`mgc extract --feature waveform:sr=22050`"):
            StoreCandidates((other,), False, study_only=True, frontend=True).choose(TINY)

    def test_several_inputs(self, waves: Store, tmp_path: Path) -> None:
        first, second = with_front_end(waves, TWOFOLD)
        assert first is waves
        assert isinstance(second, WaveformView)
        run = quiet([first, second], tmp_path / "runs", model=TWOFOLD.id, epochs=1)
        assert [source.waveform for source in run.sources] == [None, waves.spec]
        assert len(predict(run, split="validation")) == 3 * TRACKS["validation"]

    @pytest.mark.parametrize(
        ("id", "spec", "message"),
        [
            (
                "test/tiny",
                Mel(),
                r"needs samples, which none of .* holds: nearest is store \(mel for waveform\); extract",
            ),
            ("xu2022/svm", Waveform(), "xu2022/svm reads stats, which only `mgc extract` makes; leave the option out"),
            ("padova2023/cnn1d", Waveform(hop_length=256), "cnn1d needs samples, which none of"),
        ],
    )
    def test_errors(self, id: str, spec: Mel | Waveform, message: str, tmp_path: Path) -> None:
        store = Store.create(tmp_path / "store", spec, {"name": "a", "root": "a", "genres": []})
        with pytest.raises(MgcError, match=f"--frontend device: .*{message}"):
            with_front_end(store, systems.get(id))

    def test_bands_beyond_its_rate(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Store.create(tmp_path / "store", Waveform(sr=8000), {"name": "a", "root": "a", "genres": []})
        recipe = dataclasses.replace(TINY.recipe, features=Mel(n_fft=512, n_mels=8, fmax=8000.0))
        monkeypatch.setitem(TINY.__dict__, "recipe", recipe)
        with pytest.raises(ModelError, match=r"fmax=8000.0; extract it at the study's rate: `mgc ex.*form:sr=22050`"):
            with_front_end(store)

    def test_slices_too_short_for_a_network(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "w", Waveform(), Slicing(seconds=3.0), tracks=TRACKS, seconds=(4.0,))
        system = systems.get("kth2020/cnn")
        with pytest.raises(ModelError, match=r"at least 128 frames.*have 110.*`mgc slice \S+ --slice 3.48`"):
            prepare(with_front_end(store, system), Options(model=system.id), tmp_path / "runs", lambda text: None)
        assert store.spec.sr / 604 * 3.48 > 127

    def test_a_run_is_not_evaluated_on_another_feature(self, augmented: Run, tmp_path: Path) -> None:
        stored = make_store(tmp_path / "mel", augmented.spec, tracks=TRACKS, seconds=(4.0,))
        with pytest.raises(RunError, match=r"holds mel .* the run was trained on waveform"):
            predict(augmented, store=stored.path)
        rounded = make_store(tmp_path / "w", Waveform(), tracks=TRACKS, seconds=(4.0,))
        assert len(predict(augmented, store=rounded.path)) == len(predict(augmented))


def test_on_the_command_line(waves: Store, tmp_path: Path) -> None:
    here = "--data-dir", tmp_path
    options = "--model", TINY.id, "--epochs", 1, "--augment", "noise=0.01", *here
    trained = mgc("train", "--store", waves.path, "--frontend", "device", *options)
    assert trained.code == 0, trained.err
    assert f"{with_front_end(waves)[0].spec} is computed of {waves.spec} (--frontend device)" in trained.out
    assert mgc("evaluate", "--json", *here).json["n_tracks"] == TRACKS["test"]
    assert "computed of waveform" in mgc("info", *here, next((tmp_path / "runs").iterdir())).out
    refused = mgc("train", "--store", waves.path, *options)
    assert refused.code == 1
    assert refused.error.endswith("extract them: `mgc extract --feature mel`, or compute them: --frontend device")
    stft = make_store(tmp_path / "stft", Stft(), tracks=TRACKS, seconds=(4.0,))
    assert "needs samples" in mgc("train", "--store", stft.path, "--frontend", "device", *options).error
