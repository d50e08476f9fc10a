"""Choice of stores: which of the candidate stores each input of a system is read from."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mgc.models.data import nearest
from mgc.models.data.fit import require_feature, study_differences
from mgc.models.data.pooled_view import as_read
from mgc.models.registry.systems import InputSpec, System
from mgc.pipeline.commands import choose_store
from mgc.pipeline.errors import ModelError, SpecError, StoreError
from mgc.pipeline.features import FeatureSpec, Waveform
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.store.store import Store
from mgc.pipeline.workspace import Workspace


@dataclass(frozen=True)
class StoreCandidates:
    """The stores that a system may be trained on.

    Attributes:
        stores: candidates, the preferred ones first.
        explicit: whether the user named the stores; then each of them must be used.
        study_only: whether to accept only stores with the feature of the system's study.
        frontend: whether the device computes spectrograms from samples; then the stores must be waveform stores.
    """

    stores: tuple[Store, ...]
    explicit: bool
    study_only: bool = False
    frontend: bool = False

    def choose(self, system: System) -> list[Store]:
        """Choose a store for each input of a system: the first candidate that the input can be made from.

        Raises:
            ModelError: no candidate fits an input; the remedy is the command that extracts such a store.
        """
        if system.several and self.explicit:
            for store in self.stores:
                require_feature(system, system.input, store.spec, str(store.path))
            return list(self.stores)
        study_features = (system.recipe.features, *system.recipe.further)
        if self.frontend:
            pairs = zip(system.inputs, study_features, strict=False)
            return [self._choose_waveform(system, input_spec, study) for input_spec, study in pairs]
        if self.explicit and len(self.stores) == len(system.inputs) == 1:
            return [self.stores[0]]  # `check_fit` reports in detail why it does not fit
        stores = []
        for input_spec, study in zip(system.inputs, study_features, strict=False):
            suitable = [store for store in self.stores if _is_suitable(system, input_spec, store)]
            if self.study_only and not self.explicit:
                suitable = [store for store in suitable if not study_differences(input_spec, store.spec, study)]
                suitable.sort(key=lambda store: store.variants != system.recipe.variants)
            if not suitable:
                raise self._none_fits(system, input_spec, study)
            stores.append(suitable[0])
        return stores

    def _none_fits(self, system: System, input_spec: InputSpec, study: FeatureSpec) -> ModelError:
        """The error that no candidate fits an input. It says which comes nearest, and what differs."""
        study_only = self.study_only and not self.explicit
        feature = nearest.describe_need(input_spec, study, study_only=study_only)

        def unmet(store: Store) -> list[str]:
            return nearest.unmet_needs(input_spec, store.spec, study, study_only=study_only)

        nearby = nearest.nearest_store(self.stores, study.name, unmet)
        remedy = f"extract it: `mgc extract {_dataset_option(self.stores)}--for {system.id}`"
        from mgc.models.data.frontend import supports  # imported here because it imports PyTorch

        samples = [store.spec.sr for store in self.stores if isinstance(store.spec, Waveform)]
        if supports(study) and (study.sr in samples if study_only else samples):
            remedy += ", or compute it: --frontend device"
        return ModelError(f"{system.id} needs {feature}, which {self._no_candidate} holds: {nearby}", remedy)

    def _choose_waveform(self, system: System, input_spec: InputSpec, study: FeatureSpec) -> Store:
        """Choose a waveform store for an input: as it is if the system reads samples, else behind a front end.

        The front end computes the study's feature at the sample rate of the store. Stores with the study's sample rate
        are preferred.
        """
        from mgc.models.data.frontend import supports
        from mgc.models.data.waveform_view import WaveformView  # imported here because it imports PyTorch

        reads_samples = "waveform" in input_spec.features
        if not reads_samples and not supports(study):
            problem = f"--frontend device: {system.id} reads {study.name}, which only `mgc extract` makes"
            raise SpecError(problem, "leave the option out")
        stores = [store for store in self.stores if isinstance(store.spec, Waveform)]
        stores = [store for store in stores if store.spec.sr == study.sr or not self.study_only]
        if reads_samples:
            stores = [store for store in stores if _is_suitable(system, input_spec, store)]
        stores.sort(key=lambda store: (store.spec.sr != study.sr, store.variants != system.recipe.variants))
        command = f"`mgc extract {_dataset_option(self.stores)}--feature waveform:sr={study.sr}`"
        if not stores:
            rate = f" at {study.sr} Hz" if self.study_only else ""

            def unmet(store: Store) -> list[str]:
                if not isinstance(store.spec, Waveform):
                    return [f"{store.spec.name} for waveform"]
                hop = f"hop {store.spec.hop_length} for {input_spec.bands}"
                return [f"rate {store.spec.sr} for {study.sr}"] if store.spec.sr != study.sr else [hop]

            nearby = nearest.nearest_store(self.stores, "waveform", unmet)
            problem = f"--frontend device: {system.id} needs samples{rate}, which {self._no_candidate} holds: {nearby}"
            raise ModelError(problem, f"extract them: {command}")
        store = stores[0]
        if reads_samples:
            return store
        try:
            return WaveformView.of(store, dataclasses.replace(study, sr=store.spec.sr, dtype="float32"))
        except SpecError as error:
            problem = f"--frontend device: {system.id} cannot read {store.path}: {error.problem}"
            raise ModelError(problem, f"extract it at the study's rate: {command}") from error

    def require_all_used(self, chosen: Sequence[Store], system_id: str) -> None:
        """Check that every store that the user named is used.

        Args:
            chosen: stores that are used.
            system_id: id of the system, for the error message.

        Raises:
            ModelError: a store was named but not chosen.
        """
        used = {store.path for store in chosen}
        for store in self.stores if self.explicit else ():
            if store.path not in used:
                remedy = "leave it out; `mgc models` lists what systems read"
                raise ModelError(f"{system_id} does not read {store.path}, which holds {store.spec.name}", remedy)

    @property
    def _no_candidate(self) -> str:
        """Subject of the sentence that no candidate holds a feature."""
        paths = ", ".join(str(store.path) for store in self.stores)
        return f"none of {paths}" if self.explicit else f"no store in {self.stores[0].path.parent}"


def find_store_candidates(
    workspace: Workspace, paths: Sequence[Place], *, study_only: bool = False, frontend: bool = False
) -> StoreCandidates:
    """Find the candidates: the stores that the user named, else the latest store and others of its dataset.

    Args:
        workspace: workspace with the latest store.
        paths: folders or URLs of the stores that the user named; empty for the latest store, then those beside it that
            hold the same dataset, the newest first.
        study_only, frontend: see `StoreCandidates`.

    Raises:
        StoreError: a named store cannot be opened, or the workspace has no store.
    """
    if paths:
        stores = tuple(as_read(choose_store(workspace, path)) for path in paths)
        return StoreCandidates(stores, True, study_only, frontend)
    latest = as_read(Store.open(workspace.latest_store()))
    if isinstance(latest.path, RemotePath):
        return StoreCandidates((latest,), False, study_only, frontend)
    heads = latest.path.parent.glob("*/store.json")
    newest = sorted(heads, key=lambda head: head.stat().st_mtime_ns, reverse=True)
    others = [store for head in newest if head.parent != latest.path for store in _open_if_readable(head.parent)]
    same_dataset = [store for store in others if store.dataset.get("root") == latest.dataset.get("root")]
    return StoreCandidates((latest, *same_dataset), False, study_only, frontend)


def _open_if_readable(path: Path) -> list[Store]:
    try:
        return [as_read(Store.open(path))]
    except StoreError:
        return []


def _is_suitable(system: System, input_spec: InputSpec, store: Store) -> bool:
    """Whether an input can be made from a store."""
    try:
        require_feature(system, input_spec, store.spec, str(store.path))
    except ModelError:
        return False
    return True


def _dataset_option(stores: Sequence[Store]) -> str:
    """The option of `mgc extract` that names the dataset of the stores, with a space; empty if it is not known."""
    source = stores[0].dataset.get("source")
    return f"--dataset {shlex.quote(str(source))} " if source else ""
