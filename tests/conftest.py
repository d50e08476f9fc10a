"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import properties
import pytest
from clusters import foreign_cluster
from commands import mgc

properties.load_profile()

# Ctrl-C is among what is tested. Tests that a shell starts in the background ignore it, and so do their children.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test with the mark `cuda` on a machine without a CUDA GPU."""
    if item.get_closest_marker("cuda"):
        import torch  # the module of such a test has imported it already

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU")


@pytest.fixture(scope="session", autouse=True)
def own_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands that are given no workspace leave the one in this folder alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MGC_DATA", str(tmp_path_factory.mktemp("workspace")))
        yield


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The real-music corpus; where it is absent the test is skipped, or fails if $MGC_REQUIRE_CORPUS is set.

    Mark such tests with `corpus`.
    """
    default = Path(__file__).parents[2] / "shared" / "corpus"
    path = Path(os.environ.get("MGC_TEST_CORPUS", default))
    if not path.is_dir():
        (pytest.fail if os.environ.get("MGC_REQUIRE_CORPUS") else pytest.skip)(f"no test corpus at {path}")
    return path


@pytest.fixture(scope="session")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running Dask scheduler with two workers.

    Extraction on it takes a fraction of a second, where processes of its own take several to start.
    """
    with foreign_cluster(tmp_path_factory.mktemp("dask")) as address:
        yield address


@pytest.fixture(scope="session")
def musicnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the weights that `mgc download musicnn` gets from pip's own index; skipped where none has them."""
    data = tmp_path_factory.mktemp("weights") / "data"
    outcome = mgc("download", "musicnn", "--data-dir", data, "--retries", 1)
    if outcome.code and ("cannot reach" in outcome.err or "No matching distribution" in outcome.err):
        pytest.skip("no package index has musicnn here")
    assert outcome.code == 0, outcome.err
    return data / "weights" / "musicnn"
