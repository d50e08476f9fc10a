"""Updates of the learner, against closed forms."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mgc.models.data.augment import Augmenter
from mgc.models.data.stream import Batch
from mgc.models.network import Network
from mgc.models.parallel.device import require_amp
from mgc.models.registry import systems
from mgc.models.registry.augmentation import Augmentation
from mgc.models.registry.recipes import Optimizer, Training
from mgc.models.registry.settings import Loop
from mgc.models.training.learner import Learner
from mgc.models.training.moving_average import MovingAverage
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
    network.model[5] = torch.nn.Identity()  # in place of dropout, which would draw random numbers
    return Learner(network.train(), dataclasses.replace(recipe, loop=Loop(**loop)), 4), network


def weights(network: Network) -> torch.Tensor:
    return torch.cat([weight.detach().flatten().clone() for weight in network.model.parameters()])


def test_clipping_limits_the_norm_of_all_gradients_together() -> None:
    steps = []
    for clip in (0.0, 0.01):
        tested, network = learner(clip=clip)
        before = weights(network)
        tested.update(batch(), 0)
        steps.append(weights(network) - before)
    assert steps[0].norm() > 0.1
    assert steps[1].norm().item() == pytest.approx(0.01, rel=1e-3)  # SGD with a rate of 1 steps by the gradient
    torch.testing.assert_close(steps[1] / steps[1].norm(), steps[0] / steps[0].norm(), atol=1e-4, rtol=1e-3)


def test_the_average_is_that_of_the_weights_and_statistics_after_each_update() -> None:
    tested, network = learner(ema=0.75)
    states = []
    for number in range(3):
        tested.update(batch(number), 0)
        states.append({name: value.clone() for name, value in network.model.state_dict().items()})
    averaged = tested.network.model.state_dict()
    for name in ("0.weight", "1.running_mean", "6.bias"):
        expected = 0.75 * (0.75 * states[0][name] + 0.25 * states[1][name]) + 0.25 * states[2][name]
        torch.testing.assert_close(averaged[name], expected)
    assert tested.network is not network
    assert learner()[0].network._format is torch.channels_last


def test_autocast_applies_to_the_forward_pass_and_not_to_weights() -> None:
    losses = {}
    for amp in ("off", "bf16"):
        tested, network = learner(amp=amp)
        dtypes: list[torch.dtype] = []
        network.model[6].register_forward_hook(lambda module, inputs, out, dtypes=dtypes: dtypes.append(out.dtype))
        losses[amp] = tested.update(batch(), 0).read()[0]
        assert dtypes == [torch.float32 if amp == "off" else torch.bfloat16]
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
        tested, network = learner(channels_last=channels_last)
        assert network.model[0].weight.is_contiguous(memory_format=network._format)
        losses.append(tested.update(batch(), 0).read()[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same() -> None:
    results = []
    for compiled in (False, True):
        tested, network = learner(compile=compiled)
        results.append((tested.update(batch(), 0).read()[0], weights(network)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-4, rtol=1e-4)


def test_a_dry_run_changes_no_weight() -> None:
    tested, network = learner(RECIPE)
    before = weights(network)
    tested.dry_run([(4, 64, 8)])
    assert torch.equal(weights(network), before)


@pytest.mark.parametrize(("id", "mixup"), [("mgc/cnn", 0.0), ("mgc/cnn", 0.4), ("xu2022/googlenet", 0.4)])
def test_the_loss_of_all_heads_is_minimised_and_that_of_the_main_head_returned(id: str, mixup: float) -> None:
    class_weights, spec = torch.tensor([0.5, 1.0, 2.0]), systems.get(id).recipe.features
    frames = torch.randn((6, 64, spec.bins), generator=torch.Generator().manual_seed(0)) * 10 - 40
    whole = Batch(frames, torch.from_numpy(LABELS), np.arange(6), np.arange(6), 0)
    augmenter = Augmenter(Augmentation(mixup=mixup), spec, 0)

    def network() -> Network:
        torch.manual_seed(0)
        return Network(systems.get(id), [spec], 3).train()

    trained, expected = network(), network()
    recipe = dataclasses.replace(SGD, loss="cross-entropy", loop=Loop())
    torch.manual_seed(1)
    loss, _ = Learner(trained, recipe, 4, class_weights, augmenter).update(whole, 0).read()

    torch.manual_seed(1)
    mixed, partners, share = augmenter(whole, 0)
    assert (share < 1) == bool(mixup)
    by_head = []
    for logits in expected(mixed):
        own, other = (
            torch.nn.functional.cross_entropy(logits, labels, weight=class_weights)
            for labels in (whole.labels, partners)
        )
        by_head.append(share * own + (1 - share) * other)
    main, *auxiliary = by_head
    assert len(auxiliary) == (8 if id == "mgc/cnn" else 2)
    (main + 0.3 * sum(auxiliary)).backward()
    torch.optim.SGD(expected.model.parameters(), lr=1.0).step()
    assert loss == pytest.approx(main.item(), rel=1e-6)
    assert weights(trained).isfinite().all()
    torch.testing.assert_close(weights(trained), weights(expected), atol=1e-5, rtol=1e-4)


def test_an_auxiliary_head_that_fails_makes_the_loss_infinite() -> None:
    class TwoHeads(torch.nn.Module):
        """The main head is finite, the auxiliary one is not."""

        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.head(x.mean(dim=(1, 3)))
            return logits, logits * torch.tensor([1.0, -torch.inf, 1.0])

    network = learner()[1]
    network.model = TwoHeads()
    loss, _ = Learner(network, SGD, 4).update(batch(), 0).read()
    assert not np.isfinite(loss)


def test_the_moving_average_is_pytorchs() -> None:
    """Weights, running statistics and counters; only the transfers to a GPU are fewer."""
    _, network = learner()
    decay = 0.8
    ours = MovingAverage(network, decay)
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    generator = torch.Generator().manual_seed(0)
    for update in range(12):
        for tensor in [*network.parameters(), *network.buffers()]:
            step = torch.randn(tensor.shape, generator=generator) if tensor.is_floating_point() else 1
            tensor.data += step
        ours.update_parameters(network)
        theirs.update_parameters(network)
        expected = theirs.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items()), update
    assert ours.state_dict().keys() == expected.keys()
