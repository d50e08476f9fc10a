"""The sections of a run's report: for each, its template and what it shows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from mgc.models.compare.render import seconds_text
from mgc.models.evaluation.report import counted
from mgc.models.report import charts, examples, groups, track_chart, track_map
from mgc.models.report.charts import percent
from mgc.models.report.examples import Example
from mgc.models.report.material import Material
from mgc.models.report.results import Results, Track
from mgc.models.report.track_map import TrackMap
from mgc.models.runs.overview import refit_line
from mgc.pipeline.errors import RunError

#: Content of a section: `id`, `title` and `template`, and what the template shows.
Section: TypeAlias = dict[str, Any]

#: Most genres whose colours on the map a legend explains.
_MOST_COLOURED = 24
#: Most artists that a table lists.
_MOST_ARTISTS = 40
#: History keys of the curves of a chart, with the names of the curves.
_LOSS = {"train_loss": "training", "validation_loss": "validation"}
_ACCURACY = {
    "train_accuracy": "training",
    "validation_accuracy": "validation",
    "validation_track_accuracy": "by track",
}
#: Scores in per cent, and plain ones, with their keys in metrics.json.
_SCORES = {
    "accuracy": "accuracy",
    "balanced accuracy": "balanced_accuracy",
    "macro precision": "macro_precision",
    "macro recall": "macro_recall",
    "macro F1": "macro_f1",
    "calibration error (ECE)": "ece",
}
_PLAIN_SCORES = {
    "ROC-AUC": "roc_auc",
    "average precision": "average_precision",
    "Matthews correlation": "mcc",
    "cross-entropy, nats": "cross_entropy",
}


def make(results: Results, *, audio: bool, device: str) -> Iterator[Section]:
    """Yield the sections of a report on one run, top to bottom.

    Args:
        results: results of the run.
        audio: whether to include excerpts.
        device: device of the network that lays out the map.
    """
    worst, typical = examples.choose(results)
    material = Material(results.run, [track.id for track in results.tracks], audio=audio)
    shown = {track.id: f"track-{number}" for number, track in enumerate([*worst, *typical])}
    yield _genres(results)
    yield _confusion(results)
    sets = [examples.make(results, tracks, material) for tracks in (worst, typical)]
    yield _examples(results, sets, shown, material)
    yield _map(results, track_map.make(results, device), shown)
    yield _confidence(results)
    bit_rates = {id: row["bit_rate"] for id, row in material.rows.items()}
    if (section := _groups(results, bit_rates)) is not None:
        yield section
    yield from _curves(results)
    yield _method(results)


def _genres(results: Results) -> Section:
    by_genre = results.metrics["by_track"]["by_genre"]
    taken = {pair.true: pair for pair in reversed(groups.confused_pairs(results, most=10**6))}
    rows = []
    for genre, scores in by_genre.items():
        interval = scores["recall_interval"] or {}
        low, high = interval.get("low"), interval.get("high")
        rows.append(
            {
                "genre": genre,
                "recall": scores["recall"],
                "low": low,
                "high": high,
                "bar": charts.bar(scores["recall"], low, high, results.metrics["chance"]["uniform"]),
                "precision": scores["precision"],
                "f1": scores["f1"],
                "auc": scores.get("roc_auc"),
                "support": scores["support"],
                "taken": taken.get(genre),
            }
        )
    rows.sort(key=lambda row: -1 if row["recall"] is None else row["recall"], reverse=True)
    lead = (
        "Recall is the share of a genre's tracks that the system recognises; the thin line is its 95 % interval, the "
        "dashed one guessing."
    )
    return {
        "id": "genres",
        "title": "Genre by genre",
        "template": "genres.html",
        "lead": lead,
        "rows": rows,
        "has_auc": any(row["auc"] is not None for row in rows),
    }


def _confusion(results: Results) -> Section:
    genres = results.genres
    pairs = groups.confused_pairs(results)
    wrong = sum(not track.right for track in results.tracks)
    lead = f"{counted(wrong, 'track')} of {len(results.tracks):,} taken for another genre."
    if wrong and pairs:
        lead += f" The {len(pairs)} pairs listed make up {percent(sum(pair.count for pair in pairs) / wrong)} of them."
    return {
        "id": "mistakes",
        "title": "What is taken for what",
        "template": "confusion.html",
        "lead": lead,
        "matrix": charts.confusion(genres, results.metrics["by_track"]["confusion"]),
        "wide": len(genres) > 12,
        "pairs": pairs,
    }


def _examples(results: Results, sets: Sequence[list[Example]], shown: dict[str, str], material: Material) -> Section:
    titles = ("Most wrong", "Most typical of their genre")
    lists = [
        {"title": title, "cards": [_card(results, example, shown[example.track.id]) for example in made]}
        for title, made in zip(titles, sets, strict=True)
        if made
    ]
    lead = (
        "Below each spectrogram, the probabilities of some genres over time, the true one first. The mark below a "
        "spectrogram is the excerpt, taken where the system is surest of what it says."
    )
    return {
        "id": "examples",
        "title": "Tracks to look at" + (" and listen to" if any(e.mp3 for made in sets for e in made) else ""),
        "template": "examples.html",
        "lead": lead,
        "groups": lists,
        "problems": material.problems,
    }


def _card(results: Results, example: Example, id: str) -> dict[str, Any]:
    track, slicing = example.track, results.run.slicing
    slice_s = 0.0 if slicing.whole else slicing.length_s(results.run.spec)
    drawn = track_chart.draw(f"{id}-picture", example, results.genres, slice_s)
    named = track.true if track.right else track.predicted
    return {
        "id": id,
        "title": title_of(track),
        "artist": track.artist,
        "true": results.genres[track.true],
        "predicted": None if track.right else results.genres[track.predicted],
        "share": percent(float(track.probabilities[named])),
        "picture": drawn.picture,
        "left": drawn.left,
        "right": drawn.right,
        "seconds": f"{drawn.seconds:.3f}",
        "audio": track_chart.data_uri("audio/mpeg", example.mp3) if example.mp3 else None,
        "start": f"{example.excerpt_s:.3f}",
    }


def _map(results: Results, plane: TrackMap | None, shown: dict[str, str]) -> Section:
    genres = results.genres
    tracks = results.tracks if plane is None else [results.tracks[row] for row in plane.rows]
    rows = [
        {
            "title": title_of(track),
            "artist": track.artist or "",
            "true": genres[track.true],
            "predicted": genres[track.predicted],
            "wrong": not track.right,
            "probability": float(track.probabilities[track.true]),
            "card": shown.get(track.id),
        }
        for track in tracks
    ]
    section: Section = {"id": "map", "title": "Map of the tracks", "template": "map.html", "rows": rows}
    cut = f"{len(rows):,} of {len(results.tracks):,} tracks" if len(rows) < len(results.tracks) else "All tracks"
    section["summary"] = f"{cut} as a table"
    if plane is None:
        return section | {"charts": [], "lead": "There are too few tracks, or too few differences, for a map."}
    used = [tracks[row].true for row in range(len(tracks))]
    right = [track.right for track in tracks]
    section["lead"] = (
        f"Tracks that the system hears as similar lie together. The positions come from {plane.basis}."
        + (f" Colours repeat after {charts.COLOURS} genres." if len(genres) > charts.COLOURS else "")
    )
    section["charts"] = [
        {
            "title": name,
            "picture": charts.track_map(f"map-{number}", name, points, used, right),
            "caption": plane.captions[name],
        }
        for number, (name, points) in enumerate(plane.layouts.items())
    ]
    section["legend"] = [
        {"genre": genre, "colour": number % charts.COLOURS}
        for number, genre in enumerate(genres)
        if number in set(used) and len(genres) <= _MOST_COLOURED
    ]
    return section


def _confidence(results: Results) -> Section:
    scores = results.metrics["by_track"]
    section: Section = {
        "id": "confidence",
        "title": "Confidence, and all scores",
        "template": "confidence.html",
        "picture": None,
        "levels": [name for name in ("track", "slice") if results.metrics.get(f"by_{name}")],
        "scores": list(_score_rows(results.metrics)),
    }
    if not scores.get("reliability"):
        command = f"`mgc evaluate {shlex.quote(str(results.run.path))}`"
        return section | {
            "lead": f"An earlier version of mgc evaluated this run: {command} adds a reliability diagram."
        }
    lead = (
        "A system whose probabilities can be trusted lies on the dashed line: of the tracks that it is 70 % sure of, "
        "70 % are right."
    )
    mean = float(np.mean([track.probabilities.max() for track in results.tracks]))
    verdict = "less sure of itself than it should be" if mean < scores["accuracy"] else "too sure of itself"
    if abs(mean - scores["accuracy"]) > 0.05:
        lead += f" On the whole this one is {verdict}: {percent(mean)} sure, {percent(scores['accuracy'])} right."
    return section | {"lead": lead, "picture": charts.reliability(scores["reliability"])}


def _score_rows(metrics: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Name and texts of each score, by track and by slice; scores that an earlier version lacks are left out."""
    levels = [metrics[name] for name in ("by_track", "by_slice") if metrics.get(name)]
    for label, name in _SCORES.items():
        values = [level.get(name) for level in levels]
        if any(value is not None for value in values):
            yield label, [percent(value) for value in values]
    for k in ("2", "3", "5"):
        if values := [(level.get("top_k") or {}).get(k) for level in levels if level.get("top_k")]:
            yield f"among the first {k}", [percent(value) for value in values]
    for label, name in _PLAIN_SCORES.items():
        values = [level.get(name) for level in levels]
        if any(value is not None for value in values):
            yield label, ["–" if value is None else f"{value:.3f}" for value in values]
    for name, joined in (metrics.get("joins") or {}).items():
        yield f"accuracy, slices joined by {name}", [percent(joined["accuracy"]), *[""] * (len(levels) - 1)]


