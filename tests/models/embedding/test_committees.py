"""Embeddings of a run of mgc/cnn: of all its members, in stores and of files; and stores of the last one alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from commands import mgc, mgc_all
from music import write_genres
from torch import nn

from mgc.models.embedding.embedder import of_run, of_spec
from mgc.models.runs.run import Run
from mgc.models.training.predict import load_network
from mgc.pipeline.store.store import Store
from mgc.pipeline.workspace import Workspace


@pytest.fixture(scope="module")
def data(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("committee") / "data"
    write_genres(data / "songs", tracks=6, seconds=3)
    mgc_all(
        data,
        ("extract", "--feature", "mel", "--slice", 1.6, "--scheduler", scheduler),
        ("train", "--model", "mgc/cnn", "--epochs", 1),
    )
    return data


def probabilities(run: Run, vectors: np.ndarray) -> np.ndarray:
    """The mean of what the last layer of each member makes of its part of the vectors, `(rows, classes)`."""
    members = load_network(run, [run.spec], torch.device("cpu")).eval().model.members
    parts = torch.from_numpy(vectors).split(64, dim=1)
    with torch.inference_mode():
        shares = [member.head[-1](part).softmax(dim=1) for member, part in zip(members, parts, strict=True)]
    return torch.stack(shares).mean(dim=0).numpy()


def test_vectors_of_all_members_are_stored_and_predicted(data: Path, scheduler: str, tmp_path: Path) -> None:
    [path], [mel] = (data / "runs").iterdir(), (data / "features" / "songs").iterdir()
    run, song = Run.open(path), next((data / "songs").rglob("*.wav"))
    made = mgc("embed", path, mel, "--out", tmp_path, "--json", "--data-dir", data)
    assert made.code == 0, made.err
    store = Store.open(Path(made.json["store"]))
    assert store.spec.width == 512
    assert store.read(0).shape == (sum(row["n_frames"] for row in store.tracks.to_pylist() if row["shard"] == 0), 512)

    words = ("--embeddings", tmp_path / "song.parquet", "--json")
    predicted = mgc("predict", path, song, *words, "--data-dir", data, "--scheduler", scheduler)
    assert predicted.code == 0, predicted.err
    vectors = np.stack(pq.read_table(tmp_path / "song.parquet")["embedding"].to_numpy(zero_copy_only=False))
    assert vectors.shape[1] == 512
    expected = probabilities(run, vectors).mean(axis=0)
    assert list(predicted.json[0]["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_store_of_the_last_member_alone_gets_vectors_of_its_width(data: Path) -> None:
    """Stores were made so before: searching in them and probes on them embed files anew."""
    [path] = (data / "runs").iterdir()
    embedder = of_run(Run.open(path), "cpu")
    old = dataclasses.replace(embedder.embedding(embedder.window), width=64)
    again = of_spec(old, Workspace(data), "cpu")
    stored = dataclasses.replace(embedder.spec, dtype="float32")
    windows = np.random.default_rng(0).uniform(-80, 0, (3, embedder.window, 128)).astype(np.float32)
    inputs: list[torch.Tensor] = []
    network = load_network(Run.open(path), [embedder.spec], torch.device("cpu")).eval()
    last = network.model.members[-1].head[-1]
    assert isinstance(last, nn.Linear)
    last.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    with torch.inference_mode():
        network(torch.from_numpy(windows))
    assert again.width == again.embedding(embedder.window).width == 64
    np.testing.assert_allclose(again(windows, stored).read(), inputs[0].numpy(), atol=1e-5)
