"""Initial weights from a file: loaded tensors, tensors that stay random, and rejected files."""

from __future__ import annotations

import hashlib
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import mgc
from stores import make_store
from tiny import TINY
from torch import nn

from mgc.models.registry import systems, weights
from mgc.models.registry.skeleton import build_on_meta
from mgc.models.registry.systems import System
from mgc.models.runs.run import Run
from mgc.models.training.train import Options, train
from mgc.pipeline.errors import ModelError, RunError, SpecError

PLAIN, SQUEEZED = "xu2022/mobilenet-v2", "xu2022/mobilenet"


def build(id: str, n_classes: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return systems.get(id).build(n_classes)


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """File with a state dict for the 1,000 classes of ImageNet."""
    file = tmp_path / "public.pth"
    torch.save(build(PLAIN, 1000).state_dict(), file)
    return file


def test_all_tensors_but_the_head_are_loaded(public: Path) -> None:
    start = weights.read(public, systems.get(PLAIN), 8)
    assert start.fresh == ("classifier.1.weight", "classifier.1.bias")
    assert start.sha256 == hashlib.sha256(public.read_bytes()).hexdigest()
    model, source = build(PLAIN, 8, seed=1), build(PLAIN, 1000)
    head = model.classifier[1].weight.detach().clone()
    model.load_state_dict(dict(start.tensors), strict=False)
    assert torch.equal(model.classifier[1].weight, head)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.features.eval()(x), source.features.eval()(x))


def test_a_head_of_as_many_classes_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "best.pt"
    torch.save({"model": build(PLAIN, 8).state_dict(), "epoch": 3}, file)  # as a run saves it
    start = weights.read(file, systems.get(PLAIN), 8)
    assert start.fresh == ()
    model = build(PLAIN, 8, seed=1)
    model.load_state_dict(dict(start.tensors), strict=False)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.eval()(x), build(PLAIN, 8).eval()(x))


def test_attention_stays_random_with_weights_of_a_plain_network(tmp_path: Path) -> None:
    for id, origin, expected in (
        ("xu2022/se-resnet101", "xu2022/resnet101", {"fc1", "fc2"}),
        ("xu2022/cbam-resnet101", "xu2022/resnet101", {"fc1", "fc2", "spatial"}),
    ):
        shapes = build_on_meta(systems.get(origin).build, 1000).state_dict()
        # Expanding a scalar to each shape keeps the file small.
        state = {name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()}
        torch.save(state, tmp_path / "plain.pth")
        fresh = weights.read(tmp_path / "plain.pth", systems.get(id), 8).fresh
        assert {name.split(".")[3] for name in fresh if ".attention." in name} == expected
        assert {name for name in fresh if ".attention." not in name} == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("with_heads", [True, False])
def test_auxiliary_heads_may_be_missing(with_heads: bool, tmp_path: Path) -> None:
    state = build("xu2022/googlenet", 1000).state_dict()
    if not with_heads:
        state = {name: value for name, value in state.items() if not name.startswith("aux")}
    torch.save(state, tmp_path / "public.pth")
    start = weights.read(tmp_path / "public.pth", systems.get("xu2022/googlenet"), 8)
    assert ("aux1.fc1.weight" in start.tensors) == with_heads
    assert {"fc.weight", "aux1.fc2.weight", "aux2.fc2.bias"} <= set(start.fresh)
    assert "inception3a.branch1.conv.weight" in start.tensors


@pytest.mark.parametrize(("file_channels", "channels"), [(3, 1), (1, 3), (3, 2)])
def test_first_convolution_gives_the_same_output_for_equal_channels(
    file_channels: int, channels: int, tmp_path: Path
) -> None:
    def build(channels: int, n_classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Flatten(), nn.Linear(144, n_classes))

    system = System("test/first", "neural", TINY.input, partial(build, channels), TINY.recipe_file)
    source = build(file_channels, 2)
    torch.save(source.state_dict(), tmp_path / "first.pth")
    start = weights.read(tmp_path / "first.pth", system, 2)
    model = system.build(2)
    model.load_state_dict(dict(start.tensors))
    grey = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(model(grey.expand(-1, channels, -1, -1)), source(grey.expand(-1, file_channels, -1, -1)))


