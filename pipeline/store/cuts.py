"""Cuts of a store: slicings that stand side by side, each with a name and a slice index of its own.

One of them is the default. Its index is `slices.parquet`; that of the cut `2s` is `slices-2s.parquet`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mgc.pipeline.errors import SpecError, StoreError
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.store.slicing import Slicing

#: Key in the schema metadata of a slice index; the value describes its cut as JSON.
CUT_KEY = b"mgc.cut"
#: Names that users may give: they become part of a file name on any system.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,38}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Cut:
    """A slicing under its name.

    Attributes:
        name: name of the cut; letter case aside, unique in a store.
        slicing: how the tracks are cut.
        default: whether commands use this cut unless another one is named.
        systems: systems, studies or `all`, for which `mgc extract --for` asked for the cut.
    """

    name: str
    slicing: Slicing
    default: bool = False
    systems: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """File name of the slice index."""
        return "slices.parquet" if self.default else f"slices-{self.name}.parquet"

    def metadata(self) -> dict[bytes, str]:
        """Return the schema metadata of the slice index, from which `from_metadata` restores the cut."""
        values = {"name": self.name, "slicing": self.slicing.as_dict(), "for": self.systems}
        return {CUT_KEY: json.dumps(values)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes], *, default: bool) -> Cut:
        """Return the cut that the metadata of a slice index describes.

        Raises:
            KeyError, TypeError, ValueError: they describe none.
        """
        values = json.loads(metadata[CUT_KEY])
        return cls(values["name"], Slicing.from_dict(values["slicing"]), default, tuple(values["for"]))


def derive_name(slicing: Slicing) -> str:
    """Return a readable name for a slicing, such as `4s-50` for slices of 4 s with an overlap of 50 %."""
    if slicing.whole:
        return "whole"
    parts = [f"{slicing.seconds:g}s" if slicing.seconds is not None else f"{slicing.frames}f"]
    parts += [f"{slicing.overlap * 100:g}"] * (slicing.overlap > 0)
    parts += [f"from{slicing.offset:g}s"] * (slicing.offset > 0)
    parts += [f"max{slicing.max_slices}"] * (slicing.max_slices is not None)
    parts += [slicing.place] * (slicing.place != "all")
    parts += [f"seed{slicing.seed}"] * (slicing.place == "random" and slicing.seed != 0)
    return "-".join(parts).replace("+", "")


def require_name(name: str) -> None:
    """Raise `SpecError` if a name cannot be that of a cut."""
    if not _NAME.fullmatch(name):
        allowed = "letters, digits, and inside it also `.`, `_` and `-`; 40 characters at most"
        raise SpecError(f"--name {name}: no name for a cut", f"choose one of {allowed}")


def read_cuts(publication: Mapping[str, Any]) -> tuple[Cut, ...]:
    """Return the cuts that a `published.json` describes, the default first; one of an earlier version has only that."""
    slicing = Slicing.from_dict(publication["slicing"])
    systems = tuple(publication.get("for", ()))
    default = Cut(publication.get("name") or derive_name(slicing), slicing, True, systems)
    others = publication.get("cuts", {}).items()
    return default, *(
        Cut(name, Slicing.from_dict(values["slicing"]), False, tuple(values.get("for", ()))) for name, values in others
    )


def describe_cuts(cuts: Sequence[Cut]) -> dict[str, Any]:
    """Return the entries of `published.json` that describe cuts, of which the first is the default.

    Earlier versions know the entry `slicing` only, and read the default cut.
    """
    default, *others = cuts
    entries: dict[str, Any] = {"slicing": default.slicing.as_dict()}
    if default.name != derive_name(default.slicing):
        entries["name"] = default.name
    if default.systems:
        entries["for"] = default.systems
    if others:
        entries["cuts"] = {
            cut.name: {"slicing": cut.slicing.as_dict()} | ({"for": cut.systems} if cut.systems else {})
            for cut in others
        }
    return entries


def with_default(cuts: Sequence[Cut], slicing: Slicing) -> tuple[Cut, ...]:
    """Return the cuts with this slicing as the default; the former default stays beside it under its name."""
    if cuts and cuts[0].default and cuts[0].slicing == slicing:
        return tuple(cuts)
    known = next((cut for cut in cuts if cut.slicing == slicing), None)
    return _arranged(cuts, known or Cut(_unused_name(cuts, slicing), slicing))


def with_named_default(cuts: Sequence[Cut], name: str) -> tuple[Cut, ...]:
    """Return the cuts with the one of this name as the default.

    Raises:
        StoreError: there is none.
    """
    return _arranged(cuts, find_cut(cuts, name))


def _arranged(cuts: Sequence[Cut], default: Cut) -> tuple[Cut, ...]:
    """Return `default` as the default cut, and all others beside it, by name."""
    others = (dataclasses.replace(cut, default=False) for cut in cuts if cut.name != default.name)
    return dataclasses.replace(default, default=True), *sorted(others, key=lambda cut: cut.name)


def with_cut(
    cuts: Sequence[Cut], slicing: Slicing, *, name: str | None = None, system: str | None = None
) -> tuple[Cut, ...]:
    """Return the cuts with one beside the default.

    Args:
        cuts: the cuts so far, the default first.
        slicing: slicing of the new cut.
        name: its name; None derives one, and adds nothing if a cut has this slicing.
        system: see `Cut.systems`; recorded unless the default has this slicing.

    Raises:
        SpecError: the name is not valid, or that of a cut with another slicing.
    """
    if name is None:
        known = next((cut for cut in cuts if cut.slicing == slicing), None)
    else:
        require_name(name)
        known = next((cut for cut in cuts if cut.name.casefold() == name.casefold()), None)
        if known is not None and known.slicing != slicing:
            problem = f"--name {name}: the cut {known.name} is {known.slicing.brief}"
            raise StoreError(problem, f"choose another name, or remove that cut: --remove {known.name}")
    if known is not None and (known.default or system is None or system in known.systems):
        return tuple(cuts)
    known = known or Cut(name or _unused_name(cuts, slicing), slicing)
    systems = (*known.systems, system) if system is not None else known.systems
    changed = dataclasses.replace(known, systems=systems)
    return _arranged([*(cut for cut in cuts if cut.name != known.name), changed], cuts[0])


def without_cut(cuts: Sequence[Cut], name: str) -> tuple[Cut, ...]:
    """Return the cuts without the one of this name.

    Raises:
        StoreError: there is none, or it is the default.
    """
    unwanted = find_cut(cuts, name)
    if unwanted.default:
        remedy = "make another cut the default first: --default NAME" if len(cuts) > 1 else "a store needs one cut"
        raise StoreError(f"{name} is the default cut", remedy)
    return tuple(cut for cut in cuts if cut != unwanted)


def requested_cuts(
    cuts: Sequence[Cut], spec: FeatureSpec, slicing: Slicing | None, study: tuple[str, Slicing] | None
) -> tuple[Cut, ...]:
    """Return the cuts that a store has after `mgc extract`.

    Args:
        cuts: its cuts so far; empty for a new store.
        spec: its feature.
        slicing: slicing that the user asked for: it becomes the default. None leaves the default as it is.
        study: name and slicing of the recipe that `--for` named: the default of a new store, else a cut beside it.
    """
    if slicing is None and study is not None and cuts and cuts[0].default:
        return with_cut(cuts, study[1].fitted(spec), system=study[0])
    if slicing is None and cuts and cuts[0].default:
        return tuple(cuts)
    return with_default(cuts, (slicing or (study[1] if study else Slicing())).fitted(spec))


def find_cut(cuts: Sequence[Cut], name: str) -> Cut:
    """Return the cut of this name.

    Raises:
        StoreError: there is none; the message lists those that there are.
    """
    for cut in cuts:
        if cut.name == name:
            return cut
    names = ", ".join(f"{cut.name} (the default)" if cut.default else cut.name for cut in cuts)
    raise StoreError(f"no cut is called {name}", f"choose from {names}")


def _unused_name(cuts: Sequence[Cut], slicing: Slicing) -> str:
    """Return the derived name of a slicing, with a number if another cut has that name."""
    taken = {cut.name.casefold() for cut in cuts}
    name, number = derive_name(slicing), 1
    while (numbered := name if number == 1 else f"{name}-{number}").casefold() in taken:
        number += 1
    return numbered
