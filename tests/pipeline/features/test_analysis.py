"""The streaming analysis agrees with librosa, whatever the block sizes, the length and the other features."""

from __future__ import annotations

import io
import itertools
import math
import tracemalloc

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from sounds import (
    assert_levels_agree,
    extract_frames,
    full_scale_tone,
    librosa_frames,
    librosa_power,
    music,
    resampled_length,
    split_blocks,
    tone,
)

from mgc.pipeline.audio.decoding import MAX_AMPLITUDE, open_libsndfile
from mgc.pipeline.audio.inspection import inspect
from mgc.pipeline.dsp.separation import MEDIAN_REACH
from mgc.pipeline.dsp.stages import AMIN, BATCH_FRAMES, hann
from mgc.pipeline.features import (
    Chroma,
    FeatureSpec,
    Harmonic,
    Mel,
    Mfcc,
    Percussive,
    PowerSpectrum,
    Stats,
    Stft,
    Waveform,
)
from mgc.pipeline.features.analysis import analyse

LEVELS = [
    Stft(),
    Stft(n_fft=512, hop_length=160, sr=16000),
    Stft(n_fft=2048, hop_length=604, sr=22050),
    Stft(n_fft=1024, hop_length=1024, sr=48000),
    Mel(),
    Mel(sr=44100, n_fft=2048, hop_length=604, n_mels=96, fmin=30.0, fmax=16000.0),
    Mel(sr=16000, n_fft=512, hop_length=200, n_mels=40),
    Mel(sr=22050, n_fft=1024, hop_length=256, n_mels=128, fmax=8000.0),
]
CEPSTRA = [
    Mfcc(),
    Mfcc(sr=44100, n_fft=1024, n_mels=96, n_mfcc=13),
    Mfcc(sr=16000, n_fft=512, hop_length=200, n_mels=40, n_mfcc=40),
    Mfcc(hop_length=604, fmin=20.0, fmax=8000.0),
]
POWERS = [PowerSpectrum(), PowerSpectrum(sr=22050, n_fft=2048, hop_length=604)]
CHROMAS = [
    Chroma(),
    Chroma(sr=44100, n_fft=4096, tuning=0.3),
    Chroma(sr=16000, n_fft=1024, hop_length=200, n_chroma=24),
]
SEPARATED = [
    Harmonic(),
    Percussive(),
    Harmonic(sr=44100, n_fft=1024),
    Percussive(sr=44100, n_fft=1024),
    Percussive(sr=16000, n_fft=16, hop_length=16),  # fewer bins than a median covers
]
WAVEFORMS = [Waveform(), Waveform(sr=44100, hop_length=1000), Waveform(sr=16000, hop_length=1)]
SOURCES = [(44100, 1), (44100, 2), (48000, 2), (22050, 1)]


@pytest.mark.parametrize("n_fft", [16, 441, 1000, 1024, 2048, 8192])
def test_the_window_is_scipys(n_fft: int):
    np.testing.assert_array_equal(hann(n_fft), scipy.signal.get_window("hann", n_fft))


class Magnitude(Stft):
    """Magnitudes on a linear scale, for comparisons finer than dB in float32."""

    def compute_frames(self, power):
        return np.sqrt(power.spectrum)


def from_file(sound: np.ndarray, rate: int, folder, spec: FeatureSpec) -> np.ndarray:
    """Extract frames as from a dataset's file: decode in blocks, mix down, resample, transform."""
    path = folder / "sound.wav"
    sf.write(path, sound, rate, subtype="FLOAT")
    return extract_frames(open_libsndfile(inspect(bytes(path))).blocks(), rate, spec)


@pytest.fixture(scope="module", params=SOURCES, ids=lambda source: f"{source[0]}-{source[1]}ch")
def source(request) -> tuple[np.ndarray, int]:
    rate, channels = request.param
    return music(4.321, rate, channels), rate


