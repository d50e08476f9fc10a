"""How a run's probabilities become an answer: the options `--unknown` and `--calibrated`, and what they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from mgc.pipeline import console, option_types

if TYPE_CHECKING:
    from mgc.models.evaluation.temperature import Temperature
    from mgc.models.prediction.prediction import FilePrediction
    from mgc.models.runs.run import Run

#: Value of --unknown that stands for a probability chosen on the validation split.
_VALIDATION = "validation"


class _Unknown(option_types.Real):
    """Click parameter type: a probability, or the word `validation`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert the text to a `float`; return the word as it is."""
        return value if value == _VALIDATION else super().convert(value, param, ctx)


unknown_option = click.option(
    "--unknown",
    type=_Unknown("`validation`, or a probability from 0 to below 1", below=1),
    default=0,
    metavar="T|validation",
    help="Answer `none of these` if the most probable genre is less probable than T, or than 95 % of the rightly named "
    "validation tracks are.",
)
calibrated_option = click.option(
    "--calibrated",
    is_flag=True,
    help="Temper probabilities as suits the validation tracks best, if they show that it helps; after `mgc evaluate "
    "--split validation`.",
)


@dataclass(frozen=True)
class Naming:
    """How the probabilities of a run become an answer.

    Attributes:
        unknown: probability that the most probable genre must reach to be named; 0 names it always. See
            `results.named_genre`.
        temperature: tempers the probabilities, if it helps; None leaves them as they are.
    """

    unknown: float = 0
    temperature: Temperature | None = None

    def tempered(self, prediction: FilePrediction) -> FilePrediction:
        """The prediction with the probabilities that are shown and compared with `unknown`."""
        return prediction if self.temperature is None else prediction.tempered(self.temperature.apply)


def choose_naming(run: Run, unknown: float | str, *, calibrated: bool, command: str) -> Naming:
    """Choose what the options stand for, and say on stderr how it was chosen.

    Args:
        run: the run.
        unknown: value of --unknown.
        calibrated: value of --calibrated.
        command: name of the command, which the lines on stderr begin with.

    Raises:
        RunError: the run was not evaluated on its validation tracks, which an option needs; or it names none of them
            rightly.
    """
    temperature = _temperature(run, command) if calibrated else None
    return Naming(_least_probability(run, unknown, temperature, command), temperature)


def _temperature(run: Run, command: str) -> Temperature:
    """Return the temperature of the run's validation tracks, and say what it is."""
    from mgc.models.evaluation import temperature
    from mgc.models.evaluation.report import counted
    from mgc.models.prediction.unknown import VALIDATION_TRACKS, not_validated

    fitted = temperature.of_run(run, VALIDATION_TRACKS)
    if fitted is None:
        raise not_validated(run, "--calibrated")
    tracks = counted(fitted.n_tracks, "validation track")
    if fitted.helps:
        line = f"probabilities are tempered by {fitted.value:.2f}, which suits the {tracks} best"
    else:
        line = f"probabilities are not tempered: temperature 1 (no better one can be told from {tracks})"
    console.echo(f"{command}: {line}", err=True)
    return fitted


def _least_probability(run: Run, unknown: float | str, temperature: Temperature | None, command: str) -> float:
    """Return the probability that --unknown stands for, and say how it was chosen."""
    if not isinstance(unknown, str):
        return unknown
    from mgc.models.prediction.unknown import KEPT, choose_threshold
    from mgc.models.training import typicality

    chosen = choose_threshold(run) if temperature is None else choose_threshold(run, temperature.apply)
    reached = f"{KEPT:.0%} of the {chosen.n_tracks:,} rightly named validation tracks reach it".replace("%", " %")
    console.echo(f"{command}: none of these below {100 * chosen.probability:.1f} %: {reached}", err=True)
    if (typical := typicality.load(run)) is not None:
        n, inside = len(typical.validation), int((typical.validation <= 1).sum())
        what = f"farther from the training tracks than music is: {inside} of {n} validation tracks are nearer"
        console.echo(f"{command}: none of these if {what}", err=True)
    return chosen.probability
