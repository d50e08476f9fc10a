"""Sampling: which slices an epoch has when it is not each of them once."""

from __future__ import annotations

import numpy as np


def balanced(strata: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """As many slices as there are, of which each stratum has the same number, to within one.

    Systematic sampling (Madow, 1944): along all slices, laid out by stratum and at random within it, with steps that
    take in the same share of every stratum. A slice comes at most once more than any other one of its stratum.

    Args:
        strata: what is balanced, such as the class or the track of each slice, as indices from 0, `(slices,)`.
        generator: only its `random` is used, whose stream NumPy has never changed.

    Returns:
        Rows of the slices, int64 `(slices,)`, in no order that a caller may rely on.
    """
    n = len(strata)
    laid_out = np.lexsort((generator.random(n), strata))
    edges = np.cumsum(1 / np.bincount(strata)[strata[laid_out]])
    steps = np.searchsorted(edges * (n / edges[-1]), np.arange(n) + generator.random(), side="right")
    return laid_out[np.minimum(steps, n - 1)]
