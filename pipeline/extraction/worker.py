"""Execution of a task in a Dask worker: decode each track once and write the shards of every feature."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mgc.pipeline.audio import sources
from mgc.pipeline.audio.decoding import Decoding, to_mono
from mgc.pipeline.audio.inspection import UnusableAudio
from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA, unescape
from mgc.pipeline.dsp.compilation import compilation_lock
from mgc.pipeline.extraction.output import Output
from mgc.pipeline.extraction.reading import FileReader, Sink, frame_gaps
from mgc.pipeline.extraction.task import Heartbeat, Task, leave_result, take_result
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.analysis import analyse
from mgc.pipeline.features.spec import Clipped
from mgc.pipeline.features.variants import (
    MAX_DURATION_S,
    MB_PER_MINUTE,
    VARIANT_SR,
    SampleCollector,
    Variant,
    split_blocks,
)
from mgc.pipeline.storage.remote import RemotePath
from mgc.pipeline.storage.urls import parse_url

#: Manifest detail of the tracks in `Task.failures`, by reason.
_FAILURE_DETAILS = {"crashed": "decoding it ended the worker process", "timeout": "decoding it exceeded the time limit"}


def run_task(task: Task) -> pa.Table:
    """Decode the tracks of a task and commit its shards.

    Returns:
        One row per track with the columns `status`, `reason` and `duration_s`.
    """
    if (left := take_result(task)) is not None:
        return left
    with compilation_lock(target.store.spec.name for target in task.targets):
        _warm_up(task)
    root = parse_url(task.root) or os.fsencode(task.root)
    outputs = [Output(target) for target in task.targets]
    results = []
    try:
        with Heartbeat(task.heartbeat_path) as heartbeat:
            for row, track in enumerate(task.tracks.to_pylist()):
                heartbeat.record(row)
                for output in outputs:
                    output.advance_to(row)
                result = _extract_track(root, track, outputs, task.failures.get(row), task.max_duration)
                results.append((result["status"], result["reason"], result["duration_s"]))
        for output in outputs:
            output.advance_to(len(task.tracks))
    finally:
        for output in outputs:
            output.discard()
    status, reason, duration = zip(*results, strict=True)
    result = pa.table({"status": status, "reason": pa.array(reason, pa.string()), "duration_s": duration})
    leave_result(task, result)
    return result


def dask_setup(worker: object) -> None:
    """Import and compile what most features need before the first task, if `cluster.connect` preloads this module."""
    import soundfile  # noqa: F401
    import soxr  # noqa: F401

    with compilation_lock(["mono"]):
        to_mono(np.zeros((1, 2), np.float32))


def _warm_up(task: Task) -> None:
    """Import libraries, compile loops and build filter banks, so that this does not count as time of the first file."""
    import soundfile  # noqa: F401
    import soxr  # noqa: F401

    specs = {target.store.spec for target in task.targets}
    mono = to_mono(np.zeros((1, 2), np.float32))
    for spec, rows in analyse([mono], 22050, specs):
        spec.encode(rows, np.empty(rows.shape, spec.dtype))
    for variant in task.targets[0].store.variants:
        variant.apply(np.zeros(VARIANT_SR, np.float32), "")


def _extract_track(
    root: bytes | RemotePath,
    track: Mapping[str, Any],
    outputs: list[Output],
    failure: str | None,
    max_duration: float | None,
) -> dict[str, Any]:
    """Append a track's frames and manifest row to every output; a dropped track leaves no frames.

    A training track is followed by its variants, if the stores have some.

    Args:
        root: folder or URL of the dataset.
        track: row of `DATASET_SCHEMA`.
        outputs: outputs of the task.
        failure: drop reason from `Task.failures`: the file is not opened; None decodes it.
        max_duration: length in seconds beyond which the track is dropped; None for no limit.

    Returns:
        The manifest row, without the columns that differ between the outputs.
    """
    row: dict[str, Any] = dict.fromkeys(MANIFEST_SCHEMA.names) | dict(track)
    variants = outputs[0].store.variants if track["split"] == "training" else ()
    collector = SampleCollector()
    sinks: list[Sink] = [*outputs, collector] if variants else [*outputs]
    reader = FileReader(sinks, max_duration)
    saturated = [Clipped()] * len(sinks)
    gaps: list[list[list[int]]] = [[] for _ in outputs]
    outputs_with_track = []
    try:
        if failure is not None:
            row |= sources.signature(sources.stat_file(root, unescape(track["path"])))
            raise UnusableAudio(failure, _FAILURE_DETAILS[failure])
        with sources.local_path(root, unescape(track["path"]), row) as path:
            decoding, saturated = reader.read(path, row)
        row |= {"status": "ok", "detail": "; ".join(decoding.notes()) or None}
        gaps = [frame_gaps(decoding.gaps, decoding.sample_rate, output.spec) for output in outputs]
    except UnusableAudio as unusable:
        row |= _dropped(unusable)
    # Not strict: the collector is the last of the sinks and not an output.
    for output, start, count, ranges in zip(outputs, reader.starts, saturated, gaps, strict=False):
        output_row = row
        if row["status"] == "ok" and (refusal := _exceeds_memory(row["duration_s"], output.spec)):
            output_row = row | _dropped(refusal)
        if output_row["status"] != "ok":
            output.writer.truncate(start)
            count, ranges = Clipped(), []
        else:
            outputs_with_track.append(output)
        output.record(output_row, start, count, ranges)
    if outputs_with_track:
        _add_variants(outputs_with_track, collector.samples, variants, decoding, row["content_hash"])
    return row


def _add_variants(
    outputs: list[Output], samples: np.ndarray | None, variants: Sequence[Variant], decoding: Decoding, key: str
) -> None:
    """Append the frames of a track's variants after its own, and record each variant in the track's manifest row.

    Args:
        outputs: the outputs that hold the track.
        samples: the track's samples at `VARIANT_SR`, float32 `(n,)`; None if it is too long for variants.
        variants: the variants.
        decoding: the track's decoding, for its gaps.
        key: the file's content hash, see `Variant.apply`.
    """
    for variant in variants:
        variant_samples, refusal = np.empty(0, np.float32), None
        if samples is None:
            explanation = f"variants hold the whole track in memory, {MB_PER_MINUTE} MB a minute"
            refusal = UnusableAudio("too-long", f"longer than {MAX_DURATION_S:g} s: {explanation}")
        else:
            try:
                variant_samples = variant.apply(samples, key)
            except MemoryError:
                refusal = UnusableAudio("crashed", "making it takes more memory than there is")
        record: dict[str, Any] = {"variant": str(variant)}
        if refusal is not None:
            record |= {"reason": refusal.reason, "detail": refusal.detail}
        else:
            record |= {"duration_s": len(variant_samples) / VARIANT_SR}
        starts = [output.writer.n_frames for output in outputs]
        writers = {output.spec: output.writer for output in outputs}
        saturated = dict.fromkeys(writers, Clipped())
        for spec, rows in analyse(split_blocks(variant_samples), VARIANT_SR, writers if refusal is None else ()):
            saturated[spec] += writers[spec].append(rows)
        affected_ranges = variant.affected_ranges(decoding.gaps, decoding.sample_rate)
        for output, start in zip(outputs, starts, strict=True):
            gaps = frame_gaps(affected_ranges, VARIANT_SR, output.spec) or None
            output.record_variant({**record, "saturated": saturated[output.spec].total, "gaps": gaps}, start)


def _dropped(unusable: UnusableAudio) -> dict[str, Any]:
    """Return the manifest columns of a track that is dropped."""
    return {"status": "dropped", "reason": unusable.reason, "detail": unusable.detail or None}


def _exceeds_memory(seconds: float, spec: FeatureSpec) -> UnusableAudio | None:
    """Return the reason to drop a track for one feature that cannot hold it in memory; None if the feature can."""
    if spec.max_duration_s is None or seconds <= spec.max_duration_s:
        return None
    detail = f"longer than {spec.max_duration_s:g} s: {spec.name} holds the whole track in memory"
    return UnusableAudio("too-long", detail)
