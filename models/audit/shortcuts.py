"""Shortcuts: marks of a file's encoding, level and length that tell its genre without the music.

A small decision tree guesses the genre from one mark, or from all marks of the encoding together. It is tested on
artists that it was not trained on. Where it does clearly better than always naming the largest genre, or tells a single
genre from the others, a model may do so too, and its scores then say less about music.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgc.models.audit.findings import Finding
from mgc.models.evaluation import intervals
from mgc.pipeline.fingerprints.levels import Levels

#: Probability, at most, that an audit of files without any shortcut names one. One half is for accuracies, one for
#: single genres; each is shared out evenly among the tests (Bonferroni).
FALSE_ALARMS = 0.01
#: Accuracy above chance from which on a mark of the encoding is a warning: what it may add to a model's scores is then
#: no longer small beside the differences between models.
SERIOUS = 0.05
#: Folds, and fewest groups of tracks by one artist.
FOLDS = 5
#: A genre is given away if the share of its artists that are told exceeds that of others mistaken for it by this much.
GIVEN_AWAY = 0.5
_NAMED = 3
#: Marks that the encoding leaves; the others belong to the music as well.
ENCODING = ("bit rate", "sample rate", "channels", "encoder", "low-pass")
TOGETHER = "encoding"

_EFFECT = {
    True: "A model can learn the encoding instead of the music; music from elsewhere is then told worse than here.",
    False: "It is no fault by itself, but scores above chance need not come from anything else in the music.",
}
_REMEDY = "encode all files alike, at the lowest bit rate and sample rate among them, and run mgc extract again"


@dataclass(frozen=True)
class Shortcut:
    """How well one mark tells the genre.

    Attributes:
        mark: what the tree knows of a file: one of the marks, or `TOGETHER` for all of `ENCODING`.
        accuracy: share of tracks that it tells right, of artists that it was not trained on.
        chance: share of the largest genre.
        p_value: probability that guessing at this level is right at least as often; all tracks of an artist count as
            right or wrong together.
        right: whether each track is told right, bool `(n,)`.
        genres: genres that it gives away, the clearest first.
        n_tests: number of marks that were tested.
    """

    mark: str
    accuracy: float
    chance: float
    p_value: float
    right: np.ndarray
    genres: list[str]
    n_tests: int

    @property
    def is_above_chance(self) -> bool:
        """True if the accuracy is above chance, beyond doubt."""
        return self.p_value * self.n_tests <= FALSE_ALARMS / 2

    def as_dict(self) -> dict[str, Any]:
        """Return the result as an object for JSON."""
        return {
            "mark": self.mark,
            "accuracy": round(self.accuracy, 4),
            "chance": round(self.chance, 4),
            "p_value": self.p_value,
            "genres": self.genres,
        }


def measure(rows: list[dict[str, Any]], levels: Mapping[str, Levels]) -> list[Shortcut]:
    """Measure how well each mark tells the genre.

    Args:
        rows: usable, labelled tracks: dicts with `track_id`, `genre`, `artist_id`, `album_id`, `size`, `duration_s`,
            `sample_rate`, `channels`, `stereo_image` and `encoder`.
        levels: levels by track id; empty if the store does not show them.

    Returns:
        A result for each mark that is known of all tracks, and one for those of the encoding together; none if there
        are fewer than two genres or `FOLDS` artists.
    """
    genres, labels = np.unique([row["genre"] for row in rows], return_inverse=True)
    groups = _groups(rows)
    if len(genres) < 2 or len(np.unique(groups)) < FOLDS:
        return []
    columns = _columns(rows, levels)
    marks = {mark: column[:, None] for mark, column in columns.items()}
    if together := [column for mark, column in columns.items() if mark in ENCODING]:
        marks[TOGETHER] = np.stack(together, axis=1)
    results = []
    for mark, values in marks.items():
        guesses = _guess(values, labels, groups)
        right = guesses == labels
        sizes, majority = np.unique(groups, return_counts=True)[1], np.bincount(labels).max() / len(labels)
        chance = intervals.chance(int(right.sum()), sizes, 1 / len(genres), majority)
        given_away = _given_away(guesses, labels, groups, FALSE_ALARMS / 2 / len(marks) / len(genres))
        names = [str(genres[genre]) for genre in given_away]
        results.append(Shortcut(mark, float(right.mean()), chance.level, chance.p_value, right, names, len(marks)))
    return results


def find_shortcuts(rows: list[dict[str, Any]], results: list[Shortcut]) -> list[Finding]:
    """Return a finding for each mark that is a shortcut; for all marks together only if no single one is."""
    findings: list[Finding] = []
    for result in results:
        gain = result.accuracy - result.chance
        if not (result.is_above_chance or result.genres) or (result.mark == TOGETHER and findings):
            continue
        is_encoding = result.mark in (*ENCODING, TOGETHER)
        subject = "All marks of the encoding together tell" if result.mark == TOGETHER else f"The {result.mark} tells"
        named = ", ".join(repr(genre) for genre in result.genres[:_NAMED])
        more = f" and {len(result.genres) - _NAMED} more" if len(result.genres) > _NAMED else ""
        detail = f"{subject} the genre of {result.accuracy:.0%} of the tracks by other artists (chance"
        detail += f" {result.chance:.0%}){', above all ' + named + more if named else ''}"
        tracks = tuple(row["track_id"] for row, right in zip(rows, result.right, strict=True) if right)
        severity = "warning" if is_encoding and (gain >= SERIOUS or result.genres) else "info"
        remedy = _REMEDY if is_encoding else ""
        findings.append(Finding("shortcut", severity, tracks, detail, _EFFECT[is_encoding], remedy, result.as_dict()))
    return findings


def _groups(rows: list[dict[str, Any]]) -> np.ndarray:
    """Return a number for each artist, for each album whose artist is unknown, and for each other track."""
    names = [
        ("artist", row["artist_id"])
        if row["artist_id"] is not None
        else ("album", row["album_id"])
        if row["album_id"] is not None
        else ("track", row["track_id"])
        for row in rows
    ]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def _columns(rows: list[dict[str, Any]], levels: Mapping[str, Levels]) -> dict[str, np.ndarray]:
    """Return the marks that are known of all tracks, float `(n,)` each."""

    def known(*names: str) -> bool:
        return all(row[name] is not None for row in rows for name in names)

    columns = {}
    if known("size", "duration_s"):
        # Of the file, as datasets state it rarely; tags and pictures count too.
        columns["bit rate"] = np.array([8 * row["size"] / max(row["duration_s"], 0.1) for row in rows])
    if known("sample_rate"):
        columns["sample rate"] = np.array([float(row["sample_rate"]) for row in rows])
    has_image = known("stereo_image")
    if known("channels"):
        columns["channels"] = _codes([(row["channels"], row["stereo_image"] if has_image else None) for row in rows])
    if known("encoder"):
        columns["encoder"] = _codes([row["encoder"] for row in rows])
    if known("duration_s"):
        columns["duration"] = np.array([row["duration_s"] for row in rows])
    measured = [levels[row["track_id"]] for row in rows if row["track_id"] in levels]
    if len(measured) == len(rows):
        columns["level"] = np.array([level.level_db for level in measured])
        # Without a low-pass: a frequency above those of all others.
        columns["low-pass"] = np.array([level.low_pass_hz or 1e6 for level in measured])
    return columns


def _codes(values: list[Any]) -> np.ndarray:
    return np.unique([repr(value) for value in values], return_inverse=True)[1].astype(float)


def _guess(columns: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Guess labels, int `(n,)`, from columns, float `(n, columns)`, by trees that were trained on other groups."""
    from sklearn.model_selection import GroupKFold
    from sklearn.tree import DecisionTreeClassifier

    counts, guesses = np.bincount(labels), np.empty_like(labels)
    for train, test in GroupKFold(FOLDS).split(columns, labels, groups):
        tree = DecisionTreeClassifier(max_depth=6, min_samples_leaf=max(2, len(train) // 200), random_state=0)
        # Weighted as if each genre had the share among the training tracks that it has among all: without that, a
        # genre is guessed the more often the fewer of its tracks are tested.
        weights = counts / np.maximum(1, np.bincount(labels[train], minlength=len(counts)))
        guesses[test] = tree.fit(columns[train], labels[train], weights[labels[train]]).predict(columns[test])
    return guesses


def _given_away(guesses: np.ndarray, labels: np.ndarray, groups: np.ndarray, limit: float) -> list[int]:
    """Return the genres that guesses tell from all others, the clearest first.

    An artist counts once: as told if at least half of the tracks are. Fisher's exact test says whether artists of a
    genre are taken for it more often than others.

    Args:
        guesses: guessed genre of each track, int `(n,)`.
        labels: genre of each track.
        groups: number of the artist of each track.
        limit: largest p-value of a genre that counts.
    """
    from scipy.stats import fisher_exact

    # An artist of several genres counts in each of them.
    artists, artist_of = np.unique(np.stack([groups, labels]), axis=1, return_inverse=True)
    sizes = np.bincount(artist_of)
    clearness = {}
    for genre in range(labels.max() + 1):
        told = np.bincount(artist_of, weights=guesses == genre) >= sizes / 2
        own = artists[1] == genre
        table = [[np.sum(told & own), np.sum(~told & own)], [np.sum(told & ~own), np.sum(~told & ~own)]]
        difference = told[own].mean() - told[~own].mean()
        if difference >= GIVEN_AWAY and fisher_exact(table, alternative="greater").pvalue <= limit:
            clearness[genre] = difference
    return sorted(clearness, key=lambda genre: -clearness[genre])
