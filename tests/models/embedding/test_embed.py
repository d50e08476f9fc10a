"""Stores of embeddings: their vectors, and what a later call does after a kill, damage, new labels and new audio."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import MGC, done_in, mgc, mgc_all, stamps, tree
from hypothesis import given
from hypothesis import strategies as st
from music import write_clip, write_genres
from properties import examples
from stores import TINY, make_store
from tiny import TINY as TINY_SYSTEM
from torch import Tensor, nn

from mgc.models.embedding import embed as embedding
from mgc.models.embedding.embedder import Embedder, build
from mgc.models.embedding.windows import Windows
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.training.last_layer import LastLayer
from mgc.models.training.predict import load_network
from mgc.pipeline.errors import SpecError, StoreError
from mgc.pipeline.features.variants import parse_variants
from mgc.pipeline.store import verify
from mgc.pipeline.store.store import Store


class Sums(nn.Module):
    """Three sums over a window, so that a test knows its vectors."""

    def forward(self, frames: Tensor) -> Tensor:
        """Map `(batch, frames, bins)` to `(batch, 3)`: the first bin, the last bin, and all."""
        return torch.stack([frames[:, :, 0].sum(1), frames[:, :, -1].sum(1), frames.sum((1, 2))], dim=1)


def sums(length: int = 40) -> Embedder:
    return build("sums", "last", "0" * 64, TINY, length, Sums(), torch.device("cpu"))


def vectors_of(store: Store, row: dict) -> np.ndarray:
    return store.read(row["shard"], row["first_frame"], row["first_frame"] + row["n_frames"])


def expected(store: Store, row: dict, length: int, hop: int) -> np.ndarray:
    """The sums over the windows of a track or variant, from its frames."""
    values = store.spec.decode(vectors_of(store, row))
    windows = [values[first : first + length] for first in range(0, len(values) - length + 1, hop)]
    return np.array([[w[:, 0].sum(), w[:, -1].sum(), w.sum()] for w in windows])


@pytest.fixture
def source(tmp_path: Path) -> Store:
    """Tracks of three lengths, one of them shorter than a window of 40 frames."""
    return make_store(tmp_path / "features" / "mel-abcdef", seconds=(9.0, 4.0, 0.8), tracks_per_shard=4)


@pytest.mark.parametrize(("hop_s", "batch_size"), [(None, 64), (0.5, 7), (0.0233, 1000)])
def test_vectors_are_those_of_the_windows(source: Store, hop_s: float | None, batch_size: int) -> None:
    """Whatever the batches; splits, labels and hashes are those of the store, and short tracks are dropped."""
    store = embedding.embed(sums(), source, hop_s=hop_s, batch_size=batch_size).store
    hop = 40 if hop_s is None else round(hop_s * TINY.frame_rate)
    assert (store.spec.window, store.spec.hop_length, store.spec.width) == (
        40 * TINY.hop_length,
        hop * TINY.hop_length,
        3,
    )
    before, after = source.tracks.to_pylist(), store.tracks.to_pylist()
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        labels = ("track_id", "path", "genre", "split", "artist_id", "content_hash", "duration_s", "shard")
        assert {name: old[name] for name in labels} == {name: new[name] for name in labels}
        if old["n_frames"] < 40:
            assert (new["status"], new["reason"], new["n_frames"]) == ("dropped", "too-short", 0)
        else:
            np.testing.assert_allclose(vectors_of(store, new), expected(source, old, 40, hop), rtol=2e-5, atol=0.05)
    assert {row["n_frames"] == 0 for row in after} == {True, False}
    assert not verify.verify(store)
    assert str(store.slicing) == "whole tracks"


def test_variants_are_embedded_too(tmp_path: Path) -> None:
    source = make_store(tmp_path / "mel", variants=parse_variants("pitch:1,stretch:0.9"), seconds=(3.0, 5.0))
    store = embedding.embed(sums(), source).store
    assert store.variants == source.variants
    for old, new in zip(source.tracks.to_pylist(), store.tracks.to_pylist(), strict=True):
        assert [one["variant"] for one in new["variants"]] == [one["variant"] for one in old["variants"]]
        for one, two in zip(old["variants"], new["variants"], strict=True):
            got = store.read(new["shard"], two["first_frame"], two["first_frame"] + two["n_frames"])
            frames = {**one, "shard": old["shard"]}
            np.testing.assert_allclose(got, expected(source, frames, 40, 40), rtol=2e-5, atol=0.05)


def test_a_second_call_changes_nothing(source: Store) -> None:
    store = embedding.embed(sums(), source).store
    before = stamps(store.path)
    result = embedding.embed(sums(), source, thorough=True)
    assert (result.n_embedded, stamps(store.path)) == (0, before)


@pytest.mark.parametrize("at", [0, 1, 5, "publish"])
def test_an_interrupted_call_is_continued_to_the_same_bytes(source, monkeypatch, at) -> None:
    """Interrupted within a shard, or before the manifest is written. Until then, the store counts as unfinished."""
    whole = embedding.embed(sums(), source).store
    wanted = tree(whole.path)
    shutil.rmtree(whole.path)
    with monkeypatch.context() as patch:
        if at == "publish":
            patch.setattr(embedding.manifest, "publish_cuts", _interrupt)
        else:
            commit, calls = embedding.commit_shard, iter(range(at))
            patch.setattr(
                embedding, "commit_shard", lambda *a: commit(*a) if next(calls, None) is not None else _interrupt()
            )
        with pytest.raises(KeyboardInterrupt):
            embedding.embed(sums(), source)
    with pytest.raises(StoreError, match="unfinished; run `mgc embed` again: it continues"):
        Store.open(whole.path).require_finished()
    result = embedding.embed(sums(), source)
    assert tree(whole.path) == wanted
    n_done = sum(row["shard"] < (at if isinstance(at, int) else 99) for row in source.tracks.to_pylist())
    assert result.n_embedded == len(source.tracks) - n_done


def _interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_damage_is_found_and_mended(source: Store) -> None:
    store = embedding.embed(sums(), source).store
    wanted = tree(store.path)
    [data, *_] = (store.shard_path(2) / "embedding" / "c" / "0").glob("*")
    content = bytearray(data.read_bytes())
    content[10] ^= 1
    data.write_bytes(content)
    assert verify.verify(store)
    assert embedding.embed(sums(), source).n_embedded == 0  # sizes alone do not tell
    assert embedding.embed(sums(), source, thorough=True).n_embedded == 4
    assert tree(store.path) == wanted
    data.unlink()
    assert embedding.embed(sums(), source).n_embedded == 4
    (store.path / "slices.parquet").unlink()
    embedding.embed(sums(), source)
    assert tree(store.path) == wanted


def test_another_feature_and_a_hop_below_a_frame_are_refused(source: Store, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", dataclasses.replace(TINY, sr=16000))
    with pytest.raises(
        StoreError, match=r"sums reads mel sr=22050 .*; extract it: `mgc extract --feature mel:n_fft=512"
    ):
        embedding.embed(sums(), other)
    with pytest.raises(SpecError, match=r"--hop 0\.001: shorter than a frame of mel"):
        embedding.embed(sums(), source, hop_s=0.001)
    assert not list(tmp_path.glob("*/embedding-*"))


@examples(200)
@given(
    st.integers(1, 12),
    st.integers(1, 15),
    st.integers(0, 60),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9))),
)
def test_windows_that_touch_a_gap(length: int, hop: int, n_frames: int, gaps: list[tuple[int, int]]) -> None:
    """As counted frame by frame."""
    windows = Windows(length, hop)
    starts = list(range(0, n_frames - length + 1, hop))
    assert windows.count(n_frames) == len(starts)
    pairs = [[first, min(first + size, n_frames)] for first, size in gaps if first < n_frames]
    touched = windows.touching(pairs, len(starts)) or []
    bad = {frame for first, stop in pairs for frame in range(first, stop)}
    wanted = [bool(bad & set(range(start, start + length))) for start in starts]
    assert [any(first <= n < stop for first, stop in touched) for n in range(len(starts))] == wanted
    assert all(first < stop for first, stop in touched)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(touched))


class TestCommand:
    """`mgc embed` by a run's network, on extracted music."""

    FEATURE = "mel:n_mels=8,n_fft=512"

    @pytest.fixture(autouse=True)
    def tiny(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(systems._systems, TINY_SYSTEM.id, TINY_SYSTEM)

    @pytest.fixture(scope="class")
    @classmethod
    def workspace(cls, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
        data = tmp_path_factory.mktemp("embed") / "data"
        write_genres(data / "songs", tracks=6, seconds=3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(systems._systems, TINY_SYSTEM.id, TINY_SYSTEM)
            mgc_all(
                data,
                ("extract", "--feature", cls.FEATURE, "--slice", 1.6, "--scheduler", scheduler),
                ("train", "--model", TINY_SYSTEM.id, "--epochs", 1),
            )
        return data

    @pytest.fixture
    def data(self, workspace: Path, tmp_path: Path) -> Path:
        """A copy of the workspace, whose stores know the dataset where it is."""
        copy = shutil.copytree(workspace, tmp_path / "data")
        shutil.rmtree(copy / "songs")
        (copy / "songs").symlink_to(workspace / "songs")
        return copy

    def test_the_layer_before_the_last(self, data: Path) -> None:
        """Its vectors are those of `mgc predict --embeddings`'s layer; the latest store is the new one."""
        [path] = (data / "runs").iterdir()
        [mel] = (data / "features" / "songs").iterdir()
        made = mgc("embed", path, mel, "--hop", 0.5, "--json", "--data-dir", data)
        assert made.code == 0, made.err
        store = Store.open(Path(made.json["store"]))
        run, source = Run.open(path), Store.open(mel)
        last = LastLayer(load_network(run, [run.spec], torch.device("cpu")).eval(), len(run.classes))
        hop = round(0.5 * source.spec.frame_rate)
        for row, old in zip(store.tracks.to_pylist(), source.tracks.to_pylist(), strict=True):
            frames = source.spec.decode(
                source.read(old["shard"], old["first_frame"], old["first_frame"] + old["n_frames"])
            )
            windows = np.stack([frames[i : i + 64] for i in range(0, len(frames) - 63, hop)])
            with torch.inference_mode():
                wanted, _ = last.split(last(torch.from_numpy(windows)))
            np.testing.assert_allclose(vectors_of(store, row), wanted.numpy(), atol=1e-5)
        assert mgc("info", "--data-dir", data, "--json").json["store"] == str(store.path)

    def test_splits_and_audio_move_along(self, data: Path, scheduler: str) -> None:
        [path], [mel] = (data / "runs").iterdir(), (data / "features" / "songs").iterdir()
        store = Path(mgc("embed", path, mel, "--json", "--data-dir", data).json["store"])
        moved = mgc("split", mel, "--redo", "--seed", 5, "--data-dir", data)
        assert moved.code == 0, moved.err
        splits = [Store.open(one).tracks.select(["track_id", "split"]) for one in (mel, store)]
        assert splits[0].sort_by("track_id").equals(splits[1].sort_by("track_id"))
        before = stamps(store)
        assert mgc("embed", path, mel, "--data-dir", data).code == 0
        assert stamps(store) == before
        songs = (data / "songs").resolve()
        (data / "songs").unlink()
        shutil.copytree(songs, data / "songs")
        [song, *_] = sorted((data / "songs").rglob("*.wav"))
        write_clip(song, 2.5, seed=77)
        again = mgc("extract", "--feature", self.FEATURE, "--scheduler", scheduler, "--data-dir", data, "--moved")
        assert again.code == 0, again.err
        assert mgc("embed", path, mel, "--data-dir", data).code == 0
        fresh = data / "fresh"
        assert mgc("embed", path, mel, "--out", fresh, "--data-dir", data).code == 0
        [anew] = fresh.iterdir()
        assert tree(anew) == tree(store)

    def test_models_that_have_no_embeddings(self, data: Path, tmp_path: Path) -> None:
        [mel] = (data / "features" / "songs").iterdir()
        assert mgc("train", "--model", "moments/logreg", "--store", mel, "--data-dir", data).code == 0
        classical = mgc("embed", next((data / "runs").glob("*-logreg")), mel, "--data-dir", data)
        assert classical.code == 1
        assert classical.error.endswith(
            "moments/logreg has no embeddings; name the run of a network that reads one store"
        )
        for model, problem in (
            ("nothing", "nothing: no run, no ONNX file and no downloaded weights"),
            ("musicnn", "MSD_musicnn"),
        ):
            refused = mgc("embed", model, mel, "--data-dir", tmp_path / "empty")
            assert refused.code == 1
            assert problem in refused.error

    def test_onnx(self, data: Path, tmp_path: Path) -> None:
        """A network in an ONNX file, with the axes and the output that its description names."""
        onnx_file = pytest.importorskip("mgc.models.export.onnx_file")

        class Channels(nn.Module):
            def forward(self, *x: Tensor) -> Tensor:
                return Sums()(x[0].squeeze(1).transpose(1, 2))  # (batch, 1, bins, frames)

        [mel] = (data / "features" / "songs").iterdir()
        program = onnx_file.trace(Channels(), [np.zeros((2, 1, 8, 40), np.float32)])
        file = tmp_path / "sums.onnx"
        file.write_bytes(onnx_file.encode(program, ["x"], "sums").SerializeToString())
        description = file.with_suffix(".toml")
        description.write_text(f'feature = "{self.FEATURE}"\nframes = 40\naxes = "bcft"\noutput = "sums"\n')
        made = mgc("embed", file, mel, "--json", "--data-dir", data)
        assert made.code == 0, made.err
        store, source = Store.open(Path(made.json["store"])), Store.open(mel)
        assert (store.spec.model, store.spec.layer) == ("sums.onnx", "sums")
        for row, old in zip(store.tracks.to_pylist(), source.tracks.to_pylist(), strict=True):
            np.testing.assert_allclose(vectors_of(store, row), expected(source, old, 40, 40), rtol=2e-5, atol=0.05)
        for text, problem in (
            ('frames = 40\naxes = "bcft"', "feature is missing"),
            (f'feature = "{self.FEATURE}"\nframes = 40\naxes = "tfb"', "axes is 'tfb'"),
            (f'feature = "{self.FEATURE}"\nframes = 40\naxes = "btf"', "it does not take the input"),
            (f'feature = "{self.FEATURE}"\nframes = 40\naxes = "bcft"\noutput = "tags"', "no output 'tags'"),
            (f'feature = "{self.FEATURE}"\nframes = "40"\naxes = "bcft"', "frames is '40'"),
            ("frames = ", "sums.toml"),
        ):
            description.write_text(text)
            refused = mgc("embed", file, mel, "--data-dir", data)
            assert refused.code == 2
            assert problem in refused.error
        file.write_bytes(b"no model")
        description.write_text(f'feature = "{self.FEATURE}"\nframes = 40\naxes = "bcft"\n')
        assert "sums.onnx: " in mgc("embed", file, mel, "--data-dir", data).error
        description.unlink()
        assert "sums.toml: missing" in mgc("embed", file, mel, "--data-dir", data).error


@pytest.mark.slow
def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL at two moments of a real process, each time continued to the same bytes."""
    data = tmp_path / "data"
    write_genres(data / "songs", tracks=20, seconds=4)
    done_in(data, "extract", "--slice", 3, "--dataset", data / "songs")
    done_in(data, "train", "--model", "kth2020/cnn", "--epochs", 1)
    [path], [mel] = (data / "runs").iterdir(), (data / "features" / "songs").iterdir()
    done_in(data, "embed", path, mel, "--hop", 0.1, "--out", data / "whole")
    [whole] = (data / "whole").iterdir()
    for n_fragments in (0, 2):
        out = data / f"killed{n_fragments}"
        command = [str(MGC), "embed", str(path), str(mel), "--hop", "0.1", "--out", str(out)]
        process = subprocess.Popen(command, env=os.environ | {"MGC_DATA": str(data)}, stderr=subprocess.DEVNULL)
        while (process.poll() is None and len(list(out.glob("*/shards/*.parquet"))) < n_fragments) or not out.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done_in(data, "embed", path, mel, "--hop", "0.1", "--out", out)
        assert tree(out / whole.name) == tree(whole)
