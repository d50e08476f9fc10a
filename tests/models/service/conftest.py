"""A trained run for servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import mgc_all
from music import write_genres

#: Genres whose names are markup and right to left.
GENRES = ("rock & <i>roll", "שירה", "blues")


@pytest.fixture(scope="session")
def run(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classical run of three genres, on slices of 1.6 s, evaluated on its validation tracks."""
    data = tmp_path_factory.mktemp("service") / "data"
    write_genres(data / "songs", genres=GENRES, tracks=6, seconds=3)
    mgc_all(
        data,
        ("extract", "--feature", "mel:n_mels=8,n_fft=512", "--slice", "1.6", "--scheduler", scheduler),
        ("train", "--model", "moments/logreg"),
        ("evaluate", "--split", "validation", "--no-report"),
    )
    return next((data / "runs").iterdir())
