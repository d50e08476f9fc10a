"""Property tests try the same examples everywhere, and ten times as many fresh ones in a hunt."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

TELL = """
import json, properties
properties.load_profile()
names = ("max_examples", "derandomize", "deadline", "database", "print_blob")
both = properties.settings(), properties.examples(15)
print(json.dumps([{name: getattr(made, name) for name in names} for made in both]))
"""


@pytest.mark.parametrize(
    ("profile", "number", "expected"),
    [
        (None, 1, {"derandomize": True}),
        ("repeatable", 1, {"derandomize": True}),
        ("hunt", 10, {"derandomize": False, "print_blob": True}),
    ],
)
def test_profiles(profile: str | None, number: int, expected: dict[str, bool]):
    environment = {} if profile is None else {"MGC_HYPOTHESIS_PROFILE": profile}
    others = {key: value for key, value in os.environ.items() if key != "MGC_HYPOTHESIS_PROFILE"}
    run = subprocess.run(
        [sys.executable, "-c", TELL], cwd=HERE / "support", env=others | environment, capture_output=True, check=True
    )
    plain, few = json.loads(run.stdout)
    assert (plain.pop("max_examples"), few.pop("max_examples")) == (100 * number, 15 * number)
    assert few == plain
    assert plain | expected | {"deadline": None, "database": None} == plain


def test_no_test_has_a_number_of_examples_that_profiles_leave_alone():
    own = re.compile(r"settings\([^)]*max_examples")
    files = [path for path in HERE.rglob("*.py") if path.name not in ("properties.py", Path(__file__).name)]
    assert len(files) > 50
    assert [path.name for path in files if own.search(path.read_text())] == []
