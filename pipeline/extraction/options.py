"""Settings of an extraction: the values of the options of `mgc extract`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mgc.pipeline.errors import SpecError
from mgc.pipeline.features.variants import Variant
from mgc.pipeline.store.slicing import Slicing

#: Time limit for decoding and analysing one file in seconds; beyond it, the worker counts as hung.
FILE_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Options:
    """Settings of an extraction.

    Attributes:
        slicing: slicing of the default cut; None keeps a store's, and uses `Slicing()` for a new store.
        study: name and slicing of the recipe that `--for` named: without `slicing`, the default of a new store, and a
            cut beside the default of an existing one.
        workers: number of worker processes to start; None starts one per processor.
        scheduler: address of a running Dask scheduler whose workers are used instead; None starts workers.
        seed: seed of the splits, and of the order of tracks in the shards of a new store.
        splits: split by track id, or by path; they override all other splits.
        unlisted: tracks that a published list of splits leaves out, by id, with the detail of their manifest rows.
        max_duration: length in seconds beyond which a track is dropped as `too-long`; None for no limit.
        file_timeout: time limit for one file in seconds.
        rebuild: extract everything again, into the shards that one pass over the whole dataset would write.
        verify: check every byte of the store first; extract damaged shards, and cut an outdated slice index, again.
        variants: augmentation variants to extract for each training track.
        duplicates: what is done with files that are equal byte for byte: `group` keeps them in one split, `drop` uses
            the first of each, `keep` takes no notice of them when splits are dealt.
        moved: the dataset has moved since its stores were extracted: compare its files with them by content.
    """

    slicing: Slicing | None = None
    study: tuple[str, Slicing] | None = None
    workers: int | None = None
    scheduler: str | None = None
    seed: int = 0
    splits: Mapping[str, str] = field(default_factory=dict)
    unlisted: Mapping[str, str] = field(default_factory=dict)
    max_duration: float | None = None
    file_timeout: float = FILE_TIMEOUT_S
    rebuild: bool = False
    verify: bool = False
    variants: tuple[Variant, ...] = ()
    duplicates: str = "group"
    moved: bool = False

    def __post_init__(self) -> None:
        if self.max_duration is not None and not 0 < self.max_duration < math.inf:
            raise SpecError(f"--max-duration {self.max_duration:g}", "it must be a positive number of seconds")
        if not 0 < self.file_timeout < math.inf:
            raise SpecError(f"--timeout {self.file_timeout:g}", "it must be a positive number of seconds")
