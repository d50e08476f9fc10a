"""Runs on the same tracks: rows, refusals, and the leaderboard as a value."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from genres import LONG_GENRES
from scored import GENRES, make_scored_run

from mgc.models.compare import notes, render
from mgc.models.compare.compare import compare
from mgc.models.compare.evaluated import TrackSet
from mgc.models.runs.run import Run
from mgc.pipeline.errors import RunError
from mgc.pipeline.storage import parquet

TRUTH = [GENRES[k % 3] for k in range(60)]


def guesses(n_right: int) -> list[str]:
    """Predictions for the tracks of TRUTH, of which the first so many are right."""
    return [true if k < n_right else GENRES[(k + 1) % 3] for k, true in enumerate(TRUTH)]


def make(folder: Path, n_right: int, **options) -> Run:
    return make_scored_run(folder, guesses(n_right), TRUTH, **options)


def test_the_leaderboard(tmp_path: Path) -> None:
    knn = make(tmp_path, 24, model="moments/knn", config={"kind": "classical", "params": None})
    svm = make(tmp_path, 54, model="moments/svm", config={"kind": "classical", "params": None})
    network = make(tmp_path, 51, metrics={"audit": {"clean": False, "line": "3 of 60 test tracks leak."}})
    result = compare([knn, svm, network])
    assert [row.model for row in result.rows] == ["moments/svm", "kth2020/cnn", "moments/knn"]
    assert [row.accuracy for row in result.rows] == [0.9, 0.85, 0.4]
    assert [row.letters for row in result.rows] == ["a", "a", "b"]
    assert [row.other_seeds for row in result.rows] == [None, False, None]
    best, second, third = result.rows
    assert best.to_best is None
    assert (second.to_best.only_first, second.to_best.only_second) == (3, 0)
    assert second.to_best.mcnemar == pytest.approx(0.25)
    assert third.to_best.p_holm < 1e-6
    assert (second.params, second.seconds, second.size) == (1000, 12.0, 4000)
    assert (result.n_tracks, result.n_artists, result.n_left_out) == (60, 60, 0)
    (published,) = result.published
    assert (published.row, published.accuracy, published.macro_f1, published.measured) == (1, 0.5025, 0.502, 0.5)
    assert published.differs[:2] == ("dataset songs for fma_small", "3 genres for 8")
    assert any("3 of 60 test tracks leak." in line for line in notes.sentences(result))
    assert any(line.startswith("Row 2: other seeds were not tried") for line in notes.sentences(result))
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert plain["rows"][2]["to_best"] == plain["pairs"][1]
    assert plain["pairs"][1]["differs"] is True


def test_seeds_are_one_row(tmp_path: Path) -> None:
    runs = [
        make(tmp_path, n, config={"seed": seed, "training": {"seed": seed, "epochs": 3}})
        for seed, n in enumerate((25, 29, 37))
    ]
    longer = make(tmp_path, 33, config={"training": {"seed": 0, "epochs": 9}})
    again = make(tmp_path, 25, config={"training": {"seed": 0, "epochs": 3}})
    result = compare([*runs, longer, again])
    assert [row.name for row in result.rows] == ["kth2020/cnn (epochs 9)", "kth2020/cnn (epochs 3)"]
    single, seeds = result.rows
    assert (seeds.seeds, seeds.n_trainings, len(seeds.runs)) == ((0, 1, 2), 3, 3)
    assert seeds.accuracies == pytest.approx((29 / 60, 37 / 60, 25 / 60))  # the newer one of seed 0
    assert seeds.accuracy_deviation == pytest.approx(0.1018, abs=1e-4)
    assert seeds.accuracy_interval.width > 1.3 * single.accuracy_interval.width
    assert notes.trainings(seeds) == "3 seeds"
    assert result.notes == ("kth2020/cnn: 1 run repeats the seed and settings of another; left out.",)
    text = "\n".join(notes.sentences(result))
    assert "Row 2: its distance to row 1, 4.4 points, is within the spread of seeds" in text


def test_folds_on_the_test_split_are_trainings_and_on_the_validation_split_one(tmp_path: Path) -> None:
    def validated(fold: int, first: int) -> Run:
        """The run of a fold, with every second track."""
        mine = {f"{k:03}": guesses(40)[k] for k in range(first, 60, 2)}
        config = {"fold": [fold, 2], "limit_tracks": 9}
        return make_scored_run(tmp_path, mine, TRUTH[first::2], split="validation", config=config)

    runs = [validated(1, first=0), validated(2, first=1)]
    result = compare(runs, TrackSet("validation"))
    (row,) = result.rows
    assert (result.n_tracks, row.accuracy, row.n_trainings, row.folds) == (60, 40 / 60, 1, 2)
    assert notes.trainings(row) == "2 folds"
    (missing,) = compare(runs[:1], TrackSet("validation")).notes
    assert missing == "kth2020/cnn, seed 0: of 2 folds, 2 not among the runs."
    tested = [make(tmp_path, 30 + fold, config={"fold": [fold, 2], "limit_tracks": 9}) for fold in (1, 2)]
    (row,) = compare(tested).rows
    assert (row.n_trainings, row.folds, row.other_seeds) == (2, 2, False)
    twice = validated(2, first=0)
    with pytest.raises(RunError, match="30 of its validation tracks are in another fold"):
        compare([runs[0], twice], TrackSet("validation"))


def test_other_tracks_are_refused_or_left_out(tmp_path: Path) -> None:
    first = make(tmp_path, 50)
    fewer = make_scored_run(tmp_path, guesses(30)[:45], TRUTH[:45], model="vit2021/cnn")
    elsewhere = make(tmp_path, 30, model="vit2021/mlp", dataset="other")
    with pytest.raises(RunError, match="60 and 45, of which 45 are the same; --common compares them on these"):
        compare([first, fewer])
    result = compare([first, fewer], common=True)
    assert (result.n_tracks, result.n_left_out) == (45, 15)
    assert "15 tracks that not all runs have are left out." in notes.sentences(result)
    with pytest.raises(RunError, match="of which 0 are the same; name runs of one dataset and one split"):
        compare([first, elsewhere], common=True)


def test_tracks_with_other_content_or_genres_are_others(tmp_path: Path) -> None:
    first, other = make(tmp_path, 50), make(tmp_path, 40, model="vit2021/cnn")
    rows = [row | {"content_hash": f"{row['track_id']} again"} for row in other.selection.tracks.to_pylist()]
    other.write_files(
        {
            "tracks.parquet": parquet.table_bytes(
                pa.Table.from_pylist([*rows[:3], *other.selection.tracks.to_pylist()[3:]])
            )
        }
    )
    with pytest.raises(RunError, match="60 and 60, of which 57 are the same"):
        compare([first, Run.open(other.path)])
    relabelled = make_scored_run(tmp_path, guesses(40), ["Rock", *TRUTH[1:]], model="vit2021/mlp")
    with pytest.raises(RunError, match="have different genres of track 000: Folk and Rock"):
        compare([first, relabelled])


def test_one_run_one_genre_one_artist(tmp_path: Path) -> None:
    run = make_scored_run(tmp_path, ["Folk"] * 4, ["Folk"] * 4, genres=["Folk"], artists=["x"] * 4)
    result = compare([run, run])
    (row,) = result.rows
    assert (row.accuracy, row.macro_f1, row.letters, result.pairs) == (1, 1, "a", ())
    assert row.accuracy_interval.width > 0.9
    assert "One system: there is nothing to compare it with." in notes.sentences(result)
    unknown = make_scored_run(tmp_path, ["Folk", "Rock"], ["Folk", "Folk"], artists=[None, None])
    assert (compare([unknown]).n_artists, compare([unknown]).n_unattributed) == (0, 2)


def test_other_classes_are_noted(tmp_path: Path) -> None:
    runs = [make(tmp_path, 50), make(tmp_path, 40, model="vit2021/cnn", genres=(*GENRES, "Jazz"))]
    (note,) = compare(runs).notes
    assert note == "vit2021/cnn chooses among 4 genres, kth2020/cnn among 3: fewer are easier to tell."


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_the_terminal(tmp_path: Path, width: int) -> None:
    truth = [LONG_GENRES[k % 16] for k in range(64)]
    runs = [
        make_scored_run(
            tmp_path,
            truth[: 40 + seed] + truth[:1] * (24 - seed),
            truth,
            genres=LONG_GENRES,
            model="ubc2020/prcnn-attention-temporal",
            config={"seed": seed % 5, "training": {"name": f"{LONG_GENRES[seed // 5]}\x1b", "seed": seed % 5}},
            metrics={"leaky": seed == 0},
        )
        for seed in range(10)
    ]
    text = render.text(compare(runs), width)
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines if line.endswith("LEAKY")] == ["2"]
