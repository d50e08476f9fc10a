"""What runs inside a worker: decode the tracks of a task once, write the shards of every feature asked for."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import audio, augment, files
from pipeline.analysis import FILTER_REACH, analyse
from pipeline.audio import AudioFile, Decoding, Unusable
from pipeline.augment import Keeper, Variant
from pipeline.features import FeatureSpec
from pipeline.manifest import write_fragment
from pipeline.remote import Place, RemotePath, Status, below, parse, scratch
from pipeline.shard import ShardWriter
from pipeline.store import Store
from pipeline.tracks import MANIFEST_SCHEMA, unescape

#: A file of foreign bytes in which a decoder finds less audio than this holds no audio: the frames are accidents.
ACCIDENT_S = 2.0
#: Times a file that changes while it is read is read before it is given up until the next run.
READINGS = 2


@dataclass(frozen=True)
class Target:
    """Shards of one store to write: `(shard, first track, stop)` of the task's tracks, in their order."""

    store: Store
    shards: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Task:
    """Tracks that one worker decodes, one after the other.

    Attributes:
        root: folder or URL that the paths are relative to.
        tracks: rows of `DATASET_SCHEMA`.
        targets: the stores that get their frames.
        verdicts: reasons already known by row: tracks that killed or hung a worker are not tried again.
        max_duration: seconds beyond which a track is `too-long`.
        beacons: of stores at a URL: a folder that all workers and the client share; None where they share none.
    """

    root: str
    tracks: pa.Table
    targets: list[Target]
    verdicts: dict[int, str] = field(default_factory=dict)
    max_duration: float | None = None
    beacons: str | None = None

    @property
    def beacon(self) -> Place:
        """A file that tells which row is being decoded, by which worker: it outlives one that dies or hangs."""
        target = self.targets[0]
        if isinstance(target.store.path, RemotePath) and self.beacons is not None:
            store = files.digest(str(target.store.path).encode())
            return Path(self.beacons) / f"{store}-{target.shards[0][0]:05d}.row"
        return target.store.path / "shards" / f"{files.TEMPORARY}{target.shards[0][0]:05d}.row"


def extract(task: Task) -> pa.Table:
    """Decode the task's tracks and commit its shards.

    Returns:
        One row per track: status, reason, duration_s.
    """
    _warm_up(task)
    root = parse(task.root) or os.fsencode(task.root)
    outputs = [_Output(target) for target in task.targets]
    results = []
    try:
        with _Beacon(task.beacon) as beacon:
            for row, track in enumerate(task.tracks.to_pylist()):
                beacon.show(row)
                for output in outputs:
                    output.turn_to(row)
                found = _extract_track(root, track, outputs, task.verdicts.get(row), task.max_duration)
                results.append((found["status"], found["reason"], found["duration_s"]))
        for output in outputs:
            output.turn_to(len(task.tracks))
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
    mono = audio.mixed_down(np.zeros((1, 2), np.float32))
    for spec, rows in analyse([mono], 22050, specs):
        spec.encode(rows, np.empty(rows.shape, spec.dtype))
    for variant in task.targets[0].store.variants:
        variant.apply(np.zeros(augment.RATE, np.float32), "")


class _Beacon:
    """Keeps the row at work and the worker's address in a file, rewritten in place (10 µs a track), or in an object."""

    def __init__(self, path: Place) -> None:
        from distributed import get_worker

        self._path = path
        try:
            self._worker = get_worker().contact_address
        except ValueError:
            self._worker = "none"

    def __enter__(self) -> _Beacon:
        if not isinstance(self._path, RemotePath):
            self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        return self

    def show(self, row: int) -> None:
        data = f"{row:8d} {self._worker}\n".encode()
        if isinstance(self._path, RemotePath):
            self._path.write_bytes(data)
        else:
            os.pwrite(self._handle, data, 0)

    def __exit__(self, *_: object) -> None:
        if not isinstance(self._path, RemotePath):
            os.close(self._handle)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


