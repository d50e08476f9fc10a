"""Length of the audio that an Ogg or WAV file holds, from its pages or chunks, without decoding it.

libsndfile does not report it: of a chained Ogg file, as radio recorders write it, it decodes the first stream, of a WAV
file whose header says 0 bytes, as programs write it to a pipe, nothing, and it takes a WAV file that was cut off as
whole. FLAC and MP4 need no reader here: the decoders report what their headers say.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

#: Reads bytes of a file: first byte and number of bytes; fewer at the end of the file.
Reader: TypeAlias = Callable[[int, int], bytes]

#: Size of a WAV data chunk from which on it stands for "unknown" if the file is shorter: programs that write to a pipe
#: state 2 or 4 GiB, less the header.
_PLACEHOLDER_SIZE = 0x7FFF0000
#: WAV codecs with a fixed number of bytes per sample: PCM, floating point, A-law and mu-law, and the extended header.
_WAV_CODECS = (1, 3, 6, 7, 0xFFFE)
#: An Ogg stream whose first page ends later than this, in seconds, was cut out of a longer one: it begins there.
_FIRST_PAGE_S = 10
#: Bytes of an Ogg page's header with its longest segment table, and bytes read at once in the search for a page.
_OGG_HEADER, _OGG_SEARCH = 27 + 255, 1 << 16


def held_seconds(read: Reader, size: int) -> float | None:
    """Return the seconds of audio that an Ogg or WAV file holds or should hold, according to its structure.

    Args:
        read: reads the file.
        size: length of the file in bytes.

    Returns:
        Seconds; None for other files, and if the structure does not tell.
    """
    try:
        magic = read(0, 12)
        if magic[:4] == b"OggS":
            return _ogg_seconds(read, size)
        if magic[:4] in (b"RIFF", b"RF64") and magic[8:] == b"WAVE":
            return _wav_seconds(read, size)
    except (struct.error, IndexError, ZeroDivisionError):  # damaged or incomplete headers
        pass
    return None


def _wav_seconds(read: Reader, size: int) -> float | None:
    """Return the seconds that a WAV or RF64 file's data chunk states, or those to the file's end if it states none."""
    position, bytes_per_s, long_size = 12, 0, None
    while position + 8 <= size:
        name, length = struct.unpack("<4sI", read(position, 8))
        position += 8
        if name == b"ds64":
            (long_size,) = struct.unpack("<Q", read(position + 8, 8))
        elif name == b"fmt ":
            codec, _, rate, _, align = struct.unpack("<HHIIH", read(position, 14))
            if codec not in _WAV_CODECS:
                return None
            bytes_per_s = rate * align
        elif name == b"data":
            rest = size - position
            if length == 0xFFFFFFFF and long_size:
                length = long_size
            is_placeholder = length > rest and _PLACEHOLDER_SIZE <= length <= 0xFFFFFFFF and length != long_size
            if is_placeholder or (length == 0 and not _is_chunks(read, position, size)):
                length = rest
            return length / bytes_per_s
        position += length + length % 2
    return None


def _is_chunks(read: Reader, position: int, size: int) -> bool:
    """Return True if a WAV file consists of nothing but chunks from a position to its end."""
    while position + 8 <= size:
        name, length = struct.unpack("<4sI", read(position, 8))
        if not all(32 <= byte < 127 for byte in name):
            return False
        position += 8 + length + length % 2
    return position in (size, size + 1)  # the last chunk may lack its padding


@dataclass
class _OggStream:
    """A logical stream of audio in an Ogg file.

    Attributes:
        rate: positions per second.
        skip: positions that decoders discard at the beginning.
        first: position at the end of the first page with audio; None before it.
        last: the latest position.
    """

    rate: int
    skip: int = 0
    first: int | None = None
    last: int = 0

    @property
    def seconds(self) -> float:
        start = self.first or 0
        if start <= _FIRST_PAGE_S * self.rate:
            start = self.skip
        return max(0, self.last - start) / self.rate


def _ogg_seconds(read: Reader, size: int) -> float | None:
    """Return the sum of the streams that follow one another in an Ogg file; of simultaneous ones, the first counts."""
    chain: list[_OggStream] = []
    streams: dict[int, _OggStream] = {}
    is_beginning = False  # whether the last page began a stream: streams that begin together are simultaneous
    position = 0
    while position + 27 <= size:
        header = read(position, _OGG_HEADER)
        if header[:4] != b"OggS":  # damaged: search for the next page
            found = read(position, _OGG_SEARCH).find(b"OggS", 1)
            position += found if found > 0 else _OGG_SEARCH - 3
            continue
        kind, granule, serial = struct.unpack("<xxxxxBqI", header[:18])
        n_segments = header[26]
        body = position + 27 + n_segments
        if kind & 2:
            if not is_beginning:
                streams = {}
            stream = _audio_stream(read(body, 64))
            if stream is not None and not streams:
                streams[serial] = stream
                chain.append(stream)
        elif serial in streams and granule > 0:
            stream = streams[serial]
            stream.first = granule if stream.first is None else stream.first
            stream.last = max(stream.last, granule)
        is_beginning = bool(kind & 2)
        position = body + sum(header[27 : 27 + n_segments])
    return sum(stream.seconds for stream in chain) if chain else None


def _audio_stream(packet: bytes) -> _OggStream | None:
    """Identify a stream by its first packet: Vorbis, Opus, FLAC or Speex; None for others, such as pictures."""
    if packet[:7] == b"\x01vorbis":
        return _OggStream(struct.unpack("<I", packet[12:16])[0])
    if packet[:8] == b"OpusHead":
        return _OggStream(48_000, struct.unpack("<H", packet[10:12])[0])
    if packet[:5] == b"\x7fFLAC":
        return _OggStream(int.from_bytes(packet[27:30], "big") >> 4)
    if packet[:8] == b"Speex   ":
        return _OggStream(struct.unpack("<I", packet[36:40])[0])
    return None
