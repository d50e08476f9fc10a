"""Wrapped lines, and shortened names of tables."""

from __future__ import annotations

import pytest

from mgc.pipeline import console
from mgc.pipeline.wrapping import ellipsise, wrap


def test_lines_are_wrapped_at_blanks() -> None:
    assert wrap("  genres    Rock 17, Hip-Hop 12, Folk 9", 24, indent=12) == [
        "  genres    Rock 17,",
        "            Hip-Hop 12,",
        "            Folk 9",
    ]
    assert wrap("spans 12.5 % of it", 9) == ["spans", "12.5 % of", "it"]
    assert wrap("see /a/path/that/is/long now", 8) == ["see", "/a/path/that/is/long", "now"]


def test_names_are_shortened_but_stay_different() -> None:
    assert ellipsise(["Rock", "International"], 13) == ["Rock", "International"]
    assert ellipsise(["Rock", "International"], 8) == ["Rock", "Interna…"]
    assert ellipsise(["songs of the sea", "songs of the hills"], 8) == ["song…sea", "song…lls"]
    assert ellipsise(["one-abc-two", "one-def-two"], 6) == ["one-a…", "one-d…"]
    assert ellipsise(["same long name", "same long name"], 6) == ["same …", "same …"]
    assert ellipsise(["aaaa-bbbb-cccc", "aaaa-bBbb-cccc"], 5) == ["aaaa…", "aaaa…"]  # no way to tell them apart


@pytest.mark.parametrize(("columns", "width"), [("40", 80), ("80", 80), ("93", 93), ("300", 100)])
def test_the_width_is_that_of_the_terminal(columns: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert console.width() == width
