"""The commands that need both stores and systems: `mgc extract`, `mgc models` and `mgc demo`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mgc.pipeline import completion, console, help_groups, option_types
from mgc.pipeline.commands import (
    choose_dataset,
    dataset_options,
    genre_options,
    parse_slicing,
    scheduler_option,
    slicing_options,
    splits_option,
    timeout_option,
)
from mgc.pipeline.console import PATH_OR_URL
from mgc.pipeline.errors import UsageError
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mgc.pipeline.datasets import Dataset
    from mgc.pipeline.datasets.labels import Recorded
    from mgc.pipeline.extraction.options import Options
    from mgc.pipeline.features import FeatureSpec
    from mgc.pipeline.features.variants import Variant
    from mgc.pipeline.store.slicing import Slicing

#: Feature that `mgc extract` makes if neither --feature nor --for is given.
_DEFAULT_FEATURE = "mel"
#: Options of `mgc extract` that set a parameter of every `--feature`.
_FEATURE_OPTIONS = ("sr", "n_fft", "hop_length", "n_mels", "n_mfcc", "fmin", "fmax", "dtype")


@help_groups.command()
@click.argument("source", type=PATH_OR_URL, required=False, metavar="[FOLDER|LIST]")
@dataset_options
@genre_options
@help_groups.group("Features")
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="NAME[:KEY=VALUE,...]",
    shell_complete=completion.features,
    help="stft, mel, mfcc, power, chroma, harmonic, percussive, waveform or stats; may be repeated.  [default: mel]",
)
@slicing_options
@help_groups.group("Features")
@click.option("--sr", type=option_types.COUNT, help="Sample rate in Hz.")
@click.option("--n-fft", type=option_types.COUNT, help="Length of the Fourier transform in samples.")
@click.option("--hop-length", type=option_types.COUNT, help="Hop between frames in samples.")
@click.option("--n-mels", type=option_types.COUNT, help="Number of mel bands.")
@click.option("--n-mfcc", type=option_types.COUNT, help="Number of cepstral coefficients.")
@click.option("--fmin", type=option_types.NOT_NEGATIVE, help="Lowest mel frequency in Hz.")
@click.option("--fmax", type=option_types.POSITIVE, help="Highest mel frequency in Hz.")
@click.option(
    "--dtype",
    type=console.choice("uint8", "float16", "float32", "int16"),
    help="Dtype of stored frames: uint8 in steps of 0.5 dB; int16 for waveform.",
)
@click.option(
    "--for",
    "system",
    shell_complete=completion.models,
    help="Extract the features and slicing of the recipe of a system or study, or of all.",
)
@help_groups.group("Store")
@click.option("--name", help="Folder name of the dataset's stores.  [default: name of the folder or list]")
@click.option("--out", type=PATH_OR_URL, help="Folder of the stores.  [default: features/<dataset> in the workspace]")
@help_groups.group("Features")
@click.option(
    "--augment",
    help="Variants of training tracks: pitch:SEMITONES, stretch:SPEED, noise[:DB], separated by commas; or none.",
)
@help_groups.group("Processes")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.  [default: one per processor]")
@scheduler_option
@timeout_option
@help_groups.group("Dataset")
@click.option("--seed", type=option_types.SEED, default=0, show_default=True, help="Seed of splits and shard layout.")
@splits_option
@click.option(
    "--duplicates",
    type=console.choice("group", "drop", "keep"),
    default="group",
    show_default=True,
    help="Equal files: keep them in one split, use the first of each only, or take no notice of them.",
)
@click.option("--max-duration", type=option_types.SECONDS, help="Drop tracks longer than this many seconds.")
@help_groups.group("Store")
@click.option("--max-dropped", help="Exit with 1 if more tracks are dropped: a number, or a share like 5%.")
@click.option("--verify", is_flag=True, help="Check every byte of the store first, and extract damaged shards again.")
@click.option("--moved", is_flag=True, help="The files have moved: compare them with the stores, and go on.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, with an estimate, and write nothing.")
@click.option("--rebuild", is_flag=True, help="Extract everything again, into shards laid out in one pass.")
@console.json_option
@console.common_options
def extract(source: Place | None, data_dir: Path, as_json: bool, **options: Any) -> int:
    """Decode a dataset once and store features of it.

    The dataset is a folder of audio, or a CSV or Parquet list of files; the same as --dataset. A second call changes
    nothing. After files were added, changed or removed, a call extracts only what is affected.
    """
    from mgc.models.registry import overview, systems
    from mgc.pipeline.datasets.clips import choose_splits
    from mgc.pipeline.extraction import extract as extraction
    from mgc.pipeline.store import summary

    limit = summary.parse_limit(options["max_dropped"])
    options["dataset"] = _named_dataset(source, options["dataset"])
    is_default = not options["features"] and not options["system"]
    if is_default:
        options["features"] = (_DEFAULT_FEATURE,)
    passes, study = _extraction_passes(options)
    slicing = parse_slicing(options)
    workspace = Workspace(data_dir)
    with console.phase("reading the dataset"):
        dataset, out = _open_dataset(workspace, options)
    echo = console.note_printer(as_json)
    if is_default:
        echo(f"feature: {_DEFAULT_FEATURE}, as neither --feature nor --for names another")
    for note in dataset.notes:
        echo(note)
    splits, unlisted = choose_splits(options["splits"], dataset.tracks, dataset.source)
    settings = extraction.Options(
        slicing=slicing,
        study=study,
        workers=options["workers"],
        scheduler=options["scheduler"],
        seed=options["seed"],
        splits=splits,
        unlisted=unlisted,
        max_duration=options["max_duration"],
        file_timeout=options["timeout"],
        rebuild=options["rebuild"],
        verify=options["verify"],
        duplicates=options["duplicates"],
        moved=options["moved"],
    )
    if options["dry_run"]:
        return _print_dry_run(dataset, passes, out, settings, as_json)
    wanted = overview.embeddings_for(options["system"]) if options["system"] else []
    if wanted:
        from mgc.models.embedding import extracted

        extracted.require_networks(wanted, workspace, echo)
    results = []
    for variants, specs in passes.items():
        if variants and options["augment"] is None:
            echo(f"training tracks also as {', '.join(map(str, variants))}, as studied; --augment none leaves that out")
        settings = dataclasses.replace(settings, variants=variants)
        with console.phase(f"extraction of {', '.join(spec.name for spec in specs)}"):
            results += extraction.extract(
                dataset, specs, out, settings, echo=echo, progress=console.progress_bar("extract", "track")
            )
    reports = [summary.summarise(result.store) | {"decoded": result.n_decoded} for result in results]
    stores = [result.store for result in results]
    if wanted:
        with console.phase("embedding"):
            made = extracted.embed_stores(wanted, stores, workspace, console.progress_bar("embed", "track"))
        reports += [summary.summarise(result.store) | {"embedded": result.n_embedded} for result in made]
        stores += [result.store for result in made]
    if as_json:
        console.print_json({"stores": reports})
    else:
        width = console.width()
        texts = (summary.render(report, store, width) for report, store in zip(reports, stores, strict=True))
        console.echo_text("\n\n".join(texts))
    for report in reports:
        summary.require_usable_tracks(report, limit)
    # Whatever the order of the features: `mgc train` chooses its model by the latest store.
    latest = stores[-1] if wanted else min(stores, key=lambda store: systems.preference(store.spec.name))
    workspace.remember("store", latest.path)
    return 0


def _print_dry_run(
    dataset: Dataset,
    passes: dict[tuple[Variant, ...], list[FeatureSpec]],
    out: Place,
    settings: Options,
    as_json: bool,
) -> int:
    """Print what `mgc extract` would do; return the exit code."""
    from mgc.pipeline.extraction import dry_run

    plans, total = [], None
    for variants, specs in passes.items():
        options = dataclasses.replace(settings, variants=variants)
        of_pass, expected = dry_run.dry_run(dataset, specs, out, options, console.note_printer(as_json))
        plans += of_pass
        total = total + expected if total and expected else total or expected
    if as_json:
        console.print_json(dry_run.report(plans, total))
    else:
        nothing = ["extract: nothing to decode"]
        for line in (*map(str, plans), *(total.notes() if total else nothing), "dry run: nothing was written"):
            console.result(line)
    return 0


def _named_dataset(argument: Place | None, option: Place | None) -> Place | None:
    """Return the dataset that the argument or `--dataset` names; None if neither does.

    Raises:
        UsageError: they name different ones.
    """
    if argument is not None and option is not None and argument != option:
        raise UsageError(f"{argument} and --dataset {option} name two datasets", "leave one of them out")
    return argument if option is None else option


def _open_dataset(workspace: Workspace, options: dict[str, Any]) -> tuple[Dataset, Place]:
    """Open the dataset of `mgc extract`, whose stores know where its genres are; also return the folder of stores."""
    from mgc.pipeline.extraction.opening import recorded_labels
    from mgc.pipeline.storage.urls import require_writable

    if options["out"] is not None:
        require_writable(options["out"])

    def stores_of(name: str) -> Place:
        return options["out"] or workspace.features(options["name"] or name)

    def recorded(name: str, root: Place) -> Recorded | None:
        return recorded_labels(stores_of(name), None if options["moved"] else root)

    dataset = choose_dataset(workspace, options, recorded)
    return dataset, stores_of(dataset.name)


def _extraction_passes(
    options: dict[str, Any],
) -> tuple[dict[tuple[Variant, ...], list[FeatureSpec]], tuple[str, Slicing] | None]:
    """Parse the features to extract.

    Args:
        options: options of `mgc extract`, by name.

    Returns:
        The features, grouped by the augmentation variants that training tracks need for them (a file is decoded once
        per group); and the name that `--for` gave with the slicing of its recipes, None if they differ in it.

    Raises:
        SpecError: an option has an invalid value.
    """
    from mgc.pipeline.features import parse_feature
    from mgc.pipeline.features.variants import parse_variants

    defaults = {name: options[name] for name in _FEATURE_OPTIONS if options[name] is not None}
    variants = parse_variants(options["augment"]) if options["augment"] is not None else None
    pairs = [(parse_feature(text, defaults), variants or ()) for text in options["features"]]
    study = None
    if options["system"]:
        from mgc.models.registry import overview

        study_features, study_slicing = overview.extraction_for(options["system"])
        pairs += [(spec, used if variants is None else variants) for spec, used in study_features]
        study = (options["system"], study_slicing) if study_slicing is not None else None
    passes: dict[tuple[Variant, ...], list[FeatureSpec]] = {}
    for spec, spec_variants in dict.fromkeys(pairs):
        passes.setdefault(spec_variants, []).append(spec)
    return passes, study


@help_groups.command()
@click.argument("word", required=False, metavar="[ID|WORD]", shell_complete=completion.models)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print every detail as Markdown, as in docs/systems.md.")
@console.json_option
@console.common_options
def models(word: str | None, data_dir: Path, as_json: bool, as_markdown: bool) -> int:
    """List the systems that can be trained.

    With a word, such as `resnet`, those that have it in their id or study; with an id, that system in full.
    """
    from mgc.models.registry import catalogue, detail, overview
    from mgc.models.registry.systems import System

    if as_markdown and word is not None:
        raise UsageError("--markdown lists all systems", f"leave {word} out")
    if as_markdown:
        console.echo_text(catalogue.markdown().removesuffix("\n"))
        return 0
    found = detail.find(word) if word is not None else None
    if isinstance(found, System):
        if as_json:
            console.print_json(detail.describe(found))
        else:
            console.echo_text(detail.render(found, console.width()))
        return 0
    systems = overview.describe_systems(found)
    if as_json:
        console.print_json(systems)
    else:
        console.echo_text(overview.render_systems(systems, console.width()))
    return 0


@help_groups.command()
@click.option("--seed", type=option_types.SEED, default=0, show_default=True, help="Seed of music and training.")
@click.option("--epochs", type=option_types.COUNT, default=8, show_default=True, help="Maximum number of epochs.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.  [default: one per processor]")
@console.common_options
@click.pass_context
def demo(context: click.Context, data_dir: Path, seed: int, epochs: int, workers: int | None) -> int:
    """Compose a small dataset, then extract, train and evaluate on it.

    The music is synthetic, and some files are broken on purpose: an accuracy on it means that the pipeline works, and
    nothing beyond that.
    """
    from mgc.pipeline.demo.dataset import make_demo

    workspace = Workspace(data_dir)
    console.note("mgc demo: synthetic music; its accuracy means that the pipeline works, and nothing beyond that")
    audio = make_demo(workspace.root / "demo", seed=seed, progress=console.progress_bar("compose", "file"))
    here = ["--data-dir", str(data_dir)]
    processes = ["--workers", str(workers)] if workers else []
    steps = (
        ["extract", "--dataset", str(audio), "--feature", "mel", "--slice", "4", "--overlap", "0.5", *processes, *here],
        ["train", "--epochs", str(epochs), "--seed", str(seed), *here],
        ["evaluate", "--by-genre", *here],
    )
    with workspace.restoring_latest():
        for step in steps:
            console.show_command(" ".join(step))
            console.run_command(context, step)
    return 0
