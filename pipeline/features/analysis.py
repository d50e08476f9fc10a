"""One streaming pass over mono audio: resample, transform, and hand the result to every feature that wants it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mgc.pipeline.dsp.stages import Stage
from mgc.pipeline.features.spec import FeatureSpec

#: Reach of the resampler's filter, in output samples: what a bad sample can touch beyond the window of a frame.
RESAMPLER_REACH = 64


def analyse(
    blocks: Iterable[np.ndarray], rate: int, specs: Iterable[FeatureSpec]
) -> Iterator[tuple[FeatureSpec, np.ndarray]]:
    """Frames of all specs in one pass over mono audio.

    Audio is resampled once per sample rate (soxr HQ, as `librosa.load`) and transformed once per stage, which is for
    most features a Fourier transform of some (n_fft, hop_length). Memory does not grow with the length of the track,
    but for features with a `longest_s`, and the frames do not depend on how it is cut into blocks.

    Args:
        blocks: float32 `(samples,)` each, finite.
        rate: their sample rate in Hz.
        specs: the features wanted.

    Yields:
        A spec and its next frames, float32 `(n, bins)`, not to be changed. `spec.frames(seconds)` in all; one more
        where resampling rounds the length up to a whole hop; none of a track beyond the spec's `longest_s`.
    """
    chains = [_Chain(rate, sr, specs_at) for sr, specs_at in _grouped(specs, "sr").items()]
    for block in blocks:
        for chain in chains:
            yield from chain.push(block, last=False)
    for chain in chains:
        yield from chain.push(np.empty(0, np.float32), last=True)


class _Chain:
    """A resampler and the stages behind it."""

    def __init__(self, rate: int, sr: int, specs: list[FeatureSpec]) -> None:
        import soxr

        self._resampler = soxr.ResampleStream(rate, sr, 1, dtype="float32", quality="HQ") if rate != sr else None
        self._stages: list[tuple[Stage, list[FeatureSpec]]] = [
            (key[0](*key[1:]), users) for key, users in _grouped(specs, "stage").items()
        ]

    def push(self, block: np.ndarray, *, last: bool) -> Iterator[tuple[FeatureSpec, np.ndarray]]:
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block, last=last)
        for stage, specs in self._stages:
            for made in stage.push(block, last=last):
                for spec in specs:
                    yield spec, spec.compute_frames(made)


def _grouped(specs: Iterable[FeatureSpec], attribute: str) -> dict[Any, list[FeatureSpec]]:
    groups: dict[Any, list[FeatureSpec]] = {}
    for spec in specs:
        groups.setdefault(getattr(spec, attribute), []).append(spec)
    return groups
