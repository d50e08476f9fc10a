"""Pages: templates, style sheet and script become one HTML file that requests nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from mgc.models.evaluation.evaluate import results_path
from mgc.models.evaluation.report import counted
from mgc.models.report import charts, comparison, sections, words
from mgc.models.report.charts import percent
from mgc.models.report.results import Results, read_results
from mgc.models.runs.run import Run
from mgc.pipeline import pages
from mgc.pipeline.escaping import visible_lines
from mgc.pipeline.storage import files
from mgc.pipeline.versions import versions

#: Report of the test split of a run, in its folder.
NAME = "report.html"
_TEMPLATES = Path(__file__).with_name("templates")


def write_report(run: Run, split: str, *, audio: bool = True, device: str = "auto", out: Path | None = None) -> Path:
    """Write the report of an evaluated run.

    Args:
        run: the run.
        split: split that was scored.
        audio: whether to include excerpts to listen to.
        device: device of the network that lays out the map, see `mgc.models.parallel.device.choose_device`.
        out: file to write; None for a file in the folder of the run, which is sealed like its other files.

    Returns:
        Path of the file.

    Raises:
        RunError: the run was not evaluated on this split, or is damaged.
        MgcError: the file cannot be written.
    """
    page = render(read_results(run, split), audio=audio, device=device)
    path = results_path(run, NAME, split)
    if out is None:
        run.write_files({path.name: page})
        return path
    _write(out, page)
    return out


def write_comparison(runs: Sequence[Run], split: str, *, common: bool = False, out: Path | None = None) -> Path:
    """Write the comparison of evaluated runs.

    Args:
        runs: the runs.
        split: split that was scored.
        common: compare runs of different tracks on those that all of them have.
        out: file to write; None for comparison.html in the workspace, beside the folder of the runs.

    Returns:
        Path of the file.

    Raises:
        RunError: a run was not evaluated or is damaged, or the runs have different tracks.
        MgcError: the file cannot be written.
    """
    page = render_page("comparison.html", comparison.page(runs, split, common=common))
    path = out or runs[0].path.resolve().parents[1] / "comparison.html"
    _write(path, page)
    return path


def _write(path: Path, page: bytes) -> None:
    with files.translate_write_errors(path.parent):
        files.write_bytes(path, page)


def render(results: Results, *, audio: bool = True, device: str = "auto") -> bytes:
    """Render the report of one run as HTML.

    Args:
        results: results of the run.
        audio: whether to include excerpts to listen to.
        device: device of the network that lays out the map, see `mgc.models.parallel.device.choose_device`.

    Raises:
        RunError: a file of the run is damaged.
    """
    metrics, run = results.metrics, results.run
    scores, chance = metrics["by_track"], metrics["chance"]
    interval = scores["accuracy_interval"]
    page = {
        "title": f"{run.model} on {metrics['dataset']}: {percent(scores['accuracy'])}",
        "kicker": f"{run.path.name} · {results.split} split",
        "model": run.model,
        "dataset": metrics["dataset"],
        "percent": f"{100 * scores['accuracy']:.1f}",
        "counted": counted(metrics["n_tracks"], f"{results.split} track"),
        "headline": words.headline(metrics),
        "alarms": ["Leaky: this number is not that of new tracks. See below."] if metrics["leaky"] else [],
        "scale": charts.scale(scores["accuracy"], interval["low"], interval["high"], chance["level"]),
        "facts": _facts(metrics),
        "meaning": list(words.meaning(results)),
        "cautions": list(words.cautions(results)),
        "sections": list(sections.make(results, audio=audio, device=device)),
    }
    return render_page("report.html", page)


def render_page(template: str, page: dict[str, Any]) -> bytes:
    """Fill a template; texts are escaped, and control characters in them shown.

    Args:
        template: name of the template.
        page: what it shows.
    """
    css, js = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src '{pages.digest(css)}'; "
        f"script-src '{pages.digest(js)}'; base-uri 'none'; form-action 'none'"
    )
    version = versions(["mgc"])["mgc"]
    page["footer"] = f"Made by mgc {version} on {datetime.now(UTC):%Y-%m-%d}. This file is complete in itself."
    text = (
        _environment()
        .get_template(template)
        .render(page=page, css=Markup(css), js=Markup(js), policy=policy, version=version)
    )
    return text.encode("utf-8")


def _facts(metrics: dict[str, Any]) -> list[dict[str, str | None]]:
    """The other scores beside the headline."""
    scores, by_slice = metrics["by_track"], metrics.get("by_slice")
    spread = scores["macro_f1_interval"]
    facts: list[dict[str, str | None]] = [
        {
            "label": "macro F1",
            "value": percent(scores["macro_f1"]),
            "range": f"{percent(spread['low'])} to {percent(spread['high'])}",
        }
    ]
    if top := (scores.get("top_k") or {}).get("3"):
        facts.append({"label": "among the first 3", "value": percent(top), "range": None})
    if by_slice:
        facts.append({"label": "by slice", "value": percent(by_slice["accuracy"]), "range": None})
    return facts


@cache
def _environment() -> Environment:
    environment = pages.environment(_TEMPLATES, _show_controls)
    environment.filters["percent"] = percent
    environment.filters["code"] = _code
    environment.filters["lines"] = lambda text: escape(visible_lines(text))
    return environment


def _code(text: str) -> Markup:
    """Escape a sentence, and mark up the commands in it, which stand between backquotes."""
    parts = escape(_show_controls(text)).split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def _show_controls(value: object) -> object:
    """Show the control characters of a text, and keep numbers and their per cent signs together."""
    shown = pages.show_controls(value)
    if not isinstance(shown, str) or isinstance(shown, Markup):
        return shown
    return shown.replace(" %", "\N{NO-BREAK SPACE}%")
