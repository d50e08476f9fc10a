"""The model card: `README.md` beside an exported file, in the form that the Hugging Face hub reads.

The front matter is YAML, of which JSON is a part: texts are written as JSON. Names of genres and datasets are foreign
text, and are escaped in Markdown.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from mgc.models.evaluation import audited
from mgc.models.evaluation.evaluate import results_path
from mgc.models.export.check import Check
from mgc.models.export.graph import Origin
from mgc.models.export.smaller import Measurement
from mgc.models.runs.overview import refit_line
from mgc.models.runs.run import Run
from mgc.pipeline.datasets.published import published_dataset
from mgc.pipeline.errors import MgcError
from mgc.pipeline.escaping import visible
from mgc.pipeline.versions import versions

#: Characters that Markdown or HTML obeys.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|&~$:@])")


def escape(text: str) -> str:
    """Escape foreign text for Markdown: control characters, then what Markdown obeys."""
    return _SPECIAL.sub(r"\\\1", visible(text))


def card(
    run: Run, name: str, form: str, origin: Origin, check: Check, licence: str, measured: Measurement | None
) -> str:
    """Write the model card of an exported file.

    Args:
        run: the run.
        name: name of the file.
        form: `onnx` or `torch`.
        origin: what the file reads.
        check: comparison of the file with the run.
        licence: licence of the model, as the hub names it, such as `mit`; `unknown` if nobody said.
        measured: comparison of a smaller file with the float one; None for the float one.
    """
    metrics = _metrics(run)
    dataset = str(run.config["store"]["dataset"]["name"])
    lines = ["---", *_front_matter(run, form, licence, dataset, metrics), "---", ""]
    lines += [f"# {escape(run.model)} on {escape(dataset)}", ""]
    lines += [f"`{name}` names the genre of music: {_genres(run)}. It was exported from a run of mgc.", ""]
    lines += ["## Data", "", *_data(run, dataset), "", "## Scores", "", *_scores(run, metrics), ""]
    lines += ["## The file", "", *_file(run, name, form, origin, check, measured), ""]
    lines += ["## How to run it", "", *_usage(run, name, form, origin), ""]
    lines += ["## Limits", "", *_limits(run, metrics), ""]
    return "\n".join(lines)


def _front_matter(run: Run, form: str, licence: str, dataset: str, metrics: dict[str, Any] | None) -> Iterator[str]:
    """Lines of the YAML front matter."""
    yield f"license: {json.dumps(licence)}"
    yield f"library_name: {'onnx' if form == 'onnx' else 'pytorch'}"
    yield "pipeline_tag: audio-classification"
    yield "tags:"
    for tag in ("audio-classification", "music", "music-genre-classification", "mgc", run.model.replace("/", "-")):
        yield f"- {json.dumps(tag)}"
    if metrics is None:
        return
    scores = metrics["by_track"]
    yield "metrics:"
    yield from ("- accuracy", "- f1")
    yield "model-index:"
    yield f"- name: {json.dumps(run.model)}"
    yield "  results:"
    yield "  - task:"
    yield "      type: audio-classification"
    yield "      name: music genre classification"
    yield "    dataset:"
    yield f"      type: {json.dumps(dataset)}"
    yield f"      name: {json.dumps(dataset)}"
    yield f"      split: {json.dumps(metrics.get('split', 'test'))}"
    yield "    metrics:"
    for kind, title, key in (("accuracy", "accuracy by track", "accuracy"), ("f1", "macro F1 by track", "macro_f1")):
        yield f"    - type: {kind}"
        yield f"      name: {title}"
        yield f"      value: {float(scores[key]):.4f}"


def _genres(run: Run) -> str:
    return ", ".join(escape(genre) for genre in run.classes)


def _data(run: Run, dataset: str) -> Iterator[str]:
    """Lines on the dataset, its licence and the splits."""
    licence = "not known to mgc: look it up before you pass the model on"
    with contextlib.suppress(KeyError):
        licence = published_dataset(dataset).licence
    yield f"- Dataset: {escape(dataset)}. Licence of its music: {escape(licence)}."
    counts = Counter(run.selection.tracks["split"].to_pylist())
    parts = [f"{counts[split]} {split}" for split in ("training", "validation", "test") if counts[split]]
    yield f"- Tracks: {', '.join(parts)}."
    if run.config.get("refit"):
        yield f"- Refit: {refit_line(run)}."
    for number, source in enumerate(run.sources, 1):
        which = f" {number}" if len(run.sources) > 1 else ""
        yield f"- Input{which}: {escape(str(source.spec))}; {escape(str(run.slicing))}."
    yield from _weights(run.config)
    if differences := run.config.get("differences"):
        yield f"- The training differs from the study in {len(differences)} settings:"
        yield from (f"  - {escape(str(line))}" for line in differences)


def _weights(config: dict[str, Any]) -> Iterator[str]:
    """A line on the published weights that a run started from: a licence such as ISC asks for its notice in copies."""
    origin = (config.get("weights") or {}).get("origin") or {}
    if not origin:
        return
    network, trained_on, licence, holder = (
        escape(str(origin.get(key, "?"))) for key in ("network", "trained_on", "licence", "copyright")
    )
    yield f"- Initial weights: {network}, trained on {trained_on}. Licence {licence}, copyright {holder}."
    yield f"  Cite {escape(str(origin.get('citation', '?')))}. Note: {escape(str(origin.get('note', '?')))}."


def _scores(run: Run, metrics: dict[str, Any] | None) -> Iterator[str]:
    """Lines on the scores, with intervals, and on what makes them doubtful."""
    if metrics is None:
        yield "The run has not been evaluated: `mgc evaluate` does it."
        return
    yield "| score by track | value | 95 % interval |"
    yield "|---|---:|---:|"
    scores = metrics["by_track"]
    for title, key in (("accuracy", "accuracy"), ("macro F1", "macro_f1")):
        spread = scores[f"{key}_interval"]
        yield f"| {title} | {scores[key]:.1%} | {spread['low']:.1%} to {spread['high']:.1%} |"
    yield ""
    yield f"On {metrics['n_tracks']} {metrics['split']} tracks by {metrics['n_artists']} known artists. "
    yield "The intervals are from a bootstrap of the artists."
    if metrics.get("leaky") or run.config.get("leaky"):
        yield ""
        yield "**Leaky:** the run had slices of one track, or copies of one file, on both sides of its split. "
        yield "The scores are too high."
    yield ""
    verdict = audited.verdict(run, "test") or metrics.get("audit")
    yield escape(verdict["line"]) if verdict else "The splits have not been audited: `mgc audit` does it."


def _file(run: Run, name: str, form: str, origin: Origin, check: Check, measured: Measurement | None) -> Iterator[str]:
    """Lines on the file itself."""
    reads = "samples of one channel" if origin == "samples" else "frames of the features above"
    yield f"- `{name}` ({'ONNX' if form == 'onnx' else 'torch.export'}) goes from {reads} to probabilities."
    whose = "the float32 file" if measured is not None else "it"
    yield f"- Checked before it was written: {whose} {check}."
    yield f"- Made by mgc {versions(['mgc'])['mgc']}. Its metadata hold labels, sample rate, slices and features."
    if measured is None:
        return
    span = measured.difference
    yield ""
    yield f"| | float32 | {measured.precision} |"
    yield "|---|---:|---:|"
    yield f"| size | {measured.bytes_before / 1e6:.2f} MB | {measured.bytes_after / 1e6:.2f} MB |"
    yield f"| accuracy by track | {measured.accuracy_before:.1%} | {measured.accuracy_after:.1%} |"
    yield f"| time for a slice, one thread | {measured.ms_before:.2f} ms | {measured.ms_after:.2f} ms |"
    yield ""
    yield (
        f"Difference of the accuracies on {measured.n_tracks} {measured.split} tracks: {100 * span.difference:+.1f} "
        f"points (95 % interval {100 * span.low:+.1f} to {100 * span.high:+.1f}). Times were measured in one run."
    )


def _usage(run: Run, name: str, form: str, origin: Origin) -> Iterator[str]:
    """Lines that show how the file is used."""
    n_inputs = 1 if origin == "samples" else len(run.sources)
    words = ["samples"] if origin == "samples" else ["frames"] if n_inputs == 1 else ["frames_1", "frames_2", "..."]
    yield "```python"
    if form == "onnx":
        yield "import onnxruntime"
        yield f'session = onnxruntime.InferenceSession("{name}")'
        feeds = ", ".join(f'"{word}": {word}' for word in words)
        yield f"probabilities = session.run(None, {{{feeds}}})[0]  # (slices, genres)"
    else:
        yield "import torch"
        yield f'model = torch.export.load("{name}").module()'
        yield f"probabilities = model({', '.join(words)})  # (slices, genres)"
    yield "```"
    yield ""
    if form == "onnx" and origin == "samples":
        yield "`docs/examples/predict_onnx.py` of mgc cuts an audio file into the windows that the file reads."
    yield "The probabilities of a track are the mean over its slices."


def _limits(run: Run, metrics: dict[str, Any] | None) -> Iterator[str]:
    yield f"- It answers with one of {len(run.classes)} genres, also for music that belongs to none of them."
    yield "- Genres are those of one dataset; other music may be labelled by other rules."
    if metrics is not None:
        guess = metrics.get("chance", {}).get("level")
        if isinstance(guess, float):
            yield f"- Guessing reaches an accuracy of {guess:.1%}."


def _metrics(run: Run) -> dict[str, Any] | None:
    """Scores on the test split; None if the run was not evaluated."""
    path = results_path(run, "metrics.json", "test")
    if not path.exists():
        return None
    try:
        return json.loads(run.read(path.name))
    except ValueError:
        raise MgcError(f"{path}: damaged", "run `mgc evaluate` again") from None
