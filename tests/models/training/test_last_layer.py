"""What the last layers of a committee see."""

from __future__ import annotations

import pytest
import torch

from mgc.models.network import Network
from mgc.models.registry import systems
from mgc.models.training.last_layer import LastLayer


@pytest.mark.parametrize("id", ["mgc/cnn", "mgc/stft", "mgc/mfcc"])
@pytest.mark.parametrize("n_classes", [3, 64])
def test_the_vectors_of_all_members_stand_side_by_side(id: str, n_classes: int) -> None:
    """The last layer of each member, applied to its 64 values, gives the network's output; also with 64 classes."""
    system = systems.get(id)
    spec = system.recipe.features
    torch.manual_seed(0)
    network = Network(system, [spec], n_classes).eval()
    frames = torch.randn(2, 64, spec.bins) * 10 - 40
    last = LastLayer(network, n_classes)
    with torch.inference_mode():
        values = last(frames)
        vectors, logits = last.split(values)
        assert values.shape == (2, 8 * 64 + n_classes)
        assert torch.equal(logits, network(frames))
        members = zip(network.model.members, vectors.split(64, dim=1), strict=True)
        shares = torch.stack([member.head[-1](vector).softmax(dim=1) for member, vector in members]).mean(dim=0)
    torch.testing.assert_close(shares, logits.softmax(dim=1))
    assert len({tuple(vector.flatten().tolist()) for vector in vectors.split(64, dim=1)}) == 8
