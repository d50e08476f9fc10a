"""Which of several stores each input of a system is made from."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mgc.models.data.fit import matches_study, require_feature
from mgc.models.registry.systems import InputSpec, System
from mgc.pipeline.errors import ModelError, SpecError, StoreError
from mgc.pipeline.features import FeatureSpec, Waveform
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.store.store import Store
from mgc.pipeline.workspace import Workspace


@dataclass(frozen=True)
class StoreCandidates:
    """The stores there are to choose from.

    Attributes:
        stores: the preferred ones first.
        named: whether the user named them, so that each should be of use.
        studied: whether only what a study used will do.
        frontend: whether the device computes spectrograms of samples, which the stores hold then.
    """

    stores: tuple[Store, ...]
    named: bool
    study_only: bool = False
    frontend: bool = False

    def choose(self, system: System) -> list[Store]:
        """The stores that `system` reads, in the order of its inputs: for each the first one that it can be made from.

        Raises:
            ModelError: an input has none; the remedy is the command that makes it.
        """
        if self.frontend:
            pairs = zip(system.inputs, (system.recipe.features, *system.recipe.further), strict=False)
            return [self._computed(system, needs, study) for needs, study in pairs]
        if self.named and len(self.stores) == len(system.inputs) == 1:
            return [self.stores[0]]  # what is wrong with it is said in detail where it is opened
        chosen = []
        study_only = (system.recipe.features, *system.recipe.further)
        for needs, study in zip(system.inputs, study_only, strict=False):
            fitting = [store for store in self.stores if self._fits(system, needs, store)]
            if self.study_only and not self.named:
                fitting = [store for store in fitting if matches_study(needs, store.spec, study)]
                fitting.sort(key=lambda store: store.variants != system.recipe.variants)
            if not fitting:
                what = str(study) if self.study_only else " or ".join(needs.features)
                raise ModelError(f"{system.id} needs {what}, which {self._where} holds", _remedy(system, self.stores))
            chosen.append(fitting[0])
        return chosen

    def _computed(self, system: System, needs: InputSpec, study: FeatureSpec) -> Store:
        """A store of samples for an input: as it is where they are what the system reads, else behind a front end.

        The front end is the study's, at the store's sample rate; stores of the study's rate come first.
        """
        from mgc.models.data.computed import WaveformView  # here because it brings in PyTorch
        from mgc.models.data.frontend import supports

        if "waveform" not in needs.features and not supports(study):
            made = f"--frontend device: {system.id} reads {study.name}, which only `mgc extract` makes"
            raise ModelError(made, "leave the option out")
        held = [store for store in self.stores if isinstance(store.spec, Waveform)]
        held = [store for store in held if store.spec.sr == study.sr or not self.study_only]
        if "waveform" in needs.features:
            held = [store for store in held if self._fits(system, needs, store)]
        held.sort(key=lambda store: (store.spec.sr != study.sr, store.variants != system.recipe.variants))
        extract = f"`mgc extract {_dataset(self.stores)}--feature waveform:sr={study.sr}`"
        if not held:
            at = f" at {study.sr} Hz" if self.study_only else ""
            problem = f"--frontend device: {system.id} needs samples{at}, which {self._where} holds"
            raise ModelError(problem, f"extract them: {extract}")
        if "waveform" in needs.features:
            return held[0]
        try:
            return WaveformView.of(held[0], dataclasses.replace(study, sr=held[0].spec.sr, dtype="float32"))
        except SpecError as error:
            problem = f"--frontend device: {system.id} cannot be shown {held[0].path}, {error.problem}"
            raise ModelError(problem, f"extract it at the study's rate: {extract}") from error

    def require_all_used(self, chosen: Sequence[Store], who: str) -> None:
        """Raise `ModelError` where a store was named that nothing is made from."""
        used = {store.path for store in chosen}
        for store in self.stores if self.named else ():
            if store.path not in used:
                remedy = "leave it out; `mgc models` lists what systems read"
                raise ModelError(f"{who} has no use for {store.path}, which holds {store.spec.name}", remedy)

    @property
    def _where(self) -> str:
        paths = ", ".join(str(store.path) for store in self.stores)
        return f"none of {paths}" if self.named else f"no store in {self.stores[0].path.parent}"

    def _fits(self, system: System, needs: InputSpec, store: Store) -> bool:
        try:
            require_feature(system, needs, store.spec, str(store.path))
        except ModelError:
            return False
        return True


def find_store_candidates(
    workspace: Workspace, named: Sequence[Place], *, study_only: bool = False, frontend: bool = False
) -> StoreCandidates:
    """The stores that the user named, else those of the dataset of the latest one, the newest first.

    Args:
        workspace: where to look.
        named: folders or URLs of stores; may be empty.
        studied, frontend: see `Offer`.

    Raises:
        StoreError: a named store cannot be opened, or there is none at all.
    """
    if named:
        return StoreCandidates(tuple(Store.open(path) for path in named), True, study_only, frontend)
    latest = Store.open(workspace.latest_store())
    if isinstance(latest.path, RemotePath):
        return StoreCandidates((latest,), False, study_only, frontend)
    heads = latest.path.parent.glob("*/store.json")
    newest = sorted(heads, key=lambda head: head.stat().st_mtime_ns, reverse=True)
    others = [store for head in newest if head.parent != latest.path for store in _readable(head.parent)]
    same = [store for store in others if store.dataset.get("root") == latest.dataset.get("root")]
    return StoreCandidates((latest, *same), False, study_only, frontend)


def _readable(path: Path) -> list[Store]:
    try:
        return [Store.open(path)]
    except StoreError:
        return []


def _remedy(system: System, stores: Sequence[Store]) -> str:
    return f"extract it: `mgc extract {_dataset(stores)}--for {system.id}`"


def _dataset(stores: Sequence[Store]) -> str:
    source = stores[0].dataset.get("source")
    return f"--dataset {shlex.quote(str(source))} " if source else ""
