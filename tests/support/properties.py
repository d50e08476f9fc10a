"""Hypothesis profiles: how many examples property tests try, and if these are the same in every run.

repeatable: the default. The same examples on every machine and in every run, so that no test fails by chance.
hunt: fresh examples in every run, ten times as many. What makes a test fail is printed, with the line that repeats it.
    Choose it by `MGC_HYPOTHESIS_PROFILE=hunt` or `--hypothesis-profile=hunt`; `make hunt` does.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EXAMPLES = 100

# Shared machines stall, so no example has a deadline, and drawing examples may take long. No database: what a run tries
# must not depend on those before it.
_COMMON = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", _COMMON, max_examples=_EXAMPLES, derandomize=True)
settings.register_profile("hunt", _COMMON, max_examples=10 * _EXAMPLES, derandomize=False, print_blob=True)


def load_profile() -> None:
    """Use the profile that the environment names; `--hypothesis-profile` is read later and prevails."""
    settings.load_profile(os.environ.get("MGC_HYPOTHESIS_PROFILE", "repeatable"))


def examples(number: int, *unchecked: HealthCheck) -> settings:
    """Settings of a property test that does not try 100 examples.

    To be used instead of `@settings(max_examples=...)`, which no profile multiplies.

    Args:
        number: examples in the profile `repeatable`.
        unchecked: what Hypothesis should not object to.
    """
    now = settings()
    suppressed = [*now.suppress_health_check, *unchecked]
    return settings(max_examples=number * now.max_examples // _EXAMPLES, suppress_health_check=suppressed)
