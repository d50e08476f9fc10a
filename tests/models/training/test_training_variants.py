"""Training on augmentation variants; validation and prediction never read one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from properties import examples
from stores import make_store
from tiny import TINY

from mgc.models.data.store_candidates import StoreCandidates
from mgc.models.data.stream import Batching, Stream
from mgc.models.evaluation.evaluate import evaluate
from mgc.models.registry import systems
from mgc.models.registry.systems import System
from mgc.models.runs.run import Run
from mgc.models.runs.selection import Selection, select_tracks
from mgc.models.training.predict import predict
from mgc.models.training.train import Options, train
from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, SPLITS
from mgc.pipeline.errors import ModelError
from mgc.pipeline.extraction.journal import rewrite_fragments
from mgc.pipeline.extraction.resplit import plan_relabelling
from mgc.pipeline.features.variants import parse_variants
from mgc.pipeline.store.manifest import publish
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

pytestmark = pytest.mark.slow  # each trains several times

VARIANTS = parse_variants("pitch:+2,noise")
SLICES = 8  # per track of 9 s: 2 s each, half overlapping


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setitem(systems._systems, TINY.id, TINY)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of 18 training, 6 validation and 6 test tracks, all of which have variants."""
    return make_store(tmp_path / "mel", variants=VARIANTS)


def quiet(store: Store, folder: Path, **options: object) -> tuple[Run, str]:
    lines: list[str] = []
    run = train([store], Options(**{"model": TINY.id, "epochs": 1, **options}), folder, echo=lines.append)
    return run, "\n".join(lines)


def resplit(store: Store, splits: dict[str, str]) -> Store:
    """Change the splits of the store, as `mgc split` does."""
    tracks = store.tracks.select(DATASET_SCHEMA.names).to_pylist()
    moved = [row | {"split": splits.get(row["track_id"], row["split"])} for row in tracks]
    plan = plan_relabelling(store, pa.Table.from_pylist(moved, DATASET_SCHEMA), {})
    rewrite_fragments(store, plan.fragments)
    publish(store, store.slicing)
    return Store.open(store.path)


def test_a_run_trains_on_variants(store, tmp_path):
    run, text = quiet(store, tmp_path / "runs")
    assert "432 slices of 18 tracks to train on, 48 slices of 6 tracks to validate with" in text
    assert "288 of the slices to train on are of variants: noise:20, pitch:+2" in text
    assert "training tracks also as noise:20, pitch:+2" in run.config["differences"]
    assert run.config["variants"] == ["noise:20", "pitch:+2"]
    assert set(run.selection.tracks["track_id"].to_pylist()) == set(store.tracks["track_id"].to_pylist())


def test_without_variants(store, tmp_path):
    run, text = quiet(store, tmp_path / "runs", variants=False)
    assert "144 slices of 18 tracks to train on" in text
    assert "of variants" not in text
    assert run.config["variants"] == []


def test_a_recipe_without_variants_uses_none(store, tmp_path):
    run, text = quiet(store, tmp_path / "runs", as_sliced=True)
    assert "144 slices of 18 tracks to train on" in text
    assert run.config["variants"] == []
    assert run.config["differences"] == ["epochs 1 for 6"]


@pytest.mark.slow
def test_a_recipe_with_variants(store, tmp_path, monkeypatch):
    recipe = tmp_path / "varied.toml"
    seed = 'seed = [0, "chosen"]\n'
    recipe.write_text(TINY.recipe_file.read_text().replace(seed, f'{seed}variants = ["pitch:+2,noise", "chosen"]\n'))
    varied = System("test/varied", TINY.kind, TINY.input, TINY.build, recipe)
    monkeypatch.setitem(systems._systems, varied.id, varied)
    followed, _ = quiet(store, tmp_path / "runs", model=varied.id, as_sliced=True)
    assert followed.config["variants"] == ["noise:20", "pitch:+2"]
    assert followed.config["differences"] == ["epochs 1 for 6"]
    alone, text = quiet(store, tmp_path / "runs", model=varied.id, as_sliced=True, variants=False)
    assert "differs from the study: training tracks without noise:20, pitch:+2" in text
    assert alone.config["variants"] == []
    # Of two stores of its features, the one with the recipe's variants is chosen.
    plain = make_store(tmp_path / "plain")
    assert StoreCandidates((plain, store), explicit=False, study_only=True).choose(varied) == [store]
    assert StoreCandidates((store, plain), explicit=False, study_only=True).choose(TINY) == [plain]


