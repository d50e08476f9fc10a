"""Reproduction of one job: train or continue its run, evaluate it, and append the result.

While a job is unfinished, `.reproductions/<key>.json` in the workspace names its run, and the next call
continues it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mgc.models.data.store_candidates import StoreCandidates
from mgc.models.evaluation.evaluate import evaluate, results_path
from mgc.models.reproduction import differences, hardware, results
from mgc.models.reproduction.jobs import Job
from mgc.models.reproduction.results import Result
from mgc.models.runs.run import Run
from mgc.models.runs.selection import Selection
from mgc.models.training import curves, ensemble, train
from mgc.models.training.loop import Echo
from mgc.models.training.options import Options
from mgc.pipeline.errors import RunError
from mgc.pipeline.storage import files, parquet
from mgc.pipeline.store.store import Store
from mgc.pipeline.workspace import Workspace

#: Scores of a result, beside accuracy and macro F1 with their intervals.
_SCORES = ("n", "one_vs_rest_accuracy", "macro_precision", "macro_recall", "f1_of_means", "cross_entropy")


@dataclass(frozen=True)
class Reproducer:
    """Reproduces jobs on the stores of one dataset.

    Attributes:
        workspace: workspace of runs and results.
        stores: stores to choose from.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        redo: repeat finished jobs, and begin interrupted ones anew.
        echo: prints a line.
    """

    workspace: Workspace
    stores: tuple[Store, ...]
    device: str
    redo: bool
    echo: Echo

    def reproduce(self, job: Job) -> tuple[Result, bool]:
        """Run a job to its end.

        Returns:
            The result, and whether it is a new one: a finished job is not repeated.

        Raises:
            ModelError: something would differ from the study that nobody asked for, or no store fits.
            RunError: another process works on the job.
            MgcError: the training or the evaluation fails.
        """
        preparation = self._prepare(job)
        with self._claim(preparation.key):
            before = results.find(results.read(self.workspace), preparation.key)
            if before is not None and not self.redo:
                return before, False
            run = self._train(job, preparation)
            result = self._measure(job, preparation, run)
            results.append(self.workspace, result)
            self._journal(preparation.key).unlink(missing_ok=True)
        return result, True

    def _prepare(self, job: Job) -> Preparation:
        """Choose stores and tracks of a job, and compare it with its study; write nothing."""
        if job.members:
            members = [self._prepare(member) for member in job.members]
            shared = list(dict.fromkeys(line for member in members for line in member.differences))
            key = _digest({"members": [member.key for member in members], **job.settings()})
            return Preparation(key, [], members[0].selection, shared, members)
        stores = StoreCandidates(self.stores, explicit=False, study_only=True).choose(job.system)
        selection, lines = differences.compare(job, stores, self._options(job))
        dataset = stores[0].dataset["name"]
        tracks = files.digest(parquet.table_bytes(selection.tracks))
        return Preparation(_digest({"dataset": dataset, "tracks": tracks, **job.settings()}), stores, selection, lines)

    def _options(self, job: Job) -> Options:
        return Options(
            model=job.system.id,
            epochs=job.limits.epochs,
            limit_tracks=job.limits.tracks,
            seed=job.seed,
            device=self.device,
            as_sliced=True,
            split_unit="slice" if job.protocol == "published" else "track",
        )

    def _train(self, job: Job, preparation: Preparation) -> Run:
        """Return the finished run of a job: a new one, or the one that an earlier call began."""
        if job.members:
            found = [results.find(results.read(self.workspace), member.key) for member in preparation.members]
            runs = [Run.open(self.workspace.root / result["run"]) for result in found if result is not None]
            if len(runs) < len(found):
                raise RunError(f"{job.title}: a member is missing", "see the errors of its members")
            run = ensemble.join(job.system, runs, self.workspace.runs)
        elif (begun := self._begun(preparation)) is not None:
            self.echo(f"continued: {begun.path}")
            if not begun.finished:
                train.resume(begun, None if self.device == "auto" else self.device, self.echo)
            run = Run.open(begun.path)
        else:

            def record(run: Run) -> None:
                files.write_json(self._journal(preparation.key), {"run": os.path.relpath(run.path, self._root)})

            run = train.train(preparation.stores, self._options(job), self.workspace.runs, self.echo, record)
        if run.history:
            curves.draw(run)
        self.workspace.remember("run", run.path)
        return run

    def _begun(self, preparation: Preparation) -> Run | None:
        """The run that an earlier call began for a job, if it can go on with the same stores."""
        if self.redo:
            return None
        try:
            run = Run.open(self._root / json.loads(self._journal(preparation.key).read_bytes())["run"])
        except (OSError, ValueError, KeyError, TypeError, RunError):
            return None
        digests = [source.manifest_digest for source in run.sources]
        return run if digests == [store.manifest_digest for store in preparation.stores] else None

    def _measure(self, job: Job, preparation: Preparation, run: Run) -> Result:
        """Evaluate a finished run on the splits that the study printed results of, and on the test split."""
        begun_at = time.monotonic()
        published = job.system.recipe.published
        splits = dict.fromkeys(["test", *(row.split for row in published[:1])])
        scores = {split: _summary(self._evaluation(run, split)) for split in splits}
        stores = preparation.stores or [store for member in preparation.members for store in member.stores]
        tracks = run.selection.tracks
        summaries = run.summary
        return {
            "format": results.FORMAT,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "key": preparation.key,
            **job.settings(),
            "kind": job.system.kind,
            "dataset": {"name": stores[0].dataset["name"], "genres": len(run.classes)},
            "tracks": {split: tracks["split"].to_pylist().count(split) for split in ("training", "validation", "test")},
            "digests": {
                "manifests": list(dict.fromkeys(store.manifest_digest for store in stores)),
                "tracks": files.digest(parquet.table_bytes(tracks)),
                "splits": files.digest(parquet.table_bytes(tracks.select(["track_id", "split"]))),
            },
            "run": os.path.relpath(run.path, self._root),
            "params": run.config["params"],
            "epochs": summaries.get("epochs"),
            "leaky": any(each["leaky"] for each in scores.values()),
            "published": [{"split": row.split, "setting": row.setting, **row.scores} for row in published],
            "scores": scores,
            "differences": preparation.differences,
            "chosen": differences.chosen_settings(job.system.recipe),
            "seconds": {"training": summaries.get("seconds"), "evaluation": time.monotonic() - begun_at},
            "hardware": hardware.describe(run.config.get("device", self.device)),
            "versions": run.config["versions"],
        }

    def _evaluation(self, run: Run, split: str) -> dict[str, Any]:
        """The evaluation of a run; one that is there already, as after a kill, is not repeated."""
        if not results_path(run, "metrics.json", split).exists():
            evaluate([run], split=split, device=self.device)
        return json.loads(run.read(results_path(run, "metrics.json", split).name))

    @property
    def _root(self) -> Path:
        return self.workspace.root

    def _journal(self, key: str) -> Path:
        return self._root / ".reproductions" / f"{key}.json"

    @contextlib.contextmanager
    def _claim(self, key: str) -> Iterator[None]:
        """Keep other processes from a job while the context lasts; a kill ends it, too.

        Raises:
            RunError: another process works on the job.
        """
        import filelock

        journal = self._journal(key)
        with files.translate_write_errors(journal):
            journal.parent.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(journal.with_suffix(".lock"))
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                raise RunError(f"{journal}: another process works on it", "wait for it to end") from None
        try:
            yield
        finally:
            lock.release()


@dataclass(frozen=True)
class Preparation:
    """What a job is run on.

    Attributes:
        key: digest of the job's settings and tracks; results of equal keys are repetitions.
        stores: store of each input; empty for an ensemble.
        selection: the tracks.
        differences: differences from the study, all of them asked for.
        members: preparations of an ensemble's members.
    """

    key: str
    stores: Sequence[Store]
    selection: Selection
    differences: list[str]
    members: Sequence[Preparation] = ()


def _digest(value: dict[str, Any]) -> str:
    return files.digest(json.dumps(value, sort_keys=True).encode())


def _summary(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The part of an evaluation that a result keeps."""

    def level(scores: dict[str, Any] | None) -> dict[str, Any] | None:
        if scores is None:
            return None
        kept = {name: scores[name] for name in _SCORES}
        for name in ("accuracy", "macro_f1"):
            interval = scores[f"{name}_interval"]
            kept |= {name: scores[name], f"{name}_interval": [interval["low"], interval["high"]]}
        return kept

    return {
        "n_tracks": evaluation["n_tracks"],
        "n_artists": evaluation["n_artists"],
        "by_track": level(evaluation["by_track"]),
        "by_slice": level(evaluation["by_slice"]),
        "chance": {name: evaluation["chance"][name] for name in ("level", "p_value")},
        "leaky": evaluation["leaky"],
    }
