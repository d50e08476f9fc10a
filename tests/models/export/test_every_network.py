"""Every network behind its input adapters, exported to ONNX from samples where that is possible, else from frames.

Networks have seeded weights. Those marked slow, not long, cover every kind of layer and every adapter.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import IDS

from mgc.models.export import onnx_file
from mgc.models.export.graph import Graph
from mgc.models.export.spectrogram import Features, length, reach, supports
from mgc.models.network import Network
from mgc.models.registry import systems
from mgc.pipeline.features import from_dict

TYPICAL = ("kth2020/crnn", "padova2023/late-fusion", "padova2023/cnn2d-mfcc", "vit2021/lstm", "xu2022/mobilenet")


@pytest.mark.parametrize(
    "id", [pytest.param(id, marks=getattr(pytest.mark, "slow" if id in TYPICAL else "long")) for id in IDS]
)
def test_it_agrees_with_pytorch(id: str) -> None:
    system = systems.get(id)
    recipe = system.recipe
    specs = [from_dict(spec.as_dict()) for spec in (recipe.features, *recipe.further)]
    torch.manual_seed(0)
    network = Network(system, specs, recipe.dataset.n_classes).eval()
    seconds = recipe.slicing.seconds or 4.0
    frames = [one.frames or spec.frames(seconds) for one, spec in zip(system.inputs, specs, strict=True)]
    rng = np.random.default_rng(0)
    if all(map(supports, specs)) and len({(spec.sr, spec.hop_length) for spec in specs}) == 1:
        margin = max(map(reach, specs))
        stop = margin + max(length(spec, n) for spec, n in zip(specs, frames, strict=True))
        front_ends = [Features(spec, margin, n) for spec, n in zip(specs, frames, strict=True)]
        inputs, origin = [rng.uniform(-0.5, 0.5, (3, stop)).astype(np.float32)], "samples"
    else:
        front_ends, origin = [], "features"
        inputs = [
            rng.normal(-30, 10, (3, n, spec.bins)).astype(np.float32) for n, spec in zip(frames, specs, strict=True)
        ]
    graph = Graph(front_ends, network, [None] * len(front_ends), is_neural=True).eval()
    proto = onnx_file.encode(
        onnx_file.trace(graph, inputs), onnx_file.input_names(len(inputs), origin), "probabilities"
    )
    with torch.no_grad():
        expected = graph(*onnx_file.tensors(inputs)).numpy()
    session = onnx_file.Session(proto.SerializeToString())
    assert np.abs(session(inputs) - expected).max() <= 1e-4
    assert [shape[0] for shape in session.shapes] == ["batch"] * len(inputs)
    assert len(session([values[:1] for values in inputs])) == 1
