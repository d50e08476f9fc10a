"""Filter banks and windows against librosa and SciPy: equal bit for bit, without their import."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings

import librosa
import numpy as np
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from mgc.pipeline.dsp import stages
from mgc.pipeline.dsp.filterbanks import chroma_bank, mel_bank
from tests.support import properties


def same_bits(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two arrays have the same dtype, shape and bytes, so that -0 is not 0."""
    return (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape) and ours.tobytes() == theirs.tobytes()


def librosa_mel(sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")
        return librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax).T


def test_mel_banks_have_the_bits_of_librosa() -> None:
    rates, lengths, bands = (8000, 11025, 16000, 22050, 44100, 48000), (64, 510, 1024, 2048), (1, 20, 32, 64, 128, 229)
    edges = ((0.0, None), (0, 8000), (20.0, 3999.5), (1000.0, None), (1234.5, 4000.0), (999.9999, 1000.5))
    n_compared = 0
    for sr, n_fft, n_mels, (fmin, fmax) in itertools.product(rates, lengths, bands, edges):
        if n_mels <= n_fft // 2 and (sr / 2 if fmax is None else fmax) <= sr / 2:
            arguments = (sr, n_fft, n_mels, fmin, fmax)
            assert same_bits(mel_bank(*arguments), np.ascontiguousarray(librosa_mel(*arguments))), arguments
            n_compared += 1
    assert n_compared > 500


@properties.examples(60)
@given(data=st.data(), sr=st.integers(4000, 192_000), n_fft=st.integers(4, 2048).map(lambda half: 2 * half))
def test_banks_of_any_parameters_have_the_bits_of_librosa(data: st.DataObject, sr: int, n_fft: int) -> None:
    fmax = data.draw(st.one_of(st.none(), st.floats(sr / 8, sr / 2)))
    fmin = data.draw(st.floats(0, (sr / 2 if fmax is None else fmax) * 0.9))
    mel = (sr, n_fft, data.draw(st.integers(1, min(n_fft // 2, 256))), fmin, fmax)
    assert same_bits(mel_bank(*mel), np.ascontiguousarray(librosa_mel(*mel))), mel
    chroma = (sr, n_fft, data.draw(st.integers(1, 120)), data.draw(st.floats(-0.5, 0.5)))
    assert same_bits(chroma_bank(*chroma), librosa_chroma(*chroma)), chroma


def librosa_chroma(sr: int, n_fft: int, n_chroma: int, tuning: float) -> np.ndarray:
    return np.ascontiguousarray(librosa.filters.chroma(sr=sr, n_fft=n_fft, n_chroma=n_chroma, tuning=tuning).T)


def test_chroma_banks_have_the_bits_of_librosa() -> None:
    rates, lengths, classes, tunings = (8000, 44100), (512, 2048, 4096), (1, 7, 12, 24, 36, 120), (0.0, -0.5, 0.3)
    for arguments in itertools.product(rates, lengths, classes, tunings):
        assert same_bits(chroma_bank(*arguments), librosa_chroma(*arguments)), arguments


def test_the_hann_window_has_the_bits_of_scipy() -> None:
    for n_fft in (2, 16, 30, 64, 255, 256, 510, 512, 1000, 1024, 2048, 4096, 8192):
        assert same_bits(stages.hann(n_fft), scipy.signal.get_window("hann", n_fft)), n_fft


def test_frames_of_spectral_features_need_neither_librosa_nor_scipy_signal() -> None:
    """What a worker of an extraction imports before its first frames: librosa would take it half a second."""
    program = """
import sys
import numpy as np
from mgc.pipeline.extraction import worker
from mgc.pipeline.features import parse_feature
from mgc.pipeline.features.analysis import analyse
specs = {parse_feature(name, {}) for name in ("stft", "mel", "mfcc", "power", "chroma", "waveform")}
found = {spec.name for spec, _ in analyse([np.zeros(30_000, np.float32)], 22050, specs)}
assert found == {spec.name for spec in specs}, found
heavy = ("librosa", "scipy.signal", "scipy.stats", "pandas", "torch", "sklearn", "matplotlib", "pooch")
print([name for name in heavy if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
