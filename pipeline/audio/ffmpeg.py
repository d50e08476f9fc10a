"""Decoding by FFmpeg (PyAV): the second decoder, which skips damaged frames where libsndfile fails or stops early.

PyAV was chosen over miniaudio because it removes the encoder's padding as libsndfile does, reports damaged packets and
reads Opus; miniaudio returned 52 ms less of every MP3.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from mgc.pipeline.audio.decoding import SAMPLE_RATES, Decoding, unsupported_rate
from mgc.pipeline.audio.inspection import AudioFile, UnusableAudio

#: Containers that FFmpeg may open. Without this list it would also open playlists, which make it read other files.
_CONTAINERS = (
    "mp3,wav,w64,flac,ogg,aiff,au,caf,aac,mov,mp4,m4a,3gp,matroska,webm,asf,ac3,eac3,ape,wv,tta,mpc,mpc8,amr,avi"
)
#: Raw streams of frames without a container: FFmpeg guesses their length from the bit rate of the first frames.
_RAW_STREAMS = frozenset(("aac", "ac3", "eac3", "amr"))


def open_ffmpeg(file: AudioFile) -> Decoding:
    """Open a file with FFmpeg, which skips packets that it cannot decode.

    Where the sample rate or the number of channels changes, the rest is converted to the initial ones.

    Raises:
        UnusableAudio: `not-audio`, `no-audio` or `unsupported`.
    """
    import av

    av.logging.set_level(None)
    try:
        container = av.open(os.fsdecode(file.path), metadata_errors="ignore", options={"format_whitelist": _CONTAINERS})
    except (av.FFmpegError, OSError, ValueError):
        raise _unopenable(file) from None
    streams = container.streams.audio
    if not streams:
        container.close()
        raise UnusableAudio("no-audio", f"{container.format.long_name} without an audio stream")
    stream = streams[0]
    try:
        rate, channels = stream.rate, stream.channels
    except (AttributeError, av.FFmpegError):
        rate = channels = 0
    if not rate or not channels:
        container.close()
        if container.format.name == "mp3" and file.unidentified:  # FFmpeg went by the file's name: zeros, for instance
            raise UnusableAudio("not-audio", "no known audio format")
        raise UnusableAudio("unsupported", f"{container.format.long_name}: no decoder for its audio")
    decoding = Decoding("ffmpeg")
    decoding.sample_rate, decoding.channels = rate, channels
    decoding.codec = stream.codec_context.name.removesuffix("float")
    if rate not in SAMPLE_RATES:
        container.close()
        raise unsupported_rate(rate)
    decoding.is_mpeg = container.format.name == "mp3"
    if container.format.name in _RAW_STREAMS:
        decoding.declared_s = 0.0  # `_ffmpeg_blocks` adds up the frames
    elif file.held_s is not None:  # FFmpeg adds up the streams of a chained Ogg file wrongly
        decoding.declared_s = file.held_s
    elif not file.lacks_length_header and stream.duration and stream.time_base:
        decoding.declared_s = float(stream.duration * stream.time_base)
    elif container.format.name.startswith("matroska") and container.duration:  # states one length for all streams
        decoding.declared_s = container.duration / av.time_base
    else:
        decoding.declared_s = file.mpeg_seconds
    decoding._blocks = _ffmpeg_blocks(container, stream, decoding)
    return decoding


def _unopenable(file: AudioFile) -> UnusableAudio:
    """Describe a file that FFmpeg cannot open."""
    if file.frame_stats and file.frame_stats.has_id3:
        return UnusableAudio("no-audio", "an ID3 tag, and no audio behind it")
    if file.frame_stats is None:  # it begins like an audio container
        return UnusableAudio("unsupported", "no decoder reads this audio container")
    return UnusableAudio("not-audio", "no known audio format")


def _ffmpeg_blocks(container: object, stream: object, decoding: Decoding) -> Iterator[np.ndarray]:
    """Yield mono blocks at the decoding's sample rate, count damaged packets and add up the length of raw streams."""
    import av
    import soxr

    layout: tuple | None = None
    packed = resampler = None

    def flush() -> Iterator[np.ndarray]:
        if resampler is not None:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)

    with container:  # type: ignore[attr-defined]
        raw_stream = container.format.name in _RAW_STREAMS  # type: ignore[attr-defined]
        for packet in _packets(container, stream):
            if raw_stream and packet.duration and packet.time_base:
                decoding.declared_s = (decoding.declared_s or 0.0) + float(packet.duration * packet.time_base)
            try:
                frames = packet.decode()
            except av.FFmpegError:
                decoding.damaged_packets += 1
                continue
            for frame in frames:
                if layout != (frame.format.name, frame.layout.name, frame.sample_rate):
                    yield from flush()
                    layout = (frame.format.name, frame.layout.name, frame.sample_rate)
                    # Packed, since PyAV miscounts the planes of 8 and more channels and reads beyond them.
                    packed = av.AudioResampler(format="flt")
                    rates = frame.sample_rate, decoding.sample_rate
                    resampler = soxr.ResampleStream(*rates, 1, dtype="float32") if rates[0] != rates[1] else None
                for converted in packed.resample(frame):  # type: ignore[union-attr]
                    block = decoding.to_mono(converted.to_ndarray().reshape(converted.samples, -1))
                    yield block if resampler is None else resampler.resample_chunk(block)
        yield from flush()


def _packets(container: object, stream: object) -> Iterator:
    """Yield packets to the end of the file, or to the point where the container becomes unreadable."""
    import av

    packets = container.demux(stream)  # type: ignore[attr-defined]
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        yield packet
