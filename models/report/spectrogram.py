"""Spectrograms as small PNGs with 64 colours, and their axes."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from mgc.pipeline.features import FeatureSpec, Mel, Mfcc
from mgc.pipeline.features.spectral import Chroma, LinearFrequency, PowerSpectrum

#: Largest size in pixels.
WIDTH, HEIGHT = 480, 96
#: Range of levels in dB below the loudest value that is shown.
_RANGE_DB = 70.0
#: Colours from the quietest to the loudest: black over blue and grey to yellow, which grow lighter for every eye.
_ANCHORS = ((4, 8, 24), (10, 44, 104), (72, 84, 122), (128, 128, 124), (190, 172, 96), (255, 232, 90))
_COLOURS = 64


@dataclass(frozen=True)
class Spectrogram:
    """A picture of the frames of a track.

    Attributes:
        png: the picture; low frequencies are at the bottom.
        seconds: length of the track.
        ticks: labels of the vertical axis, with their heights from 0 (bottom) to 1.
    """

    png: bytes
    seconds: float
    ticks: tuple[tuple[float, str], ...]


def draw(spec: FeatureSpec, values: np.ndarray) -> Spectrogram:
    """Draw the frames of a track.

    Args:
        spec: feature of the frames; it has frames along time.
        values: float32 `(frames, bins)`.
    """
    if isinstance(spec, PowerSpectrum):
        values = 10 * np.log10(np.maximum(values, 1e-10))
    picture = _shrink(_shrink(values, WIDTH).T, HEIGHT)
    if isinstance(spec, Mfcc | Chroma) or spec.units != "dB":
        low, high = np.quantile(picture, [0.02, 0.98])
    else:
        high = float(picture.max())
        low = max(high - _RANGE_DB, float(picture.min()))
    levels = np.clip((picture - low) / max(high - low, 1e-9), 0, 1)
    rows = np.round(levels * (_COLOURS - 1)).astype(np.uint8)[::-1]
    return Spectrogram(_png(rows), len(values) / spec.frame_rate, frequency_ticks(spec))


def frequency_ticks(spec: FeatureSpec) -> tuple[tuple[float, str], ...]:
    """Labels of some frequencies, with their heights from 0 (lowest bin) to 1; empty for bins that are none."""
    hertz = (250, 500, 1000, 2000, 4000, 8000, 16000)
    if isinstance(spec, Mel) and not isinstance(spec, Mfcc):
        top = spec.sr / 2 if spec.fmax is None else spec.fmax
        low, high = _mels(spec.fmin), _mels(top)
        heights = [(_mels(value) - low) / (high - low) for value in hertz]
    elif isinstance(spec, LinearFrequency):
        heights = [value / (spec.sr / 2) for value in hertz]
    else:
        return ()
    ticks: list[tuple[float, str]] = []
    for height, value in zip(heights, hertz, strict=True):
        if 0.02 < height < 0.97 and (not ticks or height - ticks[-1][0] > 0.13):
            ticks.append((height, f"{value // 1000} kHz" if value >= 1000 else f"{value} Hz"))
    return tuple(ticks)


def _mels(hertz: float) -> float:
    """Slaney's mel scale, on which librosa's filter banks lie."""
    import librosa

    return float(librosa.hz_to_mel(hertz))


def _shrink(values: np.ndarray, size: int) -> np.ndarray:
    """Average neighbouring rows, so that at most `size` are left."""
    if len(values) <= size:
        return values
    edges = np.linspace(0, len(values), size + 1).astype(int)
    return np.add.reduceat(values, edges[:-1], axis=0) / np.diff(edges)[:, None]


def _png(indices: np.ndarray) -> bytes:
    """Encode a picture of colour numbers, uint8 `(height, width)`."""
    anchors = np.linspace(0, 1, len(_ANCHORS))
    shares = np.linspace(0, 1, _COLOURS)
    palette = np.stack([np.interp(shares, anchors, channel) for channel in np.transpose(_ANCHORS)], axis=1)
    height, width = indices.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), indices], axis=1)  # filter 0 at the start of each row
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            (b"PLTE", palette.round().astype(np.uint8).tobytes()),
            (b"IDAT", zlib.compress(rows.tobytes(), 9)),
            (b"IEND", b""),
        )
    )
