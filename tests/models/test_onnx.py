"""Exported networks give ONNX Runtime the logits they give PyTorch; skipped where its packages are not installed."""

from pathlib import Path

import pytest
import torch

from models import registry

for _package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_package)

SYSTEMS = [system for system in registry.systems() if system.kind == "neural" and system.study == "xu2022"]


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.id)
def test_onnx_runtime_agrees(system: registry.System, tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(0)
    model, file = system.build(8), tmp_path / "model.onnx"
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        model(x)  # moves the running statistics away from their initial values
    torch.onnx.export(model.eval(), (x,), file, input_names=["picture"], output_names=["logits"], dynamo=True)
    with torch.inference_mode():
        expected = model(x).numpy()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"picture": x.numpy()})
    assert abs(found - expected).max() < 1e-4
