"""GoogLeNet: shapes and parameters of every block, torchvision's state-dict keys, and the auxiliary heads."""

import pytest
import torch
from shapes import n_params, output_shapes
from torch import nn
from torch.nn import functional as F

from mgc.models.registry import systems
from mgc.models.registry.skeleton import build_on_meta
from mgc.models.training.optim import binary_on_softmax, main_logits, total_and_main_loss
from mgc.models.zoo.googlenet import GoogLeNet

# By layer: output channels, output side for 224 × 224 pixels, parameters.
LAYERS = {
    "conv1": (64, 112, 9_536),
    "maxpool1": (64, 56, 0),
    "conv2": (64, 56, 4_224),
    "conv3": (192, 56, 110_976),
    "maxpool2": (192, 28, 0),
    "inception3a": (256, 28, 155_872),
    "inception3b": (480, 28, 340_224),
    "maxpool3": (480, 14, 0),
    "inception4a": (512, 14, 364_512),
    "inception4b": (512, 14, 425_232),
    "inception4c": (512, 14, 486_192),
    "inception4d": (528, 14, 573_312),
    "inception4e": (832, 14, 803_840),
    "maxpool4": (832, 7, 0),
    "inception5a": (832, 7, 978_944),
    "inception5b": (1024, 7, 1_347_040),
}
# Output channels of each block's branches: 1×1, 3×3, "5×5", pool.
BRANCHES = {
    "3a": (64, 128, 32, 32),
    "3b": (128, 192, 96, 64),
    "4a": (192, 208, 48, 64),
    "4b": (160, 224, 64, 64),
    "4c": (128, 256, 64, 64),
    "4d": (112, 288, 64, 64),
    "4e": (256, 320, 128, 128),
    "5a": (256, 320, 128, 128),
    "5b": (384, 384, 128, 128),
}


@pytest.fixture(scope="module")
def model() -> GoogLeNet:
    """GoogLeNet on the meta device, without memory for its weights."""
    return build_on_meta(GoogLeNet, 8)


def test_every_layer(model: GoogLeNet) -> None:
    shapes = output_shapes(model, [*LAYERS, "fc"], 3, 224, 224)
    assert shapes == {name: (channels, side, side) for name, (channels, side, _) in LAYERS.items()} | {"fc": (8,)}
    assert {name: n_params(model, name) for name in LAYERS} == {name: params for name, (*_, params) in LAYERS.items()}
    assert n_params(model, "fc") == 8_200


def test_every_branch(model: GoogLeNet) -> None:
    names = [f"inception{block}.branch{i}" for block in BRANCHES for i in (1, 2, 3, 4)]
    shapes = output_shapes(model, names, 3, 224, 224)
    assert [shape[0] for shape in shapes.values()] == [width for widths in BRANCHES.values() for width in widths]
    reduced = [
        model.get_submodule(f"inception{block}.branch{i}.0.conv").out_channels for block in BRANCHES for i in (2, 3)
    ]
    assert reduced == [96, 16, 128, 32, 96, 16, 112, 24, 128, 24, 144, 32, 160, 32, 160, 32, 192, 48]
    kernels = {name: module.conv.kernel_size for name, module in model.named_modules() if name.endswith("branch3.1")}
    assert set(kernels.values()) == {(3, 3)}


def test_auxiliary_heads_are_not_counted(model: GoogLeNet) -> None:
    assert systems.get("xu2022/googlenet").params(8) == 5_608_104
    assert systems.get("xu2022/googlenet").params(1000) == 6_624_904
    assert [n_params(model, name) for name in ("aux1", "aux2")] == [2_172_168, 2_174_216]
    assert n_params(model, "") == 9_954_488
    assert n_params(build_on_meta(GoogLeNet, 1000), "") == 13_004_888


@pytest.mark.parametrize(("name", "channels"), [("aux1", 512), ("aux2", 528)])
def test_every_layer_of_the_auxiliary_heads(model: GoogLeNet, name: str, channels: int) -> None:
    shapes = output_shapes(model.get_submodule(name), ["conv", "fc1", "fc2"], channels, 14, 14)
    assert shapes == {"conv": (128, 4, 4), "fc1": (1024,), "fc2": (8,)}


def test_pools_round_up(model: GoogLeNet) -> None:
    pools = [(m.kernel_size, m.stride, m.ceil_mode) for m in model.children() if isinstance(m, nn.MaxPool2d)]
    assert pools == [(3, 2, True), (3, 2, True), (3, 2, True), (2, 2, True)]
    # 96 → 48 → 24 → 12 → 6 → 3 rounding up; rounding down gives 23, 11, 5, 2.
    shapes = output_shapes(model, ["maxpool1", "maxpool2", "maxpool3", "maxpool4"], 3, 96, 96)
    assert [shape[1] for shape in shapes.values()] == [24, 12, 6, 3]


def test_keys_are_the_reference_ones(model: GoogLeNet) -> None:
    blocks = [f"inception{block}." for block in BRANCHES]
    branches = ["branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1"]
    units = ["conv1", "conv2", "conv3", *(block + branch for block in blocks for branch in branches)]
    expected = {f"{unit}.conv.weight" for unit in [*units, "aux1.conv", "aux2.conv"]}
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        expected |= {f"{unit}.bn.{part}" for unit in [*units, "aux1.conv", "aux2.conv"]}
    dense = ["fc", "aux1.fc1", "aux1.fc2", "aux2.fc1", "aux2.fc2"]
    expected |= {f"{layer}.{part}" for layer in dense for part in ("weight", "bias")}
    assert set(model.state_dict()) == expected
    assert {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


def test_auxiliary_heads_train_and_do_not_predict() -> None:
    torch.manual_seed(0)
    model, x, target = GoogLeNet(8), torch.randn(2, 3, 64, 64), torch.tensor([1, 5])
    logits, early, late = outputs = model(x)
    assert [head.shape for head in outputs] == [(2, 8)] * 3
    assert main_logits(outputs) is logits
    loss, main = total_and_main_loss(F.cross_entropy, outputs, target)
    assert torch.equal(main, F.cross_entropy(logits, target))
    expected = F.cross_entropy(logits, target) + 0.3 * (F.cross_entropy(early, target) + F.cross_entropy(late, target))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.aux1.parameters())
    with torch.no_grad():
        before = model.eval()(x)
        for parameter in [*model.aux1.parameters(), *model.aux2.parameters()]:
            parameter.zero_()
        assert torch.equal(model(x), before)


def test_loss_of_plain_logits_is_untouched() -> None:
    logits, target = torch.randn(4, 8), torch.tensor([0, 1, 2, 3])
    total, main = total_and_main_loss(binary_on_softmax, logits, target)
    assert total == main == binary_on_softmax(logits, target)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = GoogLeNet(8)
    for layer in (model.inception5b.branch2[1].conv, model.aux1.fc1):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert layer.weight.mean().item() == pytest.approx(0, abs=1e-4)
