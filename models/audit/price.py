"""The price of a leak: the accuracy that a split with leaks buys over a clean one, measured with a cheap classifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mgc.models.audit import probe
from mgc.models.audit.clean_splits import groups
from mgc.models.audit.findings import Finding
from mgc.models.evaluation import intervals, paired
from mgc.pipeline.datasets.grouping import assign_folds
from mgc.pipeline.errors import ModelError
from mgc.pipeline.store.store import Store
from mgc.pipeline.wrapping import wrap

#: Tracks that are used at most, five slices of each.
MAX_TRACKS = 800
#: Folds at most; fewer groups of tracks make fewer.
MAX_FOLDS = 5
_RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """Accuracy of one way to split.

    Attributes:
        split: `random by slice`, `random by track`, `the store's own` or `clean`.
        tracks: number of tested tracks.
        accuracy: share of them whose genre was recognised.
        interval: its 95 % interval.
        bought: accuracy that this split has over the clean one, of the same tracks; None for the clean one.
        bought_interval: 95 % interval of this difference, see `paired`.
    """

    split: str
    tracks: int
    accuracy: float
    interval: tuple[float, float]
    bought: float | None = None
    bought_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Price:
    """What leaks buy.

    Attributes:
        system: baseline that was trained.
        folds: number of folds; each track is tested once.
        slices: number of slices.
        rows: the ways to split, the clean one last.
        notes: tracks that were left out, and what else limits the comparison.
    """

    system: str
    folds: int
    slices: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def render(self, width: int) -> list[str]:
        """Write the ways to split as a table, and what to know of it, as lines of a width of 80 or more."""
        lines = [f"{'split':17}{'tracks':>7}{'accuracy':>10}  {'95 % interval':15}  more than clean, in points"]
        for row in self.rows:
            low, high = (100 * end for end in row.interval)
            line = f"{row.split:17}{row.tracks:7,}{100 * row.accuracy:8.1f} %  {f'[{low:.1f}–{high:.1f}]':15}"
            if row.bought is not None and row.bought_interval is not None:
                low, high = (100 * end for end in row.bought_interval)
                line += f"  {100 * row.bought:+5.1f} [{low:+.1f}, {high:+.1f}]"
            lines.append(line.rstrip())
        facts = [
            f"Accuracy by track of an SVM (that of {self.system}) on {self.slices:,} slices, in {self.folds} folds. "
            "Clean folds keep together what an artist, an album or a recording links. Differences are of the same "
            "tracks; groups of linked tracks are resampled."
        ]
        return lines + [line for fact in [*facts, *self.notes] for line in wrap(fact, width)]


def measure(
    store: Store,
    rows: list[dict[str, Any]],
    findings: Iterable[Finding],
    progress: Callable[[int], AbstractContextManager],
) -> Price:
    """Cross-validate a baseline with random folds of slices and of tracks, and with folds of groups of linked tracks.

    All test the same tracks and train on equally many, so differences are paired by track. The store's own split, if
    it has test tracks, is compared on these. Groups of linked tracks are resampled for the intervals: the tracks of an
    artist are right or wrong together.

    Args:
        store: store of mel, MFCC, chroma, STFT or power frames, or of statistics.
        rows: usable, labelled tracks: dicts of manifest columns.
        findings: findings of the audit; those of pairs link their tracks.
        progress: called with the number of fits; its context's value is called with 1 after each.

    Raises:
        ModelError: the store holds another feature, or fewer than two genres have two groups of tracks.
        StoreError: a shard is damaged.
    """
    rows, group, notes = _select(rows, findings)
    slices = probe.read(store, rows)
    n_folds = min(MAX_FOLDS, len(np.unique(group)))
    largest = np.bincount(group).max() / len(rows)
    if largest > 1 / n_folds:
        notes.append(
            f"One group of linked tracks has {100 * largest:.0f} % of them: the clean folds train on fewer tracks, "
            "which is a part of the difference."
        )
    by_track = {"random by track": np.arange(len(rows)), "clean": group}
    folds = {name: _folds(rows, keys, n_folds)[slices.tracks] for name, keys in by_track.items()}
    if len(slices.tracks) > len(rows):
        folds = {"random by slice": _slice_folds(slices, n_folds)} | folds
    else:
        notes.append("Each track is one slice, so slices cannot be split at random.")
    own = np.array([row["split"] for row in rows])
    own_test = np.flatnonzero(own == "test")
    own_training = np.flatnonzero(np.isin(own[slices.tracks], ["training", "validation"]))
    has_own = len(own_test) > 0 and len(np.unique(slices.genres[slices.tracks[own_training]])) > 1
    right: dict[str, np.ndarray] = {}
    with progress(len(folds) * n_folds + has_own) as advance:
        for name, fold in folds.items():
            right[name] = _cross_validate(slices, fold, lambda: advance(1))
        if has_own:
            tested = np.flatnonzero(own[slices.tracks] == "test")
            decisions = probe.decide(slices, own_training, tested)
            advance(1)
            right["the store's own"] = _right(slices, tested, decisions)[own_test]
    clean = right.pop("clean")
    result = [
        _row(name, values, clean[own_test] if name == "the store's own" else clean,
             group[own_test] if name == "the store's own" else group)
        for name, values in right.items()
    ]  # fmt: skip
    result.append(Row("clean", len(rows), float(clean.mean()), _accuracy_interval(clean, group)))
    if not has_own:
        notes.append("The store has no test tracks, or too few others: its own split is not priced.")
    return Price(probe.SYSTEM, n_folds, len(slices.tracks), tuple(result), tuple(notes))


def _select(
    rows: list[dict[str, Any]], findings: Iterable[Finding]
) -> tuple[list[dict[str, Any]], np.ndarray, list[str]]:
    """Choose tracks: of genres that two groups of linked tracks have, whole groups, `MAX_TRACKS` at most.

    Returns:
        The tracks, sorted by id; number of each track's group, int64 `(tracks,)`; and notes on what was left out.
    """
    linked, notes = groups(rows, findings), []
    group_of = {row["track_id"]: number for number, group in enumerate(linked) for row in group}
    used = sorted(rows, key=lambda row: row["track_id"])
    if len(rows) > MAX_TRACKS:
        kept = _draw(linked)
        used = [row for row in used if group_of[row["track_id"]] in kept]
        notes.append(f"{len(used):,} of {len(rows):,} tracks are used, in whole groups of linked tracks.")
    by_genre: dict[str, set[int]] = {row["genre"]: set() for row in rows}
    for row in used:
        by_genre[row["genre"]].add(group_of[row["track_id"]])
    lone = sorted(genre for genre, numbers in by_genre.items() if len(numbers) < 2)
    if len(by_genre) - len(lone) < 2:
        problem = "fewer than two genres have two artists or more"
        raise ModelError(problem, "a clean split needs artists of each genre on both sides")
    if lone:
        notes.append(f"Left out, as they are one group of linked tracks: {', '.join(map(repr, lone))}.")
    used = [row for row in used if row["genre"] not in lone]
    return used, np.unique([group_of[row["track_id"]] for row in used], return_inverse=True)[1], notes


def _draw(linked: list[list[dict[str, Any]]]) -> set[int]:
    """Draw groups of tracks at random, two of each genre first, as many as have `MAX_TRACKS` tracks; their numbers."""
    order = np.random.default_rng(0).permutation(len(linked)).tolist()
    seen: Counter[str] = Counter()
    first = set()
    for number in order:
        genres = {row["genre"] for row in linked[number]}
        if any(seen[genre] < 2 for genre in genres):
            first.add(number)
        seen.update(genres)
    drawn: set[int] = set()
    room = MAX_TRACKS
    for number in sorted(order, key=lambda number: number not in first):
        if len(linked[number]) <= room:
            drawn.add(number)
            room -= len(linked[number])
    return drawn


def _folds(rows: list[dict[str, Any]], keys: np.ndarray, n_folds: int) -> np.ndarray:
    """Assign tracks to folds, stratified by genre; tracks with the same key stay in one fold; int64 `(tracks,)`."""
    columns = {name: [row[name] for row in rows] for name in ("track_id", "genre", "split")}
    table = pa.table(columns | {"artist_id": [str(key) for key in keys]})
    return assign_folds(table, [1 / n_folds] * n_folds, seed=0)


def _slice_folds(slices: probe.Slices, n_folds: int) -> np.ndarray:
    """Deal slices to folds at random, stratified by genre, whatever their track; int64 `(slices,)`."""
    rng, genres = np.random.default_rng(0), slices.genres[slices.tracks]
    order = np.lexsort((rng.random(len(genres)), genres))
    folds = np.empty(len(genres), np.int64)
    folds[order] = np.arange(len(genres)) % n_folds
    return folds


def _cross_validate(slices: probe.Slices, fold: np.ndarray, advance: Callable[[], None]) -> np.ndarray:
    """Decide on the slices of each fold by the others; whether each track is right, bool `(tracks,)`."""
    decisions = np.empty((len(fold), slices.genres.max() + 1))
    for number in np.unique(fold):
        tested = np.flatnonzero(fold == number)
        decisions[tested] = probe.decide(slices, np.flatnonzero(fold != number), tested)
        advance()
    return _right(slices, np.arange(len(fold)), decisions)


def _right(slices: probe.Slices, tested: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Add up the decision values of the tested slices by track; whether each track is right, bool `(tracks,)`."""
    sums = np.zeros((len(slices.genres), decisions.shape[1]))
    np.add.at(sums, slices.tracks[tested], decisions)
    return sums.argmax(axis=1) == slices.genres


def _row(name: str, right: np.ndarray, clean: np.ndarray, group: np.ndarray) -> Row:
    gain = right.astype(float) - clean
    resampled = _resample(gain, group)
    error = paired.accuracy_error(gain, resampled, np.unique(group, return_counts=True)[1])
    bought = paired.span(float(gain.mean()), error, resampled)
    return Row(
        name,
        len(right),
        float(right.mean()),
        _accuracy_interval(right, group),
        bought.difference,
        (bought.low, bought.high),
    )


def _accuracy_interval(right: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    sizes = np.unique(group, return_counts=True)[1]
    interval = intervals.interval(float(right.mean()), _resample(right.astype(float), group), sizes)
    return interval.low, interval.high


def _resample(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Means of bootstrap samples of the groups, `(resamples,)`."""
    numbers = np.unique(group, return_inverse=True)[1]
    counts = np.stack([np.bincount(numbers, values), np.bincount(numbers)], axis=1)
    sums = intervals.resample(counts, _RESAMPLES, 0)
    return sums[:, 0] / sums[:, 1]
