"""Coverage of the intervals and error rates of the tests of `mgc compare`, by simulation.

    python benchmarks/compare.py            a quarter of an hour on one core
    python benchmarks/compare.py --smoke    smallest sizes; the figures mean nothing

A simulated system has a track right if a sum of normal variables is above a threshold: what the track and its artist
are like for every system, what the artist is like for this system, the seed of the training, and a rest. So the true
accuracy is that of all tracks by all artists, and of all seeds. An artist plays one genre.

- coverage: share of the 95 % intervals of a paired difference that contain the true one, of accuracy and of macro F1;
  and of the percentiles of the bootstrap over artists.
- errors: share of pairs of equal systems that a test at 5 % calls different: McNemar's exact test over tracks; the same
  over artists; and, of systems that were trained several times, the test by Student's t.
- families: how often any two of several equal systems are called different: after Holm's correction over all pairs, as
  `mgc compare` does; over the pairs with the best one only; and without any correction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from common import table
from scipy import stats

from mgc.models.compare.multiple import holm
from mgc.models.compare.pairs import Pair, compare_all
from mgc.models.compare.scores import Items, measure
from mgc.models.evaluation.paired import Span


@dataclass(frozen=True)
class World:
    """Artists, and the variances of what makes a track right; the rest up to 1 is independent noise.

    Attributes:
        artists: number of artists.
        sizes: numbers of tracks that an artist may have, equally often.
        artist: variance between artists, for every system alike.
        own_artist: variance between artists, for each system.
        track: variance between tracks, for every system alike.
        genres: number of genres.
    """

    artists: int
    sizes: tuple[int, ...]
    artist: float = 0.2
    own_artist: float = 0.1
    track: float = 0.3
    genres: int = 4


#: Artists and the tracks that one may have: the small test split of a demonstration, and two of the usual size.
WORLDS = {
    "10 artists, 1 to 4 tracks": World(10, (1, 1, 1, 2, 2, 4)),
    "30 artists, 1 to 4 tracks": World(30, (1, 1, 2, 4)),
    "100 artists, 1 to 4 tracks": World(100, (1, 1, 2, 4)),
    "100 artists, 1 to 10 tracks": World(100, (1, 2, 10)),
}
#: True accuracies of two systems.
ACCURACIES = ((0.6, 0.6), (0.7, 0.5), (0.95, 0.9))
#: Variance of the seed: trainings of an accuracy of 60 % then have a standard deviation of 8.6 points.
SEED = 0.05


def draw(
    world: World, accuracies: Sequence[float], trainings: int, rng: np.random.Generator
) -> tuple[Items, list[np.ndarray]]:
    """Draw tracks, and the predictions of systems with these true accuracies, `(trainings, tracks)` each.

    Of a single training, the seed has no variance: nothing can be learnt about it then.
    """
    seed = SEED if trainings > 1 else 0.0
    artists = np.repeat(np.arange(world.artists), rng.choice(world.sizes, world.artists))
    n = len(artists)
    truth = rng.integers(world.genres, size=world.artists)[artists]
    common = np.sqrt(world.artist) * rng.standard_normal(world.artists)[artists]
    common += np.sqrt(world.track) * rng.standard_normal(n)
    rest = np.sqrt(1 - world.artist - world.own_artist - world.track - seed)
    systems = []
    for accuracy in accuracies:
        suits = np.sqrt(world.own_artist) * rng.standard_normal(world.artists)[artists]
        sums = common + suits + np.sqrt(seed) * rng.standard_normal((trainings, 1))
        right = sums + rest * rng.standard_normal((trainings, n)) > -stats.norm.ppf(accuracy)
        wrong = (truth + rng.integers(1, world.genres, size=right.shape)) % world.genres
        systems.append(np.where(right, truth, wrong))
    return Items(truth, artists, tuple(map(str, range(world.genres)))), systems


def pairs_of(
    world: World, accuracies: Sequence[float], trainings: int, n: int, resamples: int, seed: int = 0
) -> Iterator[list[Pair]]:
    """Draw and compare systems n times."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        items, systems = draw(world, accuracies, trainings, rng)
        yield compare_all(items, [measure(items, each, n_resamples=resamples) for each in systems])[0]


