"""The report of an evaluation: text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mgc.models.evaluation.evaluation import Evaluation
from mgc.models.evaluation.intervals import Interval
from mgc.models.evaluation.metrics import Scores
from mgc.models.runs import overview
from mgc.pipeline import wrapping
from mgc.pipeline.datasets.catalogue import format_names
from mgc.pipeline.escaping import visible_fields
from mgc.pipeline.wrapping import WIDTH, ellipsise

#: Columns of the names of scores, and of a genre's name in the confusion matrix.
_LABEL = 20
#: Columns of a genre's precision, recall, F1 and support.
_GENRE_CELLS = (11, 7, 6, 7)
#: Fewest columns that a genre's name is shortened to.
_MIN_LABEL = 6


def text(evaluation: Evaluation, *, by_genre: bool = False, width: int = WIDTH) -> str:
    """Render an evaluation as text.

    Args:
        evaluation: evaluation to report.
        by_genre: add a table of the scores of each genre.
        width: columns of the terminal, at least 80. Only a path may be longer; tables shorten names of genres.
    """
    evaluation = visible_fields(evaluation)
    blocks = [
        wrapped([_subject(evaluation), *_warnings(evaluation), *_study(evaluation)], width),
        _score_table(evaluation),
        wrapped(_interpretation(evaluation), width),
    ]
    if by_genre:
        blocks.append(_genre_table(evaluation, width))
    blocks.append(_confusion_table(evaluation.by_track, width))
    return "\n\n".join(blocks)


def written_lines(paths: Sequence[Path], width: int = WIDTH) -> list[str]:
    """Lines that name the files that an evaluation has written into the folder of its run, if any."""
    if not paths:
        return ["nothing is written: the mean belongs to no run"]
    names = ", ".join(path.name for path in paths)
    return [f"written to {paths[0].parent}:", *wrapping.wrap(f"  {names}", width, indent=2)]


def _subject(evaluation: Evaluation) -> str:
    """The line that says which runs were evaluated on which data."""
    names = [run["model"] for run in evaluation.runs]
    model = names[0] if len(names) == 1 else f"Mean of {len(names)} runs ({', '.join(names)})"
    slices = f", {counted(evaluation.by_slice.n, 'slice')}" if evaluation.by_slice else ""
    return f"{model} on {place(evaluation)}: {_sample_size(evaluation)}{slices}"


def place(evaluation: Evaluation) -> str:
    """Say which tracks were scored: `the test split of gtzan`."""
    whole = evaluation.split == "all"
    tracks = f"all tracks of {evaluation.dataset}" if whole else f"the {evaluation.split} split of {evaluation.dataset}"
    return tracks if evaluation.other is None else f"{tracks} (trained on {evaluation.trained_on})"


def _sample_size(evaluation: Evaluation) -> str:
    """The number of tracks and artists, in words."""
    tracks, unattributed = evaluation.n_tracks, evaluation.n_unattributed
    if unattributed == tracks:
        return f"{counted(tracks, 'track')} by unknown artists"
    rest = f", {unattributed:,} by unknown ones" if unattributed else ""
    return f"{counted(tracks, 'track')} by {counted(evaluation.n_artists, 'artist')}{rest}"


def _warnings(evaluation: Evaluation) -> Iterator[str]:
    by_slice = any(run.get("split_unit") == "slice" for run in evaluation.runs)
    if evaluation.leaky and by_slice:
        yield (
            f"LEAKY: slices of {evaluation.n_heard:,} of {counted(evaluation.n_tracks, 'track')} are also in another "
            "split (--split-unit slice); the scores are those of tracks heard before, and too good."
        )
    elif evaluation.n_heard:
        others = "training or validation" if evaluation.split == "test" else "training"
        yield (
            f"LEAKY: the files of {evaluation.n_heard:,} of {counted(evaluation.n_tracks, 'track')} are also {others} "
            "tracks, byte for byte; the scores are too good. `mgc extract --duplicates drop` leaves copies out."
        )
    elif evaluation.leaky:
        yield (
            "LEAKY: slices of one track were on both sides of the split; the scores are those of tracks "
            "heard before, and too good."
        )
    if evaluation.audit and not evaluation.audit["clean"]:
        yield f"NOT CLEAN: {evaluation.audit['line']}"
    if evaluation.other is not None:
        yield from left_out(evaluation.other)
        return
    if evaluation.split == "training":
        yield "NOT A TEST: the model was fitted to these very tracks; the scores say nothing about new ones."
    if evaluation.split == "validation":
        yield "NOT A TEST: a network keeps the epoch that suits these tracks best; the scores may flatter it."
    if evaluation.split == "test" and (evaluation.evaluations or 0) > 1:
        yield f"The test split of this run has been evaluated {evaluation.evaluations} times."


def left_out(other: dict[str, Any]) -> Iterator[str]:
    """What was left out of another dataset, and what could not be examined."""
    if genres := other["unknown_genres"]:
        names = format_names((f"{genre} ({n:,})" for genre, n in genres.items()), 10)
        tracks = counted(sum(genres.values()), "track")
        yield f"Left out: {tracks} of genres that the run does not know, or the map leaves out: {names}."
    if heard := other["heard"]:
        kinds = Counter(copy["kind"] for copy in heard)
        words = {
            "file": "the same file",
            "frames": "the same frames",
            "near-duplicate": "the recording in another form",
        }
        how = ", ".join(f"{kinds[kind]:,} {text}" for kind, text in words.items() if kinds[kind])
        names = format_names([f"{copy['track']} (it heard {copy['of']})" for copy in heard], 3)
        yield f"Left out: {counted(len(heard), 'track')} that the run has heard in training ({how}): {names}."
    if why := other["recordings_not_compared"]:
        yield f"Copies in another form of what the run has heard were not looked for, or not of all: {why}."


def _study(evaluation: Evaluation) -> list[str]:
    """How the runs differ from the studies of their systems: in full if all of them were to follow these."""
    path = evaluation.runs[0]["run"] if len(evaluation.runs) == 1 else "RUN"
    listed = all(run.get("by_recipe", False) for run in evaluation.runs)
    return overview.study_lines(evaluation.differences, path, listed=listed)


def score_levels(evaluation: Evaluation) -> list[tuple[str, Scores]]:
    """The scores by track and, if there are any, by slice; each with the name of its items."""
    levels = [("track", evaluation.by_track), ("slice", evaluation.by_slice)]
    return [(item, scores) for item, scores in levels if scores]


def _score_table(evaluation: Evaluation) -> str:
    """The table of the scores, one column by track and one by slice."""
    levels = score_levels(evaluation)
    rows = [("", [f"by {item}" for item, _ in levels])]
    for label, name in (("accuracy", "accuracy"), ("macro F1", "macro_f1")):
        cells = [f"{percentage(getattr(s, name))} {bracketed(getattr(s, name + '_interval'))}" for _, s in levels]
        rows.append((label, cells))
    for label, name in (("macro precision", "macro_precision"), ("macro recall", "macro_recall")):
        rows.append((label, [percentage(getattr(scores, name)) for _, scores in levels]))
    rows.append(("top 2 / 3 / 5", [_shares([scores.top_k[k] for k in ("2", "3", "5")]) for _, scores in levels]))
    rows.append(("ROC-AUC / AP", [_shares([scores.roc_auc, scores.average_precision]) for _, scores in levels]))
    rows.append(("MCC / ECE", [f"{scores.mcc:5.2f} / {scores.ece:.2f}" for _, scores in levels]))
    rows.append(("cross-entropy", [f"{scores.cross_entropy:5.2f} nats" for _, scores in levels]))
    return "\n".join(f"{label:<{_LABEL}}" + "".join(f"{cell:<28}" for cell in cells).rstrip() for label, cells in rows)


def _shares(values: Sequence[float | None]) -> str:
    """Format shares beside each other: ` 50.0 / 75.0 / 100.0 %`; a dash for one that is undefined."""
    first, *others = (percentage(value, "").strip() for value in values)
    return " / ".join([f"{first:>5}", *others]) + " %"


def _joins(evaluation: Evaluation) -> Iterator[str]:
    """How slices were joined to tracks, and what other joins would give, if tracks have several slices."""
    if evaluation.by_slice is None or evaluation.by_slice.n > evaluation.n_tracks:
        others = ", ".join(
            f"{percentage(scores['accuracy']).strip()} by {name}"
            for name, scores in evaluation.joins.items()
            if name != evaluation.join
        )
        yield f"Slices are joined to tracks by {evaluation.join} (--join); the accuracy by track would be {others}."


def _interpretation(evaluation: Evaluation) -> Iterator[str]:
    """Sentences on the uncertainty of the scores, and on whether the model is better than guessing."""
    n, chance, scores = evaluation.n_tracks, evaluation.chance, evaluation.by_track
    units = "tracks, as artists are unknown" if evaluation.n_unattributed == n else "artists"
    yield f"In brackets: 95 % intervals, from {evaluation.bootstrap['resamples']:,} bootstrap samples of the {units}."
    yield from _joins(evaluation)
    if (found := evaluation.calibration) is not None:
        ece, entropy = found["ece"], found["cross_entropy"]
        tracks = counted(found["n_tracks"], "validation track")
        if found["temperature"] == 1:
            yield (
                f"Temperature: 1 (no better one can be told from {tracks}), so mgc predict --calibrated changes "
                f"nothing: ECE by track {ece['after']:.2f}, cross-entropy {entropy['after']:.2f} nats."
            )
        else:
            yield (
                f"Tempered by {found['temperature']:.2f}, which suits the {tracks} best: "
                f"ECE by track {ece['before']:.2f} -> {ece['after']:.2f}, cross-entropy {entropy['before']:.2f} -> "
                f"{entropy['after']:.2f} nats (mgc predict --calibrated)."
            )
    if evaluation.other_seeds is False:
        yield "Other seeds were not tried: the spread between seeds (`mgc train --seeds`) is not in the intervals."
    if absent := [genre for genre, row in scores.by_genre.items() if not row.support]:
        yield f"No track is {' or '.join(absent)}: the macro scores are those of the other genres."
    guessing = "guessing" if chance.level == chance.uniform else "always answering the commonest genre"
    guessing = f"{guessing} ({percentage(chance.level).strip()})"
    width = f"{100 * scores.accuracy_interval.width:.0f} points"
    precision = f"{_sample_size(evaluation)}: the interval of the accuracy spans {width}"
    if chance.least_accuracy is None:
        yield f"{precision}; even with all right it would not be distinguishable from {guessing}."
        return
    least = f"{percentage(chance.least_accuracy).strip()} ({round(chance.least_accuracy * n):,} of {n:,} right)"
    yield f"{precision}; an accuracy below {least} is not distinguishable from {guessing}."
    verdict = "better than" if chance.p_value < 0.05 else "not distinguishable from"
    yield f"Here {round(scores.accuracy * n):,} of {n:,} are right: {verdict} that (p {_p_value(chance.p_value)})."


def _genre_table(evaluation: Evaluation, width: int) -> str:
    """The table of precision, recall, F1 and support of each genre, by track and by slice."""
    levels = score_levels(evaluation)
    genres = list(evaluation.by_track.by_genre)
    block = sum(_GENRE_CELLS)
    labels = ellipsise(["genre", *genres], width - block * len(levels))
    margin = max(map(len, labels))

    def cells(*texts: str) -> str:
        return "".join(f"{text:>{size}}" for text, size in zip(texts, _GENRE_CELLS, strict=True))

    over = "".join(f"{'by ' + item:>{_GENRE_CELLS[0]}}".ljust(block) for item, _ in levels)
    heads = "".join(cells("precision", "recall", "F1", f"{item}s") for item, _ in levels)
    lines = [f"{'':{margin}}{over}".rstrip(), f"{labels[0]:{margin}}{heads}"]
    for label, genre in zip(labels[1:], genres, strict=True):
        rows = [scores.by_genre[genre] for _, scores in levels]
        values = [[percentage(value, unit="") for value in (row.precision, row.recall, row.f1)] for row in rows]
        texts = (cells(*shares, str(row.support)) for shares, row in zip(values, rows, strict=True))
        lines.append(f"{label:{margin}}" + "".join(texts))
    return "\n".join(lines)


def _confusion_table(scores: Scores, width: int) -> str:
    """The confusion matrix, true genres as rows; columns are numbered if their names would make it too wide."""
    genres = list(scores.by_genre)
    numbers = [str(number) for number in range(1, len(genres) + 1)]
    digits = len(numbers[-1])
    for heads, prefixes in (
        (abbreviate(genres), [""] * len(genres)),
        (numbers, [f"{number:>{digits}} " for number in numbers]),
    ):
        cell = 1 + max(len(str(entry)) for entry in (*heads, *np.ravel(scores.confusion)))
        room = width - cell * len(heads)
        is_numbered = heads is numbers
        labels = ellipsise(genres, min(_LABEL - 1, max(_MIN_LABEL, room - digits - 1) if is_numbered else _LABEL))
        rows = [prefix + label for prefix, label in zip(prefixes, labels, strict=True)]
        margin = max(map(len, ("true genre", *rows)))
        if margin <= room:
            break
    else:
        text = f"(the confusion matrix of {len(genres)} genres is too wide for a terminal; --json has it)"
        return wrapped([text], width)
    lines = [f"{'':{margin}} tracks taken for", f"{'true genre':{margin}}" + "".join(f"{h:>{cell}}" for h in heads)]
    for label, row in zip(rows, scores.confusion, strict=True):
        lines.append(f"{label:{margin}}" + "".join(f"{count or '.':>{cell}}" for count in row))
    return "\n".join(lines)


def abbreviate(names: Sequence[str], min_length: int = 4) -> list[str]:
    """Abbreviate names to their first letters: the fewest, at least `min_length`, that keep all names different."""
    for length in range(min_length, max(map(len, names), default=0) + 1):
        short = [name[:length].strip() for name in names]
        if len(set(short)) == len(names):
            return short
    return list(names)


def wrapped(paragraphs: Iterator[str] | Sequence[str], width: int = WIDTH) -> str:
    """Wrap paragraphs to a width, but not between a number and its percent sign."""
    return "\n".join(line for paragraph in paragraphs for line in wrapping.wrap(paragraph, width))


def counted(number: int, noun: str) -> str:
    """Format a number and its noun: `1 track`, `1,200 tracks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percentage(value: float | None, unit: str = " %") -> str:
    """Format a share, right-aligned to 5 digits; a dash if it is undefined."""
    return "–" if value is None else f"{100 * value:5.1f}{unit}"


def bracketed(interval: Interval) -> str:
    """Format an interval in per cent: `[40.1–80.3]`."""
    return f"[{100 * interval.low:.1f}–{100 * interval.high:.1f}]"


def _p_value(value: float) -> str:
    return f"= {value:.2g}" if value >= 0.001 else "< 0.001"
