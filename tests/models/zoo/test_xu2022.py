"""xu2022: parameters of its networks, the position of attention modules, and the published tables."""

import pytest
import torch
from shapes import n_params, output_shapes
from torch import nn

from mgc.models.registry import systems
from mgc.models.registry.skeleton import build_on_meta
from mgc.models.zoo.attention import ConvolutionalAttention, SqueezeExcitation

# Parameters with 8 classes.
PARAMS = {
    "resnet-3-8-23-3": 43_636_808,
    "resnet-6-4-23-3": 42_727_752,
    "resnet-3-4-32-3": 52_571_208,
    "resnet-4-6-25-6": 58_769_224,
    "resnet-5-6-26-5": 55_494_216,
    "resnet-4-5-24-4": 48_446_792,
    "resnet-3-4-20-3": 39_165_000,
    "resnet-2-3-22-2": 36_586_312,
    "resnet-3-4-23-3": 42_516_552,
    "resnext101-32x8d": 86_758_728,
    "mobilenet": 4_212_280,
    "mobilenet-v2": 2_234_120,
    "mobilenet-v1": 3_215_176,
    "alexnet": 57_036_616,
    "googlenet": 5_608_104,
    "se-resnet101": 47_294_264,
    "se-resnext101-32x8d": 91_536_440,
    "cbam-resnet101": 47_262_954,
    "cbam-resnext101-32x8d": 91_505_130,
}
TABLE_1 = [62.8, 61.5, 61.7, 63.4, 62.1, 61.7, 57.3, 64.2, 68.4, 71.8]


def test_parameters_of_every_network() -> None:
    networks = [system for system in systems.systems() if system.study == "xu2022" and system.kind == "neural"]
    assert {system.id: system.params(8) for system in networks} == {f"xu2022/{id}": n for id, n in PARAMS.items()}


def test_table_1() -> None:
    rows = {}
    for id in PARAMS:
        for row in systems.get(f"xu2022/{id}").recipe.published:
            if row.setting.startswith("Table 1, row "):
                rows[int(row.setting.removeprefix("Table 1, row "))] = row.accuracy
    assert [rows[i] for i in range(1, 11)] == TABLE_1


def test_resnet101_is_an_alias() -> None:
    assert systems.get("xu2022/resnet101") is systems.get("xu2022/resnet-3-4-23-3")
    assert systems.get("xu2022/resnet101").aliases == ["xu2022/resnet101"]
    assert "xu2022/resnet101" not in systems.ids()


@pytest.mark.parametrize(
    ("id", "kind", "groups"),
    [
        ("se-resnet101", SqueezeExcitation, 1),
        ("se-resnext101-32x8d", SqueezeExcitation, 32),
        ("cbam-resnet101", ConvolutionalAttention, 1),
        ("cbam-resnext101-32x8d", ConvolutionalAttention, 32),
    ],
)
def test_attention_in_every_block(id: str, kind: type[nn.Module], groups: int) -> None:
    model = build_on_meta(systems.get(f"xu2022/{id}").build, 8)
    blocks = [block for stage in (model.layer1, model.layer2, model.layer3, model.layer4) for block in stage]
    assert len(blocks) == 33
    assert {type(block.attention) for block in blocks} == {kind}
    assert {block.conv2.groups for block in blocks} == {groups}
    stages = [[f"layer{k}.{i}.attention" for i in range(count)] for k, count in enumerate((3, 4, 23, 3), 1)]
    shapes = output_shapes(model, [*(name for stage in stages for name in stage), "fc"], 3, 224, 224)
    for stage, channels, side in zip(stages, (256, 512, 1024, 2048), (56, 28, 14, 7), strict=True):
        assert {shapes[name] for name in stage} == {(channels, side, side)}
        extra = channels // 16 + channels if kind is SqueezeExcitation else 98
        assert {n_params(model, name) for name in stage} == {channels**2 // 8 + extra}
    assert shapes["fc"] == (8,)


def test_adam_with_the_printed_weight_decay() -> None:
    for id in PARAMS:
        recipe = systems.get(f"xu2022/{id}").recipe
        assert recipe.training.optimizer.weight_decay == 1e-3
        assert recipe.sources["training.optimizer.weight_decay"] == "printed"


def test_float32_weights_of_the_mobilenet_have_the_printed_size() -> None:
    model = build_on_meta(systems.get("xu2022/mobilenet").build, 8)
    assert sum(value.numel() * 4 for value in model.state_dict().values()) / 2**20 == pytest.approx(16.2, abs=0.05)
    assert all(value.dtype in (torch.float32, torch.int64) for value in model.state_dict().values())
