"""Probes: on one store of embeddings, on several, and on audio files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import mgc, mgc_all
from music import write_genres
from stores import make_store
from tiny import TINY

from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.training.predict import predict
from mgc.pipeline.features import Embedding, Stats
from mgc.pipeline.store.slicing import Slicing

PROBES = ("probe/knn", "probe/logreg", "probe/mlp", "probe/svm")
WHOLE = Slicing(seconds=None, whole=True)


def embedding(width: int, model: str = "m") -> Embedding:
    return Embedding(
        model=model, layer="l", width=width, weights="0" * 16, of="mel", window=16_000, sr=16_000, hop_length=8_000
    )


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two stores of embeddings and one of statistics, of the same tracks."""
    root = tmp_path_factory.mktemp("probes")
    specs = {"one": embedding(9), "two": embedding(6, "n"), "stats": Stats()}
    paths = [make_store(root / name, spec, WHOLE, root=root).path for name, spec in specs.items()]
    make_store(root / "mel", root=root)
    return paths


@pytest.mark.parametrize("id", PROBES)
def test_a_probe_learns_genres(stores: list[Path], tmp_path: Path, id: str) -> None:
    made = mgc("train", "--model", id, "--store", stores[0], "--data-dir", tmp_path)
    assert made.code == 0, made.err
    result = mgc("evaluate", "--json", "--no-report", "--data-dir", tmp_path).json
    assert result["by_track"]["accuracy"] == 1.0
    assert result["n_tracks"] == 6


def test_several_stores_are_read_side_by_side(stores: list[Path], tmp_path: Path) -> None:
    """With a search for C, too; the run opens as many stores again."""
    words = [word for path in stores for word in ("--store", path)]
    made = mgc("train", "--model", "probe/logreg", *words, "--search", "--data-dir", tmp_path)
    assert made.code == 0, made.err
    [path] = (tmp_path / "runs").iterdir()
    run = Run.open(path)
    assert [source.spec.bins for source in run.sources] == [18, 12, 518]
    table = predict(run)
    assert np.mean([row["genre"] for row in table.to_pylist()] == np.array(run.classes)[_best(table)]) == 1.0
    assert "mean" not in run.config["store"]["spec"]
    with (path / "model.skops").open("rb") as file:
        import skops.io

        model = skops.io.loads(file.read(), trusted=skops.io.get_untrusted_types(file=path / "model.skops"))
    assert model[0].n_features_in_ == 18 + 12 + 518


def _best(table) -> np.ndarray:
    return np.stack(table["probabilities"].to_pylist()).argmax(axis=1)


def test_the_default_of_embeddings(stores: list[Path], tmp_path: Path) -> None:
    made = mgc("train", "--store", stores[0], "--data-dir", tmp_path)
    assert "model: probe/logreg, the default for embedding" in made.err
    mel = mgc("train", "--model", "probe/svm", "--store", stores[0].parent / "mel", "--data-dir", tmp_path)
    assert mel.code == 1
    assert "probe/svm needs embedding or stats features" in mel.error
    assert "`mgc extract --for probe/svm` makes them" in mel.error


def test_files_get_the_probabilities_of_evaluation(scheduler: str, tmp_path: Path, monkeypatch) -> None:
    """Decoded, embedded by the network of a run and pooled as the store was, after the stores are gone."""
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    data = tmp_path / "data"
    write_genres(data / "songs", tracks=6, seconds=3)
    words = ("--feature", "mel:n_mels=8,n_fft=512", "--slice", 1.6, "--scheduler", scheduler)
    mgc_all(data, ("extract", *words), ("train", "--model", TINY.id, "--epochs", 1))
    [network], [mel] = (data / "runs").iterdir(), (data / "features" / "songs").iterdir()
    mgc_all(data, ("embed", network, mel, "--hop", 0.4), ("train", "--model", "probe/svm"), ("evaluate", "--no-report"))
    [probe] = (data / "runs").glob("*-probe-svm")
    import pyarrow.parquet as pq

    wanted = {row["path"]: row for row in pq.read_table(probe / "track-predictions.parquet").to_pylist()}
    shutil.rmtree(data / "features")
    files = [data / "songs" / path for path in wanted]
    got = mgc("predict", probe, *files, "--json", "--scheduler", scheduler, "--data-dir", data)
    assert got.code == 0, got.err
    for row in got.json:
        old = wanted[Path(row["path"]).relative_to(data / "songs").as_posix()]
        for genre, probability in row["probabilities"].items():
            assert probability == pytest.approx(old[f"p_{genre}"], abs=1e-6)
    short = tmp_path / "short.wav"
    write_genres(tmp_path / "other", tracks=1, seconds=0.5)
    shutil.copy(next((tmp_path / "other").rglob("*.wav")), short)
    refused = mgc("predict", probe, short, "--json", "--scheduler", scheduler, "--data-dir", data)
    assert refused.json[0]["reason"] == "too-short"
    shutil.rmtree(network)
    gone = mgc("predict", probe, files[0], "--scheduler", scheduler, "--data-dir", data)
    assert gone.code == 1
    assert network.name in gone.error
