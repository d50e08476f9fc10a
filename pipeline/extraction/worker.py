"""What runs inside a worker: decode the tracks of a task once, write the shards of every feature asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mgc.pipeline.audio import sources
from mgc.pipeline.audio.decoding import SILENCE_PEAK, Decoding, open_libsndfile, to_mono
from mgc.pipeline.audio.ffmpeg import open_ffmpeg
from mgc.pipeline.audio.inspection import AudioFile, UnusableAudio, inspect, stat_file
from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA, unescape
from mgc.pipeline.dsp.compilation import compilation_lock
from mgc.pipeline.extraction.output import Output
from mgc.pipeline.extraction.task import Heartbeat, Task
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.analysis import RESAMPLER_REACH, analyse
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

#: A file of foreign bytes in which a decoder finds less audio than this holds no audio: the frames are accidents.
ACCIDENT_S = 2.0


def extract(task: Task) -> pa.Table:
    """Decode the task's tracks and commit its shards.

    Returns:
        One row per track: status, reason, duration_s.
    """
    with compilation_lock(target.store.spec.name for target in task.targets):
        _warm_up(task)
    root = parse_url(task.root) or os.fsencode(task.root)
    outputs = [Output(target) for target in task.targets]
    results = []
    try:
        with Heartbeat(task.heartbeat_path) as beacon:
            for row, track in enumerate(task.tracks.to_pylist()):
                beacon.show(row)
                for output in outputs:
                    output.advance_to(row)
                found = _extract_track(root, track, outputs, task.failures.get(row), task.max_duration)
                results.append((found["status"], found["reason"], found["duration_s"]))
        for output in outputs:
            output.advance_to(len(task.tracks))
    finally:
        for output in outputs:
            output.discard()
    status, reason, duration = zip(*results, strict=True)
    return pa.table({"status": status, "reason": pa.array(reason, pa.string()), "duration_s": duration})


def _warm_up(task: Task) -> None:
    """Import libraries, compile loops, build filter banks: a worker's first file must not pay for it with its time."""
    import soundfile  # noqa: F401
    import soxr  # noqa: F401

    specs = {target.store.spec for target in task.targets}
    mono = to_mono(np.zeros((1, 2), np.float32))
    for spec, rows in analyse([mono], 22050, specs):
        spec.encode(rows, np.empty(rows.shape, spec.dtype))
    for variant in task.targets[0].store.variants:
        variant.apply(np.zeros(VARIANT_SR, np.float32), "")


_Sinks = Sequence[Output | SampleCollector]


def _extract_track(
    root: bytes | RemotePath,
    track: Mapping[str, Any],
    outputs: list[Output],
    verdict: str | None,
    max_duration: float | None,
) -> dict[str, Any]:
    """Append a track's frames and manifest row to every output; a track that is dropped leaves no frames.

    Those of its variants follow, where the stores want some and it is a training track.

    Returns:
        The row, without what depends on the output.
    """
    row: dict[str, Any] = dict.fromkeys(MANIFEST_SCHEMA.names) | dict(track)
    variants = outputs[0].store.variants if track["split"] == "training" else ()
    keeper = SampleCollector()
    sinks: list[Output | SampleCollector] = [*outputs, keeper] if variants else [*outputs]
    starts = [sink.writer.n_frames for sink in sinks]
    saturated = [0] * len(sinks)
    gaps: list[list[list[int]]] = [[] for _ in outputs]
    holding = []
    try:
        if verdict is not None:
            row |= sources.signature(sources.stat_file(root, unescape(track["path"])))
            raise UnusableAudio(verdict, _VERDICTS[verdict])
        with sources.local_path(root, unescape(track["path"]), row) as path:
            decoding, saturated = _read(path, row, sinks, starts, max_duration)
        row |= {"status": "ok", "detail": "; ".join(decoding.notes()) or None}
        gaps = [_frame_gaps(decoding.gaps, decoding.sample_rate, output.spec) for output in outputs]
    except UnusableAudio as unusable:
        row |= _dropped(unusable)
    for output, start, count, ranges in zip(outputs, starts, saturated, gaps, strict=False):  # the keeper comes last
        kept = row
        if row["status"] == "ok" and (refusal := _beyond_memory(row["duration_s"], output.spec)):
            kept = row | _dropped(refusal)
        if kept["status"] != "ok":
            output.writer.truncate(start)
            count, ranges = 0, []
        else:
            holding.append(output)
        output.record(kept, start, count, ranges)
    if holding:
        _add_variants(holding, keeper.samples, variants, decoding, row["content_hash"])
    return row


