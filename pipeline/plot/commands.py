"""The command `mgc plot`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgc.pipeline import completion, console, help_groups, option_types
from mgc.pipeline.commands import choose_store
from mgc.pipeline.console import LOCAL_PATH, PATH_OR_URL
from mgc.pipeline.errors import MgcError, UsageError
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mgc.pipeline.store.store import Store

#: Seconds of each track on a sheet, unless --seconds is given.
_SHEET_SECONDS = 30.0


@help_groups.command()
@click.argument("subject", type=PATH_OR_URL, required=False, metavar="[TRACK|STORE]", shell_complete=completion.stores)
@help_groups.group("Subject")
@click.option(
    "--store", type=PATH_OR_URL, shell_complete=completion.stores, help="Store of the track.  [default: the latest]"
)
@click.option("--sheet", is_flag=True, help="Of a store: a training track of each genre, side by side.")
@click.option("--start", type=option_types.NOT_NEGATIVE, help="Start of the part that is shown, in seconds.")
@click.option("--seconds", type=option_types.SECONDS, help="Length of that part.  [default: all; on a sheet 30]")
@help_groups.group("Picture")
@click.option(
    "--out",
    type=LOCAL_PATH,
    metavar="FILE",
    help="PNG or SVG, by its ending; replaced if it exists.  [default: a new PNG in the current folder]",
)
@console.json_option
@console.common_options
def plot(subject: Place | None, data_dir: Path, as_json: bool, **options: Any) -> int:
    """Draw a track's spectrogram, or the mean spectrum of each genre of a store.

    TRACK is the id of a track, its path in the dataset, or its file. What is drawn are the stored frames, nothing is
    decoded. The means are those of the training tracks.
    """
    from mgc.pipeline import pictures
    from mgc.pipeline.storage import files

    out = options["out"]
    format = pictures.format_of(out) if out is not None else "png"
    store, track = _subject(Workspace(data_dir), subject, options)
    if out is None:
        out = _new_file(store, track, options["sheet"])
    elif not out.parent.is_dir():
        raise MgcError(f"{out.parent}: no such folder", "make it, or choose another file with --out")
    figure, shown = _draw(store, track, options)
    try:
        files.write_bytes(out, pictures.encode(figure, format))
    except OSError as error:
        raise MgcError(f"{out}: {error.strerror}", "choose another file with --out") from error
    if as_json:
        console.print_json({"picture": str(out), "store": str(store.path)} | shown)
    else:
        console.echo(f"picture: {out}")
    return 0


def _subject(
    workspace: Workspace, subject: Place | None, options: dict[str, Any]
) -> tuple[Store, dict[str, Any] | None]:
    """Return the store, and the manifest columns of the track that is drawn; None for the whole store.

    Raises:
        UsageError: the options do not suit what is drawn.
    """
    from mgc.pipeline.plot.reading import find_track

    is_store = subject is None or isinstance(subject, RemotePath) or (options["store"] is None and subject.is_dir())
    if is_store and subject is not None and options["store"] not in (None, subject):
        raise UsageError(f"{subject} and --store {options['store']} name two stores", "leave one of them out")
    if not is_store and options["sheet"]:
        raise UsageError("--sheet shows tracks of all genres", "name a store, not a track")
    if is_store and not options["sheet"] and not (options["start"] is None and options["seconds"] is None):
        raise UsageError("--start and --seconds choose a part of tracks", "name a track, or add --sheet")
    store = choose_store(workspace, (subject if is_store else None) or options["store"])
    store.require_finished()
    return store, None if is_store or subject is None else find_track(store, subject)


def _new_file(store: Store, track: dict[str, Any] | None, is_sheet: bool) -> Path:
    """Return the name of a new file in the current folder.

    Raises:
        MgcError: there is such a file.
    """
    subject = track["track_id"] if track else f"{store.dataset['name']}-{'sheet' if is_sheet else 'genres'}"
    path = Path(re.sub(r"[^\w.-]+", "_", f"{subject}-{store.spec.name}")[-100:].lstrip(".-") + ".png")
    if path.exists():
        raise MgcError(f"{path} exists already", f"--out {path} replaces it, or name another file")
    return path


def _draw(store: Store, track: dict[str, Any] | None, options: dict[str, Any]) -> tuple[Figure, dict[str, Any]]:
    """Draw the picture; also return what it shows, for JSON."""
    from mgc.pipeline.plot import genres, reading, spectrogram
    from mgc.pipeline.plot.view import view_of

    view = view_of(store.spec, store.path)
    start, seconds = options["start"] or 0.0, options["seconds"]
    if track is not None:
        part = reading.read_part(store, view, track, start, seconds, spectrogram.COLUMNS)
        shown = {"track": track["track_id"], "genre": track["genre"]}
        return spectrogram.draw_track(view, part), shown | {"start_s": part.start_s, "stop_s": part.stop_s}
    title = f"{store.dataset['name']}, {view.spec.name}"
    if options["sheet"]:
        most, seconds = spectrogram.SHEET_COLUMNS, seconds or _SHEET_SECONDS
        tracks = reading.first_of_each_genre(store, start)
        parts = [reading.read_part(store, view, row, start, seconds, most) for row in tracks]
        figure = spectrogram.draw_sheet(view, parts, f"{title}: a training track of each genre")
        return figure, {"tracks": {row["genre"]: row["track_id"] for row in tracks}}
    means = reading.genre_means(store, view, console.progress_bar("plot", "track"))
    figure = genres.draw_means(view, means, f"{title}: mean of the training tracks of each genre")
    return figure, {"genres": means.counts}
