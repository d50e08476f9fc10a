"""The front end: spectrograms of samples on the device, against torchaudio and against the CPU."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator

import torch
from torch import Tensor

from gpu_parts.measurement import Row, Setup, no_time, rate, repeated
from gpu_parts.sources import SMALLEST, open_front_end, open_source, sizes, waveform_view, window
from mgc.models.data.frontend import FrontEnd
from mgc.pipeline.features import Mel, Mfcc, Spectral, Stft

#: The features: those of xu2022 and vit2021, and MFCCs by the defaults of `mgc extract`.
SPECS: tuple[Spectral, ...] = (Stft(sr=44100, n_fft=1024, hop_length=512), Mel(), Mfcc())
#: Samples of a batch: slices, and seconds of each.
SLICES, SECONDS = 64, 4.0
#: Levels of the device may differ by this much from those of the CPU, down to 60 dB below the maximum of their frame;
#: MFCCs by the other (see `FrontEnd`).
LEVEL_BAR_DB, MFCC_BAR = 1e-3, 5e-3
LEVELS_BELOW_MAXIMUM = 60.0


def measure_front_end(setup: Setup) -> Iterator[Row]:
    """Measure each feature alone, and then a stream that computes one of resident samples."""
    for spec in SPECS:
        if setup.left < 3:
            yield no_time(f"front end, {spec.name}")
            continue
        n_slices = setup.size(SLICES, 2)
        generator = torch.Generator().manual_seed(0)
        samples = torch.randn((n_slices, int(SECONDS * spec.sr)), generator=generator) * 0.1
        front_end = FrontEnd(spec).to(setup.device).eval()
        on_device = samples.to(setup.device)
        with torch.inference_mode():
            seconds = repeated(setup, lambda: front_end(on_device)).median  # noqa: B023  called at once
            yield _speed(f"front end, {spec.name}", n_slices, seconds)
            yield _torchaudio(setup, spec, on_device, seconds)
            yield _difference(spec, front_end(on_device).cpu(), FrontEnd(spec).eval()(samples))
    yield from _streams(setup)


def _speed(name: str, n_slices: int, seconds: float) -> Row:
    hours = n_slices * SECONDS / 3600 / seconds
    figures = {"seconds": seconds, "hours_per_s": hours, "slices_per_s": n_slices / seconds}
    return Row(name, f"{1000 * seconds:.2f} ms for {n_slices} slices of 4 s; {hours:.2f} hours/s", figures=figures)


def _torchaudio(setup: Setup, spec: Spectral, samples: Tensor, seconds: float) -> Row:
    """Time the same feature by torchaudio, with the same filters and without padding, down to levels in dB."""
    name = f"torchaudio, {spec.name}"
    if not importlib.util.find_spec("torchaudio"):
        return Row(name, "torchaudio is not installed", status="absent")
    try:
        transform = _torchaudio_transform(spec).to(setup.device)
    except (ImportError, OSError) as error:  # it was built for another PyTorch
        return Row(name, f"torchaudio cannot be imported: {str(error).splitlines()[0]}", status="absent")
    other = repeated(setup, lambda: transform(samples)).median
    figures = {"seconds": other, "ratio": other / seconds}
    return Row(name, f"{1000 * other:.2f} ms, {figures['ratio']:.2f} times as long as mgc", figures=figures)


def _torchaudio_transform(spec: Spectral) -> torch.nn.Module:
    from torchaudio import transforms

    shape = {"n_fft": spec.n_fft, "hop_length": spec.hop_length, "center": False}
    levels = transforms.AmplitudeToDB("power", top_db=None)
    if isinstance(spec, Mfcc):
        mel = {"n_mels": spec.n_mels, "norm": "slaney", "mel_scale": "slaney", **shape}
        return transforms.MFCC(spec.sr, spec.n_mfcc, melkwargs=mel)
    if isinstance(spec, Mel):
        filters = {"n_mels": spec.n_mels, "f_min": spec.fmin, "norm": "slaney", "mel_scale": "slaney"}
        return torch.nn.Sequential(transforms.MelSpectrogram(spec.sr, **shape, **filters), levels)
    return torch.nn.Sequential(transforms.Spectrogram(power=2.0, **shape), levels)


def _difference(spec: Spectral, frames: Tensor, expected: Tensor) -> Row:
    """Compare the frames of the device with those of the CPU, which the tests of mgc compare with librosa's."""
    bar, unit = (MFCC_BAR, "") if isinstance(spec, Mfcc) else (LEVEL_BAR_DB, " dB")
    differences = (frames - expected).abs()
    if not isinstance(spec, Mfcc):
        differences = differences[expected > expected.amax(dim=2, keepdim=True) - LEVELS_BELOW_MAXIMUM]
    largest = float(differences.max())
    name = f"front end, {spec.name}: largest difference from the CPU"
    return Row(name, f"{largest:.1e}{unit}", f"≤ {bar:g}{unit}", largest <= bar, {"difference": largest})


def _streams(setup: Setup) -> Iterator[Row]:
    """Compare streams of the mel bands of vit2021/cnn: computed of resident samples, and read from a store of them."""
    if setup.left < 5:
        yield no_time("stream with front end")
        return
    stored = open_source(setup, SMALLEST)
    view = waveform_view(setup, SMALLEST, setup.size(960, 4))
    computed = open_front_end(setup, view, stored.batch_size, window(SMALLEST, stored.store))
    rates = {}
    for name, stream in (("computed", computed), ("stored", stored.stream(setup, "device"))):
        sum(sizes(stream))  # the first epoch reads the store
        rates[name] = rate(setup, functools.partial(sizes, stream), setup.size(2, 0))
    figures = {f"{name}_slices_per_s": value for name, value in rates.items()}
    text = f"{rates['computed']:,.0f} slices/s of resident samples, {rates['stored']:,.0f} of resident mel bands"
    yield Row(f"stream with front end, {SMALLEST}", text, figures=figures)