def _add_variants(
    outputs: list[Output], samples: np.ndarray | None, variants: Sequence[Variant], decoding: Decoding, key: str
) -> None:
    """Append the frames of the variants of a track behind its own, and say in its row what became of each.

    Args:
        outputs: those that hold the track.
        samples: the track at `variants.VARIANT_SR`; None where it is too long to be held.
        variants: which.
        decoding: the track's, for its gaps.
        key: see `Variant.apply`.
    """
    for variant in variants:
        made, refusal = np.empty(0, np.float32), None
        if samples is None:
            held = f"variants hold the whole track in memory, {MB_PER_MINUTE} MB a minute"
            refusal = UnusableAudio("too-long", f"longer than {MAX_DURATION_S:g} s: {held}")
        else:
            try:
                made = variant.apply(samples, key)
            except MemoryError:
                refusal = UnusableAudio("crashed", "making it takes more memory than there is")
        fate: dict[str, Any] = {"variant": str(variant)}
        if refusal is not None:
            fate |= {"reason": refusal.reason, "detail": refusal.detail}
        else:
            fate |= {"duration_s": len(made) / VARIANT_SR}
        starts = [output.writer.n_frames for output in outputs]
        writers = {output.spec: output.writer for output in outputs}
        saturated = dict.fromkeys(writers, 0)
        for spec, rows in analyse(split_blocks(made), VARIANT_SR, writers if refusal is None else ()):
            saturated[spec] += writers[spec].append(rows)
        affected_ranges = variant.affected_ranges(decoding.gaps, decoding.sample_rate)
        for output, start in zip(outputs, starts, strict=True):
            gaps = _frame_gaps(affected_ranges, VARIANT_SR, output.spec) or None
            output.record_variant({**fate, "saturated": saturated[output.spec], "gaps": gaps}, start)


def _dropped(unusable: UnusableAudio) -> dict[str, Any]:
    return {"status": "dropped", "reason": unusable.reason, "detail": unusable.detail or None}


def _beyond_memory(seconds: float, spec: FeatureSpec) -> UnusableAudio | None:
    """Why one feature cannot be made of a track that the others can be made of."""
    if spec.max_duration_s is None or seconds <= spec.max_duration_s:
        return None
    return UnusableAudio("too-long", f"longer than {spec.max_duration_s:g} s: {spec.name} holds the whole track in memory")


def _read(
    path: bytes, row: dict[str, Any], outputs: _Sinks, starts: list[int], max_duration: float | None
) -> tuple[Decoding, list[int]]:
    """Append the frames of a file, and enter into its manifest row what was found; values that saturated, per output.

    What is stored is of the bytes whose hash is stored: a file that changes meanwhile is read again.

    Raises:
        UnusableAudio: it holds nothing to learn from, or does not keep still.
    """
    blank = dict(row)
    for _ in range(sources.READ_ATTEMPTS):
        _truncate(outputs, starts)
        row |= blank
        row |= sources.signature(stat_file(path))
        file = inspect(path)
        row |= sources.signature(file.stat) | {"content_hash": file.content_hash}
        failure = None
        try:
            decoding, saturated = _decode(file, outputs, starts, max_duration)
            row |= {
                "duration_s": decoding.seconds,
                "declared_s": decoding.declared_s,
                "decoder": decoding.decoder,
                "sample_rate": decoding.sample_rate,
                "channels": decoding.channels,
            }
            _require_sound(file, decoding, max_duration)
        except UnusableAudio as unusable:
            failure = unusable
        except MemoryError:
            failure = UnusableAudio("crashed", "decoding it takes more memory than there is")
        if not file.changed:
            if failure is not None:
                raise failure
            return decoding, saturated
    # Without size and hash the next run cannot take it for one it knows.
    row |= blank
    raise UnusableAudio("unreadable", "it changed while it was read")


