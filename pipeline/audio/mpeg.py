"""Duration of an MPEG audio file (MP1, MP2, MP3), from its frame headers, without decoding.

libsndfile takes the length of an MP3 from its Xing/Info header or, if there is none, guesses it from the first bit rate
and stops there. Counting the frames tells apart a file that was cut, a wrong guess and bytes that are not audio.
Formats: ISO/IEC 11172-3 and 13818-3, section 2.4.1.3 (frame header); ID3v2.4, section 3.1 (tag).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from mgc.pipeline.audio import encoders

_BIT_RATES = {  # kbit/s by (MPEG-1, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz by version bits


@dataclass(frozen=True)
class FrameStats:
    """Statistics of the MPEG frames in a file.

    Attributes:
        seconds: duration of all frames in seconds.
        frame_share: bytes in frames, as a share of the bytes outside tags: near 1 for an MP3, near 0 for other files.
        has_id3: True if the file begins with an ID3 tag.
        has_length_header: True if the first frame is a Xing, Info or VBRI header, which states the exact length.
        encoder: name of the encoder in that header; None if there is none.
    """

    seconds: float
    frame_share: float
    has_id3: bool
    has_length_header: bool
    encoder: str | None = None


#: Candidates for the next frame or tag. One pattern for all: a search per kind would run to the end of the data for
#: each kind that does not occur, and do so again after every false sync.
_MARK = re.compile(rb"\xff[\xe0-\xff]|ID3|TAG")


class FrameScanner:
    """Scans a file for MPEG frames, chunk by chunk, and resynchronises after bytes that belong to none.

    A frame counts if another one, or the end of the file, follows where its header says that it ends: random bytes
    contain few such pairs.
    """

    def __init__(self) -> None:
        self._data = b""
        self._base = 0  # file offset of `_data`
        self._position = 0  # file offset of the scan
        self._in_sync = False  # True if a frame ended at `_position`
        self._seconds = 0.0
        self._frame_bytes = 0
        self._tag_bytes = 0
        self._has_id3 = False
        self._has_length_header: bool | None = None  # None until the first frame
        self._encoder: str | None = None

    def feed(self, data: bytes) -> None:
        """Scan the next bytes of the file."""
        n_done = min(self._position - self._base, len(self._data))
        self._data = self._data[n_done:] + data
        self._base += n_done
        self._scan(len(self._data) - _LONGEST)

    def finish(self) -> FrameStats:
        """Scan what is left, after the last call of `feed`, and return the statistics of the file."""
        self._scan(len(self._data))
        untagged_bytes = self._base + len(self._data) - self._tag_bytes
        frame_share = self._frame_bytes / max(1, untagged_bytes)
        return FrameStats(self._seconds, frame_share, self._has_id3, bool(self._has_length_header), self._encoder)

    def _scan(self, limit: int) -> None:
        """Scan while the position is below `limit`, an offset in `_data`."""
        from mgc.pipeline.dsp import kernels

        data, size, position, in_sync = self._data, len(self._data), self._position - self._base, self._in_sync
        numbers = np.frombuffer(data, np.uint8)
        while position < limit:
            length = 0
            if data[position] == 0xFF and position + 3 <= size:
                length = int(_LENGTHS[int.from_bytes(data[position + 1 : position + 3])])
            if length:
                end = position + length
                if in_sync or end >= size or data[end : end + 2] in _SYNCS:
                    if self._has_length_header is None:
                        frame = data[position:end]
                        self._has_length_header = any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))
                        self._encoder = encoders.from_xing(frame)
                    # About a thousand frames per clip, hence compiled. The check above holds for the first of them.
                    position, self._seconds, n_bytes = kernels.scan_mpeg_frames(
                        numbers, position, limit, _LENGTHS, _SECONDS, self._seconds
                    )
                    self._frame_bytes += n_bytes
                    in_sync = True
                    continue
            elif tag := _tag_length(data[position : position + 10]):
                self._has_id3 |= self._base + position == 0
                self._tag_bytes += tag
                position += tag
                continue
            in_sync = False
            mark = _MARK.search(data, position + 1, limit + 2)  # a mark that begins below the limit may end beyond it
            position = min(mark.start(), limit) if mark else limit
        self._position, self._in_sync = self._base + position, in_sync


def _tag_length(head: bytes) -> int:
    """Return the length in bytes of the ID3 tag that begins with these ten bytes; 0 if they begin none."""
    if head[:3] == b"TAG":
        return 128
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    a, b, c, d = (byte & 0x7F for byte in head[6:10])
    return 10 + (10 if head[5] & 0x10 else 0) + (a << 21 | b << 14 | c << 7 | d)


def _headers() -> tuple[np.ndarray, np.ndarray]:
    """Compute the lengths of frames by the second and third byte of their header, big-endian.

    Returns:
        Bytes, int64 `(65536,)`, 0 where the two bytes are not those of a header; and seconds, float64 `(65536,)`.
    """
    lengths, seconds = np.zeros(1 << 16, np.int64), np.zeros(1 << 16)
    for second in range(0xE0, 0x100):
        version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
        if version == 1 or layer == 4:
            continue
        for third in range(256):
            bit_rate, sample_rate = third >> 4, third >> 2 & 3
            if bit_rate in (0, 15) or sample_rate == 3:
                continue
            bits = _BIT_RATES[version == 3, layer][bit_rate - 1] * 1000
            rate = _SAMPLE_RATES[version][sample_rate]
            samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
            slot = 4 if layer == 1 else 1
            padding = slot if third & 2 else 0
            lengths[second << 8 | third] = samples // 8 // slot * bits // rate * slot + padding
            seconds[second << 8 | third] = samples / rate
    return lengths, seconds


_LENGTHS, _SECONDS = _headers()
#: First two bytes of all valid headers.
_SYNCS = frozenset(bytes((0xFF, index >> 8)) for index in np.flatnonzero(_LENGTHS).tolist())
#: Bytes of the longest frame plus those of the next header.
_LONGEST = int(_LENGTHS.max()) + 4
