"""Embeddings of downloaded networks, by `mgc embed` and `mgc extract --for probe/...`; here with random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Outcome, mgc, stamps
from ears import write_random_weights
from music import write_genres

from mgc.models.embedding.embedder import of_spec, of_weights
from mgc.models.registry.weights import load_trained
from mgc.pipeline.downloads import pip_wheel
from mgc.pipeline.errors import MgcError, ModelError, SpecError
from mgc.pipeline.features import Mel
from mgc.pipeline.store.store import Store
from mgc.pipeline.workspace import Workspace

SPEC = Mel(sr=16000, n_fft=512, hop_length=256, n_mels=96)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with music and the weights."""
    data = tmp_path_factory.mktemp("ears") / "data"
    write_random_weights(data / "weights" / "musicnn")
    write_genres(data / "songs", tracks=4, seconds=7)
    return Workspace(data)


def test_layers_of_several_networks_are_joined(workspace: Workspace) -> None:
    """Each vector is that of the network itself; a name without a network stands for two of them."""
    rng = np.random.default_rng(0)
    levels = rng.uniform(-70, 0, (3, 187, 96)).astype(np.float32)
    x = torch.from_numpy(np.log10(1 + 10_000 * 10 ** (levels / 10))).unsqueeze(1)
    wanted = []
    for name in ("MSD_musicnn", "MTT_musicnn"):
        _, network, _ = load_trained(f"musicnn/{name}", workspace)
        with torch.inference_mode():
            wanted.append(network.embed(x, "penultimate").numpy())
    both = of_weights("musicnn", workspace, device="cpu")
    assert (both.model, both.layer, both.width) == ("musicnn/MSD_musicnn+MTT_musicnn", "penultimate", 400)
    assert (both.spec, both.window) == (SPEC, 187)
    vectors = both(levels, Mel(dtype="float32")).read()
    np.testing.assert_allclose(vectors, np.concatenate(wanted, axis=1), rtol=1e-4, atol=1e-4)
    mixed = of_weights("musicnn/MSD_vgg+MTT_musicnn", workspace, "pool2+mean_pool", "cpu")
    assert (mixed.layer, mixed.width) == ("pool2+mean_pool", 128 + 753)
    again = of_spec(mixed.embedding(187), workspace, "cpu")
    assert (again.weights, again.layer) == (mixed.weights, mixed.layer)
    with pytest.raises(SpecError, match="--layer conv: pons2019/musicnn has none of this name"):
        of_weights("musicnn/MSD_musicnn", workspace, "conv", "cpu")
    with pytest.raises(SpecError, match="3 networks"):
        of_weights("musicnn/MSD_vgg+MTT_vgg+MSD_musicnn", workspace, "pool1+pool2", "cpu")


def test_other_weights_are_noticed(workspace: Workspace, tmp_path: Path) -> None:
    """Embeddings by other weights of the same network cannot be compared."""
    spec = of_weights("musicnn/MTT_vgg", workspace, device="cpu").embedding(187)
    other = Workspace(tmp_path)
    shutil.copytree(workspace.weights, other.weights)
    file = other.weights / "musicnn" / "MTT_vgg.safetensors"
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match="musicnn/MTT_vgg has other weights than the network"):
        of_spec(spec, other, "cpu")


def test_one_command_makes_what_a_probe_reads(workspace: Workspace, scheduler: str) -> None:
    """Extract, embed, train, evaluate, predict; a second call changes nothing."""

    def run(*words: object) -> Outcome:
        outcome = mgc(*words, "--data-dir", workspace.root)
        assert outcome.code == 0, outcome.err
        return outcome

    command = ("extract", "--for", "probe/logreg", "--scheduler", scheduler, "--json")
    mel, made = (Store.open(Path(entry["store"])) for entry in run(*command).json["stores"])
    assert mel.spec == SPEC
    assert made.spec.of == SPEC.as_option()
    assert {row["n_frames"] for row in made.tracks.to_pylist()} == {2}  # 7 s hold two windows of 3 s
    before = stamps(made.path)
    again = run(*command).json["stores"]
    assert (again[1]["embedded"], stamps(made.path)) == (0, before)
    assert "model: probe/logreg, the default for embedding" in run("train").err
    assert run("evaluate", "--json", "--no-report").json["n_tracks"] > 0
    song = next((workspace.root / "songs").rglob("*.wav"))
    [answer] = run("predict", song, "--json", "--scheduler", scheduler).json
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    named = run("search", song, "--json", "--top-k", 1).json
    assert named[0]["path"] == str(song.resolve())


def test_networks_are_fetched_before_the_first_file_is_decoded(workspace: Workspace, tmp_path: Path, monkeypatch):
    """A download that fails ends the command while nothing has been extracted."""

    def refuse(*arguments: object) -> None:
        raise MgcError("no index", "look for one")

    monkeypatch.setattr(pip_wheel, "fetch", refuse)
    failed = mgc("extract", workspace.root / "songs", "--for", "probe/knn", "--data-dir", tmp_path / "data")
    assert failed.code == 1
    assert failed.err.splitlines()[-1] == "error: no index; look for one"
    assert not list((tmp_path / "data").glob("features/*/*"))


def test_a_probe_is_reproduced_like_any_system(workspace: Workspace, scheduler: str, tmp_path: Path) -> None:
    """Its store is extracted and embedded; `all` leaves probes out, as they may need a download."""
    shutil.copytree(workspace.weights, tmp_path / "weights")
    songs = workspace.root / "songs"
    words = ("--dataset", songs, "--scheduler", scheduler, "--data-dir", tmp_path, "--json")
    made = mgc("reproduce", "probe/logreg", *words)
    assert made.code == 0, made.err
    assert list(tmp_path.glob("features/*/embedding-*"))
    from mgc.models.reproduction.jobs import Limits, plan

    assert not [job for job in plan("all", "both", [0], Limits(None, None)) if job.system.study == "probe"]