def test_variants_are_a_difference_from_the_study(store, tmp_path):
    with pytest.raises(ModelError, match="training tracks also as noise:20, pitch"):
        quiet(store, tmp_path / "runs", as_published=True)


@pytest.mark.parametrize("split", SPLITS)
def test_predictions_are_of_the_tracks_alone(split, store, tmp_path):
    run, _ = quiet(store, tmp_path / "runs")
    table = predict(run, split=split)
    tracks = [row["track_id"] for row in store.tracks.to_pylist() if row["split"] == split]
    assert Counter(table["track_id"].to_pylist()) == dict.fromkeys(tracks, SLICES)


@pytest.mark.slow
def test_what_the_store_trains_on_by_now_does_not_change_an_evaluation(store, tmp_path):
    run, _ = quiet(store, tmp_path / "runs")
    before, scores = predict(run), evaluate([run]).by_track
    test = [row["track_id"] for row in store.tracks.to_pylist() if row["split"] == "test"]
    training = [row["track_id"] for row in store.tracks.to_pylist() if row["split"] == "training"]
    moved = resplit(store, dict.fromkeys(test, "training") | dict.fromkeys(training[:6], "test"))
    variants = moved.slices.filter(pc.is_valid(moved.slices["variant"]))
    assert set(test) < set(variants["track_id"].to_pylist())
    assert predict(run).equals(before)
    assert evaluate([run]).by_track == scores


def test_frames_that_validation_reads_are_those_of_the_tracks(store):
    slices, labels = select_tracks(store).slices(store, store.slicing, "validation")
    stream = Stream(store, slices, labels, 20, Batching(16, torch.device("cpu")))
    rows = {row["track_id"]: row for row in store.tracks.to_pylist()}
    for row in slices.to_pylist():
        track = rows[row["track_id"]]
        end = track["first_frame"] + track["n_frames"]
        assert track["first_frame"] <= row["first_frame"] < row["first_frame"] + row["n_frames"] <= end
    assert sum(len(batch.labels) for batch in stream.batches()) == 6 * SLICES


@pytest.mark.slow
@given(data=st.data())
@examples(15, HealthCheck.function_scoped_fixture)
def test_for_any_splits_of_store_and_run_variants_are_of_training_tracks(store, data):
    ids = store.tracks["track_id"].to_pylist()
    splits = st.lists(st.sampled_from(SPLITS), min_size=len(ids), max_size=len(ids))
    of_store = dict(zip(ids, data.draw(splits), strict=True))
    of_run = dict(zip(ids, data.draw(splits), strict=True))
    moved = resplit(store, of_store)
    tracks = select_tracks(store).tracks
    column = tracks.schema.get_field_index("split")
    run_splits = pa.array([of_run[track] for track in tracks["track_id"].to_pylist()])
    selection = Selection(
        select_tracks(store).classes, tracks.set_column(column, tracks.schema.field(column), run_splits)
    )
    for slicing in (moved.slicing, Slicing(seconds=3.0)):
        for split in SPLITS:
            plain, _ = selection.slices(moved, slicing, split)
            assert plain["variant"].null_count == len(plain)
            table, labels = selection.slices(moved, slicing, split, variants=True)
            assert len(labels) == len(table)
            of_variants = set(table.filter(pc.is_valid(table["variant"]))["track_id"].to_pylist())
            allowed = {track for track in ids if of_run[track] == of_store[track] == "training"}
            assert of_variants == (allowed if split == "training" else set())
