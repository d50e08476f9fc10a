"""Inspection of an audio file without decoding it: file status, content hash and MPEG frame headers."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from mgc.pipeline.audio import containers, encoders, mpeg
from mgc.pipeline.storage import files

#: Bytes per read: most files come in one piece.
_READ_SIZE = 1 << 22
#: First bytes of audio containers. Files that begin with them are not scanned for MPEG frames.
_MAGIC = frozenset((b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b".snd", b"caff", b"riff", b"\x1aE\xdf\xa3"))


class UnusableAudio(Exception):
    """An audio file that yields no features.

    Attributes:
        reason: the manifest's reason word, such as `missing`, `not-a-file`, `unreadable`, `empty`, `not-audio`,
            `no-audio` or `unsupported`.
        detail: explanation for the user; may be empty.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason, detail)


@dataclass(frozen=True)
class AudioFile:
    """A regular, readable file of at least one byte.

    Attributes:
        path: path as bytes, since file names need not be valid text.
        content_hash: BLAKE3-128 of the file's bytes, hexadecimal.
        stat: the file's status when it was opened.
        frame_stats: result of the MPEG frame scan; None for files that begin like another container.
        held_s: seconds of audio that an Ogg or WAV file holds or should hold; None for others.
        encoder: name that the encoder left in the file; None if it left none.
        data: the file's bytes; None for files of more than one read (4 MiB), which are decoded from disk.
    """

    path: bytes
    content_hash: str
    stat: os.stat_result
    frame_stats: mpeg.FrameStats | None = None
    held_s: float | None = None
    encoder: str | None = None
    data: bytes | None = field(default=None, repr=False)

    @property
    def changed(self) -> bool:
        """True if the path now leads to another file, to other contents or to nothing."""
        try:
            return _identity(os.stat(self.path)) != _identity(self.stat)
        except OSError:
            return True

    @property
    def unidentified(self) -> bool:
        """True if the bytes look neither like a known container nor like an MPEG stream (less than half in frames)."""
        return self.frame_stats is not None and self.frame_stats.frame_share < 0.5

    @property
    def mpeg_seconds(self) -> float | None:
        """Duration of the MPEG frames in seconds; None for other containers and unidentified bytes."""
        return self.frame_stats.seconds if self.frame_stats and not self.unidentified else None

    @property
    def lacks_length_header(self) -> bool:
        """True for an MPEG stream without a Xing, Info or VBRI header: decoders guess its length."""
        return self.frame_stats is not None and not self.unidentified and not self.frame_stats.has_length_header


def stat_file(path: bytes) -> os.stat_result:
    """Return the status of a regular file, following symbolic links.

    Raises:
        UnusableAudio: `missing`, `not-a-file` or `unreadable`.
    """
    try:
        file_stat = os.stat(path)
    except OSError as error:
        raise _access_error(path, error) from None
    _require_regular(file_stat)
    return file_stat


def inspect(path: bytes) -> AudioFile:
    """Read a regular file once: hash it, scan it for MPEG frames, keep its bytes if they are few.

    Raises:
        UnusableAudio: `missing`, `not-a-file`, `unreadable` or `empty`.
    """
    content_hash = files.Digest()
    scanner, contents, head = None, None, b""
    try:
        # A path that was a regular file a moment ago may be a pipe now: open without blocking, check before reading.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
            file_stat = os.fstat(file.fileno())
            _require_regular(file_stat)
            while data := file.read(_READ_SIZE):
                first_read = file.tell() == len(data)
                contents = data if first_read else None
                head = head or data[: encoders.HEAD]
                content_hash.update(data)
                if first_read and data[:4] not in _MAGIC and data[4:8] != b"ftyp":  # the first box of an MP4 file
                    scanner = mpeg.FrameScanner()
                # The scan takes half a millisecond for a 30 s clip, and nothing else shows that a file holds more than
                # its first header says: libsndfile ends without an error at a change of sample rate or at the length
                # that it guessed.
                if scanner is not None:
                    scanner.feed(data)
            size = file.tell()
            held_s = None
            if scanner is None and size:
                held_s = containers.held_seconds(_reader(file.fileno(), contents), size)
    except OSError as error:
        raise _access_error(path, error) from None
    if not size:
        raise UnusableAudio("empty", "0 bytes")
    frame_stats = scanner.finish() if scanner is not None else None
    encoder = frame_stats.encoder if frame_stats is not None else encoders.from_container(head)
    return AudioFile(path, content_hash.hexdigest(), file_stat, frame_stats, held_s, encoder, contents)


def _reader(descriptor: int, contents: bytes | None) -> containers.Reader:
    """Return a function that reads bytes from a file's contents, or from the open file if they are None."""
    if contents is None:
        return lambda position, length: os.pread(descriptor, length, position)
    return lambda position, length: contents[position : position + length]


def _access_error(path: bytes, error: OSError) -> UnusableAudio:
    """Convert an error of the operating system: `missing` if there is no such file, else `unreadable`."""
    if os.path.islink(path):
        return UnusableAudio("unreadable", f"symbolic link: {error.strerror}")
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return UnusableAudio("missing")
    return UnusableAudio("unreadable", error.strerror or "")


def _require_regular(file_stat: os.stat_result) -> None:
    if not stat.S_ISREG(file_stat.st_mode):
        kind = "a folder" if stat.S_ISDIR(file_stat.st_mode) else "a special file"
        raise UnusableAudio("not-a-file", f"{kind} named like audio")


def _identity(file_stat: os.stat_result) -> tuple[int, ...]:
    """Device, inode, size and modification time: they differ if the file was replaced or written."""
    return file_stat.st_dev, file_stat.st_ino, file_stat.st_size, file_stat.st_mtime_ns
