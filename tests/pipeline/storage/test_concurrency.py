"""Concurrent requests: results in order, from a bounded number of threads."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from mgc.pipeline.errors import StoreError
from mgc.pipeline.storage.concurrency import MAX_CONCURRENT_REQUESTS, map_requests
from mgc.pipeline.storage.remote import RemotePath


def test_results_are_in_order_and_few_calls_start_early() -> None:
    started: list[int] = []

    def work(number: int) -> int:
        started.append(number)
        time.sleep(0.001 * (number % 3))
        return number * number

    results = map_requests(work, range(100), RemotePath("memory://x"))
    assert next(results) == 0
    assert len(started) <= 2 * MAX_CONCURRENT_REQUESTS
    assert [0, *results] == [number * number for number in range(100)]


def test_an_error_ends_it() -> None:
    started: list[int] = []

    def work(number: int) -> int:
        started.append(number)
        if number == 3:
            raise StoreError("x", "y")
        time.sleep(0.01)
        return number

    with pytest.raises(StoreError):
        list(map_requests(work, range(1000), RemotePath("memory://x")))
    assert len(started) <= 3 * MAX_CONCURRENT_REQUESTS


def test_a_local_path_is_a_plain_map(tmp_path: Path) -> None:
    here = threading.get_ident()
    assert set(map_requests(lambda _: threading.get_ident(), range(4), tmp_path)) == {here}
