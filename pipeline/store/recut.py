"""Changes of a store's cuts, without decoding: `mgc slice`, and what `mgc extract` says of the cuts that it changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from mgc.pipeline.errors import StoreError
from mgc.pipeline.storage import files
from mgc.pipeline.store import manifest
from mgc.pipeline.store.cuts import Cut, with_default
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store


def reslice(store: Store, slicing: Slicing) -> Store:
    """Make a slicing the default cut of a store; the former default stays beside it. See `change_cuts`."""
    return change_cuts(store, lambda cuts: with_default(cuts, slicing.fitted(store.spec)))[0]


def change_cuts(store: Store, change: Callable[[tuple[Cut, ...]], Sequence[Cut]]) -> tuple[Store, tuple[Cut, ...]]:
    """Change the cuts of a store, and cut its tracks anew by all of them.

    Args:
        store: the store.
        change: function from the cuts that the store has to those that it shall have, the default first.

    Returns:
        The store, opened again, and the cuts that it had.

    Raises:
        StoreError: no track is long enough for a slice of a new cut or of a new default, an extraction is unfinished,
            or another process writes to the store. Nothing has changed then.
    """
    with files.translate_write_errors(store.path), store.lock():
        if store.journal_path.exists():
            store.require_finished()
        files.remove_temporaries(store.path)
        store = Store.open(store.path)
        before = manifest.known_cuts(store)
        try:
            after = without_empty_former(store, before, change(before))
        except StoreError as error:
            raise StoreError(f"{store.path}: {error.problem}", error.remedy) from None
        # The default is always required to have slices: without any, all tracks would be dropped.
        known = {cut.name for cut in before}
        manifest.publish_cuts(store, after, {cut.name for cut in after if cut.default or cut.name not in known})
    return Store.open(store.path), before


def without_empty_former(store: Store, before: Sequence[Cut], after: Sequence[Cut]) -> tuple[Cut, ...]:
    """Return the cuts `after` a change of the default, without the former default if that has no slices."""
    if before and before[0].default and before[0].name != after[0].name:
        with contextlib.suppress(StoreError):  # it cannot be read: it stays
            if not count_slices(store, before[0]):
                return tuple(cut for cut in after if cut.name != before[0].name)
    return tuple(after)


def describe_changes(store: Store, before: Sequence[Cut]) -> Iterator[str]:
    """Yield a line for each change of a store's cuts: before and after, with the numbers of slices.

    Args:
        store: the store after the change.
        before: the cuts that it had, the default first; empty for a new store.
    """
    if not before or not before[0].default:
        return
    former, default = before[0], store.cuts[0]
    if default.name != former.name:
        kept = next((cut for cut in store.cuts if cut.name == former.name), None)
        count = _count(store, kept) if kept else "0 slices"
        line = f"default cut {former.slicing.brief}: {count} -> {default.slicing.brief}: {_count(store, default)}"
        yield line + (f"; the former is kept as {kept.name} (mgc train --cut {kept.name})" if kept else "")
    known = {cut.name for cut in before}
    for cut in store.cuts[1:]:
        if cut.name not in known:
            stays = f"the default stays {default.slicing.brief}: {_count(store, default)}"
            wanted = f" for {', '.join(cut.systems)}" if cut.systems else ""
            yield f"cut {cut.name}{wanted} is added ({cut.slicing.brief}): {_count(store, cut)}; {stays}"
    kept_names = {cut.name for cut in store.cuts}
    for cut in before[1:]:
        if cut.name not in kept_names:
            yield f"cut {cut.name} ({cut.slicing.brief}) is removed; `mgc slice` cuts it again"


def _count(store: Store, cut: Cut) -> str:
    return f"{count_slices(store, cut):,} slices"


def count_slices(store: Store, cut: Cut) -> int:
    """Count the slices of a cut, without those of augmentation variants."""
    shards = map(int, store.shard_files())
    return sum(slices["variant"].null_count for slices in store.read_slices(shards, ["variant"], cut))
