"""The work of a server: a model that stays loaded, processes that decode, and a bounded queue in front of both."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgc.models.evaluation.report import counted
from mgc.models.prediction import frames, results
from mgc.models.prediction.naming import Naming
from mgc.models.prediction.predict import FilePredictor
from mgc.models.prediction.prediction import FilePrediction
from mgc.models.runs.overview import leak_reason
from mgc.models.runs.run import Run
from mgc.models.service.metrics import Metrics
from mgc.models.service.problems import RequestProblem
from mgc.models.service.processes import ProcessSetup
from mgc.models.service.scratch import scratch_folder
from mgc.pipeline.extraction import cluster
from mgc.pipeline.extraction.sharing import count_processors

if TYPE_CHECKING:
    from distributed import Client

#: Seconds after which a client may try again if the queue is full.
RETRY_AFTER_S = 2
#: Share of a request's time that decoding may take. A file that hangs its process delays those that Dask has sent to
#: the same process; they must still be answered in time.
_DECODING_SHARE = 1 / 3
#: Length of the noise that is predicted before the first request, and its sample rate.
_WARM_UP_S, _WARM_UP_RATE = 5.0, 22050


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    Attributes:
        max_bytes: bytes of a request's body.
        max_duration: seconds of audio in a file.
        timeout_s: seconds from the first byte of a request to its answer.
        queue: requests that may wait while all processes decode.
    """

    max_bytes: int
    max_duration: float
    timeout_s: float
    queue: int


