"""padova2023: shapes and parameters of every layer, and the wiring of the late fusion."""

import pytest
import torch
from shapes import n_params, output_shapes

from mgc.models.registry import systems
from mgc.models.registry.systems import Builder
from mgc.models.zoo.padova2023 import LateFusion, PooledCNN, cnn1d, cnn2d_mel, cnn2d_mfcc, late_fusion


def test_every_layer_of_the_1d_cnn() -> None:
    model = cnn1d(8)
    convolutions, pools = [0, 4, 8, 12], [3, 7, 11]
    shapes = output_shapes(model, [f"features.{i}" for i in sorted(convolutions + pools)], 1, 131_072)
    assert list(shapes.values()) == [
        (16, 65_536),
        (16, 8192),
        (32, 4096),
        (32, 512),
        (64, 256),
        (64, 128),
        (128, 64),
    ]
    assert [n_params(model, f"features.{i}") for i in convolutions] == [1_040, 16_416, 32_832, 65_664]
    assert [n_params(model, f"features.{i + 1}") for i in convolutions] == [32, 64, 128, 256]
    assert (n_params(model, "normalise"), n_params(model, "features")) == (2, 116_432)
    assert [n_params(model, f"head.{i}") for i in (0, 3, 6)] == [32_896, 8_256, 520]


def test_every_layer_of_the_2d_cnn_on_mfccs() -> None:
    model = cnn2d_mfcc(8)
    shapes = output_shapes(model, [f"features.{i}" for i in (0, 3, 4, 7, 8, 11, 12)], 1, 20, 512)
    assert list(shapes.values()) == [
        (16, 20, 512),
        (16, 10, 256),
        (32, 10, 256),
        (32, 5, 128),
        (64, 5, 128),
        (64, 1, 64),
        (128, 1, 64),
    ]
    assert (n_params(model, "normalise"), n_params(model, "features"), n_params(model, "head")) == (2, 97_632, 41_672)


def test_late_fusion_reads_audio_beside_mfccs_step_by_step() -> None:
    model = late_fusion(8).eval()
    assert isinstance(model, LateFusion)
    audio, mfcc = torch.randn(2, 1, 131_072), torch.randn(2, 1, 20, 512)
    lstm_inputs = []
    model.lstm.register_forward_pre_hook(lambda module, inputs: lstm_inputs.append(inputs[0]))
    with torch.no_grad():
        logits = model(audio, mfcc)
        maps = model.audio(audio), model.mfcc(mfcc)
        sequence, _ = model.lstm(lstm_inputs[0])
        torch.testing.assert_close(logits, model.classify(sequence[:, -1]))
    assert [part.shape for part in maps] == [(2, 128, 64), (2, 128, 1, 64)]
    assert lstm_inputs[0].shape == (2, 64, 256)
    for step in (0, 63):
        assert torch.equal(lstm_inputs[0][:, step], torch.cat([maps[0][:, :, step], maps[1][:, :, 0, step]], dim=1))
    parts = {name: n_params(model, name) for name in ("audio", "mfcc", "lstm", "classify")}
    assert parts == {"audio": 116_432, "mfcc": 97_632, "lstm": 197_632, "classify": 1_032}


def test_every_layer_of_the_2d_cnn_on_log_mel() -> None:
    model = cnn2d_mel(8)
    convolutions, pools = [0, 4, 8, 12], [3, 7, 11]
    shapes = output_shapes(model, [f"features.{i}" for i in sorted(convolutions + pools)], 1, 128, 512)
    assert list(shapes.values()) == [
        (16, 128, 512),
        (16, 32, 128),
        (32, 32, 128),
        (32, 8, 16),
        (64, 8, 16),
        (64, 2, 2),
        (128, 2, 2),
    ]
    assert [n_params(model, f"features.{i}") for i in convolutions] == [160, 4_640, 18_496, 73_856]
    assert [n_params(model, f"features.{i + 1}") for i in convolutions] == [32, 64, 128, 256]
    assert n_params(model, "normalise") == 2
    assert [n_params(model, f"head.{i}") for i in (0, 3, 6)] == [32_896, 8_256, 520]


@pytest.mark.parametrize(("build", "shape"), [(cnn1d, (131_072,)), (cnn2d_mel, (128, 512)), (cnn2d_mfcc, (20, 512))])
def test_head_reads_maxima_then_means(build: Builder, shape: tuple[int, ...]) -> None:
    model = build(8).eval()
    head_inputs = []
    model.head.register_forward_pre_hook(lambda module, inputs: head_inputs.append(inputs[0]))
    x = torch.randn(2, 1, *shape)
    with torch.no_grad():
        model(x)
        maps = model.features(model.normalise(x)).flatten(2)
    assert torch.equal(head_inputs[0], torch.cat([maps.max(dim=2).values, maps.mean(dim=2)], dim=1))


@pytest.mark.parametrize(("build", "shape"), [(cnn1d, (131_072,)), (cnn2d_mel, (128, 512)), (cnn2d_mfcc, (20, 512))])
def test_every_layer_of_the_head(build: Builder, shape: tuple[int, ...]) -> None:
    shapes = output_shapes(build(8), ["normalise", "features", *(f"head.{i}" for i in (0, 3, 6))], 1, *shape)
    last = {1: (128, 64), 128: (128, 2, 2), 20: (128, 1, 64)}[shape[0] if len(shape) == 2 else 1]
    assert list(shapes.values()) == [(1, *shape), last, (128,), (64,), (8,)]


@pytest.mark.parametrize(("build", "shape"), [(cnn1d, (4 * 512,)), (cnn2d_mel, (128, 256)), (cnn2d_mfcc, (20, 8))])
def test_min_frames_is_the_pools_minimum(build: Builder, shape: tuple[int, ...]) -> None:
    model = build(8).eval()
    assert isinstance(model, PooledCNN)
    assert model(torch.randn(1, 1, *shape)).shape == (1, 8)
    with pytest.raises(RuntimeError):
        model(torch.randn(1, 1, *shape[:-1], shape[-1] - 1))


def test_min_frames_of_the_systems() -> None:
    min_frames = [systems.get(f"padova2023/{name}").input.min_frames for name in ("cnn1d", "cnn2d-mel", "cnn2d-mfcc")]
    assert min_frames == [4, 256, 8]
