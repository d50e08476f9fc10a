"""The command `mgc search`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgc.models.parallel.options import device_option
from mgc.pipeline import completion, console, help_groups, option_types
from mgc.pipeline.commands import choose_store
from mgc.pipeline.console import LOCAL_PATH, PATH_OR_URL
from mgc.pipeline.errors import StoreError
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.models.search.neighbours import Neighbour
    from mgc.pipeline.store.store import Store


@help_groups.command()
@click.argument("what", metavar="TRACK|FILE")
@help_groups.group("Search")
@click.option(
    "--store",
    type=PATH_OR_URL,
    shell_complete=completion.stores,
    help="Store of embeddings to search.  [default: the newest in the workspace]",
)
@click.option("--top-k", type=option_types.COUNT, default=10, show_default=True, help="Tracks to list.")
@help_groups.group("Answers")
@click.option("--playlist", type=LOCAL_PATH, metavar="FILE", help="Write an M3U playlist of the tracks.")
@help_groups.group("Processes")
@device_option
@console.json_option
@console.common_options
def search(
    what: str, store: Place | None, top_k: int, playlist: Path | None, device: str, data_dir: Path, as_json: bool
) -> int:
    """List the tracks of a store of embeddings that resemble a track of it, or an audio file.

    The search is exact. Similarity is the cosine between mean embeddings, which are standardised over the store.
    """
    from mgc.models.search.neighbours import Neighbours

    workspace = Workspace(data_dir)
    opened = _embeddings(workspace, store)
    neighbours = Neighbours(opened)
    if os.path.lexists(what):
        from mgc.models.search.query import embed_file
        from mgc.pipeline.features import Embedding

        assert isinstance(opened.spec, Embedding)
        found = neighbours.of_vector(embed_file(what, opened.spec, workspace, device), top_k)
    else:
        found = neighbours.of_track(what, top_k)
    root = opened.dataset.get("root", "")
    if as_json:
        console.print_json([_as_dict(one, root) for one in found])
    else:
        console.echo(*_lines(found))
    if playlist is not None:
        _write_playlist(playlist, found, root)
    return 0


def _embeddings(workspace: Workspace, path: Place | None) -> Store:
    """Open the store of embeddings that the user named, or else the newest one.

    Raises:
        StoreError: there is none, it is unfinished, or it holds another feature.
    """
    from mgc.pipeline.features import Embedding

    if path is None:
        latest = workspace.latest_store()
        candidates = [latest] if not isinstance(latest, RemotePath) else []
        heads = workspace.root.glob("features/*/embedding-*/store.json")
        candidates += [head.parent for head in sorted(heads, key=lambda head: head.stat().st_mtime_ns, reverse=True)]
        path = next((one for one in candidates if one.name.startswith("embedding-")), None)
        if path is None:
            raise StoreError(f"no store of embeddings in {workspace.root}", "make one: `mgc embed musicnn STORE`")
        console.echo(f"store: {path}", err=True)
    store = choose_store(workspace, path)
    store.require_finished()
    if not isinstance(store.spec, Embedding):
        raise StoreError(
            f"{store.path} holds {store.spec.name}, not embeddings", f"make them: `mgc embed musicnn {store.path}`"
        )
    return store


def _path(one: Neighbour, root: str) -> str:
    """Path or URL of a track's file."""
    return f"{root.rstrip('/')}/{one.row['path']}"


def _as_dict(one: Neighbour, root: str) -> dict[str, Any]:
    names = ("track_id", "genre", "split", "artist_id", "title")
    return {"similarity": one.similarity, **{name: one.row[name] for name in names}, "path": _path(one, root)}


def _lines(found: Sequence[Neighbour]) -> Iterator[str]:
    """Yield a line for each track, with a head."""
    from mgc.pipeline.escaping import visible
    from mgc.pipeline.wrapping import ellipsise

    rows = [(f"{one.similarity:.2f}", one.row["track_id"], one.row["genre"] or "-") for one in found]
    widths = [max(len(cell) for cell in column) for column in zip(("like", "track", "genre"), *rows, strict=True)]
    left = console.width() - sum(widths) - 2 * len(widths)
    names = ellipsise([visible(one.row["title"] or one.row["path"]) for one in found], max(left, 10))
    for cells, name in zip((("like", "track", "genre"), *rows), ("title", *names), strict=True):
        yield "  ".join([cell.ljust(width) for cell, width in zip(cells, widths, strict=True)] + [name]).rstrip()


def _write_playlist(path: Path, found: Sequence[Neighbour], root: str) -> None:
    """Write an M3U8 playlist.

    Raises:
        MgcError: it cannot be written.
    """
    from mgc.pipeline.datasets.tracks import unescape
    from mgc.pipeline.storage import files

    lines = [b"#EXTM3U", *(unescape(_path(one, root)) for one in found if "\n" not in one.row["path"])]
    with files.translate_write_errors(path):
        files.write_bytes(path, b"\n".join(lines) + b"\n")
