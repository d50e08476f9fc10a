"""The sentences of a report: what its headline number means, and what it does not mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc

from mgc.models.evaluation.report import counted
from mgc.models.report.charts import percent
from mgc.models.report.results import Results
from mgc.models.runs.run import Run

#: Fewest tracks of a genre for which its own score says something.
_FEW_TRACKS = 10


def headline(metrics: dict[str, Any]) -> str:
    """Say the accuracy and its interval in words."""
    scores, n = metrics["by_track"], metrics["n_tracks"]
    low, high = (percent(scores["accuracy_interval"][end]) for end in ("low", "high"))
    right = round(scores["accuracy"] * n)
    unit = "tracks" if metrics["n_unattributed"] == n else "artists"
    tracks = counted(n, f"{metrics['split']} track")
    return (
        f"{right:,} of {tracks} got the right genre. With other {unit} of the same kind "
        f"it could as well have been {low} to {high} (95 % interval)."
    )


def meaning(results: Results) -> Iterator[str]:
    """Say what the number means: what it was measured on, and how it compares with guessing."""
    metrics = results.metrics
    chance = metrics["chance"]
    n, unattributed = metrics["n_tracks"], metrics["n_unattributed"]
    artists = "unknown artists" if unattributed == n else counted(metrics["n_artists"], "artist")
    yield f"Measured on {counted(n, 'track')} by {artists}, in {counted(len(results.genres), 'genre')}."
    guess = "guessing" if chance["level"] == chance["uniform"] else "always naming the commonest genre"
    if chance["least_accuracy"] is None:
        yield f"There are too few artists to tell any result from {guess} ({percent(chance['level'])})."
    elif chance["p_value"] < 0.05:
        p = "p < 0.001" if chance["p_value"] < 0.001 else f"p = {chance['p_value']:.2g}"
        yield f"Better than {guess}, which reaches {percent(chance['level'])} ({p})."
    else:
        least = percent(chance["least_accuracy"])
        yield f"Not distinguishable from {guess} ({percent(chance['level'])}): that would take at least {least}."
    shared = _shared_artists(results.run, results.split)
    if shared is not None and not shared and results.split == "test":
        yield "None of these artists is in the training or validation split: the system knew none of them."
    if metrics.get("audit") and metrics["audit"]["clean"]:
        yield metrics["audit"]["line"]


def cautions(results: Results) -> Iterator[str]:
    """Say what the number does not mean: leaks, other seeds, repeated tests, small genres."""
    metrics = results.metrics
    n = metrics["n_tracks"]
    if metrics["n_heard"]:
        yield (
            f"Leaky: the files of {metrics['n_heard']:,} of {counted(n, 'track')} are also training or validation "
            "tracks, byte for byte. The score is too good."
        )
    elif metrics["leaky"]:
        yield "Leaky: slices of one track were on both sides of the split. The score is that of tracks heard before."
    if results.split == "training":
        yield "No test: the system was fitted to these very tracks."
    if results.split == "validation":
        yield "No test: a network keeps the epoch that suits these tracks best."
    shared = _shared_artists(results.run, results.split)
    if shared:
        yield f"{counted(shared, 'artist')} of these tracks also stand in another split: their sound was known."
    audit = metrics.get("audit")
    if audit and not audit["clean"]:
        yield audit["line"]
    if audit is None and results.split == "test":
        yield (
            "Nobody has looked for copies and shared artists in this dataset since its splits last changed: "
            "run `mgc audit`."
        )
    if metrics.get("other_seeds") is False:
        yield (
            "One training, one seed: another seed of the same network may score several points more or less. "
            "The interval is that of other artists, not of other trainings."
        )
    if (metrics.get("evaluations") or 0) > 1 and results.split == "test":
        times = metrics["evaluations"]
        yield f"The test split of this run has been evaluated {times} times: choices made between flatter it."
    by_genre = metrics["by_track"]["by_genre"]
    small = [genre for genre, row in by_genre.items() if 0 < row["support"] < _FEW_TRACKS]
    if len(small) == len(by_genre):
        yield f"Every genre has fewer than {_FEW_TRACKS} tracks: scores of single genres say little."
    elif small:
        names = ", ".join(small[:6]) + (f" and {len(small) - 6} more" if len(small) > 6 else "")
        yield f"Fewer than {_FEW_TRACKS} tracks in {names}: scores of these genres say little."
    if absent := sum(not row["support"] for row in by_genre.values()):
        yield f"{counted(absent, 'genre')} without any track: the macro scores are those of the others."
    if differences := metrics["differences"]:
        n_settings = counted(len(differences), "setting")
        yield f"Not as published in {n_settings}, listed at the end of this page."
    yield "Genres are labels that someone gave; the score says how well the system repeats them on music like this."


def _shared_artists(run: Run, split: str) -> int | None:
    """Number of artists of a split that are also in another one; None if no artist is known, or for training."""
    if split == "training":
        return None
    tracks = run.selection.tracks
    own = pc.equal(tracks["split"], split)
    artists = pc.unique(tracks["artist_id"].filter(own)).drop_null()
    if not len(artists):
        return None
    others = pc.unique(tracks["artist_id"].filter(pc.invert(own))).drop_null()
    return int(pc.sum(pc.is_in(artists, value_set=others)).as_py())
