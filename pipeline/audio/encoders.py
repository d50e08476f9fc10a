"""The name that an encoder left in a file, from the file's first bytes."""

from __future__ import annotations

import re
import struct

#: Marks before the name in Ogg files: 32-bit length, then the text (Vorbis I specification, section 5.2.1; RFC 7845).
_OGG_MARKS = (b"\x03vorbis", b"OpusTags")
#: Bytes of a file in which a name is searched.
HEAD = 1 << 16
_LONGEST_NAME = 100
#: Optional fields of a Xing or Info header before the name: bit in its flags, and bytes.
_XING_FIELDS = ((1, 4), (2, 4), (4, 100), (8, 4))


def from_container(head: bytes) -> str | None:
    """Return the name of the encoder of an Ogg or FLAC file, such as `Lavf59.27.100`; None if there is none.

    Args:
        head: the first bytes of the file, `HEAD` or all.
    """
    try:
        if head[:4] == b"fLaC":
            return _flac_vendor(head)
        for mark in _OGG_MARKS:
            position = head.find(mark)
            if position >= 0:
                return _vendor(head, position + len(mark))
    except struct.error:  # cut off
        pass
    return None


def from_xing(frame: bytes) -> str | None:
    """Return the name in the Xing or Info header of an MPEG file, such as `LAME3.100`; None if there is none.

    Args:
        frame: the first MPEG frame of the file.
    """
    found = re.search(rb"Xing|Info", frame)
    if found is None or len(frame) < found.end() + 4:
        return None
    (flags,) = struct.unpack_from(">I", frame, found.end())
    start = found.end() + 4 + sum(length for bit, length in _XING_FIELDS if flags & bit)
    return _printable(frame[start : start + 9])


def _flac_vendor(head: bytes) -> str | None:
    """Return the vendor in the comment block of a FLAC file (RFC 9639, section 8)."""
    position = 4
    while position + 4 <= len(head):
        (block,) = struct.unpack_from(">I", head, position)
        if block >> 24 & 0x7F == 4:
            return _vendor(head, position + 4)
        position += 4 + (block & 0xFFFFFF)
    return None


def _vendor(head: bytes, position: int) -> str | None:
    (length,) = struct.unpack_from("<I", head, position)
    return _printable(head[position + 4 : position + 4 + min(length, _LONGEST_NAME)])


def _printable(name: bytes) -> str | None:
    """Return the printable ASCII at the start of a name, without spaces at its ends; None if there is none."""
    found = re.match(rb"[ -~]*", name)
    return (found[0].decode().strip() if found else "") or None
