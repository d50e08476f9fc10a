"""The command `mgc embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mgc.models.parallel.options import device_option
from mgc.pipeline import completion, console, help_groups, option_types
from mgc.pipeline.commands import choose_store, print_store_summary
from mgc.pipeline.console import PATH_OR_URL
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.workspace import Workspace


@help_groups.command()
@click.argument("model", shell_complete=completion.runs)
@click.argument("store", type=PATH_OR_URL, required=False, shell_complete=completion.stores)
@help_groups.group("Windows")
@click.option("--layer", help="Layer of a downloaded network.  [default: penultimate for musicnn, pool5 for vgg]")
@click.option("--hop", type=option_types.SECONDS, help="Seconds between windows.  [default: the length of a window]")
@help_groups.group("Store")
@click.option(
    "--dtype",
    type=console.choice("float32", "float16"),
    default="float32",
    show_default=True,
    help="Dtype of the stored vectors.",
)
@click.option("--out", type=PATH_OR_URL, help="Folder of the new store.  [default: that of STORE]")
@click.option("--verify", is_flag=True, help="Check every byte of the store first, and make damaged shards again.")
@help_groups.group("Processes")
@click.option("--batch-size", type=option_types.Whole(2), default=64, show_default=True, help="Windows per batch.")
@device_option
@console.json_option
@console.common_options
def embed(model: str, store: Place | None, data_dir: Path, as_json: bool, **options: Any) -> int:
    """Store what a network hears in each window of each track.

    MODEL is `musicnn` (its weights: `mgc download musicnn`), the folder of a run, whose network gives the layer before
    its last, or an ONNX file with a TOML file beside it. STORE holds the frames that it reads. A second call changes
    nothing; a call that was interrupted continues; one after a change of STORE embeds what has changed.
    """
    from mgc.models.embedding import embed as embedding
    from mgc.models.embedding.embedder import open_model

    workspace = Workspace(data_dir)
    with console.phase("loading of the network"):
        embedder = open_model(model, workspace, options["layer"], options["device"])
    source = choose_store(workspace, store)
    echo = console.note_printer(as_json)
    echo(f"embed: {embedder.model}, layer {embedder.layer}: {embedder.width} values for each window")
    with console.phase("embedding"):
        result = embedding.embed(
            embedder,
            source,
            out=options["out"],
            hop_s=options["hop"],
            dtype=options["dtype"],
            batch_size=options["batch_size"],
            thorough=options["verify"],
            progress=console.progress_bar("embed", "track"),
        )
    workspace.remember("store", result.store.path)
    print_store_summary(result.store, as_json)
    return 0