def test_statistics_without_a_number_of_updates_count_as_converged(tmp_path: Path) -> None:
    """Otherwise the bias correction would take them for mostly initial values, and scale them up."""
    state = {name: value for name, value in build(SQUEEZED, 8).state_dict().items() if "num_batches" not in name}
    state["features.0.1.running_mean"] += 3
    torch.save(state, tmp_path / "old.pth")
    model = build(SQUEEZED, 8, seed=1)
    model.load_state_dict(dict(weights.read(tmp_path / "old.pth", systems.get(SQUEEZED), 8).tensors), strict=False)
    norm, x = model.features[0][1], torch.randn(2, 16, 8, 8)
    norm(x + 3)
    expected = (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-3).sqrt()
    with torch.no_grad():
        torch.testing.assert_close(norm.eval()(x), expected)


class Trap:
    """Object whose pickle creates a file when it is loaded."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"layer1.0.weight": torch.zeros(2)}, "xu2022/mobilenet-v2 has no layer1.0.weight"),
        ({"features.0.0.weight": torch.zeros(32, 3, 3, 3)}, r"features\.\S+ of xu2022/mobilenet-v2 is missing"),
        ({}, "no state dict"),
        ([1, 2], "no state dict"),
        ({"a": 1}, "no state dict"),
    ],
)
def test_files_of_other_networks_are_rejected(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=message):
        weights.read(tmp_path / "other.pth", systems.get(PLAIN), 8)


def test_other_shapes_are_rejected(tmp_path: Path) -> None:
    state = build(PLAIN, 8).state_dict() | {"features.1.conv.0.1.weight": torch.zeros(64)}
    torch.save(state, tmp_path / "wide.pth")
    with pytest.raises(ModelError, match=r"features\.1\.conv\.0\.1\.weight has shape 64, but 32 in xu2022/mobil"):
        weights.read(tmp_path / "wide.pth", systems.get(PLAIN), 8)


def test_code_in_the_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Trap()}, "zip.pth")
    Path("plain.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(ModelError, match=f"{name}: no weights"):
            weights.read(Path(name), systems.get(PLAIN), 8)
    assert not Path("sprung").exists()


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--weights .*none\.pth: No such file"):
        weights.read(tmp_path / "none.pth", systems.get(PLAIN), 8)


# -- in a run -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    torch.set_num_threads(1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Weights of the tiny network for 5 classes."""
    torch.manual_seed(7)
    torch.save(TINY.build(5).state_dict(), tmp_path / "five.pth")
    return tmp_path / "five.pth"


def test_a_run_starts_from_the_weights_and_records_them(file: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    # A learning rate too small to change a float32 weight.
    options = Options(model=TINY.id, weights=file, epochs=1, lr=1e-30)
    run = train([make_store(tmp_path / "mel")], options, tmp_path / "runs", echo=lines.append)
    assert run.config["weights"] == {
        "file": str(file.resolve()),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "fresh": ["6.weight", "6.bias"],
    }
    assert "initial weights of five.pth" in run.config["differences"]
    assert any(line.endswith("five.pth; 2 of 9 tensors are initialised at random: 6.weight, 6.bias") for line in lines)
    trained, started = run.load("best.pt")["model"], torch.load(file, weights_only=True)
    assert torch.equal(trained["0.weight"], started["0.weight"])
    assert trained["6.weight"].shape == (3, 512)


def test_an_interrupted_run_does_not_start_from_other_weights(file: Path, tmp_path: Path) -> None:
    def change(run: Run) -> None:
        torch.save(TINY.build(5).state_dict(), file)

    with pytest.raises(RunError, match=r"five\.pth has changed since the run began"):
        train([make_store(tmp_path / "mel")], Options(model=TINY.id, weights=file), tmp_path / "runs", on_start=change)


def test_as_published_initialises_at_random(file: Path, tmp_path: Path) -> None:
    options = Options(model=TINY.id, weights=file, as_published=True)
    with pytest.raises(ModelError, match=r"not be as published.*initial weights of five\.pth"):
        train([make_store(tmp_path / "mel")], options, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_classical_systems_take_no_weights(file: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--weights: kth2020/svm is fitted in one step"):
        train([make_store(tmp_path / "mel")], Options(model="kth2020/svm", weights=file), tmp_path / "runs")


@pytest.mark.slow
def test_command(file: Path, tmp_path: Path) -> None:
    here = ["--model", TINY.id, "--store", make_store(tmp_path / "mel").path, "--data-dir", tmp_path]
    outcome = mgc("train", "--weights", file, "--epochs", 1, *here)
    assert outcome.code == 0, outcome.err
    (run,) = (tmp_path / "runs").iterdir()
    assert "\n            initial weights of five.pth\n" in mgc("info", run).out
    missing = mgc("train", "--weights", "none.pth", *here)
    assert missing.code == 1
    assert missing.error == "--weights none.pth: No such file or directory; check the path and its permissions"
