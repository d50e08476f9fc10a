"""An Apple GPU is given no float64 tensor, which MPS lacks. The tests need no Mac: they apply its rules to the CPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from mgc.models.data import adapters, frontend, vocoder
from mgc.models.data.stream import Batch
from mgc.models.network import Network
from mgc.models.parallel import device
from mgc.models.parallel.ranks import Ranks
from mgc.models.registry import systems
from mgc.models.registry.settings import Loop
from mgc.models.training.learner import Learner
from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import Mel, Mfcc, Stft

MPS = torch.device("mps")
LABELS = np.array([0, 1, 2, 0])


class NoFloat64(TorchDispatchMode):
    """Raise if an operation takes or makes a float64 tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_flatten((args, kwargs, result))[0]:
            if isinstance(value, torch.Tensor) and value.dtype in (torch.float64, torch.complex128):
                raise AssertionError(f"{func} has a {value.dtype} tensor")
        return result


@pytest.fixture(autouse=True)
def rules_of_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (adapters, frontend):
        monkeypatch.setattr(module, "wide_dtype", lambda place: device.wide_dtype(MPS))


def test_the_mode_notices_float64() -> None:
    with pytest.raises(AssertionError, match="float64"), NoFloat64():
        torch.ones(3).double()


def test_an_update_and_a_validation_step_need_none() -> None:
    torch.manual_seed(0)
    network = Network(TINY, [TINY.recipe.features], 3, channels_last=False)
    assert TINY.recipe.training is not None
    recipe = dataclasses.replace(TINY.recipe.training, loop=Loop(clip=1.0, ema=0.9, label_smoothing=0.1))
    tested = Learner(network.train(), recipe, 4)
    frames = torch.rand(4, 64, 8) * 60 - 60
    with NoFloat64():
        loss, _ = tested.update(Batch(frames, torch.from_numpy(LABELS), np.arange(4), np.arange(4), 0), 0).read()
        with torch.no_grad():
            assert network.eval()(frames).softmax(dim=1).dtype == torch.float32
    assert np.isfinite(loss)


@pytest.mark.parametrize("id", ["kth2020/cnn", "vit2021/cnn", "xu2022/mobilenet", "moments/svm"])
def test_the_adapter_of_each_kind_of_input_needs_none(id: str) -> None:
    system = systems.get(id)
    adapter = adapters.adapter(system.input, system.recipe.features)
    with NoFloat64():
        assert torch.isfinite(adapter(torch.rand(2, 128, system.recipe.features.bins) * 60 - 60)).all()


@pytest.mark.parametrize("spec", [Stft(n_fft=512), Mel(n_mels=16, n_fft=512), Mfcc(n_mels=40, n_mfcc=8, n_fft=512)])
def test_the_front_end_needs_none(spec: Any) -> None:
    computed = frontend.FrontEnd(spec)
    assert {buffer.dtype for buffer in computed.buffers()} == {torch.float32}  # so that `.to("mps")` takes them
    with NoFloat64():
        assert torch.isfinite(computed(torch.rand(2, 4096) - 0.5)).all()


def test_the_vocoder_computes_on_the_host_and_returns_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = torch.rand(8192) - 0.5
    expected = vocoder.time_stretch(signal, 1.25)
    monkeypatch.setattr(vocoder, "wide_dtype", lambda place: torch.float32)
    assert torch.equal(vocoder.time_stretch(signal, 1.25), expected)


def test_moments_in_float32_are_close_to_those_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.rand(2, 128, 8) * 60 - 60
    narrow = adapters.Moments()(frames)
    monkeypatch.setattr(adapters, "wide_dtype", device.wide_dtype)
    torch.testing.assert_close(narrow, adapters.Moments()(frames), atol=1e-3, rtol=1e-4)


def test_what_mps_cannot_do_is_refused() -> None:
    with pytest.raises(SpecError, match="--amp bf16: on MPS, mgc trains in float32; choose off"):
        device.require_amp("bf16", MPS)
    device.require_amp("off", MPS)
    torch.autocast("mps", None, enabled=False)
    torch.amp.GradScaler("mps", enabled=False)


def test_several_processes_do_not_share_an_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert Ranks().device("mps") == MPS
    with pytest.raises(SpecError, match="--device mps: 2 processes cannot share one GPU; leave --nproc out"):
        Ranks(size=2, local_size=2).device("mps")
