"""`mgc search`: the nearest tracks of a store of embeddings, by brute force and by the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import mgc, mgc_all
from music import write_genres, write_silence
from stores import make_store
from tiny import TINY

from mgc.models.registry import systems
from mgc.models.search.neighbours import Neighbours
from mgc.pipeline.errors import StoreError
from mgc.pipeline.features import Embedding
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

SPEC = Embedding(model="m", layer="l", width=7, weights="0" * 16, of="mel", window=16_000, sr=16_000, hop_length=8_000)


def cosines(store: Store) -> tuple[list[str], np.ndarray]:
    """Ids, and the similarity of each pair of tracks: cosines of standardised means."""
    rows = [row for row in store.tracks.to_pylist() if row["n_frames"]]
    frames = [store.read(row["shard"], row["first_frame"], row["first_frame"] + row["n_frames"]) for row in rows]
    x = np.stack([one.astype(np.float64).mean(axis=0) for one in frames])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return [row["track_id"] for row in rows], x @ x.T


def test_the_search_is_exact(tmp_path: Path) -> None:
    """For every track, and any number of neighbours, more than there are included."""
    whole = Slicing(seconds=None, whole=True)
    store = make_store(tmp_path / "embedding", SPEC, whole, seconds=(9.0, 3.0, 0.4, 5.0), tracks_per_shard=3)
    ids, similarity = cosines(store)
    neighbours = Neighbours(store)
    for number, id in enumerate(ids):
        order = [other for other in np.argsort(-similarity[number], kind="stable") if other != number]
        for count in (1, 4, 100):
            found = neighbours.of_track(id, count)
            assert [one.row["track_id"] for one in found] == [ids[other] for other in order[:count]]
            np.testing.assert_allclose([one.similarity for one in found], similarity[number][order[:count]], atol=1e-6)
    with pytest.raises(StoreError, match="no track nobody"):
        neighbours.of_track("nobody", 1)


@pytest.fixture
def data(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with music, embedded by the network of a run."""
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
    data = tmp_path / "data"
    write_genres(data / "songs", tracks=5, seconds=3)
    words = ("--feature", "mel:n_mels=8,n_fft=512", "--slice", 1.6, "--scheduler", scheduler)
    mgc_all(data, ("extract", *words), ("train", "--model", TINY.id, "--epochs", 1))
    [run], [mel] = (data / "runs").iterdir(), (data / "features" / "songs").iterdir()
    mgc_all(data, ("embed", run, mel))
    return data


def test_a_file_finds_itself(data: Path, tmp_path: Path) -> None:
    """Decoded and embedded as the store was; its other neighbours are those of its track."""
    [store] = (data / "features" / "songs").glob("embedding-*")
    row = next(row for row in Store.open(store).tracks.to_pylist() if row["n_frames"])
    file = data / "songs" / row["path"]
    found = mgc("search", file, "--json", "--top-k", 4, "--data-dir", data)
    assert found.code == 0, found.err
    first, *others = found.json
    assert (first["track_id"], first["path"]) == (row["track_id"], str(file.resolve()))
    assert first["similarity"] == pytest.approx(1, abs=1e-4)
    playlist = tmp_path / "like.m3u8"
    by_id = mgc("search", row["track_id"], "--json", "--top-k", 3, "--playlist", playlist, "--data-dir", data).json
    assert [one["track_id"] for one in by_id] == [one["track_id"] for one in others]
    assert playlist.read_text().splitlines() == ["#EXTM3U", *(one["path"] for one in by_id)]
    text = mgc("search", row["track_id"], "--top-k", 3, "--data-dir", data).out
    assert len(text.splitlines()) == 4
    assert all(one["track_id"] in text for one in by_id)


def test_wrong_input(data: Path, tmp_path: Path) -> None:
    [mel] = (data / "features" / "songs").glob("mel-*")
    silence = write_silence(tmp_path / "silence.wav", 3)
    for words, problem in (
        ([silence], "silence.wav: silence"),
        (["nobody"], "no track nobody"),
        (["nobody", "--store", mel], f"{mel} holds mel, not embeddings; make them: `mgc embed musicnn {mel}`"),
    ):
        refused = mgc("search", *words, "--data-dir", data)
        assert refused.code == 1
        assert problem in refused.error
    empty = mgc("search", "nobody", "--data-dir", tmp_path / "empty")
    assert "no feature store in" in empty.error
