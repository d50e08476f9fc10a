"""Prediction: slices a second from a store to logits on the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from train import make_learner

from gpu_parts.measurement import Row, Setup, no_time, rate_within, repeated
from gpu_parts.sources import RESIDENCIES, SYSTEMS, open_source
from gpu_parts.steps import NAMES
from mgc.models.data.stream import Stream
from mgc.models.network import Network, outputs_by_batch


def measure_prediction(setup: Setup) -> Iterator[Row]:
    """Measure the prediction of a store, resident and streamed, and the network alone."""
    for id in SYSTEMS:
        label = f"prediction, {id}"
        if setup.left < 5:
            yield no_time(label)
            continue
        source = open_source(setup, id)
        learner, batch = make_learner(id, source.batch_size, source.frames, setup.device)
        network = learner.network.eval()
        with torch.inference_mode():
            alone = source.batch_size / repeated(setup, functools.partial(network, batch.frames)).median
        rates = {
            NAMES[residency]: rate_within(setup, _sizes(network, source.stream(setup, residency)), setup.size(2, 0))
            for residency in RESIDENCIES
        }
        figures = {"network_slices_per_s": alone} | {f"{name}_slices_per_s": value for name, value in rates.items()}
        shown = ", ".join(f"{name} {value:,.0f}" for name, value in rates.items())
        yield Row(label, f"{shown} slices/s; the network alone {alone:,.0f}", figures=figures)


def _sizes(network: Network, stream: Stream) -> Callable[[], Iterator[int]]:
    """Function that predicts every slice of a stream, and yields the number of slices of each batch."""
    return lambda: (len(rows) for rows, _ in outputs_by_batch(network, stream, "prediction"))
