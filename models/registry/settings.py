"""What may be chosen about the training loop beyond a study's recipe; every field is a key of recipes and an option."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args, get_type_hints

from mgc.pipeline.errors import SpecError

#: What makes an update, and what an epoch is judged by.
OptimizerName = Literal["adam", "adamw", "rmsprop", "sgd"]
Metric = Literal["accuracy", "track_accuracy", "loss"]


@dataclass(frozen=True)
class Loop:
    """Settings of the loop; the defaults change nothing.

    Attributes:
        schedule: how the learning rate falls beside the optimiser's decay: not at all, along half a cosine to 0 at the
            last epoch (Loshchilov and Hutter, "SGDR", 2017), or by `plateau_factor` whenever the monitored metric has
            not been better for more than `plateau_patience` epochs.
        plateau_factor: see `schedule`.
        plateau_patience: epochs; see `schedule`.
        warmup: first updates, over which the rate grows evenly to its full value.
        label_smoothing: share of each target that is spread over all classes (Szegedy et al., "Rethinking the Inception
            architecture", 2016). The validation loss is without it.
        class_weights: whether slices weigh inversely to how many their genre has.
        clip: norm of all gradients together at most; 0 for no limit.
        ema: share of the old in the moving average of the weights, which is validated and kept instead of them;
            0 for none.
        amp: type of the forward pass under autocast; validation and prediction are float32.
        channels_last: memory format of planes.
        compile: whether `torch.compile` makes the training step's network.
        balance: whether an epoch has as many slices of every class, or of every track; it has as many in all.
        crop: whether each window is drawn from its whole track anew in each epoch, instead of from its slice.
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

    def __post_init__(self) -> None:
        limits = {
            "plateau_factor": (0 < self.plateau_factor < 1, "between 0 and 1"),
            "plateau_patience": (self.plateau_patience >= 0, "0 or more"),
            "warmup": (self.warmup >= 0, "0 or more"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "at least 0 and less than 1"),
            "clip": (0 <= self.clip < math.inf, "0 or a positive number"),
            "ema": (0 <= self.ema < 1, "at least 0 and less than 1"),
        }
        for name, (holds, span) in limits.items():
            if not holds:
                raise SpecError(f"--{name.replace('_', '-')} {getattr(self, name):g}", f"it must be {span}")

    def changed(self, chosen: Mapping[str, Any]) -> Self:
        """These settings, but for those that are chosen.

        Raises:
            SpecError: a value is out of its range.
        """
        return dataclasses.replace(self, **chosen)

    def differences(self, study: Loop) -> list[str]:
        """What differs from the settings of a study, such as `clip 1 for 0`."""
        names = [setting.name for setting in dataclasses.fields(self)]
        pairs = {name: (getattr(self, name), getattr(study, name)) for name in names}
        return [
            f"{name.replace('_', ' ')} {_short(ours)} for {_short(theirs)}"
            for name, (ours, theirs) in pairs.items()
            if ours != theirs
        ]


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:g}"


#: The loop of a recipe that says nothing about it.
PLAIN = Loop()

#: What each setting does, in one line.
HELP = {
    "schedule": "How the learning rate falls.",
    "plateau_factor": "Of --schedule plateau: what the rate falls to.",
    "plateau_patience": "Of --schedule plateau: epochs without a better one before the rate falls.",
    "warmup": "First updates, over which the learning rate grows.",
    "label_smoothing": "Share of each target that is spread over all genres.",
    "class_weights": "Let slices of rare genres weigh more.",
    "clip": "Norm of the gradients at most; 0 for no limit.",
    "ema": "Keep a moving average of the weights, with a decay such as 0.999.",
    "amp": "Autocast of updates; fp16 on CUDA only.",
    "channels_last": "Memory format of planes.",
    "compile": "Compile the network with torch.compile.",
    "balance": "Epochs of as many slices of each class, or of each track.",
    "crop": "Draw windows from the whole track, anew each epoch.",
}


@dataclass(frozen=True)
class Setting:
    """A field of `Loop` as an option.

    Attributes:
        name: of the field.
        type: of its values.
        choices: all of them, where they are few.
        help: in one line.
    """

    name: str
    type: type
    choices: tuple[str, ...]
    help: str


def options() -> list[Setting]:
    """The fields of `Loop` as options."""
    hints = get_type_hints(Loop)
    return [
        Setting(field.name, type(field.default), get_args(hints[field.name]), HELP[field.name])
        for field in dataclasses.fields(Loop)
    ]