class TestAgainstLibrosa:
    @pytest.mark.parametrize("spec", LEVELS, ids=str)
    def test_levels_agree_to_a_thousandth_of_a_db(self, source, spec, tmp_path):
        assert_levels_agree(from_file(*source, tmp_path, spec), librosa_frames(*source, spec))

    @pytest.mark.parametrize("spec", [spec for spec in LEVELS if spec.name == "stft"], ids=str)
    def test_magnitudes_agree_to_a_millionth_of_the_largest(self, source, spec, tmp_path):
        linear = Magnitude(sr=spec.sr, n_fft=spec.n_fft, hop_length=spec.hop_length)
        expected = np.sqrt(librosa_power(*source, spec))
        error = np.abs(from_file(*source, tmp_path, linear) - expected)
        assert (error <= 1e-6 * expected.max(axis=1, keepdims=True)).all()

    @pytest.mark.parametrize("spec", [spec for spec in LEVELS if spec.name == "mel"], ids=str)
    def test_mel_amplitudes_agree_to_a_millionth_of_the_largest(self, source, spec, tmp_path):
        expected = np.sqrt(np.maximum(librosa_power(*source, spec), AMIN))
        frames = 10 ** (from_file(*source, tmp_path, spec).astype(np.float64) / 20)
        assert (np.abs(frames - expected) <= 1e-6 * expected.max(axis=1, keepdims=True)).all()

    @pytest.mark.parametrize("spec", CEPSTRA, ids=str)
    def test_cepstra_agree(self, source, spec, tmp_path):
        expected = librosa_frames(*source, spec)
        np.testing.assert_allclose(from_file(*source, tmp_path, spec), expected, rtol=0, atol=5e-3)

    @pytest.mark.parametrize("spec", POWERS, ids=str)
    def test_powers_agree(self, source, spec, tmp_path):
        """To a millionth of the frame's maximum, and 1e-3 dB within 60 dB of it, like STFT magnitudes."""
        frames, expected = from_file(*source, tmp_path, spec), librosa_frames(*source, spec)
        assert_levels_agree(10 * np.log10(frames + AMIN), 10 * np.log10(expected + AMIN))
        error = np.abs(np.sqrt(frames) - np.sqrt(expected))
        assert (error <= 1e-6 * np.sqrt(expected).max(axis=1, keepdims=True)).all()

    @pytest.mark.parametrize("spec", CHROMAS, ids=str)
    def test_chroma_agrees(self, source, spec, tmp_path):
        frames = from_file(*source, tmp_path, spec)
        np.testing.assert_allclose(frames, librosa_frames(*source, spec), rtol=0, atol=1e-5)
        assert (frames.max(axis=1) == 1).all()

    @pytest.mark.parametrize("spec", SEPARATED, ids=str)
    def test_harmonic_and_percussive_levels_agree(self, source, spec, tmp_path):
        """The stream sees 31 frames at a time, librosa the whole track."""
        assert_levels_agree(from_file(*source, tmp_path, spec), librosa_frames(*source, spec))

    @pytest.mark.parametrize("spec", WAVEFORMS, ids=str)
    def test_samples_agree(self, source, spec, tmp_path):
        frames = from_file(*source, tmp_path, spec)
        np.testing.assert_allclose(frames, librosa_frames(*source, spec), rtol=0, atol=2e-6)

    @pytest.mark.parametrize("sr", [22050, 44100])
    @pytest.mark.parametrize(
        "sound",
        [tone(440, 2, 44100, 0.9), music(2, 11025, 1)[:, 0].repeat(4), np.full(88200, 0.5, np.float32)],
        ids=["tone", "images", "offset"],
    )
    def test_cepstra_agree_where_bands_lie_at_the_floor(self, sound, sr, tmp_path):
        """There a float32 transform is off by decibels, which the DCT spread to all coefficients: 0.1 for a tone."""
        sound = sound[:, None]
        frames = from_file(sound, 44100, tmp_path, Mfcc(sr=sr))
        np.testing.assert_allclose(frames, librosa_frames(sound, 44100, Mfcc(sr=sr)), rtol=0, atol=5e-3)

    @pytest.mark.parametrize("rate", [8000, 11025, 32000, 96000])
    def test_other_rates_are_resampled_as_librosa_does(self, rate, tmp_path):
        sound = music(3, rate, 2)
        assert_levels_agree(from_file(sound, rate, tmp_path, Mel()), librosa_frames(sound, rate, Mel()))

    @pytest.mark.slow
    @pytest.mark.corpus
    @pytest.mark.parametrize("clip", ["012371", "028300", "024612", "031571"])  # 44.1 and 48 kHz; wide and low-passed
    def test_real_clips_agree(self, corpus, clip):
        path = corpus / "fma_debian" / clip[:3] / f"{clip}.mp3"
        rate = sf.info(path).samplerate
        sound, _ = sf.read(path, frames=12 * rate, dtype="float32", always_2d=True)
        mono = [librosa.to_mono(sound.T)]
        for spec in (Stft(), Mel(), Mel(sr=44100, hop_length=604, n_mels=96)):
            assert_levels_agree(extract_frames(mono, rate, spec), librosa_frames(sound, rate, spec))
        for spec in (Mfcc(), Mfcc(sr=44100)):
            expected = librosa_frames(sound, rate, spec)
            np.testing.assert_allclose(extract_frames(mono, rate, spec), expected, rtol=0, atol=5e-3)
        for spec in (Harmonic(), Percussive()):
            assert_levels_agree(extract_frames(mono, rate, spec), librosa_frames(sound, rate, spec))
        chroma = extract_frames(mono, rate, Chroma())
        np.testing.assert_allclose(chroma, librosa_frames(sound, rate, Chroma()), rtol=0, atol=1e-5)
        expected = np.sqrt(librosa_power(sound, rate, Stft()))
        error = np.abs(extract_frames(mono, rate, Magnitude()) - expected)
        assert (error <= 1e-6 * expected.max(axis=1, keepdims=True)).all()


