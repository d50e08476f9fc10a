"""The picture of a track: its spectrogram, and below it the probabilities of some genres over time."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from mgc.models.report import svg
from mgc.models.report.charts import WIDTH, percent
from mgc.models.report.examples import Example, excerpt_end
from mgc.models.report.svg import element, line, picture, text
from mgc.pipeline.wrapping import ellipsise

_LEFT, _RIGHT, _TOP = 78, WIDTH - 6, 6
_PICTURE, _ROW = 96, 18


@dataclass(frozen=True)
class Drawing:
    """The picture of a track, and its axis of time for the script that moves a line along it.

    Attributes:
        picture: the picture.
        left, right: horizontal positions of the start and the end of the track.
        seconds: length of the track.
    """

    picture: Markup
    left: int
    right: int
    seconds: float


def data_uri(kind: str, data: bytes) -> str:
    """Make a data URI of a MIME type and bytes."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def draw(id: str, example: Example, genres: Sequence[str], slice_s: float) -> Drawing:
    """Draw a track.

    Args:
        id: id of the picture.
        example: the track.
        genres: names of all genres.
        slice_s: length of a slice in seconds; 0 if a slice is the whole track.
    """
    shown = example.spectrogram
    step = float(np.median(np.diff(example.starts))) if len(example.starts) > 1 else slice_s
    seconds = shown.seconds if shown else float(example.starts[-1]) + max(slice_s, step, 1.0)
    seconds = max(seconds, 1e-3)

    def x(time: float) -> float:
        return _LEFT + min(max(time / seconds, 0.0), 1.0) * (_RIGHT - _LEFT)

    parts: list[Markup] = []
    y = float(_TOP)
    if shown is not None:
        uri = data_uri("image/png", shown.png)
        size = {"width": _RIGHT - _LEFT, "height": _PICTURE, "preserveAspectRatio": "none"}
        parts.append(element("image", href=uri, x=_LEFT, y=y, **size))
        for height, label in shown.ticks:
            at = y + (1 - height) * _PICTURE
            parts += [line(_LEFT - 4, at, _LEFT, at, "axis"), text(_LEFT - 7, at + 4, label, "tick", "end")]
        y += _PICTURE
    if example.mp3:
        top = y if shown else _TOP
        width = x(excerpt_end(example)) - x(example.excerpt_s)
        parts.append(element("rect", x=x(example.excerpt_s), y=top, width=width, height=3, class_="heard"))
    y += 7
    labels = ellipsise([genres[k] for k in example.genres], 12)
    for number, (genre, label) in enumerate(zip(example.genres, labels, strict=True)):
        own = genre == example.track.true
        parts.append(text(_LEFT - 7, y + 13, label, "name own" if own else "name", "end"))
        parts.append(element("rect", x=_LEFT, y=y, width=_RIGHT - _LEFT, height=_ROW - 3, class_="track"))
        for start, p in zip(example.starts, example.probabilities[:, number], strict=True):
            # The middle of a slice, and as wide as the step between slices, so that cells do not overlap.
            centre = start + slice_s / 2
            low, high = (0.0, seconds) if len(example.starts) == 1 else (centre - step / 2, centre + step / 2)
            tip = element("title", f"{genres[genre]}, {start:.1f} s: {percent(float(p))}")
            kind = "p own" if own else "p"
            cell = {"x": x(low), "width": max(x(high) - x(low), 0.6), "y": y, "height": _ROW - 3}
            parts.append(element("rect", tip, **cell, class_=kind, fill_opacity=f"{p:.2f}"))
        y += _ROW
    for tick in svg.ticks(0, seconds, 6):
        anchor = "middle" if 0.03 < tick / seconds < 0.97 else "start" if tick == 0 else "end"
        parts.append(text(x(tick), y + 12, f"{tick:.6g} s" if tick else "0", "tick", anchor))
    playhead = line(_LEFT, _TOP, _LEFT, y, "playhead")
    parts.append(playhead)
    track = example.track
    means = ", ".join(f"{genres[k]} {percent(float(track.probabilities[k]))}" for k in example.genres)
    above = "Spectrogram, and below it the" if shown else "The"
    description = f"{above} probabilities of {means}."
    drawn = picture(id, WIDTH, y + 16, f"{track.title or track.id} over time", description, *parts)
    return Drawing(drawn, _LEFT, _RIGHT, seconds)
