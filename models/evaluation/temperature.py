"""Temperature: one number that makes probabilities say how often they are right, fitted on validation tracks.

C. Guo et al., "On calibration of modern neural networks", ICML 2017, divide logits by it. Here the probabilities of
whole tracks are tempered, `p ** (1 / T)` scaled to a sum of 1: the same for one slice, and possible for means over
slices and for systems without logits. The order of the genres stays as it is.

A temperature is used only if the validation tracks show that it helps: few of them say little of a model that is nearly
calibrated, and a temperature fitted on chance makes its probabilities worse (docs/decisions.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from mgc.models.evaluation import tables
from mgc.models.evaluation.calibration import expected_calibration_error, reliability
from mgc.models.runs.run import Run

#: Temperatures that are looked at.
_RANGE = (0.05, 20.0)
_LEAST = 1e-12
#: Nats by which a temperature must raise the log-likelihood of the validation tracks: the likelihood-ratio test of
#: T = 1 at 95 % (S. S. Wilks, Annals of Mathematical Statistics 9, 1938). Half the 95 % quantile of chi-square with one
#: degree of freedom, which is the square of a standard normal variable: 1.92.
LEAST_GAIN = NormalDist().inv_cdf(0.975) ** 2 / 2


@dataclass(frozen=True)
class Temperature:
    """A temperature, and what it was fitted on.

    Attributes:
        best: the one that makes the validation tracks most likely; above 1 if the probabilities are too sure.
        gain: nats by which it raises the log-likelihood of these tracks, their sum.
        n_tracks: number of validation tracks.
    """

    best: float
    gain: float
    n_tracks: int

    @property
    def helps(self) -> bool:
        """Whether the validation tracks tell `best` from 1, by `LEAST_GAIN`.

        The test counts tracks as independent. Those of one artist are not, so it is too generous: where the
        probabilities are right, chance passes it more often than once in twenty.
        """
        return self.gain > LEAST_GAIN

    @property
    def value(self) -> float:
        """The temperature that is used: `best` if it helps, else 1."""
        return self.best if self.helps else 1.0

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Temper probabilities `(n, K)` to rows that add up to 1; return them untouched if no temperature helps."""
        return temper(probabilities, self.value) if self.helps else probabilities

    def effect(self, truth: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
        """Temperature, and expected calibration error and cross-entropy of tracks, before and after.

        Args:
            truth: index of the true genre of each track, `(n,)`.
            probabilities: `(n, K)`.
        """
        pairs = {"before": probabilities, "after": self.apply(probabilities)}
        errors = {name: expected_calibration_error(reliability(truth, values)) for name, values in pairs.items()}
        entropies = {name: cross_entropy(truth, values) for name, values in pairs.items()}
        return {
            "temperature": self.value,
            "best_temperature": self.best,
            "gain": self.gain,
            "n_tracks": self.n_tracks,
            "ece": errors,
            "cross_entropy": entropies,
        }


def temper(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return `p ** (1 / T)`, scaled to rows that add up to 1; float64 `(n, K)`."""
    logs = np.log(np.maximum(probabilities, _LEAST)) / temperature
    powers = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def cross_entropy(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative logarithm of the probability of the true genre, in nats; see `temper` for the arguments."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], _LEAST)).mean())


def fit(truth: np.ndarray, probabilities: np.ndarray) -> Temperature:
    """Find the temperature with the lowest cross-entropy, and what it gains.

    Args:
        truth: index of the true genre of each track, `(n,)`.
        probabilities: `(n, K)`.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return cross_entropy(truth, temper(probabilities, float(np.exp(log_temperature))))

    found = minimize_scalar(loss, bounds=np.log(_RANGE), method="bounded")
    return Temperature(float(np.exp(found.x)), len(truth) * float(loss(0) - found.fun), len(truth))


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
