"""mgc: what the members of its networks see, how they learn, and what averaging their weights gives."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.fft import dct
from shapes import n_params
from torch import nn

from mgc.models.registry import systems
from mgc.models.zoo.mgc import (
    BandStatistics,
    CepstralStatistics,
    Cepstrum,
    CoefficientStatistics,
    Committee,
    FrequencyMixStyle,
    cnn,
    mfcc,
)


def levels(batch: int = 6, frames: int = 40, seed: int = 0) -> torch.Tensor:
    """Levels in dB as the input adapter makes them, `(batch, 128, frames)`."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, 128, frames, generator=generator).cumsum(dim=1) - 40).clamp(-80, 0)


def test_parameters_of_the_members() -> None:
    # 60 · 64 + 64 + 2 · 64 and 64 · 6 + 6; as these, with 2 · 64 + 3 · 16, and with 59 statistics for 60.
    kinds = {CepstralStatistics: 4_032 + 390, BandStatistics: 11_456 + 390, CoefficientStatistics: 3_968 + 390}
    assert {kind: n_params(kind(6), "") for kind in kinds} == kinds
    assert n_params(cnn(6), "") == 4 * (4_422 + 11_846) == 65_072
    assert n_params(mfcc(6), "") == 8 * 4_358 == 34_864
    sizes = {id: systems.get(f"mgc/{id}").params(6) for id in ("cnn", "stft", "mfcc")}
    assert sizes == {"cnn": 65_072, "stft": 65_072, "mfcc": 34_864}


def test_mixed_slices_have_the_statistics_of_a_mixture() -> None:
    mix, x = FrequencyMixStyle(1.0).train(), levels()
    torch.manual_seed(3)
    mixed = mix(x).numpy()
    torch.manual_seed(3)
    partners = torch.randperm(len(x)).numpy()
    share = torch.distributions.Beta(0.4, 0.4).sample((len(x), 1)).numpy()
    assert (partners != np.arange(len(x))).any()
    own = x.numpy()
    for statistic in (np.mean, np.std):
        expected = share * statistic(own, axis=2) + (1 - share) * statistic(own, axis=2)[partners]
        np.testing.assert_allclose(statistic(mixed, axis=2), expected, atol=2e-2)
    # The pattern in time stays that of the slice.
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(mixed[0], own[0], strict=True) if a.std() > 0.1 < b.std()]
    assert len(correlations) > 50
    assert min(correlations) > 0.999


def test_slices_are_mixed_in_training_only_and_with_their_probability() -> None:
    x = levels(batch=200, frames=8)
    assert FrequencyMixStyle(1.0).eval()(x) is x
    torch.testing.assert_close(FrequencyMixStyle(0.0).train()(x), x, atol=1e-3, rtol=0)
    torch.manual_seed(0)
    changed = (FrequencyMixStyle(0.5).train()(x) - x).abs().amax(dim=(1, 2)) > 0.01
    assert 70 < int(changed.sum()) < 130


def test_coefficients_are_an_orthonormal_cosine_transform() -> None:
    x, module = levels(), Cepstrum().eval()
    module.norm.running_mean.fill_(2.0)
    module.norm.running_var.fill_(9.0)
    expected = (dct(x.numpy(), axis=1, norm="ortho")[:, :20] - 2) / 3
    np.testing.assert_allclose(module(x).numpy(), expected, atol=1e-3)


def test_statistics_of_bands() -> None:
    x, model = levels(), BandStatistics(6).eval()
    captured: list[torch.Tensor] = []
    model.head.register_forward_pre_hook(lambda module, inputs: captured.extend(inputs))
    model(x)
    (statistics,) = captured
    pairs, groups = x.numpy().reshape(6, 64, 2, 40).mean(axis=2), x.numpy().reshape(6, 16, 8, 40)
    contrasts = np.ptp(groups, axis=2)
    expected = [pairs.mean(axis=2), contrasts.mean(axis=2), groups.mean(axis=(2, 3)), pairs.std(axis=2)]
    np.testing.assert_allclose(statistics, np.concatenate([*expected, contrasts.std(axis=2)], axis=1), atol=1e-2)


def test_statistics_of_stored_coefficients_leave_the_loudness_out() -> None:
    x, model = levels()[:, :20], CoefficientStatistics(6).eval()
    captured: list[torch.Tensor] = []
    model.head.register_forward_pre_hook(lambda module, inputs: captured.extend(inputs))
    outputs = model(x)
    values = x.numpy()
    expected = [values.mean(axis=2)[:, 1:], values.std(axis=2), np.diff(values, axis=2).std(axis=2)]
    np.testing.assert_allclose(captured[0], np.concatenate(expected, axis=1), atol=1e-2)
    louder = x.clone()
    louder[:, 0] += 100
    torch.testing.assert_close(model(louder), outputs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("build", "bands"), [(cnn, 128), (mfcc, 20)])
def test_silence_has_finite_gradients(build: Callable[[int], nn.Module], bands: int) -> None:
    model = build(3).train()
    outputs = model(torch.full((4, 1, bands, 172), -80.0))
    sum(output.sum() for output in outputs[1:]).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_the_output_is_the_mean_of_the_members_probabilities() -> None:
    model, x = cnn(5).eval(), levels(frames=172).unsqueeze(1)
    expected = torch.stack([member(x.squeeze(1)).softmax(dim=1) for member in model.members]).mean(dim=0)
    torch.testing.assert_close(model(x).exp(), expected)
    torch.testing.assert_close(model(x).softmax(dim=1), expected)


def test_members_learn_independently() -> None:
    torch.manual_seed(0)
    model = Committee([BandStatistics(3), CepstralStatistics(3)]).train()
    mean, *logits = model(levels().unsqueeze(1))
    assert not mean.requires_grad
    torch.nn.functional.cross_entropy(logits[0], torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    assert all(weight.grad is not None for weight in model.members[0].parameters())
    assert all(weight.grad is None for weight in model.members[1].parameters())


@pytest.mark.parametrize("frames", [32, 172, 300])
def test_slices_of_other_lengths(frames: int) -> None:
    x = levels(2, frames).unsqueeze(1)
    assert cnn(4).eval()(x).shape == mfcc(4).eval()(x[:, :, :20]).shape == (2, 4)
