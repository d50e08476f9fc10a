"""Pictures of audio files: the spectrogram, and under it the probabilities of the genres over time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mgc.models.prediction.predict import Detail
from mgc.models.prediction.prediction import FilePrediction
from mgc.pipeline import pictures
from mgc.pipeline.errors import StoreError
from mgc.pipeline.escaping import visible
from mgc.pipeline.plot import spectrogram
from mgc.pipeline.plot.reading import read_part
from mgc.pipeline.plot.view import view_of
from mgc.pipeline.storage import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Most genres of a picture: those that are most probable over the whole file.
MOST_GENRES = 10


class TimelinePictures:
    """Writes a PNG for each audio file while files are predicted.

    A picture has the name of its file and `.png` after it, and lies in the folder as the file lies in the folder that
    all files share. It replaces the picture of an earlier call.

    Args:
        folder: folder of the pictures.
        paths: all audio files.
    """

    def __init__(self, folder: Path, paths: Sequence[str]) -> None:
        self._folder = folder
        parents = [os.path.dirname(os.path.abspath(path)) for path in paths]  # noqa: PTH100, PTH120
        self._root = os.path.commonpath(parents)

    def path_of(self, path: str) -> Path:
        """Return the path of the picture of an audio file."""
        inside = os.path.relpath(os.path.abspath(path), self._root)  # noqa: PTH100
        return self._folder / f"{inside}.png"

    def add(self, prediction: FilePrediction, detail: Detail) -> None:
        """Draw a file.

        Raises:
            MgcError: the picture cannot be written.
        """
        path = self.path_of(prediction.path)
        with files.translate_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(path, pictures.encode(draw(prediction, detail)))


@pictures.style()
def draw(prediction: FilePrediction, detail: Detail) -> Figure:
    """Draw the spectrogram of an audio file, if its frames are one, above the probabilities in each second."""
    try:
        view = view_of(detail.store.spec, detail.store.path)
    except StoreError:  # statistics of the whole track
        view = None
    genres = list(prediction.probabilities)
    order = np.argsort([-prediction.probabilities[genre] for genre in genres], kind="stable")[:MOST_GENRES]
    rows = 0.28 * len(order) + 0.7
    name = visible(Path(prediction.path).name)
    figure = pictures.new_figure(10, rows + (3.4 if view else 0.6), f"{name}: {genres[order[0]]}")
    if view:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, rows])
        part = read_part(detail.store, view, detail.row, 0.0, None, spectrogram.COLUMNS)
        spectrogram.draw_panel(figure, above, view, part)
    else:
        below = figure.subplots()
    seconds = len(prediction.timeline)
    image = below.imshow(
        prediction.timeline[:, order].T,
        extent=(0, seconds, len(order) - 0.5, -0.5),
        vmin=0,
        vmax=1,
        cmap="viridis",
        interpolation="nearest",
    )
    below.set_yticks(range(len(order)), pictures.labels([genres[k] for k in order], 18))
    below.set(xlabel="time (s)", xlim=(0, max(prediction.duration_s or 0, 1)))
    figure.colorbar(image, ax=below, label="probability", pad=0.01)
    return figure