def _truncate(outputs: _Sinks, starts: list[int]) -> None:
    """Forget the frames of a track."""
    for output, start in zip(outputs, starts, strict=True):
        output.writer.truncate(start)


_VERDICTS = {"crashed": "decoding it ended the worker process", "timeout": "decoding it exceeded the time limit"}


def _decode(
    file: AudioFile, outputs: _Sinks, starts: list[int], max_duration: float | None
) -> tuple[Decoding, list[int]]:
    """Append the frames of one file by the decoder that gets most out of it; values that saturated, per output.

    Raises:
        UnusableAudio: no decoder opens it.
    """
    first = None
    saturated = [0] * len(outputs)
    with contextlib.suppress(UnusableAudio):
        first = open_libsndfile(file)
        saturated = _append(first, outputs, max_duration)
        if not first.stopped_early(file):
            return first, saturated
    try:
        second = open_ffmpeg(file)
    except UnusableAudio:
        if first is None or not first.n_samples:
            raise
        return first, saturated
    # Only lengths first: what libsndfile made of the file is kept unless there is clearly more to be had.
    for _ in second.blocks():
        if max_duration is not None and second.seconds > max_duration:
            break
    if first is not None and second.seconds <= first.seconds + first.tolerance_s:
        return first, saturated
    _truncate(outputs, starts)
    second = open_ffmpeg(file)
    if first is None:
        second.remark = "libsndfile could not open it"
    else:
        second.remark = f"libsndfile stopped at {first.seconds:.1f} s"
    return second, _append(second, outputs, max_duration)


def _append(decoding: Decoding, outputs: _Sinks, max_duration: float | None) -> list[int]:
    """Append the frames of a decoding to every output; values that saturated, per output."""
    saturated = dict.fromkeys((output.spec for output in outputs), 0)
    by_spec = {output.spec: output.writer for output in outputs}
    for spec, rows in analyse(_limited(decoding, max_duration), decoding.sample_rate, list(by_spec)):
        saturated[spec] += by_spec[spec].append(rows)
    return [saturated[output.spec] for output in outputs]


def _limited(decoding: Decoding, max_duration: float | None) -> Iterator[np.ndarray]:
    for block in decoding.blocks():
        yield block
        if max_duration is not None and decoding.seconds > max_duration:
            return


def _require_sound(file: AudioFile, decoding: Decoding, max_duration: float | None) -> None:
    """Raise `UnusableAudio` where what was decoded is nothing to learn from."""
    if not decoding.n_samples:
        raise UnusableAudio("no-audio", decoding.error or "no samples in it")
    if file.unidentified and decoding.is_mpeg and decoding.seconds < ACCIDENT_S:
        raise UnusableAudio("not-audio", f"{decoding.seconds:.2f} s of accidental frames in foreign bytes")
    if max_duration is not None and decoding.seconds > max_duration:
        raise UnusableAudio("too-long", f"longer than {max_duration:g} s")
    if decoding.peak <= SILENCE_PEAK:
        if decoding.gaps:
            raise UnusableAudio("non-finite", "no finite sample above -80 dBFS")
        raise UnusableAudio("silence", "no sample above -80 dBFS")


def _frame_gaps(gaps: Sequence[Sequence[float]], rate: int, spec: FeatureSpec) -> list[list[int]]:
    """[first, stop) ranges of the frames that depend on bad samples at a rate, overlapping ranges joined."""
    ratio = spec.sr / rate
    reach = RESAMPLER_REACH if spec.sr != rate else 0
    joined: list[list[int]] = []
    for first, stop in gaps:
        start, end = spec.affected_frames(first * ratio - reach, stop * ratio + reach)
        start = max(0, start)
        if joined and start <= joined[-1][1]:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return joined
