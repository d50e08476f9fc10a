"""Augmentation: what is drawn, from what it depends, and what it does to levels and samples."""

import numpy as np
import pytest
import torch

from mgc.models.data.augment import Augmenter, Draws
from mgc.models.registry.augmentation import Augmentation
from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import Mel, Waveform

ROWS = np.arange(6)


def levels(n: int = 6, frames: int = 40, bins: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand((n, frames, bins), generator=generator) * 60 - 60


def applied(how: str, frames: torch.Tensor, rows: np.ndarray = ROWS, epoch: int = 0, seed: int = 0) -> torch.Tensor:
    spec = Waveform() if "waveform" in how else Mel()
    return Augmenter(Augmentation.parse(how.replace("waveform", "")), spec, seed).augment(frames, epoch, rows)


class TestParse:
    def test_settings(self) -> None:
        how = Augmentation.parse("time-masks=2, time_width=20,mixup=0.2")
        assert how == Augmentation(time_masks=2, time_width=20, mixup=0.2)
        assert how
        assert str(how) == "time-masks=2,time-width=20,mixup=0.2"
        assert Augmentation.parse("none") == Augmentation()
        assert str(Augmentation()) == "none"
        assert not Augmentation.parse("probability=0.3")

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("masks=2", "'masks=2' is not a setting; write key=value with time-masks"),
            ("gain", "'gain' is not a setting"),
            ("gain=loud", "gain=loud; it must be a number"),
            ("time-masks=1.5,time-width=2", "time-masks=1.5; it must be a whole number"),
            ("gain=-3", "gain=-3; it must be >= 0"),
            ("gain=nan", "gain=nan; it must be >= 0"),
            ("polarity=1.5", "polarity=1.5; it must be from 0 to 1"),
            ("stretch=0.8", "stretch=0.8; it must be 0 or from 1 to 2"),
            ("time-masks=2", "one of time-masks and time-width is given without the other"),
        ],
    )
    def test_errors(self, text: str, error: str) -> None:
        with pytest.raises(SpecError) as raised:
            Augmentation.parse(text)
        assert error in f"{raised.value.problem}; {raised.value.remedy}"

    @pytest.mark.parametrize(
        ("text", "spec"), [("pitch=2", Mel()), ("time-masks=1,time-width=4", Waveform()), ("noise=0.01", Mel())]
    )
    def test_what_does_not_apply_is_refused(self, text: str, spec) -> None:
        with pytest.raises(SpecError, match=f"{text.partition('=')[0]} does not apply to {spec.name}"):
            Augmentation.parse(text).check(spec)


class TestDraws:
    def test_they_depend_on_seed_epoch_row_and_name_alone(self) -> None:
        drawn = Draws(3, 1, ROWS).uniform("gain")
        shuffled = np.array([5, 2, 0])
        np.testing.assert_array_equal(Draws(3, 1, shuffled).uniform("gain"), drawn[shuffled])
        for other in (
            Draws(4, 1, ROWS).uniform("gain"),
            Draws(3, 2, ROWS).uniform("gain"),
            Draws(1, 3, ROWS).uniform("gain"),
            Draws(3, 1, ROWS).uniform("time mask 0 width"),
            Draws(3, 1, ROWS + 6).uniform("gain"),
        ):
            assert not np.isclose(other, drawn).any()

    def test_they_are_even_and_unrelated(self) -> None:
        rows = np.arange(20_000)
        first, second = (Draws(0, epoch, rows).uniform("gain") for epoch in (0, 1))
        for values in (first, second):
            counts, _ = np.histogram(values, bins=20, range=(0, 1))
            # Chi-squared with 19 degrees of freedom: 43.8 has a probability of 0.001.
            assert ((counts - 1000) ** 2 / 1000).sum() < 43.8
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
        assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.03

    def test_integers_reach_both_ends(self) -> None:
        assert set(Draws(0, 0, np.arange(500)).integers(5, "shift")) == set(range(5))


@pytest.mark.parametrize(
    "how",
    [
        "time-masks=2,time-width=9",
        "band-masks=1,band-width=5",
        "gain=6",
        "shift=7",
        "waveformpitch=3,stretch=1.2,noise=0.1",
    ],
)
def test_a_slice_is_changed_the_same_in_whatever_batch_it_comes(how: str) -> None:
    frames = levels(bins=128) / 60 if "waveform" in how else levels()
    together = applied(how, frames)
    assert not torch.equal(together, frames)
    for row in ROWS:
        alone = applied(how, frames[[row]], ROWS[[row]])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-5)
    assert not torch.equal(applied(how, frames, epoch=1), together)
    assert not torch.equal(applied(how, frames, seed=1), together)


