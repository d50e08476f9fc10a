"""Concurrent requests: functions that make one or a few requests each are called in threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mgc.pipeline.storage.remote import Place

T = TypeVar("T")
U = TypeVar("U")

#: Number of calls that run at the same time.
MAX_CONCURRENT_REQUESTS = 16


def map_requests(function: Callable[[U], T], items: Iterable[U], target: Place) -> Iterator[T]:
    """Call a function for each item and yield the results in the items' order.

    Args:
        function: makes one or a few requests.
        items: arguments, consumed as needed: at most `2 * MAX_CONCURRENT_REQUESTS` calls run or wait to be yielded.
        target: the store or dataset that the requests go to. For a URL, `MAX_CONCURRENT_REQUESTS` calls run at a
            time, in threads; for a local path, one, in this thread.

    Yields:
        The result of each call.

    Raises:
        Exception: the first exception of a call, in the items' order. Calls that have not started are cancelled.
    """
    if isinstance(target, Path):
        yield from map(function, items)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    threads = ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS)
    futures: deque[Future[T]] = deque()
    try:
        for item in items:
            futures.append(threads.submit(function, item))
            if len(futures) == 2 * MAX_CONCURRENT_REQUESTS:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def run_requests(function: Callable[[U], object], items: Iterable[U], target: Place) -> None:
    """Call a function for each item and discard the results; arguments and exceptions as for `map_requests`."""
    for _ in map_requests(function, items, target):
        pass
