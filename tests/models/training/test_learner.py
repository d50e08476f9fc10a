"""One update and the next, against closed forms."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY

from mgc.models.data.stream import Batch
from mgc.models.network import Network
from mgc.models.parallel.device import require_amp
from mgc.models.registry.recipes import Optimizer, Training
from mgc.models.registry.settings import Loop
from mgc.models.training.learner import Learner
from mgc.pipeline.errors import SpecError

CPU = torch.device("cpu")
LABELS = np.array([0, 1, 2, 0, 1, 2])
RECIPE = TINY.recipe.training
assert RECIPE is not None
SGD = dataclasses.replace(RECIPE, optimizer=Optimizer("sgd", lr=1.0, momentum=0.0))


def batch(number: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(number)
    frames = torch.rand((6, 64, 8), generator=generator) * 60 - 60
    return Batch(frames, torch.from_numpy(LABELS), np.arange(6), np.arange(6), number)


def learner(recipe: Training = SGD, **loop: Any) -> tuple[Learner, Network]:
    torch.manual_seed(0)
    network = Network(TINY, [TINY.recipe.features], 3, channels_last=loop.get("channels_last", True))
    network.model[5] = torch.nn.Identity()  # in place of dropout: every update of these weights is the same
    return Learner(network.train(), dataclasses.replace(recipe, loop=Loop(**loop)), LABELS, 3, 4, CPU), network


def weights(network: Network) -> torch.Tensor:
    return torch.cat([weight.detach().flatten().clone() for weight in network.model.parameters()])


def test_clipping_limits_the_norm_of_all_gradients_together() -> None:
    moves = []
    for clip in (0.0, 0.01):
        made, network = learner(clip=clip)
        before = weights(network)
        made.update(batch(), 0)
        moves.append(weights(network) - before)
    assert moves[0].norm() > 0.1
    assert moves[1].norm().item() == pytest.approx(0.01, rel=1e-3)  # SGD with a rate of 1 moves by the gradient
    torch.testing.assert_close(moves[1] / moves[1].norm(), moves[0] / moves[0].norm(), atol=1e-4, rtol=1e-3)


def test_the_average_is_that_of_the_weights_and_statistics_after_each_update() -> None:
    made, network = learner(ema=0.75)
    states = []
    for number in range(3):
        made.update(batch(number), 0)
        states.append({name: value.clone() for name, value in network.model.state_dict().items()})
    found = made.network.model.state_dict()
    for name in ("0.weight", "1.running_mean", "6.bias"):
        expected = 0.75 * (0.75 * states[0][name] + 0.25 * states[1][name]) + 0.25 * states[2][name]
        torch.testing.assert_close(found[name], expected)
    assert made.network is not network
    assert learner()[0].network._format is torch.channels_last


def test_autocast_changes_the_forward_pass_a_little_and_no_type_of_weights() -> None:
    losses = {}
    for amp in ("off", "bf16"):
        made, network = learner(amp=amp)
        seen: list[torch.dtype] = []
        network.model[6].register_forward_hook(lambda module, given, out, seen=seen: seen.append(out.dtype))
        losses[amp] = made.update(batch(), 0)[0]
        assert seen == [torch.float32 if amp == "off" else torch.bfloat16]
        assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert losses["off"] != losses["bf16"]
    assert losses["bf16"] == pytest.approx(losses["off"], rel=0.02)


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(SpecError, match="--amp fp16 needs a CUDA GPU"):
        require_amp("fp16", CPU)
    require_amp("bf16", CPU)


def test_memory_format_changes_no_loss() -> None:
    losses = []
    for channels_last in (True, False):
        made, network = learner(channels_last=channels_last)
        assert network.model[0].weight.is_contiguous(memory_format=network._format)
        losses.append(made.update(batch(), 0)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same() -> None:
    found = []
    for compiled in (False, True):
        made, network = learner(compile=compiled)
        found.append((made.update(batch(), 0)[0], weights(network)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-4, rtol=1e-4)


def test_a_rehearsal_moves_no_weight() -> None:
    made, network = learner(RECIPE)
    before = weights(network)
    made.rehearse([(4, 64, 8)])
    assert torch.equal(weights(network), before)