def _groups(results: Results, bit_rates: dict[str, int | None]) -> Section | None:
    """By artist and by bit rate; None if neither is known."""
    artists = groups.by_artist(results.tracks)
    rates = groups.by_bit_rate(results, bit_rates)
    if not artists and not rates:
        return None
    listed = artists[:_MOST_ARTISTS]
    rest = f"The {len(listed)} artists with most tracks" if len(listed) < len(artists) else "All artists"
    return {
        "id": "groups",
        "title": "By artist" + (" and by bit rate" if rates else "") if artists else "By bit rate",
        "template": "groups.html",
        "lead": "Tracks of one artist tend to be right or wrong together, so the number of artists decides how far a "
        "score can be trusted.",
        "artists": listed,
        "artist_summary": f"{rest} as a table",
        "artist_chart": charts.spread_of_artists(groups.artists_by_success(artists)) if artists else None,
        "bit_rates": [{"group": group, "bar": charts.bar(group.accuracy, group.low, group.high)} for group in rates],
    }


def _curves(results: Results) -> Iterator[Section]:
    """Yield the learning curves; in their place what is wrong with a damaged history; nothing without one."""
    section: Section = {"id": "training", "title": "How it was trained", "template": "charts.html", "layout": "charts"}
    try:
        history = results.run.history
    except RunError as error:
        yield section | {"lead": f"The curves cannot be drawn: {error.problem}.", "charts": []}
        return
    if not history:
        return
    epochs = [entry["epoch"] for entry in history]
    best = results.run.summary.get("best_epoch")
    drawn = []
    for id, title, keys, shares in (("loss", "Loss", _LOSS, False), ("accuracy", "Accuracy", _ACCURACY, True)):
        series = {name: [entry.get(key) for entry in history] for key, name in keys.items()}
        series = {name: values for name, values in series.items() if any(value is not None for value in values)}
        if series:
            picture = charts.curves(f"curve-{id}", title, epochs, series, best=best, shares=shares)
            drawn.append({"title": title, "picture": picture})
    if any(entry.get("lr") is not None for entry in history):
        rates = {"rate": [entry.get("lr") for entry in history]}
        picture = charts.curves("curve-rate", "Learning rate", epochs, rates, best=best)
        drawn.append({"title": "Learning rate", "picture": picture})
    kept = f" The weights of epoch {best} were kept." if best is not None else ""
    lead = f"{counted(len(epochs), 'epoch')}.{kept} The curves are by slice, but for the one by track."
    yield section | {"lead": lead, "charts": drawn}


