"""The batches of a seed stay what they have always been, whatever the memory that an epoch's order takes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from stores import TINY, make_store

from mgc.models.data import sampling
from mgc.models.data.sampling import Sampling
from mgc.models.data.split_data import RunInputs, SplitData
from mgc.models.data.stream import Batching
from mgc.models.data.waveform_view import WaveformView
from mgc.models.runs.selection import Selection, select_tracks
from mgc.pipeline.features import Mel, Waveform
from mgc.pipeline.features.variants import parse_variants
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

SLOW = Waveform(hop_length=512)
FAST = Mel(n_mels=8, n_fft=512, hop_length=128)
WAVE, SEEN = Waveform(sr=8000), Mel(sr=8000, n_fft=512, hop_length=128, n_mels=8)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Store]]:
    """One store with variants, a pair in shards of different sizes, and a view of samples."""
    root = tmp_path_factory.mktemp("stores")
    lengths = (9.0, 4.0, 5.3)
    pair = [
        make_store(root / spec.name, spec, tracks_per_shard=n, seconds=lengths, root=root)
        for spec, n in ((SLOW, 3), (FAST, 5))
    ]
    one = make_store(root / "one", TINY, seconds=lengths, variants=parse_variants("noise:20"))
    view = WaveformView.of(make_store(root / "samples", WAVE, seconds=lengths), SEEN)
    return {"one": [one], "pair": pair, "view": [view]}


def open_split(stores: list[Store], case: dict[str, Any], share: tuple[int, int]) -> SplitData:
    slicing = case.get("slicing", Slicing(seconds=2.0))
    chosen = select_tracks(stores[0], stores[1:], slicing=slicing)
    if "split_seed" in case:
        chosen = Selection(chosen.classes, chosen.tracks, case["split_seed"])
    batching = Batching(14, torch.device("cpu"), case.get("seed", 5), case.get("squeeze", False), share)
    inputs = RunInputs(chosen, stores, slicing, [case.get("frames", 60)] * len(stores))
    return inputs.split(case.get("split", "training"), batching, Sampling(**case.get("sampling", {})))


def digest(arrays: list[Any]) -> str:
    """Digest of whole numbers, whatever their type."""
    state = hashlib.sha256()
    for values in arrays:
        state.update(np.ascontiguousarray(values, np.int64).tobytes())
    return state.hexdigest()[:12]


CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "plain": ("one", {}, "9d197c19da05 ad798dd31213"),
    "in order": ("one", {"seed": None}, "21c07895fef6 14202beac5dd"),
    "validation": ("one", {"split": "validation", "seed": None, "squeeze": True}, "ab9423f13bd8 3907ae8c96ae"),
    "squeezed": ("one", {"squeeze": True}, "ea65033f6776 1590fd4edd09"),
    "class": ("one", {"sampling": {"balance": "class"}}, "8af505e94625 45277c044295"),
    "track": ("one", {"sampling": {"balance": "track", "variants": True}}, "99ff8a78ca50 cd419c9f5218"),
    "crop": ("one", {"sampling": {"crop": True}}, "32acebaeae76 33442c374737"),
    "variants": ("one", {"sampling": {"variants": True, "crop": True}}, "2ba6dd85896c fd0218a46987"),
    "whole tracks": ("one", {"slicing": Slicing(seconds=None, whole=True)}, "d470a5c4b428 f31639a6631f"),
    "split slices": ("one", {"split_seed": 3}, "d7c14c8c638a 5bcb471e1644"),
    "long window": ("one", {"frames": 200}, "ea65033f6776 1590fd4edd09"),
    "pair": ("pair", {}, "80d603e3cfc2 f3205b93843a"),
    "pair, crop": ("pair", {"sampling": {"crop": True, "balance": "class"}}, "b4ea96236dfb 3fcb27bf7678"),
    "view": ("view", {}, "8b1de18bef8d fea4ba670d02"),
}


@pytest.mark.parametrize(("size", "small"), [(1, False), (1, True), (3, True)])
@pytest.mark.parametrize("name", CASES)
def test_batches_are_those_of_earlier_versions(
    name: str, size: int, small: bool, stores: dict[str, list[Store]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digests were written down before the order of an epoch was held in 32-bit numbers.

    Args:
        name: key of `CASES`.
        size: number of processes.
        small: sort and convert 20 slices at a time, as if there were millions.
        stores: by the name in `CASES`.
        monkeypatch: sets the sizes.
    """
    monkeypatch.setattr(sampling, "GROUP_BYTES", 25_000)
    if small:
        for place in ("data.sampling.BLOCK", "runs.narrow.PART", "runs.selection.PART"):
            monkeypatch.setattr(f"mgc.models.{place}", 20)
    which, case, expected = CASES[name]
    read: list[Any] = []
    for rank in range(size):
        data = open_split(stores[which], case, (rank, size))
        read += [data.tracks, data.stream.labels, *(stream.shard_of for stream in data.streams)]
        for epoch in (0, 3):
            order = data.streams[0].order(epoch)
            read += [order.rows, order.draws, order.crops[order.draws], *order.groups]
            for batch in data.stream.batches(epoch):
                read += [batch.rows, batch.draws, batch.labels, [batch.number]]
                assert batch.rows.dtype == batch.draws.dtype == np.int64
                assert batch.labels.dtype == torch.int64
    assert digest(read) == expected.split()[size // 2]
