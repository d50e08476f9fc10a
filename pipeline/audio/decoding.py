"""Audio files: what a file is, its samples as mono blocks, and why it cannot be used.

libsndfile decodes. Where it fails or stops early, FFmpeg (PyAV) tries: it skips damaged frames and goes on. PyAV rather
than miniaudio, because it removes the encoder's padding as libsndfile does, says how many packets were damaged and
reads Opus; miniaudio returned 52 ms less of every MP3.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mgc.pipeline.audio import mpeg
from mgc.pipeline.storage import files

#: Samples per block and channel, about 1.5 s, so that a block stays in the processor's cache.
BLOCK = 65536
#: Peaks below are silence: -80 dBFS.
SILENCE = 1e-4
#: Beyond this level (+120 dBFS) a sample is no sound but a damaged number; its power would overflow float32.
LOUDEST = 1e6
#: Sample rates in Hz that audio can have. What a damaged header says beyond them would be resampled by a factor of
#: thousands, and fill the memory.
RATES = range(1000, 768_000 + 1)
#: Seconds of audio in a block at most: at a low rate, resampling makes a block many times as long.
_BLOCK_S = 30
#: Channels beyond which blocks become shorter, since libsndfile takes a header's word for up to 1024.
_BLOCK_CHANNELS = 4
#: Samples that a decoder may return less than a file should hold before that counts as an early stop: a header frame,
#: the encoder's delay and its padding take up to five MPEG frames.
TOLERANCE = 6 * 1152
#: The containers FFmpeg may open. Without this list it would also open playlists, which make it read other files.
_CONTAINERS = (
    "mp3,wav,w64,flac,ogg,aiff,au,caf,aac,mov,mp4,m4a,3gp,matroska,webm,asf,ac3,eac3,ape,wv,tta,mpc,mpc8,amr,avi"
)
#: Those of them that hold frames and nothing else: FFmpeg guesses their length from the bit rate at the start.
_BARE = frozenset(("aac", "ac3", "eac3", "amr"))
#: Bytes read at a time, most files in one piece.
_PIECE = 1 << 22
#: Longest stretch of good samples between two bad ones that still counts as part of one gap.
_GAP_JOIN_S = 0.1


class Unusable(Exception):
    """A file cannot be used.

    Attributes:
        reason: one of DESIGN's words: missing, not-a-file, unreadable, empty, not-audio, no-audio, unsupported, ...
        detail: for people.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason, detail)


@dataclass(frozen=True)
class AudioFile:
    """A regular, readable file with something in it.

    Attributes:
        path: as bytes, since names need not be text.
        content_hash: BLAKE3-128 of its bytes.
        found: what the file system said of it when it was opened.
        survey: what a walk along its MPEG frames found; None for other containers.
        data: its bytes; None where they are too many to be kept.
    """

    path: bytes
    content_hash: str
    found: os.stat_result
    survey: mpeg.Survey | None = None
    data: bytes | None = field(default=None, repr=False)

    @property
    def changed(self) -> bool:
        """Whether its name has come to stand for other bytes, or for nothing, since it was opened."""
        try:
            return _identity(os.stat(self.path)) != _identity(self.found)
        except OSError:
            return True

    @property
    def foreign(self) -> bool:
        """Whether it is no MPEG stream although it starts like no other container."""
        return self.survey is not None and self.survey.share < 0.5

    @property
    def seconds_present(self) -> float | None:
        """Audio in its MPEG frames; None where there are none, or where they are accidents in foreign bytes."""
        return self.survey.seconds if self.survey and not self.foreign else None

    @property
    def length_is_a_guess(self) -> bool:
        """Whether no header tells a decoder how long it is."""
        return self.survey is not None and not self.foreign and not self.survey.states_length


