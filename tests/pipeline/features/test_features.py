"""Feature specs: parsing, identity, framing and quantisation."""

from __future__ import annotations

import dataclasses
import json
import math

import librosa
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sounds import extract_frames, full_scale_tone, librosa_power, music, tone

from mgc.pipeline.errors import SpecError
from mgc.pipeline.features import (
    FEATURES,
    HEADROOM_DB,
    STEP_DB,
    Chroma,
    FeatureSpec,
    Harmonic,
    Mel,
    Mfcc,
    Percussive,
    PowerSpectrum,
    Spectral,
    Stats,
    Stft,
    Waveform,
    from_dict,
    parse_feature,
)
from mgc.pipeline.features.spec import Clipped

QUANTISED = [
    Stft(),
    Stft(n_fft=2048, sr=22050),
    Mel(),
    Mel(n_mels=96, fmax=8000.0),
    Mel(sr=44100, n_fft=1024, n_mels=40, fmin=30.0),
]


@st.composite
def specs(draw) -> FeatureSpec:
    """Draw any valid spec."""
    kind = draw(st.sampled_from(list(FEATURES.values())))
    sr = draw(st.integers(1000, 384_000) if kind is not Stats else st.integers(11_025, 96_000))
    values = {"sr": sr, "dtype": draw(st.sampled_from(kind.dtypes))}
    if issubclass(kind, Spectral):
        n_fft = values["n_fft"] = 2 * draw(st.integers(8, 32768))
        values["hop_length"] = draw(st.integers(1, n_fft))
    if kind is Waveform:
        values["hop_length"] = draw(st.integers(1, 65536))
    if kind is Chroma:
        values |= {"n_chroma": draw(st.integers(1, 120)), "tuning": draw(st.floats(-0.5, 0.5))}
    if issubclass(kind, Mel):
        values["n_mels"] = draw(st.integers(1, n_fft // 2))
        values["fmin"] = draw(st.floats(0, sr / 2, exclude_max=True))
        values["fmax"] = draw(st.none() | st.floats(values["fmin"], sr / 2, exclude_min=True))
    if issubclass(kind, Mfcc):
        values["n_mfcc"] = draw(st.integers(1, values["n_mels"]))
    return kind(**values)


class TestParsing:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("stft", Stft(sr=44100, n_fft=1024, hop_length=512, dtype="uint8")),
            ("mel", Mel(sr=22050, n_fft=2048, hop_length=512, n_mels=128, fmin=0.0, fmax=None, dtype="uint8")),
            ("mfcc", Mfcc(sr=22050, n_fft=2048, hop_length=512, n_mels=128, n_mfcc=20, dtype="float32")),
            ("mel:n_mels=96,hop_length=604", Mel(n_mels=96, hop_length=604)),
            ("mel: n-mels = 96 , fmax=8000,", Mel(n_mels=96, fmax=8000.0)),
            ("mel:fmax=none,fmin=2e1", Mel(fmax=None, fmin=20.0)),
            ("stft:dtype=float16", Stft(dtype="float16")),
            ("mfcc:n_mfcc=13,sr=44100", Mfcc(n_mfcc=13, sr=44100)),
            ("power", PowerSpectrum(sr=44100, n_fft=1024, hop_length=512, dtype="float32")),
            ("chroma", Chroma(sr=22050, n_fft=2048, hop_length=512, dtype="float32", n_chroma=12, tuning=0.0)),
            ("chroma:tuning=-0.25,dtype=float16", Chroma(tuning=-0.25, dtype="float16")),
            ("harmonic", Harmonic(sr=22050, n_fft=2048, hop_length=512, dtype="uint8")),
            ("percussive:hop_length=256", Percussive(hop_length=256)),
            ("waveform", Waveform(sr=22050, hop_length=512, dtype="int16")),
            ("stats:sr=22050", Stats(sr=22050, dtype="float32")),
        ],
    )
    def test_text_is_a_name_and_settings(self, text, expected):
        assert parse_feature(text) == expected

    def test_settings_override_defaults(self):
        defaults = {"sr": 16000, "n_mels": 64}
        assert parse_feature("mel:n_mels=96", defaults) == Mel(sr=16000, n_mels=96)

    def test_defaults_that_a_feature_does_not_have_are_ignored(self):
        assert parse_feature("stft", {"n_mels": 64, "n_mfcc": 13, "hop_length": 256}) == Stft(hop_length=256)

    def test_a_default_dtype_that_a_feature_does_not_support_is_ignored(self):
        assert parse_feature("mfcc", {"dtype": "uint8"}) == Mfcc()
        assert parse_feature("mfcc", {"dtype": "float16"}) == Mfcc(dtype="float16")
        assert parse_feature("waveform", {"dtype": "uint8", "n_fft": 1024}) == Waveform()
        assert parse_feature("stft", {"dtype": "int16"}) == Stft()
        assert parse_feature("stats", {"dtype": "float16", "hop_length": 256, "n_fft": 512}) == Stats()

    @pytest.mark.parametrize(
        ("text", "problem", "remedy"),
        [
            ("cqt", "unknown feature 'cqt'", "stft, mel, mfcc, power, chroma, harmonic, percussive, waveform, stats"),
            ("", "unknown feature ''", "stft, mel, mfcc"),
            ("Mel", "unknown feature 'Mel'", "stft, mel, mfcc"),
            ("stft:n_mels=96", "stft: 'n_mels=96'", "dtype, hop_length, n_fft, sr"),
            ("mel:96", "mel: '96'", "key=value"),
            ("mel:precision=float64", "mel: 'precision=float64'", "key=value"),
            ("mel:n_mels=", "mel: n_mels", "a number"),
            ("mel:n_mels=none", "mel: n_mels", "a number"),
            ("mel:n_mels=many", "mel: n_mels=many", "int"),
            ("mel:n_mels=96.5", "mel: n_mels=96.5", "int"),
            ("mel:fmin=low", "mel: fmin=low", "float"),
            ("mel:fmin=nan", "mel: fmin=nan", "finite"),
            ("mel:fmax=inf", "mel: fmax=inf", "finite"),
            ("stft:sr=999", "stft: sr=999", "1000 to 384000 Hz"),
            ("stft:sr=384001", "stft: sr=384001", "1000 to 384000 Hz"),
            ("stft:n_fft=1023", "stft: n_fft=1023", "an even number, 16 to 65536"),
            ("stft:n_fft=14", "stft: n_fft=14", "16 to 65536"),
            ("stft:n_fft=65538", "stft: n_fft=65538", "16 to 65536"),
            ("stft:hop_length=0", "stft: hop_length=0", "1 to n_fft (1024)"),
            ("stft:hop_length=1025", "stft: hop_length=1025", "1 to n_fft (1024)"),
            ("stft:dtype=int8", "stft: dtype=int8", "uint8 or float16 or float32"),
            ("mfcc:dtype=uint8", "mfcc: dtype=uint8", "float16 or float32"),
            ("mel:n_mels=0", "mel: n_mels=0", "1 to n_fft/2 (1024)"),
            ("mel:n_mels=1025", "mel: n_mels=1025", "1 to n_fft/2 (1024)"),
            ("mel:fmin=-1", "mel: fmin=-1.0", "0 to 11025 Hz"),
            ("mel:fmin=11025", "mel: fmin=11025", "0 to 11025 Hz"),
            ("mel:fmax=11026", "mel: fmax=11026", "at most 11025 Hz"),
            ("mel:fmin=50,fmax=50", "mel: fmax=50", "above fmin (50)"),
            ("power:dtype=float16", "power: dtype=float16", "float32"),
            ("chroma:dtype=uint8", "chroma: dtype=uint8", "float16 or float32"),
            ("chroma:n_chroma=0", "chroma: n_chroma=0", "1 to 120"),
            ("chroma:tuning=0.6", "chroma: tuning=0.6", "-0.5 to 0.5"),
            ("waveform:dtype=uint8", "waveform: dtype=uint8", "int16 or float32"),
            ("waveform:hop_length=65537", "waveform: hop_length=65537", "1 to 65536"),
            ("waveform:n_fft=512", "waveform: 'n_fft=512'", "dtype, hop_length, sr"),
            ("stats:sr=8000", "stats: sr=8000", "11025 to 96000 Hz"),
            ("stats:hop_length=256", "stats: 'hop_length=256'", "dtype, sr"),
            ("mfcc:n_mfcc=0", "mfcc: n_mfcc=0", "1 to n_mels (128)"),
            ("mfcc:n_mels=40,n_mfcc=41", "mfcc: n_mfcc=41", "1 to n_mels (40)"),
        ],
    )
    def test_errors_name_the_value_and_the_range(self, text, problem, remedy):
        with pytest.raises(SpecError) as caught:
            parse_feature(text)
        assert problem in caught.value.problem
        assert remedy in caught.value.remedy

    @pytest.mark.parametrize(
        "edges",
        [
            Stft(sr=1000, n_fft=16, hop_length=16),
            Stft(sr=384_000, n_fft=65536, hop_length=1),
            Mel(n_mels=1024, fmin=11024.9),
            Mfcc(n_mfcc=128),
            Chroma(n_chroma=120, tuning=-0.5),
            Waveform(hop_length=65536),
            Stats(sr=11025),
        ],
        ids=str,
    )
    def test_the_edges_of_each_range_are_allowed(self, edges):
        settings = (f"{key}={value}" for key, value in edges.as_dict().items() if key != "feature")
        assert parse_feature(f"{edges.name}:" + ",".join(settings)) == edges

    @pytest.mark.parametrize(
        "values",
        [
            {"feature": "cqt"},
            {},
            {"feature": "mel", "n_bands": 3},
            {"feature": "mel", "n_mels": None},
            {"feature": "mel", "n_mels": 64.5},
            {"feature": "mel", "n_mels": math.inf},
            {"feature": "mel", "n_mels": [64]},
            {"feature": "mel", "fmin": math.nan},
        ],
    )
    def test_stored_values_are_checked_too(self, values):
        with pytest.raises(SpecError):
            from_dict(values)