class TestLevels:
    def test_masks_are_blocks_of_the_mean_and_every_width_comes(self) -> None:
        rows = np.arange(2000)
        frames = levels(2000, 12, 4)
        changed = applied("time-masks=1,time-width=5", frames, rows)
        hidden = (changed == frames.mean(dim=(1, 2), keepdim=True)).all(dim=2).numpy()
        np.testing.assert_array_equal((changed == frames).all(dim=2).numpy(), ~hidden)
        widths = hidden.sum(axis=1)
        assert np.abs(np.bincount(widths, minlength=6) - 2000 / 6).max() < 75
        starts, ends = hidden.argmax(axis=1), 12 - hidden[:, ::-1].argmax(axis=1)
        np.testing.assert_array_equal((ends - starts)[widths > 0], widths[widths > 0])  # one block each
        assert set(starts[widths == 5]) == set(range(8))

    def test_band_masks_hide_bins(self) -> None:
        frames = levels(50)
        changed = applied("band-masks=2,band-width=3", frames, np.arange(50))
        hidden = (changed != frames).any(dim=1).sum(dim=1).numpy()
        assert hidden.max() > 3
        assert hidden.max() <= 6
        assert ((changed != frames).all(dim=1) == (changed != frames).any(dim=1)).all()

    def test_gain_adds_the_same_everywhere_within_its_range(self) -> None:
        frames = levels(400)
        added = applied("gain=6", frames, np.arange(400)) - frames
        assert (added.amax(dim=(1, 2)) - added.amin(dim=(1, 2))).max() < 1e-4
        gains = added.mean(dim=(1, 2))
        assert (gains.min(), gains.max()) == (pytest.approx(-6, abs=0.1), pytest.approx(6, abs=0.1))

    def test_a_shift_turns_frames_round(self) -> None:
        frames = levels(300)
        changed = applied("shift=3", frames, np.arange(300))
        shifts = set()
        for before, after in zip(frames, changed, strict=True):
            (found,) = (step for step in range(-3, 4) if torch.equal(torch.roll(before, step, 0), after))
            shifts.add(found)
        assert shifts == set(range(-3, 4))


class TestSamples:
    def samples(self, n: int) -> torch.Tensor:
        time = torch.arange(64 * 128) / 22050
        return (0.5 * torch.sin(2 * torch.pi * 440 * time)).view(1, 64, 128).repeat(n, 1, 1)

    def test_noise_has_its_deviation_and_its_probability(self) -> None:
        samples = self.samples(300)
        added = applied("waveformnoise=0.015", samples, np.arange(300)) - samples
        deviations = added.flatten(1).std(dim=1).numpy()
        noisy = deviations > 0
        assert 0.4 < noisy.mean() < 0.6
        assert 0.0009 < deviations[noisy].min() < 0.0015
        assert 0.0135 < deviations[noisy].max() < 0.0155
        assert abs(float(added[noisy].mean())) < 1e-4
        first, second = added[noisy][:2].flatten(1)
        assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.05

    def test_polarity_changes_the_sign_of_a_share(self) -> None:
        samples = self.samples(300)
        changed = applied("waveformpolarity=0.3", samples, np.arange(300))
        flipped = (changed == -samples).all(dim=(1, 2))
        assert torch.equal(changed[~flipped], samples[~flipped])
        assert 0.2 < flipped.float().mean() < 0.4

    def test_gain_is_in_decibels(self) -> None:
        samples = self.samples(300)
        ratio = applied("waveformgain=6", samples, np.arange(300)).abs().amax(dim=(1, 2)) / samples.abs().max()
        assert 20 * np.log10(ratio.numpy()).max() == pytest.approx(6, abs=0.1)
        assert 20 * np.log10(ratio.numpy()).min() == pytest.approx(-6, abs=0.1)

    def test_stretch_keeps_the_length_and_pitch_moves_the_tone(self) -> None:
        samples = self.samples(12)
        for how in ("waveformstretch=1.25,probability=1", "waveformpitch=4,probability=1"):
            changed = applied(how, samples, np.arange(12))
            assert changed.shape == samples.shape
            spectra = torch.fft.rfft(changed.flatten(1)[:, :6000] * torch.hann_window(6000)).abs()
            peaks = spectra.argmax(dim=1).numpy() * 22050 / 6000
            semitones = 12 * np.log2(peaks / 440)
            if "pitch" in how:
                assert np.abs(semitones).max() <= 4.2
                assert np.ptp(semitones) > 2
            else:
                assert np.abs(semitones).max() < 0.2


class TestMixup:
    def test_slices_and_labels_are_added_in_the_same_shares(self) -> None:
        frames, labels = levels(), torch.arange(6)
        augmenter = Augmenter(Augmentation(mixup=0.4), Mel(), seed=0)
        shares = []
        for epoch in range(200):
            mixed, others, share = augmenter.mixup(frames, labels, epoch, ROWS)
            torch.testing.assert_close(mixed, share * frames + (1 - share) * frames[others])
            assert sorted(others.tolist()) == list(range(6))
            shares.append(share)
        assert min(shares) >= 0.5
        # The mean of max(x, 1 - x) of a beta distribution with both parameters 0.4.
        x = np.random.default_rng(0).beta(0.4, 0.4, 100_000)
        assert np.mean(shares) == pytest.approx(np.maximum(x, 1 - x).mean(), abs=0.03)

    def test_without_it_nothing_is_mixed(self) -> None:
        frames, labels = levels(), torch.arange(6)
        mixed, others, share = Augmenter(Augmentation(gain=1), Mel(), 0).mixup(frames, labels, 0, ROWS)
        assert mixed is frames
        assert others is labels
        assert share == 1