class Service:
    """Predicts the genres of files that are sent, one file at a time in each decoding process.

    `admit` and `release` are called by the event loop's thread only, `predict` by any of `threads`.

    Args:
        run: the run.
        predictor: its model.
        client: client of the decoding processes.
        workers: number of these processes.
        limits: limits of a request.
        naming: how probabilities become answers.
        folder: folder for files and their frames.
    """

    def __init__(
        self,
        run: Run,
        predictor: FilePredictor,
        client: Client,
        workers: int,
        limits: Limits,
        naming: Naming,
        folder: Path,
    ) -> None:
        self.model, self.run, self.classes = run.model, run.path.resolve().name, run.classes
        #: Why the run's scores are too good, in words; empty if they are not.
        self.leak = leak_reason(run.config) if run.config.get("leaky") else ""
        self.limits, self.workers, self.naming = limits, workers, naming
        self.is_stopping = False
        #: Requests that were admitted and are not finished.
        self.n_admitted = 0
        self.threads = ThreadPoolExecutor(workers, "decoding")
        self._network = ThreadPoolExecutor(1, "network")
        self._predictor, self._client, self._folder = predictor, client, folder
        self._numbers = itertools.count()
        self.metrics = self._new_metrics()

    def _new_metrics(self) -> Metrics:
        metrics = Metrics()
        metrics.watch("mgc_admitted_requests", "Requests being answered or waiting.", lambda: self.n_admitted)
        metrics.watch("mgc_request_capacity", "Most requests answered or waiting.", lambda: self.capacity)
        return metrics

    @property
    def capacity(self) -> int:
        """Most requests that are admitted at the same time."""
        return self.workers + self.limits.queue

    def admit(self) -> None:
        """Take a place for a request; `release` gives it back.

        Raises:
            RequestProblem: 503 if the server stops, 429 if all places are taken.
        """
        if self.is_stopping:
            raise RequestProblem(503, "the server is stopping", "send the request to another server, or later")
        if self.n_admitted >= self.capacity:
            problem = f"{self.workers} files are being decoded, and {self.limits.queue} requests wait already"
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            raise RequestProblem(429, problem, f"try again in {RETRY_AFTER_S} s", headers=headers)
        self.n_admitted += 1

    def release(self) -> None:
        """Give the place of a request back."""
        self.n_admitted -= 1

    def new_path(self) -> Path:
        """Return a path for a file that is sent."""
        return self._folder / f"upload-{next(self._numbers)}"

    def predict(self, path: Path, deadline: float, queued_at: float) -> FilePrediction:
        """Predict a file and remove it; the probabilities are those that are shown.

        Args:
            path: the file.
            deadline: time on the monotonic clock at which the request must be answered.
            queued_at: time on the monotonic clock since which the request waits for a decoding process.

        Raises:
            TimeoutError: the deadline has passed.
            MgcError: no process can decode.
        """
        try:
            left = deadline - time.monotonic()
            self.metrics.record("queue", time.monotonic() - queued_at)
            if left <= 0:
                raise TimeoutError
            prediction = self._decode_and_predict(path, min(left, _DECODING_SHARE * self.limits.timeout_s))
        finally:
            path.unlink(missing_ok=True)
        prediction = self.naming.tempered(prediction)
        self.metrics.count_file(prediction.reason or "ok", prediction.duration_s)
        if prediction.status == "ok":
            named = results.named_genre(prediction, self.naming.unknown) is not None
            self.metrics.count_answer(named=named, strange=prediction.strange)
        return prediction

    def _decode_and_predict(self, path: Path, timeout_s: float) -> FilePrediction:
        """Decode a file in a worker process, and apply the model in the thread that it belongs to."""
        decoding = frames.Decoding(timeout_s=timeout_s, max_duration=self.limits.max_duration)
        batches = frames.decode(self._client, [str(path)], self._predictor.specs, decoding, folder=self._folder)
        with contextlib.closing(batches):
            with self.metrics.timed("decode"):
                batch = next(batches)
            return self._network.submit(self._apply, path, batch).result()

    def _apply(self, path: Path, batch: Sequence[frames.Batch]) -> FilePrediction:
        with self.metrics.timed("network"):
            [(_, prediction)] = self._predictor.predict_frames([str(path)], batch)
            return prediction

    def warm_up(self) -> None:
        """Predict noise in each process, so that the first request does not wait for imports and compilation."""
        import soundfile

        rng = np.random.default_rng(0)
        samples = rng.uniform(-0.1, 0.1, round(_WARM_UP_S * _WARM_UP_RATE)).astype(np.float32)
        jobs = []
        for _ in range(self.workers):
            path = self.new_path()
            soundfile.write(path, samples, _WARM_UP_RATE, format="WAV", subtype="PCM_16")
            jobs.append(self.threads.submit(self._warm_up, path))
        for job in jobs:
            job.result()
        self.metrics = self._new_metrics()  # without what was just done

    def _warm_up(self, path: Path) -> None:
        self._decode_and_predict(path, self.limits.timeout_s + 60)
        path.unlink()

    def answer(self, prediction: FilePrediction, name: str | None, top_k: int, *, timeline: bool) -> dict[str, Any]:
        """Convert a prediction to the JSON answer of a request.

        Args:
            prediction: prediction of a file that is `ok`, from `predict`.
            name: name of the file, as the client gave it.
            top_k: number of genres in `top`.
            timeline: add the probabilities in each second.
        """
        plain = results.as_dict(prediction, unknown=self.naming.unknown, timeline=timeline)
        shares = prediction.probabilities
        best = sorted(shares, key=shares.__getitem__, reverse=True)[:top_k]
        values: dict[str, Any] = {
            "file": name,
            **{key: plain[key] for key in ("duration_s", "detail", "genre")},
            "top": [{"genre": genre, "probability": shares[genre]} for genre in best],
            **{key: plain[key] for key in ("probabilities", "strange", "timeline") if key in plain},
            "unknown": self.naming.unknown,
            "temperature": self.temperature,
        }
        return values | {"model": self.model, "run": self.run, "leaky": bool(self.leak)}

    @property
    def temperature(self) -> float | None:
        """Temperature of the probabilities, 1 if validation tracks tell no better one; None without --calibrated."""
        return None if self.naming.temperature is None else self.naming.temperature.value

    @property
    def notes(self) -> list[str]:
        """Sentences on how probabilities become answers; none if they are shown as the model gives them."""
        notes = []
        if (fitted := self.naming.temperature) is not None and fitted.helps:
            notes.append(f"The probabilities are calibrated, by a temperature of {fitted.value:.2f}.")
        elif fitted is not None:
            tracks = counted(fitted.n_tracks, "validation track")
            notes.append(f"The probabilities are not calibrated: no temperature can be told from {tracks}.")
        if self.naming.unknown > 0:
            below = f"whose most probable genre has less than {100 * self.naming.unknown:.5g} %"
            unlike = "that is unlike all music that the model has learnt from"
            notes.append(f"A song {below}, or {unlike}, is named “{results.NONE_OF_THESE}”.")
        return notes

    def close(self) -> None:
        """Give up what is still queued. What runs ends when the decoding processes do."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        self._network.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def open_service(run: Run, limits: Limits, naming: Naming, workers: int | None, device: str) -> Iterator[Service]:
    """Load the model of a run and start decoding processes; both end with the context, and no file is left.

    Args:
        run: the run.
        limits: limits of a request.
        naming: how probabilities become answers.
        workers: number of decoding processes; None for one per processor.
        device: device name, see `mgc.models.parallel.device.choose_device`.

    Raises:
        RunError: the run is unfinished, or its model is missing or damaged.
    """
    predictor = FilePredictor(run, device)
    workers = workers or count_processors()
    with scratch_folder() as folder, cluster.connect(workers, None) as client:
        client.register_plugin(ProcessSetup())
        service = Service(run, predictor, client, workers, limits, naming, folder)
        try:
            service.warm_up()
            yield service
        finally:
            service.close()
