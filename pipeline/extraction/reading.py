"""Reading one audio file: decode it, compute its frames for every feature and append them to the open shards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from mgc.pipeline.audio import sources
from mgc.pipeline.audio.decoding import SILENCE_PEAK, Decoding, open_libsndfile
from mgc.pipeline.audio.ffmpeg import open_ffmpeg
from mgc.pipeline.audio.inspection import AudioFile, UnusableAudio, inspect, stat_file
from mgc.pipeline.audio.notes import BY_FFMPEG
from mgc.pipeline.extraction.output import Output
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.analysis import RESAMPLER_REACH, analyse
from mgc.pipeline.features.spec import Clipped
from mgc.pipeline.features.variants import SampleCollector

#: Seconds of audio below which a file counts as `not-audio` if its bytes are not an MPEG stream: random bytes contain
#: valid MPEG frames by accident.
ACCIDENT_S = 2.0

#: Receiver of a track's frames: the open shard of a store, or the collector of the samples that variants need.
Sink: TypeAlias = Output | SampleCollector


class FileReader:
    """Decodes an audio file and appends its frames to several sinks.

    Args:
        sinks: receivers of the frames, each of its own feature.
        max_duration: length in seconds beyond which a file is unusable (`too-long`); None for no limit.

    Attributes:
        starts: number of frames in each sink before this file.
    """

    def __init__(self, sinks: Sequence[Sink], max_duration: float | None) -> None:
        self._sinks = sinks
        self._max_duration = max_duration
        self.starts = [sink.writer.n_frames for sink in sinks]

    def read(self, path: bytes, row: dict[str, Any]) -> tuple[Decoding, list[Clipped]]:
        """Append the frames of a file, and set the columns of its manifest row that describe file and decoding.

        The frames are of exactly the bytes whose hash is in the row: a file that changes meanwhile is read again.

        Args:
            path: local path of the file.
            row: manifest row of the track, changed in place.

        Returns:
            The finished decoding, and the numbers of values that were clipped to the range of the dtype, per sink.

        Raises:
            UnusableAudio: the file cannot be decoded, holds nothing to learn from, or keeps changing. Frames that were
                appended stay in the sinks: the caller removes them.
        """
        blank = dict(row)
        for _ in range(sources.READ_ATTEMPTS):
            self._remove_frames()
            row |= blank
            row |= sources.signature(stat_file(path))
            file = inspect(path)
            row |= sources.signature(file.stat) | {"content_hash": file.content_hash}
            failure = None
            try:
                decoding, saturated = self._decode(file)
                if decoding.is_cancelled:
                    decoding, saturated = self._decode_loudest_channel(file, decoding)
                row |= {
                    "duration_s": decoding.seconds,
                    "declared_s": decoding.declared_s,
                    "decoder": decoding.decoder,
                    "sample_rate": decoding.sample_rate,
                    "channels": decoding.channels,
                    "encoder": " ".join(filter(None, (decoding.codec, file.encoder))) or None,
                    "stereo_image": decoding.stereo_image,
                    "clipped": decoding.clipped,
                }
                self._require_sound(file, decoding)
            except UnusableAudio as unusable:
                failure = unusable
            except MemoryError:
                failure = UnusableAudio("crashed", "decoding it takes more memory than there is")
            if not file.changed:
                if failure is not None:
                    raise failure
                return decoding, saturated
        # Without size and hash the next run cannot mistake the file for an unchanged one, and reads it again.
        row |= blank
        raise UnusableAudio("unreadable", "it changed while it was read")

    def _remove_frames(self) -> None:
        """Remove the frames that this file has appended so far."""
        for sink, start in zip(self._sinks, self.starts, strict=True):
            sink.writer.truncate(start)

    def _decode(self, file: AudioFile) -> tuple[Decoding, list[Clipped]]:
        """Append the frames of a file, from FFmpeg if libsndfile fails or stops early and FFmpeg decodes clearly more.

        Returns:
            The decoding, and the numbers of clipped values per sink.

        Raises:
            UnusableAudio: neither decoder can open the file.
        """
        first = None
        saturated = [Clipped()] * len(self._sinks)
        with contextlib.suppress(UnusableAudio):
            first = open_libsndfile(file)
            saturated = self._append(first)
            if not first.stopped_early(file):
                return first, saturated
        try:
            second = open_ffmpeg(file)
        except UnusableAudio:
            if first is None or not first.n_samples:
                raise
            return first, saturated
        # The first pass by FFmpeg only measures the length: unless it is clearly longer, libsndfile's frames stay.
        for _ in second.blocks():
            if self._is_too_long(second):
                break
        if first is not None and second.seconds <= first.seconds + first.tolerance_s:
            return first, saturated
        self._remove_frames()
        second = open_ffmpeg(file)
        if first is None:
            second.remark = BY_FFMPEG
        else:
            second.remark = f"{BY_FFMPEG}: libsndfile stopped at {first.seconds:.1f} s"
        return second, self._append(second)

    def _decode_loudest_channel(self, file: AudioFile, mixed: Decoding) -> tuple[Decoding, list[Clipped]]:
        """Replace the frames of a file whose channels cancel in their mix by those of its loudest channel.

        Args:
            file: the file.
            mixed: the finished decoding of the mix.

        Returns:
            The decoding of the channel, and the numbers of clipped values per sink.
        """
        open_again = open_ffmpeg if mixed.decoder == "ffmpeg" else open_libsndfile
        measured = open_again(file)
        measured.channel_energies = np.zeros(measured.channels)
        for _ in measured.blocks():
            if self._is_too_long(measured):
                break
        self._remove_frames()
        decoding = open_again(file)
        decoding.remark, decoding.channel = mixed.remark, measured.loudest_channel
        return decoding, self._append(decoding)

    def _append(self, decoding: Decoding) -> list[Clipped]:
        """Append the frames of a decoding to every sink; return the numbers of clipped values per sink."""
        saturated = dict.fromkeys((sink.spec for sink in self._sinks), Clipped())
        writers = {sink.spec: sink.writer for sink in self._sinks}
        for spec, rows in analyse(self._blocks(decoding), decoding.sample_rate, list(writers)):
            saturated[spec] += writers[spec].append(rows)
        return [saturated[sink.spec] for sink in self._sinks]

    def _blocks(self, decoding: Decoding) -> Iterator[np.ndarray]:
        """Yield the blocks of a decoding until it exceeds the maximum duration."""
        for block in decoding.blocks():
            yield block
            if self._is_too_long(decoding):
                return

    def _is_too_long(self, decoding: Decoding) -> bool:
        return self._max_duration is not None and decoding.seconds > self._max_duration

    def _require_sound(self, file: AudioFile, decoding: Decoding) -> None:
        """Require that a finished decoding holds sound to learn from.

        Raises:
            UnusableAudio: `no-audio`, `not-audio`, `too-long`, `non-finite` or `silence`.
        """
        if not decoding.n_samples:
            raise UnusableAudio("no-audio", decoding.error or "no samples in it")
        if file.unidentified and decoding.is_mpeg and decoding.seconds < ACCIDENT_S:
            raise UnusableAudio("not-audio", f"{decoding.seconds:.2f} s of accidental frames in foreign bytes")
        if self._is_too_long(decoding):
            raise UnusableAudio("too-long", f"longer than {self._max_duration:g} s")
        if decoding.peak <= SILENCE_PEAK:
            if decoding.gaps:
                raise UnusableAudio("non-finite", "no finite sample above -80 dBFS")
            raise UnusableAudio("silence", "no sample above -80 dBFS")


def frame_gaps(gaps: Sequence[Sequence[float]], rate: int, spec: FeatureSpec) -> list[list[int]]:
    """Convert ranges of bad samples to the ranges of the frames that depend on them.

    Args:
        gaps: [first, stop) sample ranges, ascending.
        rate: sample rate of the ranges in Hz.
        spec: feature of the frames.

    Returns:
        [first, stop) frame ranges, ascending; ranges that overlap or touch are merged.
    """
    ratio = spec.sr / rate
    reach = RESAMPLER_REACH if spec.sr != rate else 0
    merged: list[list[int]] = []
    for first, stop in gaps:
        start, end = spec.affected_frames(first * ratio - reach, stop * ratio + reach)
        start = max(0, start)
        if merged and start <= merged[-1][1]:
            merged[-1][1] = end
        else:
            merged.append([start, end])
    return merged