class TestClosedForms:
    def test_silence_is_the_floor(self):
        silence = [np.zeros(5000, np.float32)]
        for spec in (Stft(), Mel(), Harmonic(), Percussive()):
            np.testing.assert_allclose(extract_frames(silence, spec.sr, spec), -100, atol=2e-5)
        for spec in (PowerSpectrum(), Chroma(), Waveform()):
            assert not extract_frames(silence, spec.sr, spec).any()
        cepstra = extract_frames(silence, 22050, Mfcc())
        np.testing.assert_allclose(cepstra[:, 0], -100 * math.sqrt(128), rtol=1e-5)  # orthonormal: sum / sqrt(n)
        np.testing.assert_allclose(cepstra[:, 1:], 0, atol=1e-3)

    def test_frame_i_is_centred_on_sample_i_hops(self):
        """An impulse has a flat spectrum, weighted by the window at its position."""
        spec = Stft(hop_length=300)
        window = np.square(np.sin(np.pi * np.arange(1024) / 1024))
        signal = np.zeros(3000, np.float32)
        signal[1200] = 1
        frames = extract_frames([signal], 44100, spec)
        for i in range(len(frames)):
            position = 512 + 1200 - i * 300  # in the window of frame i
            weight = window[position] if 0 <= position < 1024 else 0
            np.testing.assert_allclose(frames[i], max(-100, 20 * math.log10(max(weight, 1e-9))), atol=1e-3)
        assert frames[4] == pytest.approx(0, abs=1e-5)

    @pytest.mark.parametrize("n_fft", [512, 1024, 4096])
    def test_a_full_scale_sine_on_a_bin_has_a_quarter_of_n_fft(self, n_fft):
        spec = Stft(n_fft=n_fft)
        steady = extract_frames([full_scale_tone(spec, 100)], spec.sr, spec)[10:-10]
        np.testing.assert_allclose(steady[:, 100], 20 * math.log10(n_fft / 4), atol=1e-3)
        np.testing.assert_allclose(steady[:, [99, 101]], 20 * math.log10(n_fft / 8), atol=1e-3)

    @pytest.mark.parametrize("pitch", range(12))
    def test_a_tone_is_its_pitch_class(self, pitch):
        chroma = extract_frames([tone(440 * 2 ** ((pitch - 9) / 12), 2, 22050)], 22050, Chroma())[4:-4]
        assert (chroma.argmax(axis=1) == pitch).all()

    def test_a_tone_is_harmonic_and_a_click_percussive(self):
        """One component has the level of the whole signal to 1 dB; the other is 60 dB below."""
        steady, click = tone(1000, 2, 22050), np.zeros(44100, np.float32)
        click[22050] = 1
        for sound, spec, other in ((steady, Harmonic(), Percussive()), (click, Percussive(), Harmonic())):
            level = extract_frames([sound], 22050, Stft(sr=22050, n_fft=2048))[10:-10].max()
            assert extract_frames([sound], 22050, spec)[10:-10].max() > level - 1
            assert extract_frames([sound], 22050, other)[10:-10].max() < level - 60

    def test_samples_of_the_maximum_amplitude_do_not_overflow(self):
        longest = {"sr": 44100, "n_fft": 65536, "hop_length": 65536}
        loudest = np.float32(MAX_AMPLITUDE) * np.sign(tone(1000, 5, 44100))
        for spec in (Stft(**longest), Mel(**longest), Mfcc(**longest), PowerSpectrum(**longest)):
            frames = extract_frames([loudest], 44100, spec)
            assert np.isfinite(frames).all()
            assert frames.max() > 180
        for spec in (Chroma(**longest), Harmonic(**longest), Percussive(**longest), Stats()):
            assert np.isfinite(extract_frames([loudest], 44100, spec)).all()


