"""Times and sizes in the units that people use, with one or two digits."""

from __future__ import annotations

import math


def format_seconds(seconds: float) -> str:
    """Format a time with one or two digits: `8 s`, `40 s`, `2 min`, `1.5 h`, `30 h`."""
    if seconds < 55:
        return f"{max(1, _rounded(seconds))} s"
    if seconds < 55 * 60:
        return f"{_rounded(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 9.95 else f"{_rounded(hours):,} h"


def format_size(n_bytes: float) -> str:
    """Format a size with two digits: `85 kB`, `130 MB`, `2.4 GB`."""
    size = max(n_bytes, 1000.0)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 995 or unit == "TB":
            break
    return f"{size:.1f} {unit}" if size < 9.95 else f"{_rounded(size):,} {unit}"


def _rounded(value: float) -> int:
    """Round to two digits."""
    step = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
    return round(value / step) * step
