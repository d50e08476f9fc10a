"""Devices: names, free memory and random number generators."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgc.models.parallel import device
from mgc.pipeline.errors import MgcError, SpecError


def test_names_of_devices() -> None:
    assert device.choose_device("cpu").type == "cpu"
    assert device.choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "xpu", "", "cpu:x", "cuda:-1"])
def test_names_of_no_device_are_refused(name: str) -> None:
    with pytest.raises(
        SpecError, match=f"--device {name}: not the name of a device; choose auto, cpu, cuda, cuda:N or"
    ):
        device.choose_device(name)


@pytest.mark.parametrize("name", ["mps", "cuda:77"])
def test_devices_that_the_machine_lacks_are_refused(name: str) -> None:
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("needs a machine without an Apple GPU")
    with pytest.raises(
        MgcError, match=f"--device {name}: (there is no|the GPUs of this) .*; choose auto or cpu$"
    ) as error:
        device.choose_device(name)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
def test_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises(MgcError, match="--device cuda: there is no CUDA GPU"):
        device.choose_device("cuda")


def test_the_limit_of_a_container_bounds_the_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_CGROUP", tmp_path)
    cpu = torch.device("cpu")
    host = device.free_memory(cpu)
    assert host > 50_000_000
    for name, text in {
        "memory.max": "9000",
        "memory.current": "7000",
        "memory.stat": "anon 5\ninactive_file 500",
    }.items():
        (tmp_path / name).write_text(text)
    assert device.free_memory(cpu) == 2500
    (tmp_path / "memory.max").write_text("max\n")
    assert device.free_memory(cpu) == pytest.approx(host, rel=0.5)


def test_restored_random_state_gives_the_same_numbers() -> None:
    cpu = torch.device("cpu")
    device.seed_everything(3)
    torch.rand(5)
    state = device.random_state(cpu)
    drawn = torch.rand(5)
    device.restore_random_state(state, cpu)
    assert torch.equal(torch.rand(5), drawn)