def true_macro_f1(world: World, accuracies: Sequence[float]) -> list[float]:
    """Macro F1 on very many tracks."""
    items, systems = draw(replace(world, artists=200_000, sizes=(1,)), accuracies, 1, np.random.default_rng(1))
    return [measure(items, each, n_resamples=1).macro_f1 for each in systems]


def contains(span: Span, value: float) -> bool:
    return span.low <= value <= span.high


def coverage(n: int, resamples: int) -> Iterator[tuple[str, ...]]:
    """Rows of the table of coverage."""
    for name, world in WORLDS.items():
        for accuracies in ACCURACIES:
            truth = accuracies[0] - accuracies[1]
            f1 = true_macro_f1(world, accuracies)
            for trainings in (1, 3):
                pairs = [pair for (pair,) in pairs_of(world, accuracies, trainings, n, resamples)]
                shares = (
                    np.mean([pair.accuracy.percentiles[0] <= truth <= pair.accuracy.percentiles[1] for pair in pairs]),
                    np.mean([contains(pair.accuracy, truth) for pair in pairs]),
                    np.mean([contains(pair.macro_f1, f1[0] - f1[1]) for pair in pairs]),
                )
                both = " and ".join(f"{100 * accuracy:.0f}" for accuracy in accuracies)
                yield name, both, str(trainings), *(f"{100 * share:.1f}" for share in shares)


def errors(n: int, resamples: int) -> Iterator[tuple[str, ...]]:
    """Rows of the table of error rates."""
    for name, world in WORLDS.items():
        once = [pair for (pair,) in pairs_of(world, (0.6, 0.6), 1, n, resamples)]
        thrice = [pair for (pair,) in pairs_of(world, (0.6, 0.6), 3, n, resamples)]
        rates = (
            np.mean([pair.mcnemar is not None and pair.mcnemar < 0.05 for pair in once]),
            np.mean([pair.p < 0.05 for pair in once]),
            np.mean([pair.p < 0.05 for pair in thrice]),
        )
        yield name, *(f"{100 * rate:.1f}" for rate in rates)


def families(n: int, resamples: int) -> Iterator[tuple[str, ...]]:
    """Rows of the table of families."""
    world = WORLDS["100 artists, 1 to 4 tracks"]
    for count in (3, 6, 12):
        for trainings in (1, 3):
            called: list[tuple[bool, bool, bool]] = []
            for pairs in pairs_of(world, [0.6] * count, trainings, n, resamples):
                # The most accurate one is furthest ahead of the others.
                lead = np.zeros(count)
                for pair in pairs:
                    lead[pair.first] += pair.accuracy.difference
                    lead[pair.second] -= pair.accuracy.difference
                best = int(lead.argmax())
                with_best = [pair.p for pair in pairs if best in (pair.first, pair.second)]
                called.append(
                    (
                        any(pair.differs for pair in pairs),
                        min(holm(with_best)) < 0.05,
                        min(pair.p for pair in pairs) < 0.05,
                    )
                )
            yield str(count), str(trainings), *(f"{100 * share:.1f}" for share in np.mean(called, axis=0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="smallest sizes")
    parser.add_argument("--repetitions", type=int, default=1000, help="simulations per row")
    parser.add_argument("--resamples", type=int, default=300, help="bootstrap samples")
    arguments = parser.parse_args()
    n, resamples = (3, 20) if arguments.smoke else (arguments.repetitions, arguments.resamples)
    heads = ("tracks", "true accuracies, %", "trainings", "percentiles", "accuracy", "macro F1")
    print("Coverage of the 95 % interval of a difference, in %\n\n" + table(heads, coverage(n, resamples)), flush=True)
    heads = ("tracks", "McNemar over tracks", "over artists", "t, three trainings each")
    print("\nEqual systems called different at 5 %, in %\n\n" + table(heads, errors(n, resamples)), flush=True)
    heads = ("equal systems", "trainings", "Holm, all pairs", "Holm, pairs with the best", "uncorrected")
    print("\nAny of several equal systems called different, in %\n\n" + table(heads, families(n // 2 + 1, resamples)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