class TestIdentity:
    @given(specs())
    def test_a_spec_survives_json_and_text(self, spec):
        assert from_dict(json.loads(json.dumps(spec.as_dict()))) == spec
        settings = (f"{key}={value}" for key, value in spec.as_dict().items() if key != "feature")
        assert parse_feature(f"{spec.name}:" + ",".join(settings)) == spec

    @given(specs(), specs())
    def test_equal_specs_and_no_others_share_a_digest(self, one, other):
        assert from_dict(one.as_dict()).digest == one.digest
        assume(one != other)
        assert one.digest != other.digest

    def test_digests_name_folders_that_users_have(self):
        """A changed digest orphans existing stores. If one must change, bump the format of stores instead."""
        assert {name: kind().digest for name, kind in FEATURES.items()} == {
            "stft": "da4d78",
            "mel": "500399",
            "mfcc": "260531",
            "power": "412616",
            "chroma": "3100bf",
            "harmonic": "575652",
            "percussive": "09de69",
            "waveform": "83d038",
            "stats": "a6309b",
        }

    def test_numbers_of_another_type_are_the_same_spec(self):
        assert Mel(fmin=0) == Mel(fmin=0.0)
        assert Mel(fmin=0, fmax=8000).digest == Mel(fmin=0.0, fmax=8000.0).digest

    @pytest.mark.parametrize("spec", [kind() for kind in FEATURES.values()], ids=str)
    def test_each_parameter_counts(self, spec):
        changed = {
            "sr": 32000,
            "n_fft": 4096,
            "hop_length": 511,
            "dtype": next((dtype for dtype in spec.dtypes if dtype != spec.dtype), None),
            "n_mels": 127,
            "fmin": 1.0,
            "fmax": 11025.0,
            "n_mfcc": 19,
            "n_chroma": 24,
            "tuning": 0.1,
        }
        fields = [field.name for field in dataclasses.fields(spec) if changed[field.name] is not None]
        digests = {dataclasses.replace(spec, **{name: changed[name]}).digest for name in fields}
        assert len(digests | {spec.digest}) == len(fields) + 1


