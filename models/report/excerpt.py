"""Excerpts of a few seconds to listen to, as small MP3s."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np

from mgc.pipeline.audio.decoding import Decoding, open_libsndfile
from mgc.pipeline.audio.ffmpeg import open_ffmpeg
from mgc.pipeline.audio.inspection import UnusableAudio, inspect
from mgc.pipeline.audio.sources import Root, local_path

#: Length in seconds, and sample rate in Hz.
SECONDS, RATE = 5.0, 22050
#: Position on libsndfile's scale from good (0) to small (1): about 36 kbit/s, 23 kB for five seconds.
_COMPRESSION = 0.8
_FADE_S = 0.05


def excerpt(root: Root, path: bytes, start_s: float, content_hash: str | None) -> tuple[bytes, float]:
    """Decode `SECONDS` of a track and encode them as MP3.

    Args:
        root, path, start_s, content_hash: see `decode`.

    Returns:
        The MP3, and the second at which it begins.

    Raises:
        UnusableAudio: the file is missing, has changed, or cannot be decoded.
        OSError: it cannot be reached, or libsndfile cannot write MP3.
    """
    import soundfile
    import soxr

    samples, rate, first = decode(root, path, start_s, SECONDS, content_hash)
    samples = soxr.resample(samples, rate, RATE)
    fade = np.linspace(0, 1, int(_FADE_S * RATE), dtype=np.float32)[: len(samples) // 2]
    samples[: len(fade)] *= fade
    samples[len(samples) - len(fade) :] *= fade[::-1]
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, samples, RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=_COMPRESSION)
    except soundfile.LibsndfileError as error:
        raise OSError(f"libsndfile cannot write MP3: {error}") from None
    return buffer.getvalue(), first


def decode(
    root: Root, path: bytes, start_s: float, seconds: float, content_hash: str | None
) -> tuple[np.ndarray, int, float]:
    """Decode an excerpt of a track.

    Args:
        root: folder or URL of the dataset.
        path: path of the file below it.
        start_s: second at which it begins; earlier if the track ends before the excerpt.
        seconds: its length; less if the track is shorter.
        content_hash: hash of the bytes that were extracted; None if it is unknown.

    Returns:
        Mono samples, float32 `(samples,)`, their rate in Hz, and the second at which they begin.

    Raises:
        UnusableAudio: the file is missing, has changed, or cannot be decoded.
        OSError: it cannot be reached.
    """
    with local_path(root, path, {}) as local:
        file = inspect(local)
        if content_hash is not None and file.content_hash != content_hash:
            raise UnusableAudio("unreadable", "it has changed since it was extracted")
        samples, rate, first = np.empty(0, np.float32), 0, 0.0
        for opener in (open_libsndfile, open_ffmpeg):
            with suppress(UnusableAudio):
                decoding = opener(file)
                samples, first = _cut(decoding, start_s, seconds)
                rate = decoding.sample_rate
            if len(samples) > rate:  # a second at least
                break
    if not len(samples):
        raise UnusableAudio("unreadable", "it cannot be decoded")
    return samples, rate, first


def _cut(decoding: Decoding, start_s: float, seconds: float) -> tuple[np.ndarray, float]:
    """Decode up to the end of the excerpt; return its samples, float32 `(samples,)`, and its start in seconds."""
    length = int(seconds * decoding.sample_rate)
    stop = int(start_s * decoding.sample_rate) + length
    kept: list[np.ndarray] = []
    n_kept = n_read = 0
    for block in decoding.blocks():
        kept.append(block)
        n_read, n_kept = n_read + len(block), n_kept + len(block)
        while n_kept - len(kept[0]) >= length:
            n_kept -= len(kept.pop(0))
        if n_read >= stop:
            break
    samples = np.concatenate(kept) if kept else np.empty(0, np.float32)
    end = min(stop, n_read) - (n_read - len(samples))
    samples = samples[max(0, end - length) : end]
    return samples, (min(stop, n_read) - len(samples)) / max(decoding.sample_rate, 1)
