"""Every network behind its input adapters, exported to ONNX from samples where that is possible, else from frames.

Networks have seeded weights. Those marked slow, not long, cover every kind of layer and every adapter.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import IDS

from mgc.models.export import conversion, onnx_file
from mgc.models.export.graph import Graph, Window
from mgc.models.export.spectrogram import Features, length, reach, supports
from mgc.models.network import Network
from mgc.models.registry import systems
from mgc.pipeline.features import FeatureSpec, from_dict

TYPICAL = (
    "kth2020/crnn", "mgc/cnn", "mgc/stft", "padova2023/late-fusion", "padova2023/cnn2d-mfcc", "vit2021/lstm",
    "xu2022/mobilenet",
)  # fmt: skip
#: Other networks than xu2022's that take slices of any length: they pool over time, or keep the last state.
ANY_LENGTH = (
    "mgc/cnn", "mgc/mfcc", "mgc/stft", "padova2023/cnn1d", "padova2023/cnn2d-mel", "padova2023/cnn2d-mfcc",
    "padova2023/late-fusion",
    "pons2019/musicnn", "ref/crnn-choi2017", "ubc2020/ablation-cnn-rnn2-attention", "ubc2020/ablation-rnn",
    "ubc2020/prcnn-attention", "vit2021/lstm",
)  # fmt: skip


def build(id: str) -> tuple[Graph, list[FeatureSpec], list[int]]:
    """The module of a network with seeded weights, from samples if it can be, its features, and frames of a slice."""
    system = systems.get(id)
    recipe = system.recipe
    specs = [from_dict(spec.as_dict()) for spec in (recipe.features, *recipe.further)]
    torch.manual_seed(0)
    network = Network(system, specs, recipe.dataset.n_classes).eval()
    seconds = recipe.slicing.seconds or 4.0
    frames = [one.frames or spec.frames(seconds) for one, spec in zip(system.inputs, specs, strict=True)]
    front_ends = []
    if all(map(supports, specs)) and len({(spec.sr, spec.hop_length) for spec in specs}) == 1:
        margin = max(map(reach, specs))
        counted = [None] if len(specs) == 1 else frames
        front_ends = [Features(spec, margin, n) for spec, n in zip(specs, counted, strict=True)]
    return Graph(front_ends, network, [None] * len(front_ends), is_neural=True).eval(), specs, frames


def draw(graph: Graph, specs: list[FeatureSpec], frames: list[int]) -> tuple[list[np.ndarray], Window | None]:
    """Inputs of three slices, and the window that they are if they are samples."""
    rng = np.random.default_rng(0)
    if not graph.front_ends:
        shapes = zip(frames, specs, strict=True)
        return [rng.normal(-30, 10, (3, n, spec.bins)).astype(np.float32) for n, spec in shapes], None
    margin = max(map(reach, specs))
    stop = margin + max(length(spec, n) for spec, n in zip(specs, frames, strict=True))
    window = Window(specs[0].sr, specs[0].hop_length, margin, stop, 0)
    return [rng.uniform(-0.5, 0.5, (3, stop)).astype(np.float32)], window


@pytest.mark.parametrize(
    "id", [pytest.param(id, marks=getattr(pytest.mark, "slow" if id in TYPICAL else "long")) for id in IDS]
)
def test_it_agrees_with_pytorch_at_every_length_that_it_takes(id: str) -> None:
    graph, specs, frames = build(id)
    inputs, window = draw(graph, specs, frames)
    names = onnx_file.input_names(len(inputs), "features" if window is None else "samples")
    proto = conversion.to_onnx(graph, inputs, names, "probabilities", window)
    session = onnx_file.Session(proto.SerializeToString())
    assert [shape[0] for shape in session.shapes] == ["batch"] * len(inputs)
    takes_any = id in ANY_LENGTH or id.startswith("xu2022/")
    assert [isinstance(shape[1], str) for shape in session.shapes] == [takes_any] * len(inputs)
    for factor in (1, 1.3, 3) if takes_any else (1,):
        other = [round(n * factor) for n in frames]
        values, _ = draw(graph, specs, other)
        with torch.no_grad():
            expected = graph(*onnx_file.tensors(values)).numpy()
        assert np.abs(session(values) - expected).max() <= 1e-4, factor
    assert len(session([values[:1] for values in inputs])) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("id", "takes_any"), [("mgc/cnn", True), ("xu2022/mobilenet", True), ("vit2021/cnn", False)])
def test_torch_export_leaves_the_length_open_where_it_can(id: str, takes_any: bool) -> None:
    graph, specs, frames = build(id)
    graph.front_ends = torch.nn.ModuleList()
    inputs, window = draw(graph, specs, frames)
    _, program = conversion.to_torch(graph, inputs, window)
    assert program.shapes == [["batch", "length" if takes_any else frames[0], specs[0].bins]]
    values, _ = draw(graph, specs, [frames[0] * 2 if takes_any else frames[0]])
    with torch.no_grad():
        assert np.abs(program(values) - graph(*onnx_file.tensors(values)).numpy()).max() <= 1e-4
