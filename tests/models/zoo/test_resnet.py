"""ResNet and ResNeXt against the tables of their papers, the study's ten settings and torchvision's state dicts."""

from __future__ import annotations

import pytest
import torch
from shapes import n_params, output_shapes
from torch import nn
from torch.nn import functional as F

from mgc.models.registry.skeleton import build_on_meta
from mgc.models.zoo.attention import ConvolutionalAttention, SqueezeExcitation
from mgc.models.zoo.resnet import Bottleneck, ResNet

# Rows of the study's Table 1, where rows 4 and 7 are the same setting: blocks, layers with weights, and parameters with
# 8 classes without attention, with squeeze-and-excitation and with CBAM.
SETTINGS = [
    ((3, 8, 23, 3), 113, 43_636_808, 48_547_768, 48_514_674),
    ((6, 4, 23, 3), 110, 42_727_752, 47_530_856, 47_499_024),
    ((3, 4, 32, 3), 128, 52_571_208, 58_538_360, 58_498_140),
    ((4, 6, 25, 6), 125, 58_769_224, 65_465_736, 65_425_146),
    ((5, 6, 26, 5), 128, 55_494_216, 61_804_888, 61_765_212),
    ((4, 5, 24, 4), 113, 48_446_792, 53_924_904, 53_889_906),
    ((3, 4, 20, 3), 92, 39_165_000, 43_546_232, 43_517_892),
    ((2, 3, 22, 2), 89, 36_586_312, 40_663_624, 40_636_002),
    ((3, 4, 23, 3), 101, 42_516_552, 47_294_264, 47_262_954),
]
# By groups and stage: parameters of the first block, and of each further one.
BLOCKS = {1: ((75_008, 70_400), (379_392, 280_064), (1_512_448, 1_117_184), (6_039_552, 4_462_592))}
BLOCKS[32] = ((118_784, 151_040), (602_112, 601_088), (2_400_256, 2_398_208), (9_584_640, 9_580_544))
RESNEXT = {"groups": 32, "width_per_group": 8}


def build(blocks: tuple[int, int, int, int], n_classes: int = 8, **options: object) -> ResNet:
    """Build a ResNet on the meta device, without memory for its weights."""
    return build_on_meta(lambda n: ResNet(blocks, n, **options), n_classes)


@pytest.mark.parametrize(("blocks", "layers", "plain", "squeeze", "cbam"), SETTINGS)
def test_settings_of_the_study(
    blocks: tuple[int, int, int, int], layers: int, plain: int, squeeze: int, cbam: int
) -> None:
    model = build(blocks)
    main_path = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len([name for name in main_path if "downsample" not in name]) == layers == 3 * sum(blocks) + 2
    assert n_params(model, "") == plain
    assert n_params(build(blocks, attention=SqueezeExcitation), "") == squeeze
    assert n_params(build(blocks, attention=ConvolutionalAttention), "") == cbam


