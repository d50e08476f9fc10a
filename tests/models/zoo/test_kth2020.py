"""kth2020: every layer of the networks, the wiring of shortcuts, the inputs of the GRUs, dead maps; kNN and SVM."""

import numpy as np
import pytest
import torch
from shapes import n_params, output_shapes

from mgc.models.registry import systems
from mgc.models.zoo.kth2020 import CNNRNN, CRNN, Block, ResidualCNN, Trunk, knn, svm


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


def shortcuts(trunk: Trunk, x: torch.Tensor) -> list[torch.Tensor]:
    """Output of every block's shortcut."""
    outputs: list[torch.Tensor] = []
    hooks = [
        block.shortcut.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        for block in trunk.blocks
    ]
    with torch.no_grad():
        trunk(x)
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.mark.parametrize("id", ["cnn", "cnn-released", "cnn-rnn", "cnn-rnn-fig"])
def test_shortcuts_of_even_blocks_bypass_the_sum_before(id: str) -> None:
    torch.manual_seed(0)
    trunk = systems.get(f"kth2020/{id}").build(8).eval().trunk
    x = torch.randn(1, 1, 128, 128)
    before = shortcuts(trunk, x)
    for zeroed, block in enumerate(trunk.blocks[:-1]):
        weight, bias = block.norm.weight.detach().clone(), block.norm.bias.detach().clone()
        torch.nn.init.zeros_(block.norm.weight)
        torch.nn.init.constant_(block.norm.bias, 0.5)
        after = shortcuts(trunk, x)
        bypasses = zeroed % 2 == 0  # blocks 1, 3, ... of the paper, which counts from 1; the next one is even
        assert torch.equal(before[zeroed + 1], after[zeroed + 1]) == bypasses
        assert torch.equal(before[zeroed], after[zeroed])
        block.norm.load_state_dict({"weight": weight, "bias": bias}, strict=False)


def test_shortcuts_of_odd_blocks_read_the_pooled_input(model: ResidualCNN) -> None:
    block = model.trunk.blocks[2]
    assert isinstance(block, Block)
    x, previous_shortcut = torch.randn(2, 2, 128, 32, 32)
    _, shortcut = block(x, previous_shortcut)
    pooled = torch.nn.functional.max_pool2d(x, 2)
    torch.testing.assert_close(shortcut, block.shortcut[1:](pooled))


