"""The table of several runs that are evaluated one by one, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mgc.models.evaluation.evaluation import Evaluation
from mgc.models.evaluation.report import bracketed, counted, left_out, percentage, place, wrapped
from mgc.models.runs.run import Run
from mgc.pipeline.escaping import visible, visible_fields
from mgc.pipeline.wrapping import WIDTH, ellipsise

#: Columns of a genre's name, and of its F1 in one run.
_GENRE, _F1 = 20, 8
#: Columns of the table of runs beside the models' names, and of the mark of a leaky run.
_CELLS, _MARK = 61, 7


def text(
    runs: Sequence[Run],
    evaluations: Sequence[Evaluation],
    files: Sequence[Sequence[Path]],
    *,
    by_genre: bool = False,
    width: int = WIDTH,
) -> str:
    """Render the scores of runs as a table, one row per run, and where the files of each are.

    Args:
        runs: the runs, at least one.
        evaluations: evaluation of each run, all of one split.
        files: files that the evaluation of each run has written.
        by_genre: add a table of the F1 of each genre by track.
        width: columns of the terminal, at least 80. Only a path may be longer; tables shorten names.
    """
    evaluations = [visible_fields(evaluation) for evaluation in evaluations]
    first = evaluations[0]
    where = f"its own {first.split} split" if first.other is None else place(first)
    blocks = [
        f"{counted(len(runs), 'run')}, each on {where}; in brackets: 95 % intervals",
        "\n".join(_rows(evaluations, width)),
    ]
    others = list(_other_tracks(evaluations))
    if not others and first.other is None:
        option = "" if first.split == "test" else f" --split {first.split}"
        others.append(f"`mgc compare{option}` on these runs says which of them differ.")
    if notes := [*_notes(evaluations), *others]:
        blocks.append(wrapped(notes, width))
    if by_genre:
        blocks += _genre_blocks(evaluations, width)
    names = ", ".join(path.name for path in files[0])
    folders = [f"{number:>3}  {visible(str(run.path))}" for number, run in enumerate(runs, 1)]
    blocks.append("\n".join([wrapped([f"written to the folder of each run: {names}"], width), *folders]))
    return "\n\n".join(blocks)


def _rows(evaluations: Sequence[Evaluation], width: int) -> Iterator[str]:
    """Head and rows of the table of runs."""
    room = width - _CELLS - (_MARK if any(evaluation.leaky for evaluation in evaluations) else 0)
    models = ellipsise([evaluation.runs[0]["model"] for evaluation in evaluations], room)
    margin = max(map(len, models))
    yield f"run  {'model':{margin}} {'seed':>5} {'tracks':>7} {'accuracy by track':>21} {'macro F1':>9} {'by slice':>9}"
    for number, (model, evaluation) in enumerate(zip(models, evaluations, strict=True), 1):
        by_track, slices = evaluation.by_track, evaluation.by_slice
        accuracy = f"{percentage(by_track.accuracy)} {bracketed(by_track.accuracy_interval)}"
        cells = (
            f"{accuracy:>21} {percentage(by_track.macro_f1):>9} {percentage(slices.accuracy if slices else None):>9}"
        )
        mark = "  LEAKY" if evaluation.leaky else ""
        seed, tracks = evaluation.runs[0]["seed"], evaluation.n_tracks
        yield f"{number:>3}  {model:{margin}} {seed:>5} {tracks:>7,} {cells}{mark}"


def _notes(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """What a reader must know of single runs before comparing them."""
    for number, evaluation in enumerate(evaluations, 1):
        by_slice = evaluation.runs[0].get("split_unit") == "slice"
        if evaluation.n_heard and not by_slice:
            of = counted(evaluation.n_tracks, "track")
            yield f"run {number} is LEAKY: the files of {evaluation.n_heard:,} of {of} are also tracks it was made of."
        elif evaluation.leaky:
            yield f"run {number} is LEAKY: slices of one track were on both sides of its split."
        if evaluation.audit and not evaluation.audit["clean"]:
            yield f"run {number} is NOT CLEAN: {evaluation.audit['line']}"
        if (evaluation.evaluations or 0) > 1 and evaluation.split == "test":
            yield f"run {number}: its test split has been evaluated {evaluation.evaluations} times."
    if (other := evaluations[0].other) is not None:
        yield from left_out(other)
    elif evaluations[0].split != "test":
        yield f"NOT A TEST: the {evaluations[0].split} split helped to make these models; the scores may flatter them."


def _other_tracks(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Which runs were scored on other tracks than the first: their scores are not comparable."""
    tracks = [{(evaluation.dataset, id) for id in evaluation.track_ids} for evaluation in evaluations]
    for number, other in enumerate(tracks[1:], 2):
        if other != tracks[0]:
            shared = len(other & tracks[0])
            yield (
                f"run {number} was scored on OTHER TRACKS than run 1: {shared:,} of its {counted(len(other), 'track')} "
                "are the same; such scores do not compare."
            )


def _genre_blocks(evaluations: Sequence[Evaluation], width: int) -> Iterator[str]:
    """Tables of the F1 of each genre by track, with a column for each run, as many as fit."""
    genres = dict.fromkeys(genre for evaluation in evaluations for genre in evaluation.by_track.by_genre)
    labels = ellipsise(list(genres), _GENRE - 1)
    n_beside = (width - _GENRE) // _F1
    for start in range(0, len(evaluations), n_beside):
        block = evaluations[start : start + n_beside]
        heads = "".join(f"{f'run {start + number}':>{_F1}}" for number in range(1, len(block) + 1))
        lines = [f"{'F1 by track, in %':{_GENRE}}{heads}"]
        for label, genre in zip(labels, genres, strict=True):
            rows = [evaluation.by_track.by_genre.get(genre) for evaluation in block]
            cells = "".join(f"{percentage(row.f1 if row else None, unit=''):>{_F1}}" for row in rows)
            lines.append(f"{label:{_GENRE}}{cells}")
        yield "\n".join(lines)