@pytest.mark.parametrize(("blocks", "groups"), [*((row[0], 1) for row in SETTINGS), ((3, 4, 23, 3), 32)])
def test_every_layer(blocks: tuple[int, int, int, int], groups: int) -> None:
    model = build(blocks, **(RESNEXT if groups == 32 else {}))
    stages = [[f"layer{k}.{i}" for i in range(count)] for k, count in enumerate(blocks, 1)]
    names = ["conv1", "maxpool", *(name for stage in stages for name in stage), "fc"]
    outer = [(256, 56), (512, 28), (1024, 14), (2048, 7)]
    inner = [
        (width * groups * 8 // 64 if groups == 32 else width, side)
        for width, side in zip((64, 128, 256, 512), (56, 28, 14, 7), strict=True)
    ]
    inside = [f"{name}.{layer}" for stage in stages for name in stage for layer in ("bn1", "bn2", "bn3")]
    shortcuts = [f"{stage[0]}.downsample" for stage in stages]
    shapes = output_shapes(model, [*names, *inside, *shortcuts], 3, 224, 224)
    assert (shapes["conv1"], shapes["maxpool"], shapes["fc"]) == ((64, 112, 112), (64, 56, 56), (8,))
    assert n_params(model, "conv1") + n_params(model, "bn1") == 9_536
    assert n_params(model, "fc") == 16_392
    input_side = 56  # of the maps that a stage reads
    for stage, (channels, side), (width, _), (first, other) in zip(stages, outer, inner, BLOCKS[groups], strict=True):
        assert {shapes[name] for name in stage} == {(channels, side, side)}
        assert {shapes[f"{name}.bn3"] for name in stage} == {(channels, side, side)}
        assert {shapes[f"{name}.bn2"] for name in stage} == {(width, side, side)}
        inner_shapes = [shapes[f"{name}.bn1"] for name in stage]
        assert inner_shapes == [(width, input_side, input_side)] + [(width, side, side)] * (len(stage) - 1)
        assert shapes[f"{stage[0]}.downsample"] == (channels, side, side)
        input_side = side
        assert [n_params(model, name) for name in stage] == [first, *[other] * (len(stage) - 1)]


def test_counts_with_the_classes_of_imagenet() -> None:
    assert n_params(build((3, 4, 23, 3), 1000), "") == 44_549_160
    assert n_params(build((3, 4, 23, 3), 1000, **RESNEXT), "") == 88_791_336


@pytest.mark.parametrize("options", [{}, RESNEXT], ids=["resnet", "resnext"])
def test_keys_are_the_reference_ones(options: dict) -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", *(f"bn1.{part}" for part in norm), "fc.weight", "fc.bias"}
    for stage, count in enumerate((3, 4, 23, 3), 1):
        for i in range(count):
            expected |= {f"layer{stage}.{i}.conv{j}.weight" for j in (1, 2, 3)}
            expected |= {f"layer{stage}.{i}.bn{j}.{part}" for j in (1, 2, 3) for part in norm}
        expected.add(f"layer{stage}.0.downsample.0.weight")
        expected |= {f"layer{stage}.0.downsample.1.{part}" for part in norm}
    assert set(build((3, 4, 23, 3), **options).state_dict()) == expected


def test_batch_norm_and_strides() -> None:
    model = build((2, 2, 2, 2))
    assert {(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-5, 0.1)}
    strided = {name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)}
    stages = {f"layer{k}.0.{which}" for k in (2, 3, 4) for which in ("conv2", "downsample.0")}
    assert strided == {"conv1", *stages}  # the 3×3 convolution of a block, not its first 1×1
    assert not any(m.bias is not None for m in model.modules() if isinstance(m, nn.Conv2d))


def test_block_is_its_formula() -> None:
    """With a projection, groups and attention; in evaluation mode, where batch norm is an affine map."""
    torch.manual_seed(0)
    block = Bottleneck(8, 16, stride=2, groups=2, width_per_group=32, attention=SqueezeExcitation)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                values.uniform_(0.5, 1.5)
    x = torch.randn(2, 8, 9, 9)

    def norm(y: torch.Tensor, m: nn.BatchNorm2d) -> torch.Tensor:
        scale = m.weight / (m.running_var + 1e-5).sqrt()
        return y * scale[:, None, None] + (m.bias - m.running_mean * scale)[:, None, None]

    y = F.relu(norm(F.conv2d(x, block.conv1.weight), block.bn1))
    assert y.shape[1] == 16  # two groups of 16 * 32 / 64
    y = F.relu(norm(F.conv2d(y, block.conv2.weight, stride=2, padding=1, groups=2), block.bn2))
    y = norm(F.conv2d(y, block.conv3.weight), block.bn3)
    hidden = torch.relu(F.linear(y.mean(dim=(2, 3)), block.attention.fc1.weight, block.attention.fc1.bias))
    gate = torch.sigmoid(F.linear(hidden, block.attention.fc2.weight, block.attention.fc2.bias))
    shortcut = norm(F.conv2d(x, block.downsample[0].weight, stride=2), block.downsample[1])
    expected = F.relu(y * gate[:, :, None, None] + shortcut)
    with torch.no_grad():
        torch.testing.assert_close(block.eval()(x), expected, atol=1e-5, rtol=1e-5)


def test_initial_weights_are_he_normal_by_fan_out() -> None:
    torch.manual_seed(0)
    model = ResNet((1, 1, 1, 1), 8)
    for weight in (model.conv1.weight, model.layer3[0].conv2.weight):
        assert weight.std().item() == pytest.approx((2 / (weight[:, 0].numel())) ** 0.5, rel=0.03)
    assert model.layer1[0].bn3.weight.eq(1).all()
    assert model.fc.weight.abs().max() <= 2048**-0.5


@pytest.mark.parametrize(
    "options",
    [{}, RESNEXT, {"attention": SqueezeExcitation}, {"attention": ConvolutionalAttention}],
    ids=["plain", "resnext", "squeeze", "cbam"],
)
def test_shallow_networks_overfit_one_batch(options: dict) -> None:
    """Shallow versions of the registry's deep networks, whose own overfitting tests are slow."""
    torch.manual_seed(0)
    model, x, target = ResNet((1, 1, 1, 1), 4, **options), torch.randn(4, 3, 64, 64), torch.arange(4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses: list[float] = []
    while len(losses) < 30 and (not losses or losses[-1] > losses[0] / 4):
        loss = F.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] <= losses[0] / 4