def status(path: bytes) -> os.stat_result:
    """What the file system says of a regular file, following symbolic links.

    Raises:
        Unusable: `missing`, `not-a-file` or `unreadable`.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise _refused(path, error) from None
    _require_regular(found)
    return found


def _refused(path: bytes, error: OSError) -> Unusable:
    """Why the operating system does not open a file."""
    if os.path.islink(path):
        return Unusable("unreadable", f"symbolic link: {error.strerror}")
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return Unusable("missing")
    return Unusable("unreadable", error.strerror or "")


def _require_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a special file"
        raise Unusable("not-a-file", f"{kind} named like audio")


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def inspect(path: bytes) -> AudioFile:
    """Read a regular file without decoding it.

    Raises:
        Unusable: `missing`, `not-a-file`, `unreadable` or `empty`.
    """
    content_hash = files.Digest()
    walk, whole = None, None
    try:
        # What was a file a moment ago may be a pipe now: opened without blocking, and seen before it is read.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            _require_regular(found)
            while data := file.read(_PIECE):
                whole = data if file.tell() == len(data) else None
                content_hash.update(data)
                if walk is None and file.tell() == len(data) and data[:4] not in _MAGIC:
                    walk = mpeg.Walk()
                # Half a millisecond for a 30 s clip, and the only way to see that a file holds more than its first
                # header says: libsndfile ends at a change of rate, or at the length it guessed, without an error.
                if walk is not None:
                    walk.feed(data)
            size = file.tell()
    except OSError as error:
        raise _refused(path, error) from None
    if not size:
        raise Unusable("empty", "0 bytes")
    return AudioFile(path, content_hash.hexdigest(), found, walk.finish() if walk is not None else None, whole)


#: First bytes of audio containers that are no bare MPEG stream.
_MAGIC = frozenset((b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b".snd", b"caff", b"riff"))


class Decoding:
    """The samples of one file by one decoder, as mono blocks; and, once they are read, what was found in them.

    Attributes:
        decoder: its name.
        sample_rate: in Hz.
        channels: of the file, before the down-mix to their mean.
        declared_s: seconds that the file's headers promise; None where they say nothing.
        n_samples: read so far, per channel.
        peak: largest finite magnitude so far.
        gaps: [first, stop) sample ranges that were not finite, replaced by zeros.
        damaged: packets the decoder could not decode.
        error: what stopped the decoder before the end; None where it came through.
        mpeg: the decoder takes the file for a bare MPEG stream.
        remark: why this decoder was taken.
    """

    def __init__(self, decoder: str) -> None:
        self.decoder = decoder
        self.sample_rate = 0
        self.channels = 0
        self.declared_s: float | None = None
        self.n_samples = 0
        self.peak = 0.0
        self.gaps: list[list[int]] = []
        self.damaged = 0
        self.error: str | None = None
        self.mpeg = False
        self.remark = ""
        self._blocks: Iterator[np.ndarray] = iter(())

    @property
    def seconds(self) -> float:
        """Seconds read so far."""
        return self.n_samples / self.sample_rate if self.sample_rate else 0.0

    @property
    def tolerance_s(self) -> float:
        """What it may lack without having stopped early."""
        return TOLERANCE / self.sample_rate

    def stopped_early(self, file: AudioFile) -> bool:
        """Whether it returned clearly less than the file holds."""
        held = file.seconds_present if file.seconds_present is not None else self.declared_s
        return self.error is not None or (held is not None and self.seconds < held - self.tolerance_s)

    def notes(self) -> list[str]:
        """What a user should know of a track that was kept."""
        notes = [self.remark] if self.remark else []
        if self.error:
            notes.append(f"decoding stopped: {self.error}")
        if self.declared_s is not None and self.seconds < self.declared_s - self.tolerance_s:
            notes.append(f"damaged: {self.seconds:.1f} of {self.declared_s:.1f} s decoded")
        if self.damaged:
            notes.append(f"{self.damaged} damaged packets skipped")
        if self.gaps:
            spans = ", ".join(f"{first / self.sample_rate:.2f} s" for first, _ in self.gaps[:3])
            notes.append(f"{len(self.gaps)} gaps of non-finite samples, at {spans}")
        return notes

    def blocks(self) -> Iterator[np.ndarray]:
        """float32 `(samples,)` each, finite. A decoder that gives up ends them, and says why in `error`."""
        from mgc.pipeline.dsp import kernels

        for block in self._decoded():
            peak = float(kernels.peak(block))
            if not peak <= LOUDEST:
                self._close_gaps(block)
                peak = float(np.abs(block).max())
            self.peak = max(self.peak, peak)
            self.n_samples += len(block)
            yield block

    def _decoded(self) -> Iterator[np.ndarray]:
        """Blocks as they come; whatever a decoder raises ends them, since damaged bytes make it raise anything."""
        try:
            yield from self._blocks
        except MemoryError:
            raise
        except Exception as error:
            self.error = self.error or f"{type(error).__name__}: {error}".splitlines()[0].strip(": ")

    def _close_gaps(self, block: np.ndarray) -> None:
        """Set samples that are no sound to zero, and remember where."""
        bad = np.flatnonzero(~(np.abs(block) <= LOUDEST))
        block[bad] = 0
        join = int(_GAP_JOIN_S * self.sample_rate)
        runs = np.split(bad, np.flatnonzero(np.diff(bad) > join) + 1)
        for run in runs:
            first, stop = self.n_samples + int(run[0]), self.n_samples + int(run[-1]) + 1
            if self.gaps and first - self.gaps[-1][1] <= join:
                self.gaps[-1][1] = stop
            else:
                self.gaps.append([first, stop])


def open_libsndfile(file: AudioFile) -> Decoding:
    """Decode by libsndfile.

    Raises:
        Unusable: it cannot open the file.
    """
    import soundfile

    from mgc.pipeline.audio.memory import open_resident

    try:
        sound = soundfile.SoundFile(file.path) if file.data is None else open_resident(file.data, file.path)
    except (soundfile.LibsndfileError, ValueError, TypeError) as error:
        raise Unusable("unsupported", str(error)) from None
    # Else soundfile seeks around every read, and mpg123 decodes a part again: it takes longer, and changes last bits.
    sound.seekable = lambda: False
    decoding = Decoding("libsndfile")
    decoding.sample_rate, decoding.channels = sound.samplerate, sound.channels
    if sound.samplerate not in RATES:
        sound.close()
        raise _odd_rate(decoding)
    length = min(BLOCK, _BLOCK_S * sound.samplerate, _BLOCK_CHANNELS * BLOCK // sound.channels)
    decoding.mpeg = sound.format == "MP3"
    known = not file.length_is_a_guess and 0 <= sound.frames < 2**50  # the largest count stands for "unknown"
    decoding.declared_s = sound.frames / sound.samplerate if known else file.seconds_present

    def read() -> Iterator[np.ndarray]:
        block = np.empty((length, sound.channels), np.float32)
        with sound:
            while True:
                try:
                    count = sound.buffer_read_into(block, dtype="float32")
                except soundfile.LibsndfileError as error:
                    decoding.error = str(error).strip() or f"libsndfile error {error.code}"
                    return
                if not count:
                    return
                yield mixed_down(block[:count])

    decoding._blocks = read()
    return decoding


def _odd_rate(decoding: Decoding) -> Unusable:
    return Unusable("unsupported", f"a sample rate of {decoding.sample_rate} Hz")


def mixed_down(block: np.ndarray) -> np.ndarray:
    """The mean of the channels of `(samples, channels)`, which may be used for others afterwards."""
    channels = block.shape[1]
    if channels == 1:
        return block[:, 0].copy()
    if channels == 2:
        from mgc.pipeline.dsp import kernels

        mono = np.empty(len(block), np.float32)
        kernels.mix_stereo(block.reshape(-1), mono)
        return mono
    # A product is 40 times as fast as `mean(axis=1)`.
    with np.errstate(invalid="ignore"):  # inf - inf; what is not finite becomes a gap
        return block @ np.full(channels, 1 / channels, np.float32)


def open_ffmpeg(file: AudioFile) -> Decoding:
    """Decode by FFmpeg, which skips what it cannot decode. A change of rate or channels is converted to the first.

    Raises:
        Unusable: `not-audio`, `no-audio` or `unsupported`.
    """
    import av

    av.logging.set_level(None)
    try:
        container = av.open(os.fsdecode(file.path), metadata_errors="ignore", options={"format_whitelist": _CONTAINERS})
    except (av.FFmpegError, OSError, ValueError):
        raise _unopened(file) from None
    streams = container.streams.audio
    if not streams:
        container.close()
        raise Unusable("no-audio", f"{container.format.long_name} without an audio stream")
    stream = streams[0]
    try:
        rate, channels = stream.rate, stream.channels
    except (AttributeError, av.FFmpegError):
        rate = channels = 0
    if not rate or not channels:
        container.close()
        if container.format.name == "mp3" and file.foreign:  # taken for an MP3 by its name; zeros, for instance
            raise Unusable("not-audio", "no known audio format")
        raise Unusable("unsupported", f"{container.format.long_name}: no decoder for its audio")
    decoding = Decoding("ffmpeg")
    decoding.sample_rate, decoding.channels = rate, channels
    if rate not in RATES:
        container.close()
        raise _odd_rate(decoding)
    decoding.mpeg = container.format.name == "mp3"
    decoding.declared_s = 0.0 if container.format.name in _BARE else file.seconds_present  # bare frames are counted
    if container.format.name not in _BARE and not file.length_is_a_guess and stream.duration and stream.time_base:
        decoding.declared_s = float(stream.duration * stream.time_base)
    decoding._blocks = _ffmpeg_blocks(container, stream, decoding)
    return decoding


def _unopened(file: AudioFile) -> Unusable:
    """What a file is that no decoder opens."""
    if file.survey and file.survey.tagged:
        return Unusable("no-audio", "an ID3 tag, and no audio behind it")
    if file.survey is None:  # it starts like a container
        return Unusable("unsupported", "no decoder reads this audio container")
    return Unusable("not-audio", "no known audio format")


def _ffmpeg_blocks(container: object, stream: object, decoding: Decoding) -> Iterator[np.ndarray]:
    import av
    import soxr

    shape: tuple | None = None
    packed = resampler = None

    def flush() -> Iterator[np.ndarray]:
        if resampler is not None:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)

    with container:  # type: ignore[attr-defined]
        bare = container.format.name in _BARE  # type: ignore[attr-defined]
        for packet in _packets(container, stream):
            if bare and packet.duration and packet.time_base:
                decoding.declared_s = (decoding.declared_s or 0.0) + float(packet.duration * packet.time_base)
            try:
                frames = packet.decode()
            except av.FFmpegError:
                decoding.damaged += 1
                continue
            for frame in frames:
                if shape != (frame.format.name, frame.layout.name, frame.sample_rate):
                    yield from flush()
                    shape = (frame.format.name, frame.layout.name, frame.sample_rate)
                    # Packed: PyAV counts the planes of 8 and more channels wrongly and reads beyond them.
                    packed = av.AudioResampler(format="flt")
                    rates = frame.sample_rate, decoding.sample_rate
                    resampler = soxr.ResampleStream(*rates, 1, dtype="float32") if rates[0] != rates[1] else None
                for converted in packed.resample(frame):  # type: ignore[union-attr]
                    block = mixed_down(converted.to_ndarray().reshape(converted.samples, -1))
                    yield block if resampler is None else resampler.resample_chunk(block)
        yield from flush()


def _packets(container: object, stream: object) -> Iterator:
    """Packets until the end, or until the container itself cannot be read on."""
    import av

    demuxed = container.demux(stream)  # type: ignore[attr-defined]
    while True:
        try:
            packet = next(demuxed)
        except (StopIteration, av.FFmpegError):
            return
        yield packet
