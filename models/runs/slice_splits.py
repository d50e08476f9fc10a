"""The split of a slice in a run that splits slices instead of tracks (`mgc train --split-unit slice`)."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa

from mgc.pipeline.datasets.splits import SHARES


def slice_splits(track_ids: pa.ChunkedArray, starts: np.ndarray, seed: int) -> np.ndarray:
    """Draw the split of each slice, with the usual shares of the splits as probabilities.

    A pure function of seed, track id and start: of no other slice, so that an index can be read in parts.

    Args:
        track_ids: track of each slice.
        starts: start of each slice in seconds, float64 `(slices,)`.
        seed: seed of the splits.

    Returns:
        Index of each slice's split in `mgc.pipeline.datasets.tracks.SPLITS`, int64 `(slices,)`.
    """
    encoded = track_ids.combine_chunks().dictionary_encode()
    keys = np.array([_key(seed, id) for id in encoded.dictionary.to_pylist()], np.uint64)
    bits = keys[encoded.indices.to_numpy()] ^ np.ascontiguousarray(starts, np.float64).view(np.uint64)
    draws = (_mixed(bits) >> np.uint64(11)) * 2.0**-53
    return np.searchsorted(np.cumsum(list(SHARES.values()))[:-1], draws, side="right")


def _key(seed: int, track_id: str) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps([seed, track_id]).encode()).digest()[:8], "little")


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Scramble 64-bit values, so that close ones become unrelated (Steele et al., SplitMix, OOPSLA 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
