"""A teacher with GTZAN: from the folder of the archive to the pictures for a lesson.

The clips are real music, cut to six seconds and named like GTZAN's; what is played under a name is not GTZAN's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import done_in
from stand_ins import GTZAN_GENRES, write_gtzan

pytestmark = [pytest.mark.slow, pytest.mark.corpus, pytest.mark.timeout(600)]

PNG = b"\x89PNG\r\n"
#: Clips of each genre; of some, the filtered list omits none.
COUNTS = {"training": 2, "validation": 1, "test": 1, None: 1}


@pytest.fixture(scope="module")
def workspace(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the folder `gtzan/genres`, as the archive has it."""
    data = tmp_path_factory.mktemp("data")
    write_gtzan(data / "gtzan" / "genres", sorted((corpus / "fma_debian").rglob("*.mp3")), COUNTS, suffix="au")
    return data


def test_from_the_folder_to_the_pictures(workspace: Path) -> None:
    n_clips = len(list(workspace.rglob("*.au")))
    said = done_in(workspace, "extract", "--feature", "mel", "--slice", 4, "--workers", 1).out
    assert "GTZAN repeats 50 clips exactly" in said
    assert "`--splits gtzan-filtered` leaves faulty clips out and keeps artists apart" in said
    assert f"{n_clips} of {n_clips} in use" in said

    said = done_in(workspace, "extract", "--feature", "mel", "--slice", 4, "--splits", "gtzan-filtered").out
    omitted = n_clips - 4 * len(GTZAN_GENRES)
    assert f"left out, not in the list gtzan-filtered: {omitted} (" in said
    assert f"{n_clips - omitted} of {n_clips} in use" in said
    assert "splits    training 20 (" in said
    assert f"dropped   {omitted}: unlisted {omitted}" in said
    (store,) = workspace.glob("features/gtzan/mel-*")

    said = done_in(workspace, "train", "--model", "kth2020/cnn", "--epochs", 2, "--device", "cpu").out
    assert "epoch 2/2" in said
    (run,) = workspace.glob("runs/*")
    assert str(run.name) in said
    assert (run / "curves.png").read_bytes().startswith(PNG)

    said = done_in(workspace, "evaluate", "--by-genre", "--device", "cpu").out
    assert "10 tracks" in said
    assert all(genre in said for genre in GTZAN_GENRES)
    assert (run / "confusion.png").read_bytes().startswith(PNG)
    assert "confusion.png" in said
    tracks = (run / "track-predictions.csv").read_text()
    assert "John Lee Hooker" not in tracks  # his clips are in validation
    assert all(artist in tracks for artist in ("Robert Johnson", "Ani DiFranco"))
    measured = done_in(workspace, "evaluate", "--device", "cpu", "--json").json
    assert measured["n_tracks"] == 10
    assert np.asarray(measured["by_track"]["confusion"]).sum() == 10
    assert not measured["leaky"]
    assert done_in(workspace, "verify", store).out == f"{store}: every byte is as it was written\n"
