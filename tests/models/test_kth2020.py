"""kth2020: the residual CNN layer by layer and its chains of shortcuts; kNN and SVM on principal components."""

import numpy as np
import pytest
import torch
from shapes import n_params, output_shapes

from models.kth2020 import Block, ResidualCNN, knn, svm


@pytest.fixture
def model() -> ResidualCNN:
    torch.manual_seed(0)
    return ResidualCNN(8).eval()


def test_every_layer(model: ResidualCNN) -> None:
    blocks = [f"trunk.blocks.{i}" for i in range(5)]
    names = ["trunk.stem", *(f"{block}.{path}" for block in blocks for path in ("norm", "shortcut")), "head.0", "head"]
    maps = [(64, 32, 32), (128, 32, 32), (256, 16, 16), (128, 16, 16), (64, 8, 8)]
    assert output_shapes(model, names, 1, 128, 128) == dict(
        zip(names, [(32, 64, 64), *(size for size in maps for _ in range(2)), (4096,), (8,)], strict=True)
    )
    main = [n_params(model, f"{block}.conv") + n_params(model, f"{block}.norm") for block in blocks]
    assert main == [18_496 + 128, 73_856 + 256, 295_168 + 512, 295_040 + 256, 73_792 + 128]
    assert [n_params(model, f"{block}.shortcut") for block in blocks] == [
        528 + 32 + 1_088 + 128,
        1_040 + 32 + 2_176 + 256,
        4_128 + 64 + 8_448 + 512,
        8_224 + 64 + 4_224 + 256,
        8_256 + 128 + 4_160 + 128,
    ]
    assert n_params(model, "trunk.stem") == 832 + 64
    assert [n_params(model, f"head.{i}") for i in (1, 2, 4, 5)] == [524_416, 256, 1_032, 16]


def shortcuts(model: ResidualCNN, x: torch.Tensor) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    hooks = [
        block.shortcut.register_forward_hook(lambda module, inputs, output: found.append(output))
        for block in model.trunk.blocks
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("zeroed", range(4))
def test_shortcuts_of_even_blocks_bypass_the_sum_before(model: ResidualCNN, zeroed: int) -> None:
    x = torch.randn(2, 1, 128, 128)
    before = shortcuts(model, x)
    torch.nn.init.zeros_(model.trunk.blocks[zeroed].norm.weight)
    torch.nn.init.zeros_(model.trunk.blocks[zeroed].norm.bias)
    after = shortcuts(model, x)
    bypasses = zeroed % 2 == 0  # blocks count from 1 in the paper: the one after an odd block is even
    assert torch.equal(before[zeroed + 1], after[zeroed + 1]) == bypasses
    assert torch.equal(before[zeroed], after[zeroed])


def test_shortcuts_of_odd_blocks_read_the_pooled_input(model: ResidualCNN) -> None:
    block = model.trunk.blocks[2]
    assert isinstance(block, Block)
    x, chain = torch.randn(2, 2, 128, 32, 32)
    _, shortcut = block(x, chain)
    pooled = torch.nn.functional.max_pool2d(x, 2)
    torch.testing.assert_close(shortcut, block.shortcut[1:](pooled))


def test_logits_are_batch_normalised(model: ResidualCNN) -> None:
    logits = model.train()(torch.randn(16, 1, 128, 128))
    torch.testing.assert_close(logits.mean(dim=0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits.std(dim=0, unbiased=False), torch.ones(8), atol=0.05, rtol=0)


def test_he_normal_in_the_later_blocks_he_uniform_elsewhere(model: ResidualCNN) -> None:
    for i, block in enumerate(model.trunk.blocks):
        weight = block.conv.weight.detach()
        uniform = weight.abs().max() <= (6 / weight[0].numel()) ** 0.5
        assert uniform == (i < 2)


def test_knn_is_eight_neighbours_weighted_by_distance() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 40)).astype(np.float32), np.arange(60) % 3
    model = knn(3).fit(x, y)
    query = rng.standard_normal((1, 40)).astype(np.float32)
    points, point = model[:-1].transform(x), model[:-1].transform(query)
    assert points.shape == (60, 15)
    distance = np.linalg.norm(points - point, axis=1)
    nearest = np.argsort(distance)[:8]
    votes = np.bincount(y[nearest], weights=1 / distance[nearest], minlength=3)
    np.testing.assert_allclose(model.predict_proba(query)[0], votes / votes.sum(), rtol=1e-4)


def test_svm_settings() -> None:
    support = svm(8)[-1].estimator
    assert (support.kernel, support.C, support.gamma) == ("rbf", 1.0, "scale")