def _method(results: Results) -> Section:
    run, metrics = results.run, results.metrics
    config = run.config
    splits = run.selection.tracks["split"].to_pylist()
    sizes = ", ".join(f"{splits.count(split):,} {split}" for split in dict.fromkeys(splits))
    versions = ", ".join(f"{name} {version}" for name, version in (config["versions"] | metrics["versions"]).items())
    settings = [
        ("system", config["model"]),
        ("seed", config["seed"]),
        ("parameters", f"{config['params']:,}" if config.get("params") else None),
        ("feature", " + ".join(str(source.spec) for source in run.sources)),
        ("slices", str(run.slicing)),
        ("tracks", sizes),
        ("refit", refit_line(run) if config.get("refit") else None),
        ("join of slices", metrics.get("join")),
        ("intervals", f"{metrics['bootstrap']['resamples']:,} bootstrap samples, seed {metrics['bootstrap']['seed']}"),
        ("trained", f"{config['created'][:16].replace('T', ' ')} UTC, in {seconds_text(run.summary.get('seconds'))}"),
        ("computer", f"{config.get('device', 'cpu')}, {config['platform']}"),
        ("versions", versions),
    ]
    return {
        "id": "method",
        "title": "Configuration, and how to repeat it",
        "template": "method.html",
        "settings": [(label, value) for label, value in settings if value is not None],
        "differences": metrics["differences"],
        "commands": list(_commands(results)),
        "configuration": json.dumps(config, indent=2, ensure_ascii=False),
    }


def _commands(results: Results) -> Iterator[str]:
    """The commands that made the run and its scores."""
    run = results.run
    for source, stored in zip(run.sources, [run.config["store"], *run.config.get("further", [])], strict=False):
        spec = (source.waveform or source.spec).as_dict()
        feature = spec.pop("feature") + ":" + ",".join(f"{k}={v}" for k, v in spec.items() if v is not None)
        dataset = stored.get("dataset", run.config["store"]["dataset"]).get("source")
        yield shlex.join(["mgc", "extract", *([str(dataset)] if dataset else []), "--feature", feature])
    yield shlex.join(["mgc", *map(str, run.config["command"][1:])])
    option = [] if results.split == "test" else ["--split", results.split]
    yield shlex.join(["mgc", "evaluate", str(run.path), *option])
    yield shlex.join(["mgc", "report", str(run.path), *option])


def title_of(track: Track) -> str:
    """Title of a track, else the name of its file, else its id."""
    return track.title or (track.path or track.id).rpartition("/")[2]
