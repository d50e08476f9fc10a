"""The style of all pictures, and their files."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from genres import LONG_GENRES
from geometry import assert_legible
from matplotlib.figure import Figure

from mgc.pipeline import pictures
from mgc.pipeline.errors import SpecError


@pictures.style()
def draw(title: str = "<b>$x$</b> שלום 音楽 \x1b[31m", alarm: str = "") -> Figure:
    figure = pictures.new_figure(4, 3, title, alarm=alarm)
    figure.subplots().plot(np.eye(3))
    return figure


@pytest.mark.parametrize("format", pictures.FORMATS)
def test_equal_pictures_are_equal_files_whatever_the_users_settings(
    format: str, recwarn: pytest.WarningsRecorder
) -> None:
    first = pictures.encode(draw(), format)
    with matplotlib.rc_context({"axes.facecolor": "red", "font.family": "serif", "text.usetex": True}):
        assert pictures.encode(draw(), format) == first
        assert matplotlib.rcParams["axes.facecolor"] == "red"
    assert first.startswith(b"\x89PNG" if format == "png" else b"<?xml")
    assert b"Date" not in first
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize("title", ["short", "some words of a title " * 9])
def test_a_title_has_space_of_its_own(title: str) -> None:
    for alarm in ("", "LEAKY"):
        figure = draw(title, alarm)
        assert_legible(figure)
        assert figure.get_suptitle() == (f"LEAKY: {title}" if alarm else title)


def test_labels_are_short_escaped_and_different() -> None:
    assert pictures.labels(["Rock", "a\x1bb"]) == ["Rock", r"a\x1bb"]
    made = pictures.labels(LONG_GENRES)
    assert max(map(len, made)) == 24
    assert len(set(made)) == len(LONG_GENRES)


def test_formats_by_the_ending_of_a_name() -> None:
    assert [pictures.format_of(Path(name)) for name in ("a.png", "b/c.SVG")] == ["png", "svg"]
    with pytest.raises(SpecError, match=r"a\.jpg"):
        pictures.format_of(Path("a.jpg"))


def linear(colours: list[str]) -> np.ndarray:
    """Linear RGB of sRGB colours, `(n, 3)`."""
    parts = np.array([matplotlib.colors.to_rgb(colour) for colour in colours])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB, `(n, 3)`."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = np.clip(rgb, 0, 1) @ matrix.T / [0.9505, 1, 1.089]
    root = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.stack([116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], axis=1)


#: Linear RGB as people without cones of one kind see it (Machado, Oliveira and Fernandes, 2009).
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_differ_for_every_kind_of_colour_vision(deficiency: str) -> None:
    """The nearest two of eight are 16 to 21 apart (CIE76), of matplotlib's own first eight 5 to 15."""
    with pictures.style():
        cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    seen = lab(linear(cycle) @ np.array(DEFICIENCIES[deficiency]).T)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(cycle), 1)]
    assert distances.min() > 16


def test_an_alarm_can_be_read_on_white() -> None:
    (luminance,) = linear([pictures.ALARM]) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) >= 4.5  # WCAG AA