STREAMED = (
    Stft(),
    Stft(hop_length=604),
    Mel(),
    Mel(sr=44100, n_mels=96),
    Mfcc(hop_length=300),
    PowerSpectrum(),
    Chroma(),
    Harmonic(),
    Percussive(hop_length=604),
    Waveform(),
    Waveform(hop_length=7),
)
SPECS = (*STREAMED, Stats(sr=22050))
SOUND = music(3.7, 48000)[:, 0]


@pytest.fixture(scope="module")
def whole() -> dict[FeatureSpec, np.ndarray]:
    """Frames of SOUND for each spec, computed alone and from one block."""
    return {spec: extract_frames([SOUND], 48000, spec) for spec in SPECS}


def frames_together(blocks, specs) -> dict[FeatureSpec, np.ndarray]:
    """Compute the frames of all specs in one pass."""
    batches: dict[FeatureSpec, list[np.ndarray]] = {spec: [] for spec in specs}
    for spec, rows in analyse(blocks, 48000, specs):
        batches[spec].append(rows)
    return {spec: np.concatenate(rows) for spec, rows in batches.items()}


def assert_same_bits(frames: dict[FeatureSpec, np.ndarray], expected: dict[FeatureSpec, np.ndarray]) -> None:
    different = [str(spec) for spec in expected if not np.array_equal(frames[spec], expected[spec])]
    assert different == []


class TestBlocks:
    @pytest.mark.parametrize("size", [37, 999, 4096, 65536, 10**9])
    def test_blocks_of_any_size_give_the_same_bits(self, whole, size):
        assert_same_bits(frames_together(split_blocks(SOUND, size), SPECS), whole)

    @pytest.mark.slow
    @examples(15)
    @given(edges=st.lists(st.integers(0, len(SOUND)), max_size=12))
    def test_uneven_and_empty_blocks_give_the_same_bits(self, whole, edges):
        edges = [0, *sorted(edges), len(SOUND)]
        assert_same_bits(frames_together([SOUND[a:b] for a, b in itertools.pairwise(edges)], SPECS), whole)

    def test_single_samples_give_the_same_bits(self):
        sound = SOUND[:3000]
        for spec in (Stft(), Mel(), Mfcc(), Chroma(), Harmonic(), Waveform()):
            assert np.array_equal(
                extract_frames(split_blocks(sound, 1), 48000, spec), extract_frames([sound], 48000, spec)
            )

    def test_a_feature_does_not_depend_on_those_made_with_it(self, whole):
        """Not even MFCCs on mel bands with the same parameters, whose transforms differ in precision."""
        similar = [Mfcc(), Mel(), Mel(n_mels=64), Mel(fmin=100.0), Mel(fmax=8000.0), Mel(dtype="float32")]
        alone = {spec: extract_frames([SOUND], 48000, spec) for spec in similar}
        assert_same_bits(frames_together([SOUND], similar), alone)
        assert np.array_equal(alone[Mel()], whole[Mel()])

    @pytest.mark.parametrize(
        "spec",
        [Stft(), Chroma(sr=44100), PowerSpectrum(), Harmonic(sr=44100, n_fft=1024), Waveform(sr=44100)],
        ids=lambda spec: spec.name,
    )
    def test_frames_come_while_the_signal_is_still_arriving(self, spec):
        """Otherwise memory would grow with the length of the track."""
        n_samples = 0

        def blocks():
            nonlocal n_samples
            for block in split_blocks(np.zeros(44100 * 20, np.float32), 65536):
                n_samples += len(block)
                yield block

        n_frames, longest_wait = 0, 0
        for _, rows in analyse(blocks(), 44100, [spec]):
            assert len(rows) <= BATCH_FRAMES
            n_frames += len(rows)
            longest_wait = max(longest_wait, n_samples - n_frames * 512)
        assert longest_wait < 65536 + (2 * BATCH_FRAMES + MEDIAN_REACH) * 512

    def test_memory_does_not_grow_with_the_length_of_a_track(self):
        def peak(seconds: int) -> int:
            blocks = (music(1, 48000, seed=second)[:, 0] for second in range(seconds))
            tracemalloc.start()
            for _ in analyse(blocks, 48000, STREAMED):
                pass
            highest = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return highest

        peak(1)  # fills the cache of filter banks
        assert peak(30) < 1.05 * peak(10) < 100e6


