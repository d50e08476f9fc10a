"""Splits of slices instead of tracks: the slices of a run, its marks, and resumption."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from commands import mgc
from stores import GENRES, make_store
from tiny import TINY

from mgc.models.data.split_data import RunInputs
from mgc.models.data.stream import Batching
from mgc.models.registry import systems
from mgc.models.runs.run import Run
from mgc.models.runs.selection import select_tracks
from mgc.models.runs.slice_splits import slice_splits
from mgc.models.training.options import Options
from mgc.models.training.preparation import prepare
from mgc.models.training.slice_split import split_slices
from mgc.pipeline.datasets.tracks import SPLITS
from mgc.pipeline.errors import StoreError
from mgc.pipeline.features import Mel
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

SLICING = Slicing(seconds=2.0)


pytestmark = [pytest.mark.usefixtures("tiny"), pytest.mark.slow]  # each trains several times


def rows_by_split(store: Store, other: Store, seed: int) -> dict[str, set[tuple[str, float]]]:
    """Track and start of the slices of each split, as a run reads them from two stores."""
    both = (store, other)
    selection = split_slices(select_tracks(store, [other], slicing=SLICING, unsplit=True), both, SLICING, seed)
    inputs = RunInputs(selection, both, SLICING, [64, 64])
    result = {}
    for split in SPLITS:
        data = inputs.split(split, Batching(8, torch.device("cpu")))
        result[split] = set(zip(data.slices["track_id"].to_pylist(), data.slices["start_s"].to_pylist(), strict=True))
        in_split = (row["track_id"] for row in selection.tracks.to_pylist() if row["split"] == split)
        assert sorted({track for track, _ in result[split]}) == list(in_split)
        assert sum(len(batch.rows) for batch in data.stream.batches()) == len(data.slices)
    return result


def test_each_slice_is_in_one_split_and_tracks_are_in_several(store: Store, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", Mel(n_mels=12, n_fft=1024), root=store.path)
    splits = rows_by_split(store, other, 0)
    everything = list(zip(store.slices["track_id"].to_pylist(), store.slices["start_s"].to_pylist(), strict=True))
    assert sorted(row for rows in splits.values() for row in rows) == sorted(everything)
    assert {track for track, _ in splits["training"]} & {track for track, _ in splits["test"]}
    assert splits == rows_by_split(store, other, 0)
    assert splits != rows_by_split(store, other, 1)


def test_shares_and_independence_of_neighbours() -> None:
    n = 40_000
    tracks = pa.chunked_array([pa.array([f"{i // 20:05d}" for i in range(n)])])
    splits = slice_splits(tracks, np.arange(n) % 20 * 1.5, 3)
    assert np.bincount(splits) / n == pytest.approx([0.8, 0.1, 0.1], abs=0.007)  # four standard errors
    for distance in (1, 20):  # the next slice, and the same slice of the next track
        both = np.mean((splits[distance:] == 2) & (splits[:-distance] == 2))
        assert both == pytest.approx(0.01, abs=0.002)
    part = slice(7, 300)
    assert (slice_splits(tracks[part.start : part.stop], (np.arange(n) % 20 * 1.5)[part], 3) == splits[part]).all()


def test_too_few_slices_are_refused(tmp_path: Path) -> None:
    whole = make_store(tmp_path / "whole", slicing=Slicing(seconds=None, whole=True))
    with pytest.raises(StoreError, match="each track has one slice only"):
        split_slices(select_tracks(whole, unsplit=True), [whole], whole.slicing, 0)
    few = make_store(tmp_path / "few", tracks={"training": 3})
    selection, refused = select_tracks(few, unsplit=True), []
    for seed in range(20):
        try:
            split_slices(selection, [few], SLICING, seed)
        except StoreError as error:
            refused.append(error.problem)
    assert any("24 slices are too few to split, none is a test slice" in problem for problem in refused)


def train(store: Store, folder: Path, *options: object) -> str:
    outcome = mgc("train", "--model", TINY.id, "--store", store.path, "--data-dir", folder, *options)
    assert outcome.code == 0, outcome.out + outcome.err
    return outcome.out + outcome.err


def only_run(folder: Path) -> Run:
    (path,) = (folder / "runs").iterdir()
    return Run.open(path)


def test_the_mark_goes_wherever_the_number_goes(store: Store, tmp_path: Path) -> None:
    out = train(store, tmp_path, "--split-unit", "slice", "--epochs", 2)
    assert "leaky: slices of one track are in several splits (--split-unit slice)" in out
    assert "by track (leaky)" in out
    run = only_run(tmp_path)
    assert (run.config["leaky"], run.config["split_unit"], run.config["split_seed"]) == (True, "slice", 0)
    info = mgc("info", run.path)
    assert "leaky     slices of one track are in several splits" in info.out
    assert mgc("verify", run.path).code == 0
    evaluated = mgc("evaluate", run.path)
    assert evaluated.code == 0
    text = " ".join(evaluated.out.split())
    measured = json.loads((run.path / "metrics.json").read_text())
    assert f"LEAKY: slices of {measured['n_heard']} of {measured['n_tracks']} tracks are also in another split" in text
    assert measured["leaky"]
    assert measured["by_slice"]["n"] == len(run.selection.slices(store, run.slicing, "test")[0]) > measured["n_tracks"]
    assert mgc("evaluate", run.path, run.path).out.count("  LEAKY") == 2


def test_a_store_whose_tracks_are_all_in_one_split_can_be_split_by_slice(tmp_path: Path) -> None:
    """One artist's tracks are all in one split; only slices of them can be distributed."""
    store = make_store(tmp_path / "store", tracks={"training": 12})
    assert mgc("train", "--model", TINY.id, "--store", store.path, "--data-dir", tmp_path).code == 1
    train(store, tmp_path, "--split-unit", "slice", "--epochs", 1, "--limit-tracks", 3)
    assert len(set(only_run(tmp_path).selection.tracks["track_id"].to_pylist())) == 3 * len(GENRES)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_the_same_slices(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mgc.models.training.loop import Trainer

    train(store, tmp_path / "whole", "--split-unit", "slice", "--epochs", 3)
    end_epoch, ended = Trainer._end_epoch, []

    def interrupt(self: Trainer) -> None:
        end_epoch(self)
        ended.append(0)
        if len(ended) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_end_epoch", interrupt)
    words = ("train", "--model", TINY.id, "--store", store.path, "--split-unit", "slice", "--epochs", 3)
    assert mgc(*words, "--data-dir", tmp_path / "cut").code != 0
    monkeypatch.setattr(Trainer, "_end_epoch", end_epoch)
    assert mgc("train", "--resume", "--data-dir", tmp_path / "cut").code == 0
    whole, cut = only_run(tmp_path / "whole"), only_run(tmp_path / "cut")
    assert cut.summary["best"] | {"seconds": 0} == whole.summary["best"] | {"seconds": 0}
    assert all(
        torch.equal(value, cut.load("best.pt")["model"][name]) for name, value in whole.load("best.pt")["model"].items()
    )


@pytest.mark.parametrize("options", [("--folds", "2"), ("--crop",)])
def test_options_that_divide_tracks_are_refused(options: tuple[str, ...], store: Store, tmp_path: Path) -> None:
    words = ("train", "--model", TINY.id, "--store", store.path, "--data-dir", tmp_path, "--split-unit", "slice")
    outcome = mgc(*words, *options)
    assert outcome.code == 2
    assert options[0] in outcome.error
    assert not (tmp_path / "runs").exists()


def test_a_split_by_slice_differs_from_studies_that_split_tracks(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, leak = Options(model=TINY.id, split_unit="slice"), "slices of one track in several splits (leaky)"
    assert leak in prepare([store], options, tmp_path, lambda line: None).config["differences"]
    recipe = (
        Path(str(TINY.recipe_file))
        .read_text()
        .replace("[features]", 'published_unit = ["slice", "printed"]\n[features]')
    )
    (tmp_path / "tiny.toml").write_text(recipe)
    by_slice = dataclasses.replace(TINY, recipe_file=tmp_path / "tiny.toml")
    monkeypatch.setitem(systems._systems, TINY.id, by_slice)
    assert leak not in prepare([store], options, tmp_path, lambda line: None).config["differences"]
