"""What runs on the CPU runs on a second device, too, with the same results and without needless waits.

No GPU is needed: `pretended_gpu` has the device. What only CUDA has is tested by the tests with the mark `cuda`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mgc.models.registry import systems

SUPPORT = Path(__file__).parents[2] / "support"
SEND, RECEIVE = "mgc.models.parallel.transfer.send", "mgc.models.parallel.transfer.Transfer.__init__"
#: One network each of four studies, for the fast tests.
QUICK = ("kth2020/cnn", "mgc/cnn", "padova2023/late-fusion", "vit2021/lstm")
NETWORKS = {system.id for system in systems.systems() if system.kind == "neural"}
#: Deep ones of the same layers as `xu2022/cbam-resnet101` and `xu2022/se-resnet101`.
DEEP = {id for id in NETWORKS if id.startswith("xu2022/res") or "resnext" in id}


def lines(script: str, *arguments: str) -> list[dict[str, Any]]:
    """What a script prints in a process of its own."""
    command = [sys.executable, str(SUPPORT / script), *arguments]
    process = subprocess.run(command, capture_output=True, text=True)
    assert not process.returncode, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def assert_updates_do_not_wait(*ids: str) -> None:
    for line in lines("pretended_updates.py", *ids):
        assert line["device"] == line["cpu"], line["id"]
        assert set(line["sent"]) <= {SEND}, line["id"]
        assert line["received"] == {RECEIVE: 1}, line["id"]  # loss and correct slices
        assert not line["read"], line["id"]


def test_an_update_waits_for_nothing_but_its_outcome() -> None:
    assert_updates_do_not_wait(*QUICK)


@pytest.mark.slow
def test_so_do_those_of_all_other_networks() -> None:
    assert_updates_do_not_wait(*sorted(NETWORKS - DEEP - set(QUICK)))


@pytest.mark.slow
def test_a_training_and_its_predictions_are_the_same(tmp_path: Path) -> None:
    trainings = ("default", "everything", "streamed", "host", "samples", "classical")
    done = lines("pretended_training.py", str(tmp_path), *trainings)
    assert [line["name"] for line in done] == list(trainings)
    for line in done:
        assert line["device"] == line["cpu"], line["name"]
        # Values come back by transfers alone: outcomes of updates, and outputs of batches.
        assert set(line["received"]) == {RECEIVE}, line["name"]
        assert not line["read"], line["name"]


def test_tensors_on_two_devices_are_noticed() -> None:
    code = (
        "import torch, pretended_gpu; device = pretended_gpu.install()\n"
        "with pretended_gpu.PretendedGpu() as gpu:\n"
        "    x = torch.ones(3, device=device)\n"
        "    assert x.sum().item() == 3 and sum(gpu.counts.read.values()) == 1\n"
        "    x + torch.ones(3)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=SUPPORT, capture_output=True, text=True)
    assert process.stderr.splitlines()[-1] == "RuntimeError: aten.add.Tensor: tensors on two devices"
