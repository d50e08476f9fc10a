"""The ImageNet networks against torchvision's with equal weights; skipped if torchvision is not installed."""

import pytest
import torch

from mgc.models.registry import systems

torchvision = pytest.importorskip("torchvision")

#: torchvision's names of the networks; it has no MobileNetV1.
NETWORKS = {
    "xu2022/alexnet": "alexnet",
    "xu2022/googlenet": "googlenet",
    "xu2022/mobilenet": "mobilenet_v3_large",
    "xu2022/mobilenet-v2": "mobilenet_v2",
    "xu2022/resnet-3-4-23-3": "resnet101",
    "xu2022/resnext101-32x8d": "resnext101_32x8d",
}


@pytest.mark.parametrize(("id", "name"), NETWORKS.items())
def test_equal_weights_give_equal_outputs(id: str, name: str) -> None:
    torch.manual_seed(0)
    options = {"init_weights": True, "aux_logits": True} if name == "googlenet" else {}
    reference, model = (
        torchvision.models.get_model(name, weights=None, num_classes=8, **options),
        systems.get(id).build(8),
    )
    x = torch.randn(2, 3, 64, 64)
    reference(x)  # updates the running statistics
    for module in reference.modules():
        if hasattr(module, "num_batches_tracked"):
            module.num_batches_tracked.fill_(10_000)  # as after a training, when initial values no longer count
    model.load_state_dict(reference.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(x), reference.eval()(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("id", "name"), NETWORKS.items())
def test_initial_weights_are_spread_alike(id: str, name: str) -> None:
    torch.manual_seed(0)
    options = {"init_weights": True, "aux_logits": True} if name == "googlenet" else {}
    reference = torchvision.models.get_model(name, weights=None, num_classes=8, **options).state_dict()
    for key, value in systems.get(id).build(8).state_dict().items():
        assert value.shape == reference[key].shape, key
        if value.numel() > 20_000:
            assert value.std().item() == pytest.approx(reference[key].std().item(), rel=0.05), key
