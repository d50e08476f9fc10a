"""Cross-validation: every track validates in one fold, artists are not divided, and the test split is unchanged."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from commands import mgc
from stores import GENRES
from tiny import TINY

from mgc.models.evaluation.evaluate import evaluate
from mgc.models.runs.run import Run
from mgc.models.runs.selection import TRACK_SCHEMA, Selection, select_tracks
from mgc.models.training import folds, repeats
from mgc.pipeline.errors import DatasetError, RunError, SpecError
from mgc.pipeline.store.store import Store

pytestmark = [pytest.mark.usefixtures("tiny"), pytest.mark.slow]  # each trains several times


@pytest.fixture(scope="module")
def library() -> Selection:
    """600 tracks of four genres by 60 artists of uneven size, some in two genres, and some unknown."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(600):
        artist = min(int(rng.zipf(1.4)), 60)
        rows.append(
            {
                "track_id": f"{number:04d}",
                "genre": "ABCD"[(artist + (rng.random() < 0.1)) % 4],
                "artist_id": None if rng.random() < 0.1 else f"artist-{artist}",
                "split": ["training", "training", "training", "validation", "test"][artist % 5],
                "content_hash": None,
            }
        )
    return Selection(tuple("ABCD"), pa.Table.from_pylist(rows, TRACK_SCHEMA))


def split_of(selection: Selection) -> dict[str, str]:
    return dict(zip(selection.tracks["track_id"].to_pylist(), selection.tracks["split"].to_pylist(), strict=True))


@pytest.mark.parametrize("count", [2, 5])
def test_every_track_validates_once_and_artists_stay_whole(count: int, library: Selection) -> None:
    selections = [folds.hold_out(library, number, count) for number in range(1, count + 1)]
    before = split_of(library)
    held_out: Counter[str] = Counter()
    for selection in selections:
        assert selection.tracks.drop_columns("split").equals(library.tracks.drop_columns("split"))
        after = split_of(selection)
        assert all((after[id] == "test") == (before[id] == "test") for id in before)
        held_out.update(id for id, split in after.items() if split == "validation")
        rows = [row for row in selection.tracks.to_pylist() if row["split"] != "test"]
        training, validation = (
            {row["artist_id"] for row in rows if row["split"] == split} for split in ("training", "validation")
        )
        assert training & validation == {None}
        for genre in library.classes:
            splits = [row["split"] for row in rows if row["genre"] == genre]
            # One artist has up to half of a genre here, so shares are tested with `mgc.pipeline.datasets.splits`.
            assert 0 < splits.count("validation") < len(splits)
    assert held_out == Counter(id for id, split in before.items() if split != "test")


def test_folds_have_as_much_of_each_genre(store: Store) -> None:
    """Each genre has four artists with two tracks each outside the test split."""
    for number in (1, 2, 3, 4):
        selection = folds.hold_out(select_tracks(store), number, 4)
        count = Counter((row["split"], row["genre"]) for row in selection.tracks.to_pylist())
        expected = {"training": 6, "validation": 2, "test": 2}
        assert count == {(split, genre): n for split, n in expected.items() for genre in GENRES}


def test_folds_depend_on_the_seed_and_not_on_the_splits(library: Selection) -> None:
    swap = {"training": "validation", "validation": "training", "test": "test"}
    rows = [row | {"split": swap[row["split"]]} for row in library.tracks.to_pylist()]
    swapped = Selection(library.classes, pa.Table.from_pylist(rows, TRACK_SCHEMA))
    assert folds.hold_out(swapped, 2, 3).tracks.equals(folds.hold_out(library, 2, 3).tracks)
    assert not folds.hold_out(library, 2, 3, seed=1).tracks.equals(folds.hold_out(library, 2, 3).tracks)


def test_parse() -> None:
    for text in ("", "1", "0", "x", "-3", "5:", "5:0", "5:6", "5:1,1", "5:a", "2.5"):
        with pytest.raises(SpecError, match=f"--folds {re.escape(text)}"):
            folds.parse(text)
    assert folds.parse("3") == (3, (1, 2, 3))
    assert folds.parse("5:4, 2") == (5, (4, 2))


def test_more_folds_than_a_genre_has_artists_are_refused(store: Store, library: Selection) -> None:
    with pytest.raises(DatasetError, match=r"--folds 5: Folk has too few artists \(4\).*; choose 4 at most"):
        folds.hold_out(select_tracks(store), 1, 5)
    tracks = select_tracks(store).tracks
    other_folk = pc.and_(pc.equal(tracks["genre"], "Folk"), pc.not_equal(tracks["artist_id"], "training-artist-0-0"))
    lonely = Selection(GENRES, tracks.filter(pc.invert(other_folk)))
    with pytest.raises(DatasetError, match=r"--folds 2: Folk has too few artists \(1\).*; add other artists of Folk"):
        folds.hold_out(lonely, 1, 2)


