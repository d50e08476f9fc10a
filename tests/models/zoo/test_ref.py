"""ref/crnn-choi2017: shapes and parameters of every layer."""

import torch
from shapes import n_params, output_shapes

from mgc.models.zoo.ref import ChoiCRNN


def test_every_layer() -> None:
    model = ChoiCRNN(8)
    pools = [f"features.{5 * i + 3}" for i in range(4)]
    assert list(output_shapes(model, [*pools, "gru", "classify"], 1, 96, 1440).values()) == [
        (68, 48, 720),
        (137, 16, 240),
        (137, 4, 60),
        (137, 1, 15),
        (68,),
        (8,),
    ]
    assert [n_params(model, f"features.{5 * i}") for i in range(4)] == [680, 83_981, 169_058, 169_058]
    assert n_params(model, "gru") == 42_228 + 28_152


def test_min_frames_leave_one_step() -> None:
    model = ChoiCRNN(8).eval()
    assert model(torch.randn(1, 1, 96, 96)).shape == (1, 8)
