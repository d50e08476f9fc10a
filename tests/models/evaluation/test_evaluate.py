"""Evaluation of runs and ensembles with synthetic predictions: result files, errors and the report."""

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from commands import mgc as mgc_command
from genres import FMA, LONG_GENRES
from geometry import assert_legible
from matplotlib.image import imread

import mgc.models.evaluation.evaluate
from mgc.models.evaluation import comparison, metrics, pictures, report, tables
from mgc.models.evaluation.evaluate import evaluate, mean_predictions, results_path
from mgc.models.evaluation.evaluation import Evaluation
from mgc.models.evaluation.joining import JOINS
from mgc.models.evaluation.metrics import Predictions
from mgc.models.runs import seal
from mgc.models.runs.run import Run
from mgc.models.runs.seeds import other_seeds
from mgc.models.runs.selection import TRACK_SCHEMA, Selection
from mgc.pipeline.errors import MgcError, RunError
from mgc.pipeline.features import Mel
from mgc.pipeline.storage import files, parquet
from mgc.pipeline.store.slicing import Slicing

GENRES = ("Ambient", "Chiptune", "Electronic", "Folk", "Orchestral", "Rock")
GTZAN = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")

#: Prediction tables by name of the run.
Tables = dict[str, pa.Table]


def tracks(genres: tuple[str, ...], per_genre: int) -> pa.Table:
    """Training and test tracks. In each split, two artists have two tracks each, all others have one."""
    rows = []
    for split, n in (("training", 3 * per_genre), ("test", per_genre)):
        for k in range(n * len(genres)):
            artist = f"{split}-{k // 2 if k < 4 else k}"
            genre = genres[k % len(genres)]
            rows.append({"track_id": f"{split}-{k:05}", "genre": genre, "artist_id": artist, "split": split})
    return pa.Table.from_pylist(rows, TRACK_SCHEMA)


def predict_synthetic(selection: Selection, *, seed: int = 0, slices: int = 5, step: float = 2.0) -> pa.Table:
    """Predictions for slices of the test tracks, right more often than not."""
    rng = np.random.default_rng(seed)
    eye, rows = np.eye(len(selection.classes)), []
    for track in selection.tracks.to_pylist():
        if track["split"] == "test":
            sound = 1.5 * eye[selection.classes.index(track["genre"])] + rng.standard_normal(len(eye))
            for i in range(slices):
                p = np.exp(sound + 0.5 * rng.standard_normal(len(eye)))
                rows.append({**track, "start_s": step * i, "probabilities": (p / p.sum()).astype(np.float32).tolist()})
    columns = ("track_id", "start_s", "split", "genre", "artist_id")
    table = pa.table({name: pa.array([row[name] for row in rows]) for name in columns})
    return table.append_column("probabilities", pa.array([r["probabilities"] for r in rows], pa.list_(pa.float32())))


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch) -> Tables:
    """Replace the predictor: the tables that it returns, by name of the run."""
    by_run: Tables = {}
    monkeypatch.setattr(mgc.models.evaluation.evaluate, "predict", lambda run, split, device: by_run[run.path.name])
    monkeypatch.setattr(tables, "track_details", details)
    return by_run


def details(run: Run, store: None) -> pa.Table:
    """Path, title and artist of tracks, as a store of theirs would have them; one track has none."""
    ids = run.selection.tracks["track_id"].to_pylist()[::-1][1:]
    titles = ["=HYPERLINK(1)", "two\nlines", "Ünder the \x1b[31mred"]
    columns = {"path": [f"{id}.mp3" for id in ids], "title": [*titles, *ids[3:]], "artist": [None] * len(ids)}
    return pa.table({"track_id": ids} | columns)


@pytest.fixture
def make_run(tmp_path: Path, predictions: Tables) -> Callable[..., Run]:
    """Return a function that creates a run with synthetic tracks and predictions."""

    def make(
        genres: tuple[str, ...] = GENRES, *, per_genre: int = 2, config: dict[str, Any] | None = None, **options
    ) -> Run:
        selection = Selection(genres, tracks(genres, per_genre))
        store = {
            "path": str(tmp_path / "store"),
            "from_runs": "../store",
            "spec": Mel().as_dict(),
            "slicing": Slicing().as_dict(),
            "dataset": {"name": "fma_debian"},
        }
        settings = {"seed": 0, "frames": 128, "differences": [], "leaky": False, "store": store}
        run = Run.create(tmp_path / "runs", "kth2020/cnn", settings | (config or {}), selection)
        predictions[run.path.name] = predict_synthetic(selection, **options)
        return run

    return make