def test_remaining_folds_are_printed_after_an_interruption() -> None:
    lines: list[str] = []

    def train(number: int) -> Run:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repeats.repeat(train, (2, 4, 5), lines.append, label="fold", option="--folds 5:")
    assert lines == ["fold 2, run 1 of 3", "folds that are left: --folds 5:4,5"]


def test_a_run_for_each_fold(store: Store, tmp_path: Path) -> None:
    words = ["--model", TINY.id, "--store", store.path, "--data-dir", tmp_path]
    outcome = mgc("train", *words, "--folds", "2", "--epochs", 1, "--lr", 0.0005, "--evaluate")
    assert outcome.code == 0, outcome.err
    runs = [Run.open(path) for path in sorted((tmp_path / "runs").iterdir(), key=lambda path: (len(path.name), path))]
    assert [run.config["fold"] for run in runs] == [[1, 2], [2, 2]]
    assert "fold 2 of 2 for the validation split" in runs[1].config["differences"]
    validated = [id for run in runs for id, split in split_of(run.selection).items() if split == "validation"]
    assert sorted(validated) == sorted(id for id, split in split_of(select_tracks(store)).items() if split != "test")
    printed = re.search(r"by slice of 2 folds: (\S+) % ± (\S+) \((\S+) to (\S+)\): (\S+), (\S+)", outcome.out)
    each = np.array([100 * run.summary["best"]["validation_accuracy"] for run in runs])
    assert printed is not None
    expected = [each.mean(), each.std(ddof=1), each.min(), each.max(), *each]
    assert [float(value) for value in printed.groups()] == pytest.approx(expected, abs=0.051)
    tested = [json.loads((run.path / "metrics.json").read_bytes()) for run in runs]
    for item in ("track", "slice"):
        head = f"\ntest accuracy by {item} of 2 folds, each fold's run on the same test split: "
        printed = re.search(rf"{head}(\S+) % ± .*: (\S+), (\S+)\n", outcome.out)
        assert printed is not None
        each = 100 * np.array([scores[f"by_{item}"]["accuracy"] for scores in tested])
        assert [float(value) for value in printed.groups()] == pytest.approx([each.mean(), *each], abs=0.051)
    assert [scores["evaluations"] for scores in tested] == [1, 1]
    assert "fold      validated on fold 2 of 2" in mgc("info", runs[1].path, "--data-dir", tmp_path).out
    assert evaluate(runs).n_tracks == 6  # of the test split, which all folds share
    evaluation = evaluate(runs[:1], split="validation")
    assert evaluation.by_slice is not None
    assert evaluation.by_slice.accuracy == pytest.approx(runs[0].summary["best"]["validation_accuracy"])
    with pytest.raises(RunError):  # each run was trained on the validation tracks of the others
        evaluate(runs, split="validation")


def test_folds_of_a_baseline_whose_parameters_are_searched(store: Store, tmp_path: Path) -> None:
    words = ["--model", "moments/logreg", "--search", "--folds", "4:1,3", "--store", store.path, "--data-dir", tmp_path]
    outcome = mgc("train", *words)
    assert outcome.code == 0, outcome.err
    runs = [Run.open(path) for path in (tmp_path / "runs").iterdir()]
    assert sorted(run.config["fold"] for run in runs) == [[1, 4], [3, 4]]
    assert all(len(run.summary["search"]["candidates"]) == 5 for run in runs)
    assert "of 2 folds" in outcome.out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--folds", 1], 2, "--folds 1; write a whole number of 2 or more"),
        (["--folds", 3, "--seeds", "0,1"], 2, "--folds trains a run for each fold; leave out --seeds and --find-lr"),
        (["--folds", 3, "--find-lr"], 2, "--folds trains a run for each fold; leave out --seeds and --find-lr"),
        (
            ["--folds", 7],
            1,
            "--folds 7: Folk has too few artists (4) for validation tracks in every fold",
        ),
    ],
)
def test_errors(store: Store, tmp_path: Path, options: list[object], code: int, message: str) -> None:
    outcome = mgc("train", "--model", TINY.id, "--store", store.path, "--data-dir", tmp_path, *options)
    assert outcome.code == code
    assert outcome.error.startswith(message)
    assert "fold 1" not in outcome.out  # no fold was begun
    assert not (tmp_path / "runs").exists()
