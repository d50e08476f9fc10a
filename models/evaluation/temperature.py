"""Temperature: one number that makes probabilities say how often they are right, fitted on validation tracks.

C. Guo et al., "On calibration of modern neural networks", ICML 2017, divide logits by it. Here the probabilities of
whole tracks are tempered, `p ** (1 / T)` scaled to a sum of 1: the same for one slice, and possible for means over
slices and for systems without logits. The order of the genres stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mgc.models.evaluation import tables
from mgc.models.evaluation.calibration import expected_calibration_error, reliability
from mgc.models.runs.run import Run

#: Temperatures that are looked at.
_RANGE = (0.05, 20.0)
_LEAST = 1e-12


@dataclass(frozen=True)
class Temperature:
    """A temperature, and what it was fitted on.

    Attributes:
        value: above 1 if the probabilities are too sure.
        n_tracks: number of validation tracks.
    """

    value: float
    n_tracks: int

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Temper probabilities `(n, K)`; each row adds up to 1."""
        return temper(probabilities, self.value)

    def effect(self, truth: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
        """Expected calibration error and cross-entropy of tracks, before and after.

        Args:
            truth: index of the true genre of each track, `(n,)`.
            probabilities: `(n, K)`.
        """
        pairs = {"before": probabilities, "after": self.apply(probabilities)}
        errors = {name: expected_calibration_error(reliability(truth, values)) for name, values in pairs.items()}
        entropies = {name: cross_entropy(truth, values) for name, values in pairs.items()}
        return {"temperature": self.value, "n_tracks": self.n_tracks, "ece": errors, "cross_entropy": entropies}


def temper(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return `p ** (1 / T)`, scaled to rows that add up to 1; float64 `(n, K)`."""
    logs = np.log(np.maximum(probabilities, _LEAST)) / temperature
    powers = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def cross_entropy(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative logarithm of the probability of the true genre, in nats; see `temper` for the arguments."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], _LEAST)).mean())


def fit(truth: np.ndarray, probabilities: np.ndarray) -> Temperature:
    """Find the temperature with the lowest cross-entropy.

    Args:
        truth: index of the true genre of each track, `(n,)`.
        probabilities: `(n, K)`.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return cross_entropy(truth, temper(probabilities, float(np.exp(log_temperature))))

    found = minimize_scalar(loss, bounds=np.log(_RANGE), method="bounded")
    return Temperature(float(np.exp(found.x)), len(truth))


def of_run(run: Run, name: str) -> Temperature | None:
    """Fit the temperature on the validation tracks of a run; None if it was not evaluated on them.

    Args:
        run: the run.
        name: name of the table of its predictions for these tracks.

    Raises:
        RunError: the table is damaged.
    """
    try:
        return fit(*tables.read_tracks(run, name))
    except FileNotFoundError:
        return None
