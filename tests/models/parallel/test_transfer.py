"""Transfers between host and device; on a GPU, `tests/models/training/test_train.py` tests the loop that uses them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mgc.models.parallel.transfer import Transfer, read_late, send


def test_values_come_back_as_they_were_sent() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    sent = send(values, torch.device("cpu"))
    assert sent.dtype == torch.float32
    np.testing.assert_array_equal(Transfer(sent * 2).read(), values * 2)


@pytest.mark.cuda
def test_on_a_gpu_they_join_its_queue() -> None:
    values = np.arange(1 << 20, dtype=np.float32)
    sent = send(values, torch.device("cuda"))
    values[:] = -1  # pinned memory has its own copy
    transfer = Transfer(sent + 1)
    assert transfer.is_queued
    assert transfer.read()[-1] == 1 << 20


@pytest.mark.parametrize("queued", [False, True])
def test_queued_transfers_are_read_after_the_next_one_was_made(queued: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transfer, "is_queued", queued)
    events: list[str] = []

    def transfers() -> Iterator[tuple[int, Transfer]]:
        for number in range(3):
            events.append(f"made {number}")
            yield number, Transfer(torch.tensor(10 * number))

    for number, values in read_late(transfers()):
        assert values == 10 * number
        events.append(f"read {number}")
    at_once = ["made 0", "read 0", "made 1", "read 1", "made 2", "read 2"]
    late = ["made 0", "made 1", "read 0", "made 2", "read 1", "read 2"]
    assert events == (late if queued else at_once)


def test_nothing_is_read_of_nothing() -> None:
    assert list(read_late([])) == []