def test_results_are_written_to_the_run(make_run: Callable[..., Run], predictions: Tables) -> None:
    run = make_run(config={"differences": ["hop 512 for 604"]})
    evaluation = evaluate([run])
    written = json.loads((run.path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert written == json.loads(json.dumps(evaluation.as_dict()))
    assert (written["dataset"], written["split"], written["leaky"]) == ("fma_debian", "test", False)
    assert written["differences"] == ["hop 512 for 604"]
    assert (written["n_tracks"], written["n_artists"], written["n_unattributed"]) == (12, 10, 0)
    assert (written["by_slice"]["n"], written["by_track"]["n"]) == (60, 12)
    assert written["runs"][0]["seed"] == 0
    assert {"numpy", "scikit-learn", "torch"} <= written["versions"].keys()
    assert written["chance"]["majority"] == pytest.approx(1 / 6)
    assert imread(run.path / "confusion.png").std() > 0.05  # not blank
    assert not list(run.path.glob(files.TEMPORARY_PREFIX + "*"))


def test_the_tables_of_predictions(make_run: Callable[..., Run], predictions: Tables) -> None:
    run = make_run()
    evaluate([run])
    table, truth = predictions[run.path.name], Predictions.from_table(predictions[run.path.name], GENRES)
    slices = parquet.read_table(run.path / "predictions.parquet")
    probabilities = [f"p_{genre}" for genre in GENRES]
    assert slices.column_names == ["track_id", "start_s", "split", "true", "artist_id", "predicted", *probabilities]
    assert [dict(zip(GENRES, row, strict=True)) for row in table["probabilities"].to_pylist()] == [
        {genre: row[f"p_{genre}"] for genre in GENRES} for row in slices.to_pylist()
    ]
    assert all(row["predicted"] == max(GENRES, key=lambda g: row[f"p_{g}"]) for row in slices.to_pylist())
    tracks = parquet.read_table(run.path / "track-predictions.parquet")
    columns = ["track_id", "path", "title", "artist", "slices", "true", "predicted", "margin", *probabilities]
    assert tracks.column_names == columns
    assert [row["slices"] for row in tracks.to_pylist()] == [5] * 12
    means, artists = (
        truth.by_track(),
        dict(zip(table["track_id"].to_pylist(), table["artist_id"].to_pylist(), strict=True)),
    )
    for row, mean, true in zip(tracks.to_pylist(), means.probabilities, means.truth, strict=True):
        assert [row[name] for name in probabilities] == pytest.approx(mean)
        *_, second, first = sorted(mean)
        assert row["margin"] == pytest.approx(first - second)
        assert (row["true"], row["predicted"]) == (GENRES[true], GENRES[mean.argmax()])
        assert row["artist"] == artists[row["track_id"]]
    text = (run.path / "track-predictions.csv").read_bytes().decode()
    assert len(text.splitlines()) == 1 + 12
    rows = list(csv.DictReader(text.splitlines()))
    known = tracks.to_pylist()
    assert [float(row["p_Rock"]) for row in rows] == [row["p_Rock"] for row in known]
    assert [row["title"] for row in rows[-4:]] == [r"Ünder the \x1b[31mred", r"two\nlines", "'=HYPERLINK(1)", ""]
    assert [row["title"] for row in known[-4:]] == ["Ünder the \x1b[31mred", "two\nlines", "=HYPERLINK(1)", None]
    assert [row["path"] for row in known[-2:]] == [f"{known[-2]['track_id']}.mp3", None]
    assert not list(seal.problems(run.path))
    (run.path / "track-predictions.csv").write_text("")
    assert mgc_command("verify", run.path).error.endswith(
        "track-predictions.csv: damaged (its bytes are not those that were written); `mgc evaluate` writes it anew"
    )


def test_predictions_of_version_0_1_are_read(make_run: Callable[..., Run], predictions: Tables) -> None:
    run = make_run()
    evaluate([run])
    new = tables.read_predictions(run.read("predictions.parquet"), run, "predictions.parquet")
    old = tables.read_predictions(parquet.table_bytes(predictions[run.path.name]), run, "predictions.parquet")
    for field in dataclasses.fields(Predictions):
        assert np.array_equal(getattr(new, field.name), getattr(old, field.name)), field.name


def test_a_second_evaluation_is_counted_and_changes_no_score(make_run: Callable[..., Run]) -> None:
    run = make_run()
    first, second = evaluate([run]), evaluate([run])
    assert (first.evaluations, second.evaluations) == (1, 2)
    assert dataclasses.replace(second, evaluations=1) == first
    assert "has been evaluated" not in report.text(first)
    assert "has been evaluated 2 times" in report.text(second)
    (run.path / "metrics.json").write_text("{")
    with pytest.raises(RunError, match=r"metrics.json: damaged .*delete it and evaluate again"):
        evaluate([run])
    (run.path / "metrics.json").unlink()
    assert evaluate([run]).evaluations == 1


@pytest.mark.parametrize("join", ["mean", "vote"])
def test_tracks_are_scored_by_the_join(join: str, make_run: Callable[..., Run], predictions: Tables) -> None:
    run = make_run(per_genre=10)
    evaluation = evaluate([run], join=join)
    by_track = Predictions.from_table(predictions[run.path.name], GENRES).by_track(join)
    assert evaluation.by_track == metrics.score(by_track)
    assert (evaluation.join, list(evaluation.joins)) == (join, list(JOINS))
    own = {"accuracy": evaluation.by_track.accuracy, "macro_f1": evaluation.by_track.macro_f1}
    assert evaluation.joins[join] == pytest.approx(own)
    written = parquet.read_table(run.path / "track-predictions.parquet")
    assert written["p_Rock"].to_pylist() == by_track.probabilities[:, -1].tolist()
    text = " ".join(report.text(evaluation).split())
    assert f"Slices are joined to tracks by {join} (--join); the accuracy by track would be" in text


def test_a_run_of_a_network_alone_says_that_other_seeds_were_not_tried(make_run: Callable[..., Run]) -> None:
    network = {"kind": "neural", "training": {"lr": 0.1}}
    run = make_run(config=network)
    make_run(config=network | {"seed": 1})  # unfinished
    for difference in ({"seed": 0}, {"seed": 1, "training": {"lr": 0.2}}, {"seed": 1, "fold": [1, 5]}):
        make_run(config=network | difference).finish({})
    alone = evaluate([run])
    assert alone.other_seeds is False
    assert "Other seeds were not tried" in report.text(alone)
    make_run(config=network | {"seed": 2}).finish({})
    assert other_seeds(run) is True
    assert "Other seeds" not in report.text(dataclasses.replace(alone, other_seeds=True))
    assert other_seeds(make_run(config={"kind": "classical"})) is None


def test_other_splits_stand_beside_the_test_split(make_run: Callable[..., Run]) -> None:
    run = make_run()
    evaluate([run])
    before = (run.path / "metrics.json").read_bytes()
    evaluation = evaluate([run], split="validation")
    assert (run.path / "metrics.json").read_bytes() == before
    for name in ("metrics-validation.json", "predictions-validation.parquet", "confusion-validation.png"):
        assert (run.path / name).exists()
    assert results_path(run, "metrics.json", "training").name == "metrics-training.json"
    assert "NOT A TEST" in report.text(evaluation)
    assert evaluation.evaluations == 1


def test_a_full_disk_is_reported(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(MgcError, match="disk is full"):
        evaluate([make_run()])


def members(*tables: pa.Table) -> list[Predictions]:
    return [Predictions.from_table(table, GENRES) for table in tables]


def test_ensemble_by_slice_if_the_runs_have_the_same_slices(make_run: Callable[..., Run], predictions: Tables) -> None:
    runs = [make_run(seed=1), make_run(seed=2)]
    predictions[runs[1].path.name] = predictions[runs[1].path.name].take(np.random.default_rng(0).permutation(60))
    one, two = members(*predictions.values())
    slices, tracks = mean_predictions([one, two], ["a", "b"])
    assert slices is not None
    np.testing.assert_allclose(slices.probabilities, (one.probabilities + two.probabilities) / 2)
    np.testing.assert_allclose(tracks.probabilities, slices.by_track().probabilities)
    evaluation = evaluate(runs)
    assert evaluation.by_slice is not None
    assert evaluation.evaluations is None
    assert not any((run.path / "metrics.json").exists() for run in runs)
    assert report.text(evaluation).startswith("Mean of 2 runs (kth2020/cnn, kth2020/cnn)")


def test_ensemble_by_track_if_the_runs_have_different_slices(make_run: Callable[..., Run], predictions: Tables) -> None:
    runs = [
        make_run(config={"differences": ["a", "b"]}),
        make_run(slices=10, step=3, config={"differences": ["b", "c"]}),
    ]
    one, two = (member.by_track() for member in members(*predictions.values()))
    evaluation = evaluate(runs)
    assert evaluation.by_slice is None
    expected = (one.probabilities + two.probabilities) / 2
    assert evaluation.by_track.accuracy == np.mean(expected.argmax(axis=1) == one.truth)
    assert evaluation.differences == ("a", "b", "c")
    assert json.loads(json.dumps(evaluation.as_dict()))["by_slice"] is None
    assert "by slice" not in report.text(evaluation, by_genre=True)
    assert pictures.confusion_png(evaluation).startswith(b"\x89PNG")


def test_runs_with_different_classes_or_tracks_are_refused(make_run: Callable[..., Run]) -> None:
    run = make_run()
    with pytest.raises(RunError, match="only one has Jazz, Rock"):
        evaluate([run, make_run((*GENRES[:-1], "Jazz"))])
    with pytest.raises(RunError, match="order"):
        evaluate([run, make_run(GENRES[::-1])])
    with pytest.raises(RunError, match="6 tracks, such as test-00012, are in the split of one only"):
        evaluate([run, make_run(per_genre=3)])


def test_members_with_different_genres_of_a_track(make_run: Callable[..., Run], predictions: Tables) -> None:
    make_run()
    (table,) = predictions.values()
    renamed = ["Rock", *table["genre"].to_pylist()[1:]]
    other = table.set_column(3, "genre", pa.array(["Rock"] * 5 + renamed[5:]))
    with pytest.raises(RunError, match="they have different genres of track test-00000"):
        mean_predictions(members(table, other), ["one", "two"])


@pytest.fixture
def small(make_run: Callable[..., Run]) -> Evaluation:
    """12 test tracks by 10 artists."""
    return evaluate([make_run(config={"differences": ["hop 512 for 604", "slices of 4 s for slices of 3.5 s"]})])


def test_report_of_few_tracks(small: Evaluation) -> None:
    text = report.text(small)
    right = round(12 * small.by_track.accuracy)
    assert text.startswith("kth2020/cnn on the test split of fma_debian: 12 tracks by 10 artists, 60 slices\n")
    assert f"{100 * right / 12:.1f} % [" in text
    flat = " ".join(text.split())
    assert f"spans {100 * small.by_track.accuracy_interval.width:.0f} points" in flat
    # Since two artists have two tracks each, it takes one right track more than by the binomial test.
    assert "an accuracy below 50.0 % (6 of 12 right) is not distinguishable from guessing (16.7 %)" in flat
    assert f"Here {right} of 12 are right" in flat
    assert f"not as published: 2 differences, see `mgc info {small.runs[0]['run']}`" in flat
    assert "hop 512 for 604" not in text
    followed = dataclasses.replace(small, runs=tuple(run | {"by_recipe": True} for run in small.runs))
    listed = "\ndiffers from the study: hop 512 for 604\ndiffers from the study: slices of 4 s for slices of"
    assert listed in report.text(followed)
    assert "LEAKY" in report.text(dataclasses.replace(small, leaky=True))


def test_report_by_genre(small: Evaluation) -> None:
    assert "precision   recall" not in report.text(small)
    *_, table, confusion = report.text(small, by_genre=True).split("\n\n")
    rows, counted = ({line.split()[0]: line.split()[1:] for line in part.splitlines()} for part in (table, confusion))
    for genre, scores in small.by_track.by_genre.items():
        assert counted[genre] == [str(n or ".") for n in small.by_track.confusion[GENRES.index(genre)]]
        shares = (f"{100 * value:.1f}" for value in (scores.precision, scores.recall, scores.f1))
        assert rows[genre][:4] == [*shares, str(scores.support)]


@pytest.mark.parametrize("awkward", [False, True])
def test_columns_are_numbered_if_abbreviations_are_too_long(make_run: Callable[..., Run], awkward: bool) -> None:
    """Two of the awkward genres differ in character 16."""
    genres = ("$blues$", *GTZAN[1:8], "International (traditional)", "International (modern)") if awkward else GTZAN
    text = report.text(evaluate([make_run(genres, per_genre=150, slices=2)]), by_genre=True)
    assert max(map(len, text.splitlines())) <= 80
    assert "\N{NO-BREAK SPACE}" not in text
    (heads,) = (line for line in text.splitlines() if line.startswith("true genre"))
    numbers = [str(k) for k in range(1, 11)]
    assert heads.split()[2:] == (numbers if awkward else [genre[:4] for genre in GTZAN])
    assert ("10 International (mod…" in text) is awkward


@pytest.mark.slow
@pytest.mark.parametrize("genres", [FMA, LONG_GENRES], ids=["fma", "long"])
@pytest.mark.parametrize("width", [80, 100])
def test_reports_fit_the_terminal(make_run: Callable[..., Run], genres: tuple[str, ...], width: int) -> None:
    differences = ["a hop of 512 samples instead of 604, " * 4 + "and so on"]
    model = {"differences": differences, "leaky": True, "model": "some-long-package/network-of-many-layers"}
    runs = [make_run(genres, per_genre=20, slices=2, config=model) for _ in range(9)]
    evaluations = [dataclasses.replace(evaluate([run]), leaky=True) for run in runs[:1]] * len(runs)
    paths = [runs[0].path / f"predictions-of-the-test-split-{k}.parquet" for k in range(5)]
    report_text = report.text(evaluations[0], by_genre=True, width=width)
    table = comparison.text(runs, evaluations, [paths] * len(runs), by_genre=True, width=width)
    written = report.written_lines(paths, width)
    folder = str(runs[0].path.parent)
    lines = [line for line in [*report_text.splitlines(), *table.splitlines(), *written] if folder not in line]
    assert max(map(len, lines)) <= width
    assert "tracks taken for" in report_text
    labels = {line[:-62] for line in report_text.split("\n\n")[-2].splitlines()[2:]}
    assert len(labels) == 16
    assert len({line.split("  ")[0] for line in table.split("F1 by track")[1].splitlines()[1:17]}) == 16
    assert table.count("F1 by track") == (2 if width == 80 else 1)


def test_unknown_artists_are_counted(make_run: Callable[..., Run], predictions: Tables) -> None:
    run = make_run(GTZAN)
    table = predictions[run.path.name]
    artists = pa.array([None] * 5 + table["artist_id"].to_pylist()[5:], pa.string())
    predictions[run.path.name] = table.set_column(4, "artist_id", artists)
    assert "20 tracks by 18 artists, 1 by unknown ones" in report.text(evaluate([run]))
    predictions[run.path.name] = table.set_column(4, "artist_id", pa.nulls(len(table), pa.string()))
    text = report.text(evaluate([run]))
    assert "20 tracks by unknown artists" in text
    assert "bootstrap samples of the tracks" in text


def test_absent_genres_are_named(make_run: Callable[..., Run], predictions: Tables) -> None:
    run = make_run()
    table = predictions[run.path.name]
    assert "macro scores are those" not in report.text(evaluate([run]))
    predictions[run.path.name] = table.filter(pc.invert(pc.is_in(table["genre"], pa.array(["Folk", "Rock"]))))
    text = report.text(evaluate([run]), by_genre=True)
    assert "No track is Folk or Rock: the macro scores are those of the other genres." in text
    (row,) = (line for line in text.splitlines() if line.startswith("Folk   ") and "–" in line)
    assert row.split() == ["Folk", "–", "–", "–", "0", "–", "–", "–", "0"]


def test_abbreviations_are_unique() -> None:
    assert report.abbreviate(["Electronic", "Experimental", "Pop"]) == ["Elec", "Expe", "Pop"]
    assert report.abbreviate(["Instrumental", "Instruction"]) == ["Instrum", "Instruc"]
    assert report.abbreviate(["Rock", "Rock & Roll", "Rock Opera"]) == ["Rock", "Rock &", "Rock O"]


@pytest.mark.slow
@pytest.mark.parametrize("genres", [GENRES[:2], GTZAN, LONG_GENRES, ("<b>Rock</b> & $x$", "שירי עם", "音楽")])
def test_texts_of_the_confusion_picture_have_space_of_their_own(
    genres: tuple[str, ...], make_run: Callable[..., Run], recwarn: pytest.WarningsRecorder
) -> None:
    evaluation = evaluate([make_run(genres)])
    figure = pictures.draw_confusion(evaluation)
    assert_legible(figure)
    assert len(figure.axes) == 3
    assert pictures.confusion_png(evaluation) == pictures.confusion_png(evaluation)
    assert not [str(warning.message) for warning in recwarn if "missing from font" not in str(warning.message)]


@pytest.mark.slow
def test_a_confusion_picture_of_161_genres(make_run: Callable[..., Run]) -> None:
    """The names can be read, and the picture can be opened: 18 inches of cells, one matrix, no numbers."""
    genres = tuple(f"Genre {number}" for number in range(161))
    figure = pictures.draw_confusion(evaluate([make_run(genres, per_genre=1, slices=1)]))
    assert_legible(figure)
    (matrix, _) = figure.axes
    assert not matrix.texts
    assert max(figure.get_size_inches()) < 25


def test_a_confusion_picture_says_leaky_and_counts_runs_of_one_model(make_run: Callable[..., Run]) -> None:
    runs = [make_run(config={"leaky": True, "seed": seed}) for seed in (0, 1)]
    figure = pictures.draw_confusion(evaluate(runs))
    assert figure.get_suptitle() == "LEAKY: 2 × kth2020/cnn on the test split of fma_debian"