def test_logits_are_batch_normalised(model: ResidualCNN) -> None:
    logits = model.train()(torch.randn(16, 1, 128, 128))
    torch.testing.assert_close(logits.mean(dim=0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits.std(dim=0, unbiased=False), torch.ones(8), atol=0.05, rtol=0)


@pytest.mark.parametrize("build", [ResidualCNN, CNNRNN])
def test_he_normal_in_the_later_blocks_he_uniform_elsewhere(build: type[ResidualCNN] | type[CNNRNN]) -> None:
    torch.manual_seed(0)
    for i, block in enumerate(build(8).trunk.blocks):
        weight = block.conv.weight.detach()
        uniform = weight.abs().max() <= (6 / weight[0].numel()) ** 0.5
        assert uniform == (i < 2)


BLOCK_SIZES = [(32, 32), (32, 32), (16, 16), (16, 16), (8, 8), (8, 8)]


def test_every_layer_of_the_released_cnn() -> None:
    model = ResidualCNN(8, released_module=True)
    blocks = [f"trunk.blocks.{i}" for i in range(6)]
    paths = [f"{block}.{path}" for block in blocks for path in ("norm", "shortcut")]
    names = ["trunk.stem", *paths, "head.0.1", "head.0", "head.1", "head.4", "head"]
    sizes = [(filters, *size) for filters, size in zip((64, 128, 256, 128, 64, 128), BLOCK_SIZES, strict=True)]
    assert list(output_shapes(model, names, 1, 128, 128).values()) == [
        (32, 64, 64),
        *(size for size in sizes for _ in range(2)),
        (64, 8, 8),
        (64, 4, 4),
        (1024,),
        (128,),
        (8,),
    ]
    assert n_params(model, blocks[5]) == 86_976
    assert [n_params(model, f"head.0.{i}") for i in (0, 1)] == [73_792, 128]
    assert n_params(model, "head.2") == 131_200


def test_every_layer_of_the_cnn_beside_a_gru() -> None:
    model = CNNRNN(8)
    blocks = [f"trunk.blocks.{i}" for i in range(6)]
    paths = [f"{block}.{path}" for block in blocks for path in ("norm", "shortcut")]
    names = ["trunk.stem", *paths, "tail.2", "flatten", "pool", "gru", "classify"]
    widths = (128, 256, 512, 512, 512, 128)
    shapes = output_shapes(model, names, 1, 128, 128)
    assert [shapes[name] for name in names] == [
        (32, 64, 64),
        *((filters, *size) for filters, size in zip(widths, BLOCK_SIZES, strict=True) for _ in range(2)),
        (64, 8, 8),
        (1024,),
        (1, 128, 64),
        (128,),
        (8,),
    ]
    assert [n_params(model, block) for block in blocks] == [40_240, 302_640, 1_207_392, 2_395_232, 2_428_096, 631_744]
    assert n_params(model, "tail") == 73_792 + 128
    assert (n_params(model, "gru"), n_params(model, "classify")) == (49_920, 9_224)


def test_every_layer_of_the_cnn_beside_a_gru_with_the_trunk_of_the_figure() -> None:
    model = CNNRNN(8, figure_trunk=True)
    shapes = output_shapes(model, ["trunk", "flatten", "gru", "classify"], 1, 128, 128)
    assert shapes == {"trunk": (64, 8, 8), "flatten": (4096,), "gru": (128,), "classify": (8,)}
    assert n_params(model, "gru") == 49_920
    assert model.classify.in_features == 4224


def gru_input(gru: torch.nn.Module, model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Input of a model's GRU, `(batch, steps, input_size)`, for the model's input `x`."""
    gru_inputs: list[torch.Tensor] = []
    hook = gru.register_forward_pre_hook(lambda module, inputs: gru_inputs.append(inputs[0]))
    with torch.no_grad():
        model.eval()(x)
    hook.remove()
    return gru_inputs[0]


@pytest.mark.parametrize("scan_time", [False, True])
def test_the_gru_beside_the_cnn_scans_mel_rows_of_pooled_frames(scan_time: bool) -> None:
    model = CNNRNN(8, figure_trunk=True, scan_time=scan_time)
    x = torch.randn(1, 1, 128, 128)
    rows = torch.stack([torch.maximum(x[:, 0, band, ::2], x[:, 0, band, 1::2]) for band in range(128)], dim=1)
    assert torch.equal(gru_input(model.gru, model, x), rows.transpose(1, 2) if scan_time else rows)


CRNN_WIDTHS = {"crnn": (32, 64, 128, 64), "crnn-137": (68, 137, 137, 137)}


def build_crnn(id: str) -> CRNN:
    torch.manual_seed(0)
    model = systems.get(f"kth2020/{id}").build(8)
    assert isinstance(model, CRNN)
    return model


@pytest.mark.parametrize("id", CRNN_WIDTHS)
def test_every_layer_of_the_crnn(id: str) -> None:
    model, widths = build_crnn(id), CRNN_WIDTHS[id]
    names = [f"features.{5 * i + offset}" for i in range(4) for offset in (0, 3)]
    maps = [128, 127, 127, 125, 125, 122, 122, 119]
    shapes = output_shapes(model, [*names, "gru", "classify"], 1, 128, 128)
    assert list(shapes.values()) == [*((widths[i // 2], size, size) for i, size in enumerate(maps)), (68,), (8,)]
    counts = {
        "crnn": [320, 64, 18_496, 128, 73_856, 256, 73_792, 128],
        "crnn-137": [680, 136, 83_981, 274, 169_058, 274, 169_058, 274],
    }
    assert [n_params(model, f"features.{5 * i + offset}") for i in range(4) for offset in (0, 1)] == counts[id]
    assert (n_params(model, "gru"), n_params(model, "classify")) == (38_556, 552)


@pytest.mark.parametrize(("id", "dead"), [("crnn", 72_765), ("crnn-137", 168_096)])
def test_maps_that_the_gru_does_not_read_get_no_gradient(id: str, dead: int) -> None:
    model = build_crnn(id)
    model(torch.randn(1, 1, 128, 128)).square().sum().backward()
    convolution, norm = model.features[15], model.features[16]
    gradients = [module.get_parameter(name).grad for module in (convolution, norm) for name in ("weight", "bias")]
    assert sum(gradient[1:].numel() for gradient in gradients) == dead
    assert not any(gradient[1:].any() for gradient in gradients)
    assert gradients[0][:1].any()
    assert all(parameter.grad.any() for parameter in model.features[10].parameters())


def test_the_gru_of_the_crnn_scans_mel_rows_of_the_first_map() -> None:
    model, x = build_crnn("crnn").eval(), torch.randn(1, 1, 128, 128)
    with torch.no_grad():
        maps = model.features(x)
    steps = gru_input(model.gru, model, x)
    assert steps.shape == (1, 119, 119)
    for row in (0, 57, 118):
        assert torch.equal(steps[:, row], maps[:, 0, row])


def test_the_repaired_crnn_scans_frames_of_all_maps() -> None:
    model, x = CRNN(8, (4, 4, 4, 6), all_maps=True).eval(), torch.randn(2, 1, 128, 128)
    with torch.no_grad():
        maps = model.features(x)
    torch.testing.assert_close(gru_input(model.gru, model, x), maps.mean(dim=2).transpose(1, 2))
    model(x).square().sum().backward()
    assert all(gradient.any() for gradient in model.features[15].weight.grad)


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
