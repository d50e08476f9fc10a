"""Fixtures of the tests of training: a store of mel frames, and the system TINY."""

from __future__ import annotations

import pytest
import torch
from stores import make_store
from tiny import TINY

from mgc.models.registry import systems
from mgc.pipeline.store.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of mel frames, for tests that do not change it."""
    torch.set_num_threads(1)
    return make_store(tmp_path_factory.mktemp("stores") / "mel")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """TINY is one of the systems that mgc knows."""
    monkeypatch.setitem(systems._systems, TINY.id, TINY)
