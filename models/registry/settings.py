"""Settings of the training loop. Every field of `Loop` is a recipe key and a command-line option."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args, get_type_hints

from mgc.pipeline.errors import SpecError

#: Optimisers, and validation metrics that can pick the best epoch.
OptimizerName = Literal["adam", "adamw", "rmsprop", "sgd"]
Metric = Literal["accuracy", "track_accuracy", "loss"]


@dataclass(frozen=True)
class Loop:
    """Settings of the training loop. With the defaults it is plain: constant rate, no smoothing, clipping or averaging.

    Attributes:
        schedule: learning-rate schedule, on top of the optimiser's decay. `constant`: none. `cosine`: half a cosine
            down to 0 at the last epoch (Loshchilov and Hutter, "SGDR", 2017). `plateau`: the rate is multiplied by
            `plateau_factor` whenever the monitored metric has not improved for more than `plateau_patience` epochs.
        plateau_factor: factor of the `plateau` schedule, between 0 and 1.
        plateau_patience: epochs of the `plateau` schedule.
        warmup: number of updates over which the learning rate rises linearly to its full value.
        label_smoothing: share of each target that is spread over all classes (Szegedy et al., "Rethinking the Inception
            architecture", 2016). The validation loss is computed without it.
        class_weights: whether the loss weights each slice inversely to the number of slices of its genre.
        clip: maximum norm of all gradients together; 0 for no clipping.
        ema: decay of an exponential moving average of the weights, which is validated and saved instead of the weights;
            0 for no averaging.
        amp: dtype of the training step's forward pass under autocast. Validation and prediction use float32.
        channels_last: whether the network and its two-dimensional inputs use the channels-last memory format.
        compile: whether the training step uses `torch.compile`.
        balance: sampling of an epoch: `class` or `track` draws equally many slices of every class or track, `none` uses
            every slice once. The number of slices per epoch stays the same.
        thaw: epochs after which one more block of pretrained layers is trained, from the head down: the head alone at
            first; 0 trains all layers from the beginning. See `mgc.models.training.thawing`.
        crop: whether each epoch draws every window anew from the whole track, instead of from its slice.
        select: epoch whose weights the run keeps. `best`: the best one by the monitored validation metric, with early
            stopping. `last`: the last one, without early stopping: validation then chooses nothing, which is safer if
            the validation split is small.

    Raises:
        SpecError: a value is out of its range.
    """

    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    plateau_factor: float = 0.5
    plateau_patience: int = 2
    warmup: int = 0
    label_smoothing: float = 0.0
    class_weights: bool = False
    clip: float = 0.0
    ema: float = 0.0
    amp: Literal["off", "bf16", "fp16"] = "off"
    channels_last: bool = True
    compile: bool = False
    balance: Literal["none", "class", "track"] = "none"
    crop: bool = False
    thaw: int = 0
    select: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        limits = {
            "plateau_factor": (0 < self.plateau_factor < 1, "between 0 and 1"),
            "plateau_patience": (self.plateau_patience >= 0, "0 or more"),
            "warmup": (self.warmup >= 0, "0 or more"),
            "thaw": (self.thaw >= 0, "0 or more"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "at least 0 and less than 1"),
            "clip": (0 <= self.clip < math.inf, "0 or a positive number"),
            "ema": (0 <= self.ema < 1, "at least 0 and less than 1"),
        }
        for name, (valid, span) in limits.items():
            if not valid:
                raise SpecError(f"--{name.replace('_', '-')} {getattr(self, name):g}", f"it must be {span}")

    def override(self, values: Mapping[str, Any]) -> Self:
        """Return a copy with some settings replaced.

        Args:
            values: new values by field name.

        Raises:
            SpecError: a value is out of its range.
        """
        return dataclasses.replace(self, **values)

    def differences(self, study: Loop) -> list[str]:
        """List the settings that differ from a study's, such as `clip 1 for 0`: this value, then the study's."""
        names = [setting.name for setting in dataclasses.fields(self)]
        pairs = {name: (getattr(self, name), getattr(study, name)) for name in names}
        return [
            f"{name.replace('_', ' ')} {_value_text(value)} for {_value_text(study_value)}"
            for name, (value, study_value) in pairs.items()
            if value != study_value
        ]


def _value_text(value: Any) -> str:
    """Format a setting's value for a list of differences."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:g}"


#: Loop settings of a recipe without a `[training.loop]` table.
DEFAULT_LOOP = Loop()

#: Option help of each setting.
HELP = {
    "schedule": "Learning-rate schedule.",
    "plateau_factor": "Factor on the learning rate with --schedule plateau.",
    "plateau_patience": "Epochs without improvement before --schedule plateau lowers the learning rate.",
    "warmup": "Updates over which the learning rate rises to its full value.",
    "label_smoothing": "Share of each target that is spread over all genres.",
    "class_weights": "Weight slices of rare genres more in the loss.",
    "clip": "Maximum norm of the gradients; 0 for no clipping.",
    "ema": "Decay of a moving average of the weights, such as 0.999; 0 for none.",
    "amp": "Autocast dtype of training; fp16 on CUDA only.",
    "channels_last": "Use the channels-last memory format.",
    "compile": "Compile the network with torch.compile.",
    "balance": "Draw equally many slices of each class, or of each track, per epoch.",
    "crop": "Draw windows from the whole track, anew each epoch.",
    "thaw": "With --weights, train the head alone, and one more block every N epochs; 0 for all.",
    "select": "Keep the best epoch by validation, or the last one.",
}


@dataclass(frozen=True)
class Setting:
    """A field of `Loop` as a command-line option.

    Attributes:
        name: name of the field.
        type: type of its values.
        choices: all valid values; empty if any value of the type is possible.
        help: one-line help.
    """

    name: str
    type: type
    choices: tuple[str, ...]
    help: str


def loop_settings() -> list[Setting]:
    """Describe the fields of `Loop` as command-line options."""
    hints = get_type_hints(Loop)
    return [
        Setting(field.name, type(field.default), get_args(hints[field.name]), HELP[field.name])
        for field in dataclasses.fields(Loop)
    ]
