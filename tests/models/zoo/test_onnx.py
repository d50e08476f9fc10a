"""Every network exported to ONNX: ONNX Runtime against PyTorch. Needs onnx, onnxscript and onnxruntime.

`python -m pytest -m "slow or long" tests/models/zoo/test_onnx.py` takes a quarter of an hour. The networks marked slow,
not long, cover every kind of layer.
"""

from pathlib import Path

import pytest
import torch
from networks import IDS, build, random_batch

from mgc.models.registry import systems

TYPICAL = (
    "kth2020/crnn",
    "padova2023/late-fusion",
    "vit2021/lstm",
    "xu2022/googlenet",
    "xu2022/mobilenet-v1",
)


@pytest.mark.parametrize(
    "id", [pytest.param(id, marks=getattr(pytest.mark, "slow" if id in TYPICAL else "long")) for id in IDS]
)
def test_onnx_agrees(id: str, tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    runtime = pytest.importorskip("onnxruntime")
    system = systems.get(id)
    model = build(system, system.recipe.dataset.n_classes)
    x = random_batch(system, 2)
    with torch.no_grad():
        # Moves the running statistics away from their initial values. With only two examples, some standard deviations
        # would be so small that rounding alone gives differences above 1e-4.
        model(*random_batch(system, 8))
    model.eval()
    torch.onnx.export(model, tuple(x), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    (logits,) = session.run(None, {name: value.numpy() for name, value in zip(names, x, strict=True)})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(*x), atol=1e-4, rtol=0)
