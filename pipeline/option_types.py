"""Types of numeric command-line options: a value out of range is refused before a command begins."""

from __future__ import annotations

import math
from typing import Any

import click

from mgc.pipeline.errors import SpecError

#: Largest seed: that of NumPy's and scikit-learn's older generators.
MAX_SEED = 2**32 - 1
#: Largest value of other whole numbers.
_MAX_WHOLE = 2**31 - 1


class Whole(click.ParamType):
    """Click parameter type: a whole number in a range.

    Args:
        minimum: smallest valid value.
        maximum: largest valid value.
    """

    name = "integer"

    def __init__(self, minimum: int, maximum: int = _MAX_WHOLE) -> None:
        self._minimum, self._maximum = minimum, maximum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Convert the text to an `int`.

        Raises:
            SpecError: the number is out of range.
        """
        number = click.INT.convert(value, param, ctx)
        if number < self._minimum:
            raise SpecError(f"{_name(param)} {number}", f"it must be at least {self._minimum}")
        if number > self._maximum:
            raise SpecError(f"{_name(param)} {number}", f"it must be at most {self._maximum}")
        return number


class Real(click.ParamType):
    """Click parameter type: a finite number in a range.

    Args:
        range_text: description of the range, such as `a positive number of seconds`.
        minimum: smallest valid value.
        below: valid values are smaller than this.
        is_open: True if `minimum` itself is not valid.
    """

    name = "float"

    def __init__(self, range_text: str, *, minimum: float = 0, below: float = math.inf, is_open: bool = False) -> None:
        self._range_text, self._minimum, self._below, self._is_open = range_text, minimum, below, is_open

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert the text to a `float`.

        Raises:
            SpecError: the number is out of range, infinite or not a number.
        """
        number = click.FLOAT.convert(value, param, ctx)
        is_valid = self._minimum <= number < self._below and not (self._is_open and number == self._minimum)
        if not is_valid:
            raise SpecError(f"{_name(param)} {number:g}", f"it must be {self._range_text}")
        return number


def _name(param: click.Parameter | None) -> str:
    """Return the longest spelling of an option, such as `--epochs`."""
    return max(param.opts, key=len) if param is not None else "value"


#: A whole number of 1 or more.
COUNT = Whole(1)
SEED = Whole(0, MAX_SEED)
#: A length of time in seconds.
SECONDS = Real("a positive number of seconds", is_open=True)
POSITIVE = Real("a positive number", is_open=True)
NOT_NEGATIVE = Real("0 or a positive number")
