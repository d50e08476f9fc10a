"""What an MPEG audio file (MP1, MP2, MP3) should hold, read from its frame headers without decoding.

libsndfile takes the length of an MP3 from its Xing/Info header or, where there is none, guesses it from the first bit
rate and stops there. Counting the frames that are really present tells a cut file, a wrong guess and junk apart.
Layout: ISO/IEC 11172-3 and 13818-3, section 2.4.1.3 (header); ID3v2.4, section 3.1 (tag).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_BIT_RATES = {  # kbit/s by (MPEG 1?, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version bits


@dataclass(frozen=True)
class Survey:
    """What a walk along the frame headers found.

    Attributes:
        seconds: audio in all frames present.
        share: of the bytes outside tags, how much belongs to frames; near 1 in an MP3, near 0 in anything else.
        tagged: whether the file starts with an ID3 tag.
        states_length: whether the first frame is a Xing, Info or VBRI header, which tells decoders the exact length.
    """

    seconds: float
    share: float
    tagged: bool
    states_length: bool


#: What a walk stops at. One search for all: a search for each would scan on to the end for those that are not there,
#: once for every false sync.
_MARK = re.compile(rb"\xff[\xe0-\xff]|ID3|TAG")


class Walk:
    """A walk along all frames of a file that is fed to it in pieces, resynchronising over junk.

    A frame counts when another one, or the end, follows where it says it ends: random bytes hold few such pairs.
    """

    def __init__(self) -> None:
        self._data = b""
        self._base = 0  # where in the file `_data` begins
        self._at = 0  # where in the file the walk has come to
        self._in_step = False  # whether the last frame ended here
        self._seconds = 0.0
        self._frame_bytes = 0
        self._tag_bytes = 0
        self._tagged = False
        self._states_length: bool | None = None

    def feed(self, data: bytes) -> None:
        """The next bytes of the file."""
        done = min(self._at - self._base, len(self._data))
        self._data = self._data[done:] + data
        self._base += done
        self._walk(len(self._data) - _LONGEST)

    def finish(self) -> Survey:
        """What was found, once the whole file was fed."""
        self._walk(len(self._data))
        others = self._base + len(self._data) - self._tag_bytes
        return Survey(self._seconds, self._frame_bytes / max(1, others), self._tagged, bool(self._states_length))

    def _walk(self, limit: int) -> None:
        """Walk while the position is below `limit`, relative to `_data`."""
        from mgc.pipeline.dsp import kernels

        data, size, at, in_step = self._data, len(self._data), self._at - self._base, self._in_step
        numbers = np.frombuffer(data, np.uint8)
        while at < limit:
            length = int(_LENGTHS[int.from_bytes(data[at + 1 : at + 3])]) if data[at] == 0xFF and at + 3 <= size else 0
            if length:
                following = at + length
                if in_step or following >= size or data[following : following + 2] in _SYNCS:
                    if self._states_length is None:
                        frame = data[at:following]
                        self._states_length = any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))
                    # A thousand frames a clip; the first of them belongs to the stream, as was just seen.
                    at, self._seconds, n_bytes = kernels.walk(numbers, at, limit, _LENGTHS, _SECONDS, self._seconds)
                    self._frame_bytes += n_bytes
                    in_step = True
                    continue
            elif tag := _tag_length(data[at : at + 10]):
                self._tagged |= self._base + at == 0
                self._tag_bytes += tag
                at += tag
                continue
            in_step = False
            found = _MARK.search(data, at + 1, limit + 2)  # one that begins below the limit may end beyond it
            at = min(found.start(), limit) if found else limit
        self._at, self._in_step = self._base + at, in_step


def _tag_length(head: bytes) -> int:
    """Bytes of the ID3 tag that starts with these ten; 0 where none does."""
    if head[:3] == b"TAG":
        return 128
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    a, b, c, d = (byte & 0x7F for byte in head[6:10])
    return 10 + (10 if head[5] & 0x10 else 0) + (a << 21 | b << 14 | c << 7 | d)


def _headers() -> tuple[np.ndarray, np.ndarray]:
    """Bytes and seconds of a frame by the second and third byte of its header; 0 bytes where they begin none."""
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
#: The first two bytes of all headers.
_SYNCS = frozenset(bytes((0xFF, index >> 8)) for index in np.flatnonzero(_LENGTHS).tolist())
#: Bytes that the longest frame and the header behind it can take.
_LONGEST = int(_LENGTHS.max()) + 4
