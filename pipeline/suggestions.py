"""What a user may have meant: the known names that resemble a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, names: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Return the names that resemble a word, at most three, the most similar first.

    A name that differs in upper and lower case only is the one that was meant: then it is returned alone.

    Args:
        word: what the user wrote.
        names: the known names.
        cutoff: least similarity, from 0 to 1 (equal but for case).
    """
    by_folded: dict[str, list[str]] = {}
    for name in names:
        by_folded.setdefault(name.casefold(), []).append(name)
    folded = word.casefold()
    near = [folded] if folded in by_folded else difflib.get_close_matches(folded, by_folded, n=3, cutoff=cutoff)
    return [name for key in near for name in by_folded[key]][:3]


def question(near: Iterable[str]) -> str:
    """Ask whether one of some names was meant, as the start of a remedy: `did you mean A or B? `; empty if none."""
    joined = " or ".join(near)
    return f"did you mean {joined}? " if joined else ""