class TestLength:
    @given(
        samples=st.integers(0, 20000),
        rate=st.sampled_from([8000, 22050, 44100, 48000]),
        spec=st.sampled_from([*LEVELS, Mel(hop_length=7, n_fft=32, n_mels=8), *CHROMAS, *SEPARATED, *WAVEFORMS]),
    )
    def test_one_frame_and_one_more_for_each_whole_hop(self, samples, rate, spec):
        sound = np.ones(samples, np.float32)
        frames = len(extract_frames(split_blocks(sound, 4096), rate, spec))
        assert frames == 1 + resampled_length(samples, rate, spec.sr) // spec.hop_length
        # Slices rely on at least `frames(seconds)` frames.
        assert spec.frames(samples / rate) <= frames <= spec.frames(samples / rate) + 1

    @pytest.mark.filterwarnings("ignore:n_fft=.* is too large:UserWarning")
    @pytest.mark.parametrize("samples", [1, 2, 255, 511, 512, 513, 1023, 1024, 1025, 2047])
    @pytest.mark.parametrize("rate", [22050, 44100])
    def test_signals_shorter_than_a_window_agree_with_librosa(self, samples, rate):
        sound = music(samples / rate, rate)
        for spec in (Mel(hop_length=128), Stft(sr=22050, n_fft=512), Harmonic(n_fft=512, hop_length=64)):
            frames, expected = extract_frames([sound[:, 0]], rate, spec), librosa_frames(sound, rate, spec)
            assert_levels_agree(frames, expected[: len(frames)])
            assert len(expected) - len(frames) in (
                (0, 1) if samples % 2 and rate == 44100 else (0,)
            )  # librosa rounds up

    def test_no_samples_are_one_frame_of_silence(self):
        for blocks in ([], [np.empty(0, np.float32)]):
            for rate in (44100, 48000):
                frames = extract_frames(blocks, rate, Stft())
                np.testing.assert_allclose(frames, np.full((1, 513), -100), atol=2e-5)


def test_a_long_wav_header_does_not_shift_the_frames(tmp_path):
    """Blocks count samples, not bytes."""
    sound, plain = music(1, 22050), io.BytesIO()
    sf.write(plain, sound, 22050, format="WAV", subtype="FLOAT")
    data = bytearray(plain.getvalue())
    data[12:12] = b"JUNK" + (70000).to_bytes(4, "little") + bytes(70000)
    data[4:8] = (len(data) - 8).to_bytes(4, "little")
    path = tmp_path / "padded.wav"
    path.write_bytes(data)
    blocks = open_libsndfile(inspect(bytes(path))).blocks()
    assert np.array_equal(extract_frames(blocks, 22050, Mel()), from_file(sound, 22050, tmp_path, Mel()))