class _Output:
    """The shards of one store, one open at a time."""

    def __init__(self, target: Target) -> None:
        self.store = target.store
        self.spec = target.store.spec
        self._shards = iter(target.shards)
        self._stop = 0
        self._shard: int | None = None
        self.writer: ShardWriter
        self._rows: list[dict[str, Any]] = []

    def turn_to(self, row: int) -> None:
        """Commit the open shard where its last track is done, and open the one that `row` belongs to."""
        if row < self._stop:
            return
        if self._shard is not None:
            self._commit()
        following = next(self._shards, None)
        if following is not None:
            self._shard, _, self._stop = following
            folder = self.store.path / "shards"
            if isinstance(folder, RemotePath):
                self._temporary = Path(scratch()) / f"{files.TEMPORARY}{uuid.uuid4().hex}.zarr"
            else:
                self._temporary = folder / f"{files.TEMPORARY}{os.getpid()}-{self._shard:05d}.zarr"
            shutil.rmtree(self._temporary, ignore_errors=True)
            self.writer = ShardWriter(self._temporary, self.spec)

    def record(self, row: Mapping[str, Any], first_frame: int, saturated: int, gaps: list[list[int]]) -> None:
        """The manifest row of the track whose frames came last."""
        self._rows.append(
            {
                **row,
                "saturated": saturated,
                "gaps": gaps or None,
                "shard": self._shard,
                "first_frame": first_frame,
                "n_frames": self.writer.n_frames - first_frame,
            }
        )

    def record_variant(self, fate: Mapping[str, Any], first_frame: int) -> None:
        """What became of a variant of that track: its frames came last."""
        row = self._rows[-1]
        frames = {"first_frame": first_frame, "n_frames": self.writer.n_frames - first_frame}
        row["variants"] = [*(row["variants"] or ()), {**fate, **frames}]

    def _commit(self) -> None:
        assert self._shard is not None
        self.writer.close()
        commit(self.store, self._shard, self._temporary, self._rows)
        self._rows, self._shard = [], None

    def discard(self) -> None:
        """Remove what an error left unfinished."""
        if self._shard is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


_Sinks = Sequence[_Output | Keeper]


def commit(store: Store, shard: int, temporary: Path, rows: list[dict[str, Any]]) -> None:
    """Give a finished shard its name and write its manifest rows: whoever finds the fragment finds the shard whole."""
    final = store.shard_path(shard)
    shard_files = files.folder_files(temporary, final.name)
    files.write_folder(temporary, final)
    write_fragment(store, shard, pa.Table.from_pylist(rows, MANIFEST_SCHEMA), shard_files)


def _extract_track(
    root: bytes | RemotePath,
    track: Mapping[str, Any],
    outputs: list[_Output],
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
    keeper = Keeper()
    sinks: list[_Output | Keeper] = [*outputs, keeper] if variants else [*outputs]
    starts = [sink.writer.n_frames for sink in sinks]
    saturated = [0] * len(sinks)
    gaps: list[list[list[int]]] = [[] for _ in outputs]
    holding = []
    try:
        if verdict is not None:
            row |= _signature(_status(root, unescape(track["path"])))
            raise Unusable(verdict, _VERDICTS[verdict])
        with _at_hand(root, unescape(track["path"]), row) as path:
            decoding, saturated = _read(path, row, sinks, starts, max_duration)
        row |= {"status": "ok", "detail": "; ".join(decoding.notes()) or None}
        gaps = [_frame_gaps(decoding.gaps, decoding.sample_rate, output.spec) for output in outputs]
    except Unusable as unusable:
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
    outputs: list[_Output], samples: np.ndarray | None, variants: Sequence[Variant], decoding: Decoding, key: str
) -> None:
    """Append the frames of the variants of a track behind its own, and say in its row what became of each.

    Args:
        outputs: those that hold the track.
        samples: the track at `augment.RATE`; None where it is too long to be held.
        variants: which.
        decoding: the track's, for its gaps.
        key: see `Variant.apply`.
    """
    for variant in variants:
        made, refusal = np.empty(0, np.float32), None
        if samples is None:
            held = f"variants hold the whole track in memory, {augment.MB_PER_MINUTE} MB a minute"
            refusal = Unusable("too-long", f"longer than {augment.LONGEST_S:g} s: {held}")
        else:
            try:
                made = variant.apply(samples, key)
            except MemoryError:
                refusal = Unusable("crashed", "making it takes more memory than there is")
        fate: dict[str, Any] = {"variant": str(variant)}
        if refusal is not None:
            fate |= {"reason": refusal.reason, "detail": refusal.detail}
        else:
            fate |= {"duration_s": len(made) / augment.RATE}
        starts = [output.writer.n_frames for output in outputs]
        writers = {output.spec: output.writer for output in outputs}
        saturated = dict.fromkeys(writers, 0)
        for spec, rows in analyse(augment.blocks(made), augment.RATE, writers if refusal is None else ()):
            saturated[spec] += writers[spec].append(rows)
        spoilt = variant.spoilt(decoding.gaps, decoding.sample_rate)
        for output, start in zip(outputs, starts, strict=True):
            gaps = _frame_gaps(spoilt, augment.RATE, output.spec) or None
            output.record_variant({**fate, "saturated": saturated[output.spec], "gaps": gaps}, start)


def _dropped(unusable: Unusable) -> dict[str, Any]:
    return {"status": "dropped", "reason": unusable.reason, "detail": unusable.detail or None}


def _beyond_memory(seconds: float, spec: FeatureSpec) -> Unusable | None:
    """Why one feature cannot be made of a track that the others can be made of."""
    if spec.longest_s is None or seconds <= spec.longest_s:
        return None
    return Unusable("too-long", f"longer than {spec.longest_s:g} s: {spec.name} holds the whole track in memory")


