"""Runs: their folder, their checkpoints, predictions with them, and the selection of their tracks."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from stores import GENRES, TRACKS, make_store
from tiny import TINY

from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.runs.selection import TRACK_SCHEMA, Selection, select_tracks
from mgc.models.training.predict import predict
from mgc.models.training.train import Options, train
from mgc.pipeline.datasets.tracks import DATASET_SCHEMA
from mgc.pipeline.errors import MgcError, RunError
from mgc.pipeline.extraction.journal import rewrite_fragments
from mgc.pipeline.extraction.resplit import plan_relabelling
from mgc.pipeline.features import Mel
from mgc.pipeline.storage import files, parquet
from mgc.pipeline.store.manifest import publish
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(systems._systems, TINY.id, TINY)


def trained(store: Store, folder: Path, **options: object) -> Run:
    torch.set_num_threads(1)
    return train(
        [store],
        Options(**{"model": TINY.id, "epochs": 4, "keep_last": True, **options}),
        folder,
        echo=lambda text: None,
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a run. It was moved: a copy of the run finds the copy of the store beside it."""
    folder = tmp_path_factory.mktemp("made") / "before"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems._systems, TINY.id, TINY)
        trained(make_store(folder / "store"), folder / "runs", epochs=1)
    return folder.rename(folder.with_name("after"))


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Store:
    return Store.open(shutil.copytree(template / "store", tmp_path / "store"))


@pytest.fixture
def run(template: Path, store: Store, tmp_path: Path) -> Run:
    [made] = (template / "runs").iterdir()
    return Run.open(shutil.copytree(made, tmp_path / "runs" / made.name))


# -- the folder -------------------------------------------------------------------------------------------------------


def test_a_run_records_its_configuration(store: Store, tmp_path: Path) -> None:
    run = trained(store, tmp_path / "runs", epochs=1)
    opened = Run.open(run.path)
    assert opened.config == run.config
    assert opened.model == "test/tiny"
    assert opened.spec == store.spec
    assert opened.slicing == store.slicing
    assert opened.frames == 64
    assert opened.selection.classes == GENRES
    config = json.loads((run.path / "config.json").read_text())
    assert config["store"]["path"] == str(store.path)
    assert opened.store_path.resolve() == store.path
    assert config["store"]["manifest"] == store.manifest_digest
    assert config["training"]["epochs"] == 1
    assert config["params"] == sum(p.numel() for p in TINY.build(3).parameters())
    assert config["leaky"] is False
    assert config["differences"] == ["epochs 1 for 6"]
    assert {"python", "mgc", "torch", "numpy", "scikit-learn", "zarr"} <= config["versions"].keys()
    assert {"platform", "command", "created", "device", "threads", "seed"} <= config.keys()


def test_a_run_lists_its_tracks(run: Run, store: Store) -> None:
    tracks = parquet.read_table(run.path / "tracks.parquet")
    assert tracks.schema.equals(TRACK_SCHEMA)
    known = {row["track_id"]: row for row in store.tracks.to_pylist()}
    assert len(tracks) == len(known) == sum(TRACKS.values())
    for row in tracks.to_pylist():
        assert row == {name: known[row["track_id"]][name] for name in TRACK_SCHEMA.names}


def test_runs_of_one_second_have_different_names(run: Run, store: Store, tmp_path: Path) -> None:
    selection = select_tracks(store)
    runs = [Run.create(tmp_path / "runs", "study/model", run.config, selection) for _ in range(20)]
    assert len({run.path for run in runs}) == 20
    assert all("study-model" in run.path.name for run in runs)


def test_a_workspace_may_be_moved(run: Run, store: Store, tmp_path: Path) -> None:
    before = predict(run)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for folder in (run.path.parent, store.path):
        folder.rename(moved / folder.name)
    assert predict(Run.open(moved / "runs" / run.path.name)).equals(before)


