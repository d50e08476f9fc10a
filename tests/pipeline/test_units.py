"""Times and sizes for people."""

from __future__ import annotations

import pytest

from mgc.pipeline.units import format_seconds, format_size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (8.4, "8 s"),
        (54, "54 s"),
        (58, "1 min"),
        (130, "2 min"),
        (3599, "1.0 h"),
        (9000, "2.5 h"),
        (1e7, "2,800 h"),
    ],
)
def test_times_have_two_digits(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "1.0 kB"),
        (85_400, "85 kB"),
        (134_000_000, "130 MB"),
        (999e6, "1.0 GB"),
        (2.44e9, "2.4 GB"),
        (3e15, "3,000 TB"),
    ],
)
def test_sizes_have_two_digits(n_bytes, text):
    assert format_size(n_bytes) == text