def _read(
    path: bytes, row: dict[str, Any], outputs: _Sinks, starts: list[int], max_duration: float | None
) -> tuple[Decoding, list[int]]:
    """Append the frames of a file, and enter into its manifest row what was found; values that saturated, per output.

    What is stored is of the bytes whose hash is stored: a file that changes meanwhile is read again.

    Raises:
        Unusable: it holds nothing to learn from, or does not keep still.
    """
    blank = dict(row)
    for _ in range(READINGS):
        _truncate(outputs, starts)
        row |= blank
        row |= _signature(audio.status(path))
        file = audio.inspect(path)
        row |= _signature(file.found) | {"content_hash": file.content_hash}
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
        except Unusable as unusable:
            failure = unusable
        except MemoryError:
            failure = Unusable("crashed", "decoding it takes more memory than there is")
        if not file.changed:
            if failure is not None:
                raise failure
            return decoding, saturated
    # Without size and hash the next run cannot take it for one it knows.
    row |= blank
    raise Unusable("unreadable", "it changed while it was read")


def _status(root: bytes | RemotePath, path: bytes) -> os.stat_result | Status:
    """What the file system, or the server, says of an audio file.

    Raises:
        Unusable: `missing`, `not-a-file` or `unreadable`.
    """
    if not isinstance(root, RemotePath):
        return audio.status(os.path.join(root, path))  # noqa: PTH118  names need not be text
    with _refusals():
        return below(root, path).stat()


@contextlib.contextmanager
def _at_hand(root: bytes | RemotePath, path: bytes, row: dict[str, Any]) -> Iterator[bytes]:
    """The name of an audio file that can be opened.

    Of an object it is that of a copy, one at a time; what the server says of its size and time enters the row.

    Raises:
        Unusable: there is no object, or it cannot be read.
    """
    if not isinstance(root, RemotePath):
        yield os.path.join(root, path)  # noqa: PTH118  names need not be text
        return
    with tempfile.TemporaryDirectory(prefix="mgc-", dir=scratch()) as folder:
        copy = Path(folder) / os.fsdecode(path.rpartition(b"/")[2][-200:])  # FFmpeg looks at names, too
        found = _fetch(root, path, copy, row)
        try:
            yield os.fsencode(copy)
        finally:
            row |= _signature(found)


def _fetch(root: RemotePath, path: bytes, copy: Path, row: dict[str, Any]) -> Status:
    """Copy an object that keeps still meanwhile, and enter its size and time into the manifest row.

    Raises:
        Unusable: `missing` or `unreadable`.
        OSError: no server can be reached, or the disk is full: that is no fault of the object's.
    """
    with _refusals():
        place = below(root, path)
        for _ in range(READINGS):
            found = place.stat()
            row |= _signature(found)
            place.fetch(copy)
            if place.stat() == found:
                return found
    row |= {"size": None, "mtime_ns": None}
    raise Unusable("unreadable", "it changed while it was read")


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What a server says of one object as `Unusable`."""
    try:
        yield
    except FileNotFoundError:
        raise Unusable("missing") from None
    except OSError as error:
        if error.errno in (errno.EHOSTUNREACH, errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unusable("unreadable", error.strerror or "") from None


def _signature(found: os.stat_result | Status) -> dict[str, int]:
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


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
        Unusable: no decoder opens it.
    """
    first = None
    saturated = [0] * len(outputs)
    with contextlib.suppress(Unusable):
        first = audio.open_libsndfile(file)
        saturated = _append(first, outputs, max_duration)
        if not first.stopped_early(file):
            return first, saturated
    try:
        second = audio.open_ffmpeg(file)
    except Unusable:
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
    second = audio.open_ffmpeg(file)
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
    """Raise `Unusable` where what was decoded is nothing to learn from."""
    if not decoding.n_samples:
        raise Unusable("no-audio", decoding.error or "no samples in it")
    if file.foreign and decoding.mpeg and decoding.seconds < ACCIDENT_S:
        raise Unusable("not-audio", f"{decoding.seconds:.2f} s of accidental frames in foreign bytes")
    if max_duration is not None and decoding.seconds > max_duration:
        raise Unusable("too-long", f"longer than {max_duration:g} s")
    if decoding.peak <= audio.SILENCE:
        if decoding.gaps:
            raise Unusable("non-finite", "no finite sample above -80 dBFS")
        raise Unusable("silence", "no sample above -80 dBFS")


def _frame_gaps(gaps: Sequence[Sequence[float]], rate: int, spec: FeatureSpec) -> list[list[int]]:
    """[first, stop) ranges of the frames that depend on bad samples at a rate, overlapping ranges joined."""
    ratio = spec.sr / rate
    reach = FILTER_REACH if spec.sr != rate else 0
    joined: list[list[int]] = []
    for first, stop in gaps:
        start, end = spec.touched(first * ratio - reach, stop * ratio + reach)
        start = max(0, start)
        if joined and start <= joined[-1][1]:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return joined
