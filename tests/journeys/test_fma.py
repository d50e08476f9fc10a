"""A student with FMA: from the folder of audio and metadata to a table of two systems.

On real clips of the test corpus, which has FMA's layout.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import done_in

pytestmark = [pytest.mark.slow, pytest.mark.corpus, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def workspace(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with links to audio and metadata, as downloaded."""
    data = tmp_path_factory.mktemp("data")
    for name in ("fma_debian", "fma_metadata"):
        (data / name).symlink_to(corpus / name)
    return data


def test_from_the_folder_to_a_table(workspace: Path) -> None:
    outcome = done_in(workspace, "extract", "--slice", 4, "--overlap", 0.5)
    assert f"dataset: {workspace / 'fma_debian'}" in outcome.err
    assert "102 of 102 in use" in outcome.out
    assert "training 78 (1,014 slices), validation 12 (156 slices), test 12 (156" in outcome.out
    (store,) = workspace.glob("features/fma_debian/mel-*")

    again = done_in(workspace, "extract", workspace / "fma_debian", "--slice", 4, "--overlap", 0.5)
    assert "102 of 102 in use" in again.out

    said = done_in(workspace, "train", "--model", "moments/svm").out
    assert "moments/svm: 6 genres" in said
    said += done_in(workspace, "train", "--model", "moments/knn", "--seeds", "0,1").out
    assert "moments/knn does not depend on the seed, it is trained once" in said
    runs = re.findall(r"^run: (\S+); `mgc evaluate --by-genre` tests it$", said, re.MULTILINE)
    assert sorted(runs) == sorted(map(str, (workspace / "runs").iterdir()))

    table = done_in(workspace, "evaluate", *runs, "--by-genre").out
    assert re.search(r"^ +1 +moments/svm +0 +12 +[\d.]+ % \[[\d.]+–[\d.]+\]", table, re.MULTILINE)
    assert re.search(r"^ +2 +moments/knn +0 +12 +[\d.]+ % \[[\d.]+–[\d.]+\]", table, re.MULTILINE)
    for genre in ("Ambient", "Chiptune", "Electronic", "Folk", "Orchestral", "Rock"):
        assert re.search(rf"^{genre} +[\d.]+ +[\d.]+$", table, re.MULTILINE)
    assert all(run in table for run in runs)
    assert max(map(len, table.replace(str(workspace), "data").splitlines())) <= 80

    assert done_in(workspace, "verify", store).out == f"{store}: every byte is as it was written\n"
    assert done_in(workspace, "verify", runs[0]).out == f"{runs[0]}: every byte is as it was written\n"