def test_a_file_instead_of_the_folder_of_runs_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MgcError, match=r"file exists where a folder is needed"):
        trained(store, tmp_path / "file")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda config: config.unlink(), "no run"),
        (lambda config: config.write_text("{"), "damaged"),
        (lambda config: config.write_text("[]"), "damaged"),
        (lambda config: edit(config, format=2), "a run of format 2, this mgc reads format 1"),
        (lambda config: edit(config, store={}), "damaged"),
        (lambda config: edit(config, classes=None), "damaged"),
    ],
)
def test_a_damaged_run_is_refused(run: Run, damage: Callable[[Path], None], message: str) -> None:
    (run.path / "sealed.json").unlink()
    damage(run.path / "config.json")
    with pytest.raises(RunError, match=message) as error:
        Run.open(run.path)
    assert error.value.remedy
    assert "\n" not in str(error.value)


def edit(config: Path, **values: object) -> None:
    config.write_text(json.dumps(json.loads(config.read_text()) | values))


def test_checkpoints_hold_tensors_and_plain_values(run: Run) -> None:
    for name in ("best.pt", "last.pt"):
        torch.load(run.path / name, weights_only=True)


def test_a_foreign_checkpoint_runs_no_code(run: Run, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    (run.path / "sealed.json").unlink()
    for save in (torch.save, lambda value, file: file.write_bytes(pickle.dumps(value, protocol=2))):
        save({"model": Bomb()}, run.path / "best.pt")
        with pytest.raises(RunError, match=r"best.pt: damaged"):
            predict(run)
    assert not (tmp_path / "ran").exists()


def test_truncated_missing_and_foreign_checkpoints_are_refused(run: Run) -> None:
    file = run.path / "best.pt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"best.pt: damaged"):
        predict(run)
    file.unlink()
    with pytest.raises(RunError, match=r"best.pt: missing; restore it from a copy, or train a new run"):
        predict(run)
    (run.path / "sealed.json").unlink()
    torch.save({"model": {"0.weight": torch.zeros(3)}}, file)
    with pytest.raises(RunError, match=r"best.pt: not the weights of test/tiny"):
        predict(run)


def test_a_checkpoint_that_cannot_be_written_leaves_the_previous_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run.load("last.pt")["progress"]

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(MgcError, match=r"the disk is full"):
        run.save("last.pt", {})
    assert run.load("last.pt")["progress"] == before


# -- prediction -------------------------------------------------------------------------------------------------------


def test_predictions_have_a_row_per_slice(run: Run, store: Store) -> None:
    table = predict(run)
    test = store.slices.filter(pc.equal(store.slices["split"], "test"))
    for name in ("track_id", "start_s", "split"):
        assert table[name].to_pylist() == test[name].to_pylist()
    known = {row["track_id"]: row for row in store.tracks.to_pylist()}
    for row in table.to_pylist():
        assert row["genre"] == known[row["track_id"]]["genre"]
        assert row["artist_id"] == known[row["track_id"]]["artist_id"]
    assert table.schema.field("probabilities").type == pa.list_(pa.float32())


def test_predictions_do_not_depend_on_the_batch_size(run: Run) -> None:
    table = predict(run)
    assert predict(run).equals(table)
    other = np.stack(predict(run, batch_size=3)["probabilities"].to_numpy())
    np.testing.assert_allclose(other, np.stack(table["probabilities"].to_numpy()), atol=1e-6)


def test_a_run_keeps_its_slicing_and_its_splits(run: Run, store: Store) -> None:
    before = predict(run)
    labels = store.tracks.select(DATASET_SCHEMA.names).to_pylist()
    moved = pa.Table.from_pylist([row | {"split": "training"} for row in labels], DATASET_SCHEMA)
    rewrite_fragments(store, plan_relabelling(store, moved, {}).fragments)
    publish(store, Slicing(seconds=1.0, overlap=0.0))
    assert Store.open(store.path).slices.num_rows != before.num_rows
    assert predict(run).equals(before)


def test_a_test_track_that_was_trained_on_is_refused(run: Run) -> None:
    tracks = run.selection.tracks
    twice = tracks.filter(pc.equal(tracks["track_id"], "training-003")).to_pylist()[0] | {"split": "test"}
    leaky = pa.concat_tables([tracks, pa.Table.from_pylist([twice], TRACK_SCHEMA)])
    (run.path / "sealed.json").unlink()
    parquet.write_table(run.path / "tracks.parquet", leaky)
    with pytest.raises(RunError, match=r"was trained on track training-003, which is in its test split"):
        predict(Run.open(run.path))


@pytest.mark.parametrize("change", [{"n_frames": None}, {"content_hash": "another"}])
def test_a_missing_or_changed_track_is_named(run: Run, store: Store, change: dict[str, object]) -> None:
    rows = [row | change if row["track_id"] == "test-002" else row for row in store.tracks.to_pylist()]
    changed = Store(store.path, store.spec, store.dataset, store.versions)
    changed.__dict__["tracks"] = pa.Table.from_pylist(rows, store.tracks.schema)
    with pytest.raises(RunError, match=r"track test-002 of the run is gone or has changed"):
        run.selection.slices(changed, run.slicing, "test")


def test_a_split_without_tracks(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", tracks={"training": 6, "validation": 3})
    with pytest.raises(RunError, match=r"the run has no test tracks"):
        predict(trained(store, tmp_path / "runs", epochs=1))


def test_uint8_and_float32_stores_give_the_same_classes(store: Store, tmp_path: Path) -> None:
    run = trained(store, tmp_path / "runs")
    exact = make_store(tmp_path / "exact", Mel(n_mels=8, n_fft=512, dtype="float32"))
    quantised, unquantised = (
        np.stack(predict(run, store=path)["probabilities"].to_numpy()) for path in (None, exact.path)
    )
    assert not np.array_equal(quantised, unquantised)
    assert np.mean(quantised.argmax(axis=1) == unquantised.argmax(axis=1)) >= 0.97  # at most one of 48 slices differs


def test_a_store_of_another_feature_is_refused(run: Run, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", Mel(n_mels=8, n_fft=1024))
    with pytest.raises(RunError, match=r"n_fft=1024.*the run was trained on.*n_fft=512"):
        predict(run, store=other.path)


# -- selection --------------------------------------------------------------------------------------------------------


def test_tracks_without_a_genre_are_left_out(store: Store) -> None:
    rows = [row | ({"genre": None} if row["track_id"] == "training-001" else {}) for row in store.tracks.to_pylist()]
    unlabelled = Store(store.path, store.spec, store.dataset, store.versions)
    unlabelled.__dict__["tracks"] = pa.Table.from_pylist(rows, store.tracks.schema)
    selection = select_tracks(unlabelled)
    assert "training-001" not in selection.tracks["track_id"].to_pylist()
    assert selection.classes == GENRES


def test_classes_come_in_the_order_of_the_dataset(store: Store) -> None:
    assert tuple(sorted(GENRES)) != GENRES
    assert select_tracks(store).classes == GENRES


def test_a_limit_draws_from_each_genre_by_the_seed(store: Store) -> None:
    def drawn(seed: int) -> Selection:
        return select_tracks(store, limit=2, seed=seed)

    kinds = [tuple(row.values()) for row in drawn(0).tracks.select(["split", "genre"]).to_pylist()]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        (split, genre): 2 for split in TRACKS for genre in GENRES
    }
    assert drawn(0).tracks.equals(drawn(0).tracks)
    assert not drawn(0).tracks.equals(drawn(1).tracks)


def test_an_unfinished_run_does_not_see_its_test_tracks(run: Run) -> None:
    (run.path / "summary.json").unlink()
    with pytest.raises(RunError, match="unfinished") as caught:
        predict(run)
    assert f"mgc train --resume --run {run.path}" in caught.value.remedy
    assert len(predict(run, split="validation"))
