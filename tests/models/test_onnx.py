"""Every network as ONNX, run by ONNX Runtime, against PyTorch. Needs onnx, onnxscript and onnxruntime."""

from pathlib import Path

import pytest
import torch
from test_registry import IDS, build, random_batch

from models import registry

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")


@pytest.mark.slow
@pytest.mark.parametrize("id", IDS)
def test_onnx_agrees(id: str, tmp_path: Path) -> None:
    system = registry.get(id)
    model = build(system, system.recipe.dataset.n_classes)
    x = random_batch(system, 2)
    with torch.no_grad():
        # Moves the running statistics away from their initial values; of two examples some deviations would be so small
        # that rounding alone makes more than 1e-4.
        model(*random_batch(system, 8))
    model.eval()
    torch.onnx.export(model, tuple(x), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    (found,) = session.run(None, {name: value.numpy() for name, value in zip(names, x, strict=True)})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), model(*x), atol=1e-4, rtol=0)
