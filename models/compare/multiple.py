"""Many comparisons at once: Holm's correction, and letters for systems that do not differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm, "A simple sequentially rejective multiple test procedure", 1979).

    Returns:
        Adjusted p-values in the same order. With those below 0.05 called differences, the probability of calling any
        that is none is at most 5 %, whatever the tests have in common.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    result = np.empty_like(values)
    result[order] = np.minimum(adjusted, 1)
    return [float(value) for value in result]


def letters(count: int, different: Iterable[tuple[int, int]]) -> list[str]:
    """Give letters to systems, so that two of them share a letter exactly if they do not differ.

    Insert and absorb: Piepho, "An algorithm for a letter-based representation of all-pairwise comparisons", Journal of
    Computational and Graphical Statistics 13, 2004.

    Args:
        count: number of systems, numbered from 0, the best one first.
        different: pairs of systems that differ.
    """
    columns = [frozenset(range(count))]
    for first, second in different:
        split: list[frozenset[int]] = []
        for column in columns:
            both = first in column and second in column
            split += [column - {first}, column - {second}] if both else [column]
        distinct = list(dict.fromkeys(split))
        columns = [column for column in distinct if not any(column < other for other in distinct)]
    columns.sort(key=sorted)
    return ["".join(_letter(number) for number, column in enumerate(columns) if row in column) for row in range(count)]


def _letter(number: int) -> str:
    """The letter of a column: a, b, ... z, then with a number: a1, b1."""
    repeat, index = divmod(number, 26)
    return chr(ord("a") + index) + (str(repeat) if repeat else "")
