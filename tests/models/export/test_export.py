"""`mgc export`: what is exported of a run gives the run's probabilities, and says how it is used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from commands import Outcome, mgc, mgc_all, tree
from genres import LONG_GENRES
from music import write_genres
from tiny import TINY

from mgc.models.export import card, export, onnx_file
from mgc.models.export.check import LIMIT, ROUNDED_LIMIT
from mgc.models.registry import systems

FEATURE = "mel:n_mels=8,n_fft=512"
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(systems._systems, TINY.id, TINY)


@pytest.fixture(scope="module")
def data(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a dataset, a mel store, and two runs on it: a classical one and, the latest, a network's."""
    data = tmp_path_factory.mktemp("here") / "data"
    write_genres(data / "songs", tracks=6, seconds=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        mgc_all(
            data,
            ("extract", "--feature", FEATURE, "--slice", 1.6, "--scheduler", scheduler),
            ("train", "--model", "moments/logreg"),
            ("train", "--model", TINY.id, "--epochs", 1),
            ("evaluate",),
        )
    return data


def runs(data: Path) -> list[Path]:
    """The classical run and the network's."""
    return sorted((data / "runs").iterdir(), key=lambda path: "tiny" in path.name)


@pytest.fixture(scope="module")
def exported(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The network's run, exported from samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        out = tmp_path_factory.mktemp("exported")
        outcome = mgc("export", runs(data)[1], "--out", out / "model", "--json")
    assert outcome.code == 0, outcome.err
    return outcome


def test_it_agrees_with_the_run_and_says_how_it_is_used(exported: Outcome, data: Path) -> None:
    check = exported.json["check"]
    assert check["n_slices"] + check["n_rounded"] > 0
    assert check["difference"] <= LIMIT
    assert check["rounded_difference"] <= ROUNDED_LIMIT
    assert not check["made_up"]
    session = onnxruntime.InferenceSession(exported.json["file"], providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["labels"]) == ["blues", "disco"]
    assert (about["sample_rate"], about["resampler"], about["input"]) == ("22050", "soxr HQ", "samples")
    assert json.loads(about["check"]) == check
    [samples] = session.get_inputs()
    assert samples.shape == ["batch", int(about["window_samples"])]
    for n in (1, 5):
        shares = session.run(None, {"samples": np.zeros((n, samples.shape[1]), np.float32)})[0]
        assert shares.sum(axis=1) == pytest.approx(np.ones(n))


def test_the_example_needs_no_mgc_and_gives_the_runs_probabilities(exported: Outcome, data: Path, tmp_path) -> None:
    """The probabilities of `mgc evaluate`. mgc and torch cannot be imported in the example's process."""
    table = pq.read_table(runs(data)[1] / "track-predictions.parquet").to_pylist()
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('mgc', 'torch', 'librosa'):\n    sys.modules[name] = None\n"
    )
    example = ROOT / "docs" / "examples" / "predict_onnx.py"
    for row in table[:2]:
        song = data / "songs" / row["path"]
        done = subprocess.run(
            [sys.executable, example, exported.json["file"], song], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        shares = {genre: float(share) for share, genre in (line.split() for line in done.stdout.splitlines())}
        assert shares == pytest.approx({genre: row[f"p_{genre}"] for genre in ("blues", "disco")}, abs=1e-3)


def test_the_card_is_what_the_hub_reads(exported: Outcome) -> None:
    text = Path(exported.json["card"]).read_text()
    _, front, body = text.split("---\n", 2)
    assert 'license: "unknown"' in front
    assert "library_name: onnx" in front
    assert "type: accuracy" in front
    assert "| accuracy |" in body
    assert "95 % interval" in body
    assert "The splits have not been audited" in body


def test_the_card_names_the_weights_that_the_run_started_from() -> None:
    origin = {"network": "net", "trained_on": "a <b> dataset", "licence": "ISC", "copyright": "somebody"}
    first, second = card._weights({"weights": {"origin": origin | {"citation": "A paper", "note": "unknown"}}})
    assert first == r"- Initial weights: net, trained on a \<b\> dataset. Licence ISC, copyright somebody."
    assert second == "  Cite A paper. Note: unknown."
    for config in ({}, {"weights": None}, {"weights": {"file": "a.pt"}}):
        assert list(card._weights(config)) == []


def test_names_in_the_card_are_escaped() -> None:
    name = "R&B <b>[x](http://x)\n# |\u202e"
    escaped = card.escape(name)
    assert "\n" not in escaped
    assert "\u202e" not in escaped
    assert "\\<b\\>\\[x\\]\\(http" in escaped
    assert all(card.escape(genre).replace("\\", "") == genre for genre in LONG_GENRES)


@pytest.mark.slow
def test_from_features_also_without_the_store(data: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(runs(data)[1], tmp_path / "elsewhere" / runs(data)[1].name)
    store = next((data / "features" / "songs").iterdir())
    hidden = store.rename(tmp_path / "hidden")
    try:
        outcome = mgc("export", alone, "--from", "features", "--out", tmp_path / "tiny.onnx", "--json")
        smaller_one = mgc("export", alone, "--quantise", "int8", "--out", tmp_path / "small")
    finally:
        hidden.rename(store)
    assert outcome.code == 0, outcome.err
    assert outcome.json["check"]["made_up"]
    assert outcome.json["check"]["difference"] <= LIMIT
    assert outcome.json["shapes"] == [["batch", 64, 8]]
    assert smaller_one.code == 1
    assert "its store or its audio is gone" in smaller_one.error
    assert not (tmp_path / "small").exists()


def test_torch_export(data: Path, tmp_path: Path) -> None:
    outcome = mgc("export", runs(data)[1], "--format", "torch", "--out", tmp_path, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["check"]["difference"] <= LIMIT
    extra = {"mgc.json": ""}
    program = torch.export.load(outcome.json["file"], extra_files=extra)
    about = json.loads(extra["mgc.json"])
    shares = program.module()(torch.zeros(5, int(about["window_samples"])))
    assert shares.sum(dim=1).tolist() == pytest.approx([1.0] * 5)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--quantise", "int8"), ("--half",)])
def test_smaller_files_are_measured(words: tuple[str, ...], data: Path, tmp_path: Path) -> None:
    outcome = mgc("export", runs(data)[1], *words, "--from", "features", "--out", tmp_path, "--json")
    assert outcome.code == 0, outcome.err
    measured = outcome.json["measured"]
    assert measured["bytes_after"] == Path(outcome.json["file"]).stat().st_size
    span = measured["difference"]
    assert span["low"] <= span["difference"] <= span["high"]
    assert span["difference"] == pytest.approx(measured["accuracy_after"] - measured["accuracy_before"])
    assert min(measured["ms_before"], measured["ms_after"]) > 0
    kinds = {tensor.data_type for tensor in onnx.load(outcome.json["file"]).graph.initializer}
    assert (onnx.TensorProto.INT8 if "int8" in words else onnx.TensorProto.FLOAT16) in kinds
    if "--half" in words:  # casts surround the network, not the nodes of its input
        graph = onnx.load(outcome.json["file"]).graph
        assert "frames" in {name for node in graph.node if node.op_type != "Cast" for name in node.input}
    assert f"| size | {measured['bytes_before'] / 1e6:.2f} MB" in (tmp_path / "README.md").read_text()


@pytest.mark.slow
def test_a_classical_system_through_skl2onnx(data: Path, tmp_path: Path) -> None:
    outcome = mgc("export", runs(data)[0], "--out", tmp_path / "classical", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["check"]["difference"] <= LIMIT
    refused = mgc("export", runs(data)[0], "--format", "torch", "--out", tmp_path / "no")
    assert refused.error.startswith("moments/logreg is no network")
    refused = mgc("export", runs(data)[0], "--half", "--out", tmp_path / "no")
    assert refused.error.startswith("moments/logreg is no network")


class TestRefusal:
    def test_what_is_there_is_not_replaced(self, data: Path, tmp_path: Path) -> None:
        for name in ("model.onnx", "README.md"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / name).write_text("mine")
            refused = mgc("export", runs(data)[1], "--out", folder)
            assert refused.code == 1
            assert refused.error == (
                f"{folder / name}: exists already, and is not replaced; remove it, or name another with --out"
            )
            assert tree(folder) == {name: b"mine"}

    def test_a_folder_that_cannot_be_written(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        refused = mgc("export", runs(data)[1], "--from", "features", "--out", tmp_path / "file" / "below")
        assert refused.code == 1
        assert "a file exists where a folder is needed" in refused.error
        assert list(tmp_path.iterdir()) == [tmp_path / "file"]

    def test_an_unfinished_run(self, data: Path, tmp_path: Path) -> None:
        run = shutil.copytree(runs(data)[1], tmp_path / "run")
        (run / "summary.json").unlink()
        assert "its training is unfinished" in mgc("export", run, "--out", tmp_path / "out").error

    def test_missing_packages(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(onnx_file, "PACKAGES", ("onnx", "no_such_package"))
        monkeypatch.setattr(onnx_file.require_packages, "__defaults__", (("onnx", "no_such_package"),))
        refused = mgc("export", runs(data)[1], "--out", tmp_path / "out")
        assert refused.error == (
            "ONNX files need no_such_package, which this environment lacks; "
            "pip install 'mgc-music[onnx]', or take --format torch"
        )

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (["--quantise", "int8", "--half"], "--quantise and --half exclude each other; leave one out"),
            (["--half", "--format", "torch"], "--half makes ONNX files smaller; take --format onnx"),
        ],
    )
    def test_contradictions(self, words: list[str], error: str) -> None:
        outcome = mgc("export", *words)
        assert (outcome.code, outcome.error) == (2, error)

    def test_a_model_that_differs_is_not_written(self, data: Path, tmp_path: Path, monkeypatch) -> None:
        """Here the exporter forgets the softmax."""
        encode = onnx_file.encode

        def broken(*arguments):
            proto = encode(*arguments)
            softmax = next(node for node in proto.graph.node if node.op_type == "Softmax")
            softmax.op_type = "Sigmoid"
            del softmax.attribute[:]
            return proto

        monkeypatch.setattr(export.onnx_file, "encode", broken)
        refused = mgc("export", runs(data)[1], "--from", "features", "--out", tmp_path / "out")
        assert refused.code == 1
        assert "the exported model's probabilities differ from the run's by" in refused.error
        assert not (tmp_path / "out").exists()
