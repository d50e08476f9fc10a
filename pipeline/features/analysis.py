"""Computation of features from audio: one streaming pass that resamples once per rate and transforms once per stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mgc.pipeline.dsp.stages import Stage
from mgc.pipeline.features.spec import FeatureSpec

#: Samples, at the output rate, to which the resampler's filter can spread a bad sample, beyond a frame's window.
RESAMPLER_REACH = 64


def analyse(
    blocks: Iterable[np.ndarray], rate: int, specs: Iterable[FeatureSpec]
) -> Iterator[tuple[FeatureSpec, np.ndarray]]:
    """Compute the frames of several features in one pass over mono audio.

    Audio is resampled once per sample rate (soxr HQ, as `librosa.load` does) and transformed once per stage: for most
    features a Fourier transform with the same `n_fft` and `hop_length`. Memory does not grow with the length of the
    track, except for features with a `max_duration_s`. Frames do not depend on the lengths of the blocks.

    Args:
        blocks: mono samples, float32 `(samples,)` each, finite.
        rate: sample rate of the blocks in Hz.
        specs: features to compute.

    Yields:
        A spec and its next frames, float32 `(n, bins)`, read-only. In total `spec.frames(seconds)` frames per spec, or
        one more if resampling rounds the length up to a whole hop; none if the track exceeds `max_duration_s`.
    """
    chains = [_Chain(rate, sr, group) for sr, group in _group_by(specs, "sr").items()]
    for block in blocks:
        for chain in chains:
            yield from chain.push(block, last=False)
    for chain in chains:
        yield from chain.push(np.empty(0, np.float32), last=True)


class _Chain:
    """A resampler, followed by the stages of all specs with one sample rate.

    Args:
        rate: sample rate of the input in Hz.
        sr: sample rate of the specs in Hz.
        specs: features to compute.
    """

    def __init__(self, rate: int, sr: int, specs: list[FeatureSpec]) -> None:
        import soxr

        self._resampler = soxr.ResampleStream(rate, sr, 1, dtype="float32", quality="HQ") if rate != sr else None
        self._stages: list[tuple[Stage, list[FeatureSpec]]] = [
            (key[0](*key[1:]), group) for key, group in _group_by(specs, "stage").items()
        ]

    def push(self, block: np.ndarray, *, last: bool) -> Iterator[tuple[FeatureSpec, np.ndarray]]:
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block, last=last)
        for stage, specs in self._stages:
            for stage_output in stage.push(block, last=last):
                for spec in specs:
                    yield spec, spec.compute_frames(stage_output)


def _group_by(specs: Iterable[FeatureSpec], attribute: str) -> dict[Any, list[FeatureSpec]]:
    groups: dict[Any, list[FeatureSpec]] = {}
    for spec in specs:
        groups.setdefault(getattr(spec, attribute), []).append(spec)
    return groups
