"""The system that `mgc train` trains if none is named, and the line that says which, on which store, and why."""

from __future__ import annotations

from mgc.models.data.store_candidates import StoreCandidates
from mgc.models.registry import systems
from mgc.models.registry.systems import System
from mgc.pipeline.errors import ModelError
from mgc.pipeline.store.store import Store


def default_system(candidates: StoreCandidates) -> tuple[System, str]:
    """Choose the default system of the latest store's feature, or of the named stores' first default.

    Args:
        candidates: stores that the user named, or the latest one and those beside it.

    Returns:
        The system, and a line for the user.

    Raises:
        ModelError: the feature has no default system.
    """
    named = sorted(candidates.stores, key=lambda store: systems.preference(store.spec.name))
    store, *_ = named if candidates.explicit else candidates.stores
    feature = store.spec.name
    others = [other for other in candidates.stores if other is not store]
    if not systems.has_default(feature):
        raise _no_default(candidates, store, others)
    system = systems.get(systems.default_model(feature, store.spec.bins))
    line = f"model: {system.id}, the default for {feature}"
    if not candidates.explicit:
        line += f"; store: {store.path}, the latest" + (f" (beside it: {_names(others)})" if others else "")
    return system, f"{line}; others: `mgc models`"


def _no_default(candidates: StoreCandidates, store: Store, others: list[Store]) -> ModelError:
    """The error that a store's feature has no default system; its remedy names a store that has one, if there is."""
    which = "" if candidates.explicit else ", the latest store,"
    remedy = "name a model with --model; `mgc models` lists them all"
    for other in others:
        if systems.has_default(other.spec.name) and not candidates.explicit:
            remedy += f"; or train {systems.default_model(other.spec.name, other.spec.bins)}: --store {other.path}"
            break
    return ModelError(f"{store.path}{which} holds {store.spec.name}, which has no default model", remedy)


def _names(stores: list[Store], most: int = 3) -> str:
    """The names of some stores, or of the first ones and the number of the others."""
    rest = f" and {len(stores) - most} more" if len(stores) > most else ""
    return ", ".join(store.path.name for store in stores[:most]) + rest