class TestFrames:
    @given(st.integers(0, 400_000), st.sampled_from([8000, 22050, 44100, 48000]), specs())
    def test_seconds_of_samples_have_the_frames_of_exact_arithmetic(self, samples, rate, spec):
        """Seconds are floating-point; a slice that ends on a frame must not lose it."""
        assume(spec.hop_length <= 4096 and spec.frame_rate)
        assert spec.frames(samples / rate) == 1 + samples * spec.sr // (rate * spec.hop_length)

    @pytest.mark.parametrize("spec", [Stft(), Mel(), Mel(hop_length=604), Stft(sr=16000, hop_length=160)], ids=str)
    def test_a_moment_on_a_frame_is_that_frame(self, spec):
        moments = np.arange(20_000) * spec.hop_length / spec.sr
        assert [spec.frame_at(moment) for moment in moments] == list(range(20_000))

    @pytest.mark.parametrize(
        ("spec", "seconds", "frames"),
        [(Stft(), 4.0, 345), (Mel(hop_length=604), 3.5, 128), (Mel(), 3.0, 130), (Mel(), 0.0, 1), (Stft(), 512e-5, 1)],
        ids=str,
    )
    def test_frames_of_the_studies(self, spec, seconds, frames):
        assert spec.frames(seconds) == frames

    @pytest.mark.parametrize(
        ("spec", "bins"),
        [
            (Stft(), 513),
            (Mel(n_mels=96), 96),
            (Mfcc(n_mfcc=13), 13),
            (PowerSpectrum(), 513),
            (Chroma(), 12),
            (Harmonic(), 1025),
            (Percussive(n_fft=512), 257),
            (Waveform(), 512),
            (Stats(), 518),
        ],
        ids=str,
    )
    def test_frames_have_the_bins_that_the_spec_says(self, spec, bins):
        assert spec.bins == bins
        assert extract_frames([tone(440, 1, spec.sr)], spec.sr, spec).shape[1] == bins

    @pytest.mark.parametrize("seconds", [0.0, 1.0, 30.0, 3600.0])
    def test_a_track_is_one_frame_of_statistics(self, seconds):
        assert Stats().frames(seconds) == 1

    @pytest.mark.parametrize(
        ("spec", "reach"),
        [(Stft(), 512), (Mel(), 1024), (Chroma(), 1024), (Harmonic(), 1024 + 15 * 512), (Waveform(), None)],
        ids=str,
    )
    def test_a_bad_sample_touches_the_frames_that_it_changes(self, spec, reach):
        """Compared with the frames that differ after the samples were changed."""
        signal = music(3, spec.sr)[:, 0]
        changed = signal.copy()
        changed[30_000:30_200] += 1
        different = np.flatnonzero(
            (extract_frames([signal], spec.sr, spec) != extract_frames([changed], spec.sr, spec)).any(axis=1)
        )
        first, stop = spec.affected_frames(30_000, 30_200)
        assert first <= different[0]
        assert different[-1] < stop
        slack = 2 if reach is None else 4 + (reach - spec.n_fft // 2) // spec.hop_length * 2
        assert stop - first <= len(different) + slack


class TestRange:
    def test_the_range_of_stft_1024(self):
        assert Stft().decode(np.array([0, 255], np.uint8)).tolist() == [-72.0, 55.5]

    @pytest.mark.parametrize("spec", QUANTISED, ids=str)
    def test_a_full_scale_sine_where_it_is_loudest_leaves_seven_db_of_room(self, spec):
        """By trying frequencies of the transform, not by the formula."""
        mid = slice(spec.n_fft // spec.hop_length + 1, -spec.n_fft // spec.hop_length - 1)
        if spec.name == "mel":  # only the bins with the largest weights can be the loudest
            candidates = np.argsort(spec.bank().max(axis=1))[-6:]
        else:
            candidates = [3, spec.n_fft // 8, spec.n_fft // 4 + 1]
        loudest = max(
            float(extract_frames([full_scale_tone(spec, k)], spec.sr, spec)[mid].max()) for k in candidates if k > 0
        )
        assert spec.full_scale_db() == pytest.approx(loudest, abs=0.01)
        top = float(spec.decode(np.array([255], np.uint8))[0])
        assert HEADROOM_DB == 7
        assert 0 <= top - (loudest + 7) < STEP_DB + 0.01
        assert top % STEP_DB == 0

    @pytest.mark.parametrize("spec", QUANTISED, ids=str)
    def test_no_full_scale_sine_between_the_bins_is_louder(self, spec):
        frequencies = np.random.default_rng(0).uniform(20, spec.sr / 2.1, 12)
        levels = [extract_frames([tone(f, 0.5, spec.sr, 1.0)], spec.sr, spec)[4:-4].max() for f in frequencies]
        assert max(levels) < spec.full_scale_db() + 0.05


class TestQuantisation:
    def encode(self, spec: FeatureSpec, rows: np.ndarray) -> tuple[np.ndarray, Clipped]:
        out = np.empty(rows.shape, spec.dtype)
        return out, Clipped.of(spec.encode(rows, out))

    @pytest.mark.parametrize("spec", QUANTISED, ids=str)
    def test_the_error_is_at_most_half_a_step_inside_the_range(self, spec):
        floor, top = spec.decode(np.array([0, 255], np.uint8))
        rows = np.linspace(floor, top, 100_003, dtype=np.float32).reshape(-1, 1)
        stored, saturated = self.encode(spec, rows)
        assert np.abs(spec.decode(stored) - rows).max() <= STEP_DB / 2 + 1e-5
        assert saturated == Clipped()
        assert len(np.unique(stored)) == 256

    @given(st.lists(st.floats(-400, 400, width=32), min_size=1, max_size=50))
    @example([55.4, 55.5, 55.6, 55.74])
    @example([55.76, 56, 400])
    @example([-72.24, -72.1, -72, -71.9])
    @example([-72.26, -73, -400])
    def test_values_off_by_more_than_half_a_step_count_as_saturated(self, values):
        spec, rows = Stft(), np.array([values], np.float32)
        stored, saturated = self.encode(spec, rows)
        error = np.abs(spec.decode(stored) - rows)
        assume((np.abs(error - STEP_DB / 2) > 1e-4).all())
        outside = error > STEP_DB / 2
        assert saturated == Clipped(np.count_nonzero(outside), np.count_nonzero(outside & (rows > 0)))
        np.testing.assert_array_equal(stored[rows < -72], 0)
        np.testing.assert_array_equal(stored[rows > 55.5], 255)

    def test_every_stored_value_is_encoded_as_itself(self):
        for spec in QUANTISED:
            steps = np.arange(256, dtype=np.uint8).reshape(1, -1)
            stored, saturated = self.encode(spec, spec.decode(steps))
            np.testing.assert_array_equal(stored, steps)
            assert saturated == Clipped()

    @pytest.mark.parametrize("spec", QUANTISED, ids=str)
    @pytest.mark.parametrize("gain", [1.0, 0.3])
    def test_slice_local_levels_are_reproduced_to_one_step(self, spec, gain):
        """Normalising by a slice's maximum (`ref=max, top_db=80`) adds two errors of half a step: of level and maximum.

        This holds if the slice's maximum and the 80 dB below it are in the range.
        """
        sound = gain * music(6, spec.sr)
        power = librosa_power(sound, spec.sr, spec)
        rows = extract_frames([sound[:, 0]], spec.sr, spec)
        stored, _ = self.encode(spec, rows)
        floor, top = spec.decode(np.array([0, 255], np.uint8))
        length, compared = spec.frames(1.5), 0
        for first in range(0, len(rows) - length, length // 2):
            window = slice(first, first + length)
            if floor + 80 <= rows[window].max() <= top:
                expected = librosa.power_to_db(power[window], ref=np.max, top_db=80)
                level = spec.decode(stored[window])
                relative = np.maximum(level - level.max(), -80)
                assert np.abs(relative - expected).max() <= STEP_DB + 2e-3
                compared += 1
        assert compared >= 6

    def test_samples_are_rounded_to_a_32768th_of_full_scale(self):
        rows = np.linspace(-1, 32767 / 32768, 131_071, dtype=np.float32).reshape(-1, 1)
        stored, saturated = self.encode(Waveform(), rows)
        assert np.abs(Waveform().decode(stored) - rows).max() <= 0.5 / 32768
        assert saturated == Clipped()
        assert len(np.unique(stored)) == 65536
        steps = np.arange(-32768, 32768, dtype=np.int16).reshape(-1, 1)
        np.testing.assert_array_equal(self.encode(Waveform(), Waveform().decode(steps))[0], steps)

    def test_samples_beyond_full_scale_saturate_and_are_counted(self):
        rows = np.array([[-3, -1.0001, -1, 0, 32767 / 32768, 1, 1e6]], np.float32)
        stored, saturated = self.encode(Waveform(), rows)
        assert stored.tolist() == [[-32768, -32768, -32768, 0, 32767, 32767, 32767]]
        assert saturated == Clipped(4, above=4)  # both ends are distortion

    def test_a_package_may_count_without_telling_the_ends_apart(self):
        """`encode` of a feature of another package returns one number."""
        assert Clipped.of(0) == Clipped(0, above=0)
        assert Clipped.of(3) == Clipped(3, above=None)
        assert Clipped(2, above=1) + Clipped(3, above=None) == Clipped(5, above=None)

    def test_harmonic_and_percussive_have_the_range_of_stft(self):
        for kind in (Harmonic, Percussive):
            assert kind(sr=44100, n_fft=1024).decode(np.array([0, 255], np.uint8)).tolist() == [-72.0, 55.5]

    @pytest.mark.parametrize(
        "spec", [Stft(dtype="float16"), Mel(dtype="float16"), Mfcc(dtype="float16"), Chroma(dtype="float16")], ids=str
    )
    def test_float16_rounds_to_its_eleven_bits(self, spec):
        rows = extract_frames([music(3, spec.sr)[:, 0]], spec.sr, spec)
        stored, saturated = self.encode(spec, rows)
        assert saturated == Clipped()
        assert np.isfinite(stored).all()
        np.testing.assert_allclose(spec.decode(stored), rows, rtol=2**-11, atol=2**-24)

    @pytest.mark.parametrize(
        "spec",
        [Stft(dtype="float32"), Mel(dtype="float32"), Mfcc(), PowerSpectrum(), Chroma(), Waveform(dtype="float32")],
        ids=str,
    )
    def test_float32_is_exact(self, spec):
        rows = extract_frames([music(3, spec.sr)[:, 0]], spec.sr, spec)
        stored, saturated = self.encode(spec, rows)
        assert saturated == Clipped()
        np.testing.assert_array_equal(spec.decode(stored), rows)
