"""Counters and times of a server, in the text format of Prometheus."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

#: Content type of `Metrics.text`.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mgc_requests", "Answers by path and status code.", ["path", "status"], registry=self._registry
        )
        self._files = Counter(
            "mgc_files", "Decoded files by outcome: ok, or the reason.", ["outcome"], registry=self._registry
        )
        self._unnamed = Counter(
            "mgc_unnamed_files", "Files that --unknown left without a genre.", registry=self._registry
        )
        self._strange = Counter(
            "mgc_strange_files", "Files unlike all music that the run was trained on.", registry=self._registry
        )
        self._audio = Counter("mgc_audio_seconds", "Seconds of audio that were predicted.", registry=self._registry)
        self._stages = Histogram(
            "mgc_stage_seconds",
            "Seconds of a request in each stage: upload, queue, decode (with features) and network.",
            ["stage"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        ProcessCollector(registry=self._registry)

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is asked for when the metrics are read."""
        Gauge(name, description, registry=self._registry).set_function(value)

    def count_request(self, path: str, status: int) -> None:
        """Count an answer."""
        self._requests.labels(path, str(status)).inc()

    def count_file(self, outcome: str, seconds: float | None) -> None:
        """Count a decoded file, and the seconds of its audio if it is `ok`."""
        self._files.labels(outcome).inc()
        if outcome == "ok" and seconds is not None:
            self._audio.inc(seconds)

    def count_answer(self, *, named: bool, strange: bool) -> None:
        """Count a file that is `ok` if it gets no genre, and if it is strange."""
        if not named:
            self._unnamed.inc()
        if strange:
            self._strange.inc()

    def record(self, stage: str, seconds: float) -> None:
        """Record the time that a request has spent in a stage."""
        self._stages.labels(stage).observe(seconds)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the time of the context as that of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.record(stage, time.perf_counter() - start)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
