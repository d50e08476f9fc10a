"""Variants of training tracks: their sound against librosa, and that they occur in the training split only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import soundfile
from commands import Outcome, mgc, tree
from hypothesis import given
from hypothesis import strategies as st
from music import RATE, write_list
from properties import examples
from sounds import tone

from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA, SPLITS
from mgc.pipeline.extraction import batches
from mgc.pipeline.features import Mel, Stft
from mgc.pipeline.features.variants import Noise, Pitch, Stretch, parse_variants, variants_digest
from mgc.pipeline.store.cutting import cut
from mgc.pipeline.store.slicing import Slicing
from mgc.pipeline.store.store import Store

STFT = "stft:n_fft=4096,dtype=float32"
SAMPLES = "waveform:sr=44100,dtype=float32"
VARIANTS = "pitch:+2,stretch:0.9,noise"
SECONDS = 1.5


class TestParsing:
    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("pitch:2", ["pitch:+2"]),
            ("pitch:-0.50", ["pitch:-0.5"]),
            ("stretch:1.10", ["stretch:1.1"]),
            ("noise", ["noise:20"]),
            ("noise:6", ["noise:6"]),
            (" stretch:0.9, pitch:+2,pitch:-2 , noise,noise:20", ["noise:20", "pitch:-2", "pitch:+2", "stretch:0.9"]),
        ],
    )
    def test_text_becomes_canonical(self, text, canonical):
        parsed = parse_variants(text)
        assert [str(variant) for variant in parsed] == canonical
        assert parse_variants(",".join(canonical)) == parsed

    @given(
        st.lists(
            st.builds(Pitch, st.floats(-12, 12).filter(lambda shift: abs(shift) > 1e-6))
            | st.builds(Stretch, st.floats(0.5, 2).filter(lambda speed: abs(speed - 1) > 1e-5))
            | st.builds(Noise, st.floats(0, 60)),
            min_size=1,
        )
    )
    def test_names_are_parsed_to_the_same_variants(self, variants):
        parsed = parse_variants(",".join(f"{variant.name}:{variant.amount!r}" for variant in variants))
        again = parse_variants(",".join(map(str, reversed(parsed))))
        assert again == parsed
        assert variants_digest(again) == variants_digest(parsed)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "unknown variant ''; choose from pitch, stretch, noise"),
            ("reverb:3", "unknown variant 'reverb:3'"),
            ("pitch:two", "'two' is not a number"),
            ("pitch", "'' is not a number"),
            ("pitch:nan", "it must be -12 to 12 semitones"),
            ("pitch:13", "it must be -12 to 12 semitones"),
            ("pitch:0", "changes nothing"),
            ("stretch:1", "changes nothing"),
            ("stretch:2.5", "it must be 0.5 to 2 times as fast"),
            ("noise:-1", "it must be 0 to 60 dB below the track"),
        ],
    )
    def test_errors_are_one_line_with_a_remedy(self, text, message, tmp_path):
        (tmp_path / "songs").mkdir()
        write_tracks(tmp_path / "songs", ["training"])
        dataset = ("--dataset", tmp_path / "songs" / "songs.csv", "--data-dir", tmp_path)
        outcome = mgc("extract", *dataset, "--feature", "mel", "--augment", text)
        assert outcome.code == 2
        assert message in outcome.error
        assert outcome.error.startswith("--augment")
        assert not (tmp_path / "features").exists()


def write_tracks(folder: Path, splits: list[str], rate: int = 44100) -> Path:
    """Write a list of tracks `t0`, `t1`, ... with the given splits: tones of 440, 460, ... Hz."""
    rows = []
    for number, split in enumerate(splits):
        path = folder / f"{number}.flac"
        if not path.exists():
            soundfile.write(path, tone(440 + 20 * number, SECONDS + 0.01 * number, rate), rate)
        genre = ("blues", "disco")[number % 2]
        rows.append({"path": path.name, "track_id": f"t{number}", "genre": genre, "split": split})
    return write_list(folder / "songs.csv", rows)


class Library:
    """A dataset of tones in all splits, with a workspace."""

    def __init__(self, folder: Path, scheduler: str) -> None:
        self.folder, self.data, self._scheduler = folder / "songs", folder / "data", scheduler
        self.folder.mkdir()
        self.splits = ["training", "training", "validation", "test", "training"]

    def try_extract(self, *options: object, features: tuple[str, ...] = (STFT,), slicing: object = 0.4) -> Outcome:
        source = write_tracks(self.folder, self.splits)
        feature_options = [part for feature in features for part in ("--feature", feature)]
        cluster = () if "--workers" in options else ("--scheduler", self._scheduler)
        dataset = ("--dataset", source, "--data-dir", self.data, "--slice", slicing)
        return mgc("extract", *dataset, *feature_options, *cluster, *options)

    def extract(self, *options: object, **named: Any) -> list[dict[str, Any]]:
        outcome = self.try_extract("--json", *options, **named)
        assert outcome.code == 0, outcome.err
        return outcome.json["stores"]

    def store(self, feature: str = "stft", *, variants: bool = True) -> Store:
        paths = self.data.glob(f"features/songs/{feature}-*")
        (path,) = (path for path in paths if (path.name.count("-") == 2) == variants)
        return Store.open(path)


@pytest.fixture
def library(tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Tracks t0, t1 and t4 are for training; batches of tracks are small, so that there are several shards."""
    monkeypatch.setattr(batches, "BATCH_TRACKS", 2)
    return Library(tmp_path, scheduler)


def frames_of(store: Store, track_id: str) -> dict[str | None, np.ndarray]:
    """Return the values of a track (key None) and of its variants, `(n, bins)` each."""
    (row,) = (row for row in store.tracks.to_pylist() if row["track_id"] == track_id)
    stored = store.spec.decode(store.read(row["shard"]))
    rows = {None: row} | {variant["variant"]: variant for variant in row["variants"] or ()}
    return {name: stored[one["first_frame"] : one["first_frame"] + one["n_frames"]] for name, one in rows.items()}


def variant_rows(store: Store, track_id: str) -> dict[str, dict[str, Any]]:
    rows = {row["track_id"]: row["variants"] for row in store.tracks.to_pylist()}
    return {variant["variant"]: variant for variant in rows[track_id] or ()}


def variant_slices(store: Store) -> set[tuple[str, str, str]]:
    """Return (track, split, variant) of all slices of variants."""
    rows = store.slices.filter(pc.is_valid(store.slices["variant"])).to_pylist()
    return {(row["track_id"], row["split"], row["variant"]) for row in rows}


def frequency(levels: np.ndarray, spec: Stft) -> tuple[float, float]:
    """Return frequency in Hz and level in dB of the middle frame's strongest partial, by parabolic interpolation."""
    frame = levels[len(levels) // 2]
    peak = int(frame.argmax())
    left, top, right = frame[peak - 1 : peak + 2]
    offset = (left - right) / (2 * (left - 2 * top + right))
    return (peak + offset) * spec.sr / spec.n_fft, float(top - (left - right) * offset / 4)


@pytest.fixture
def extracted(library: Library) -> Library:
    library.extract("--augment", VARIANTS)
    return library


@pytest.fixture(scope="module")
def sound_library(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Library:
    """A library with spectra and samples from one call, for tests that only read."""
    library = Library(tmp_path_factory.mktemp("sound"), scheduler)
    library.extract("--augment", VARIANTS, features=(STFT, SAMPLES))
    return library


class TestSound:
    def test_pitch_and_level_of_a_sine(self, sound_library):
        store = sound_library.store()
        frames = frames_of(store, "t0")
        assert list(frames) == [None, "noise:20", "pitch:+2", "stretch:0.9"]
        expected = {None: 440.0, "noise:20": 440.0, "pitch:+2": 440 * 2 ** (2 / 12), "stretch:0.9": 440.0}
        partials = {name: frequency(levels, store.spec) for name, levels in frames.items()}
        for name, (hertz, level) in partials.items():
            assert abs(1200 * np.log2(hertz / expected[name])) < 5, name  # cents
            assert abs(level - partials[None][1]) < 1.5, name

    def test_length_of_a_stretched_track(self, sound_library):
        rows = variant_rows(sound_library.store(), "t4")
        seconds = SECONDS + 0.04
        assert rows["stretch:0.9"]["duration_s"] == round(seconds * 44100 / 0.9) / 44100
        assert rows["stretch:0.9"]["n_frames"] == 1 + int(seconds / 0.9 * 44100 / 512)
        assert rows["pitch:+2"]["duration_s"] == rows["noise:20"]["duration_s"] == seconds
        assert rows["pitch:+2"]["n_frames"] == rows["noise:20"]["n_frames"] == 1 + int(seconds * 44100 / 512)

    def test_samples_are_those_of_librosa(self, sound_library):
        samples = {name: rows.ravel() for name, rows in frames_of(sound_library.store("waveform"), "t1").items()}
        sound, _ = soundfile.read(sound_library.folder / "1.flac", dtype="float32")
        references = {
            "pitch:+2": librosa.effects.pitch_shift(sound, sr=44100, n_steps=2, res_type="soxr_hq"),
            "stretch:0.9": librosa.effects.time_stretch(sound, rate=0.9),
        }
        for name, expected in references.items():
            np.testing.assert_array_equal(samples[name][: len(expected)], expected)
            assert not samples[name][len(expected) :].any()

    def test_noise_is_20_db_below_the_track_and_white(self, sound_library):
        store = sound_library.store("waveform")
        noises = []
        for track in ("t0", "t1"):
            frames = frames_of(store, track)
            n = round(SECONDS * 44100)
            sound = frames[None].ravel()[:n]
            noises.append(frames["noise:20"].ravel()[:n] - sound)
            ratio = np.mean(np.square(sound, dtype=float)) / np.mean(np.square(noises[-1], dtype=float))
            assert abs(10 * np.log10(ratio) - 20) < 0.1
            power = np.square(np.abs(np.fft.rfft(noises[-1])))
            low, high = power[: n // 4], power[n // 4 :]
            assert abs(10 * np.log10(low.mean() / high.mean())) < 0.3
        assert abs(np.corrcoef(noises)[0, 1]) < 0.02  # each track has its own noise

    def test_sound_at_another_rate(self, library):
        library.folder.joinpath("0.flac").unlink(missing_ok=True)
        soundfile.write(library.folder / "0.flac", tone(440, 2.0, RATE), RATE)
        library.extract("--augment", VARIANTS)
        store = library.store()
        assert variant_rows(store, "t0")["pitch:+2"]["duration_s"] == pytest.approx(2.0, abs=1e-4)
        hertz, _ = frequency(frames_of(store, "t0")["pitch:+2"], store.spec)
        assert abs(1200 * np.log2(hertz / 440) - 200) < 5

    def test_no_slice_of_a_variant_touches_a_gap(self, library):
        sound = np.tile(tone(440, 1.0, 44100), 4)
        sound[2 * 44100 : 2 * 44100 + 10] = np.nan
        soundfile.write(library.folder / "0.wav", sound, 44100, subtype="FLOAT")
        (library.folder / "0.wav").rename(library.folder / "0.flac")  # the content decides, not the name
        library.extract("--augment", VARIANTS, slicing=0.2)
        store = library.store()
        frames = frames_of(store, "t0")
        for name, variant in variant_rows(store, "t0").items():
            ((first, stop),) = variant["gaps"]
            middle = 2.0 / (0.9 if name == "stretch:0.9" else 1.0) * 44100 / 512
            assert first < middle < stop
            assert stop - first < 40
            slices = store.slices.filter(
                pc.and_(pc.equal(store.slices["track_id"], "t0"), pc.equal(store.slices["variant"], name))
            )
            starts = slices["first_frame"].to_numpy() - variant["first_frame"]
            lengths = slices["n_frames"].to_numpy()
            assert len(slices) > 10
            assert all(start + n <= first or start >= stop for start, n in zip(starts, lengths, strict=True))
            assert np.isfinite(frames[name]).all()


class TestCounting:
    def test_variants_are_no_tracks(self, library):
        plain = library.extract()[0]
        augmented = library.extract("--augment", VARIANTS)[0]
        assert library.store().path != library.store(variants=False).path
        for key in ("tracks", "ok", "splits", "slices", "genres", "seconds", "dropped"):
            assert augmented[key] == plain[key], key
        assert plain["variants"] == {}
        slices = plain["splits"]["training"]["slices"]
        expected = {"tracks": 3, "slices": slices, "dropped": {}, "absent": 0}
        assert augmented["variants"]["pitch:+2"] == augmented["variants"]["noise:20"] == expected
        assert augmented["variants"]["stretch:0.9"]["slices"] >= slices
        assert (
            library.store()
            .tracks.drop(["variants", "shard", "first_frame"])
            .equals(library.store(variants=False).tracks.drop(["variants", "shard", "first_frame"]))
        )
        info = mgc("info", library.store().path, "--json")
        assert info.json["variants"] == augmented["variants"]
        assert "variants  of training tracks: noise:20 3" in mgc("info", library.store().path).out

    def test_only_training_tracks_have_variants(self, extracted):
        store = extracted.store()
        assert {row["track_id"] for row in store.tracks.to_pylist() if row["variants"]} == {"t0", "t1", "t4"}
        names = ("noise:20", "pitch:+2", "stretch:0.9")
        assert variant_slices(store) == {(track, "training", name) for track in ("t0", "t1", "t4") for name in names}
        for shard in set(store.tracks["shard"].to_pylist()):
            tracks = store.tracks.filter(pc.equal(store.tracks["shard"], shard))
            assert len(set(tracks["split"].to_pylist())) == 1

    def test_the_same_variants_are_the_same_store_in_whatever_order(self, extracted):
        report = extracted.extract("--augment", "noise:20,stretch:.90,pitch:2,pitch:+2")[0]
        assert report["decoded"] == 0
        assert Path(report["store"]) == extracted.store().path

    def test_a_track_without_a_slice_of_its_own_has_none_of_its_variants(self, library):
        # Only t4 lasts 1.53 s; stretched, all training tracks do.
        report = library.extract("--augment", VARIANTS, slicing=1.53)[0]
        assert report["dropped"] == {"too-short": 3}
        assert {track for track, _, _ in variant_slices(library.store())} == {"t4"}

    def test_a_track_that_is_too_long_is_kept_without_variants(self, library):
        minutes = np.tile(tone(440, 1.0, 8000), 301)
        soundfile.write(library.folder / "0.flac", minutes, 8000)
        outcome = library.try_extract("--augment", VARIANTS, features=("mel:n_mels=8,sr=8000",))
        assert outcome.code == 0, outcome.err
        assert "noise:20 dropped, its track kept: too-long 1" in outcome.out
        store = library.store("mel")
        row = store.tracks.to_pylist()[[*store.tracks["track_id"].to_pylist()].index("t0")]
        assert row["status"] == "ok"
        assert [variant["reason"] for variant in row["variants"]] == ["too-long"] * 3
        assert row["variants"][0]["detail"].startswith(
            "longer than 300 s: variants hold the whole track in memory, 210 MB"
        )
        assert [variant["n_frames"] for variant in row["variants"]] == [0] * 3
        assert {track for track, _, _ in variant_slices(store)} == {"t1", "t4"}
        assert library.extract("--augment", VARIANTS, features=("mel:n_mels=8,sr=8000",))[0]["decoded"] == 0


class TestSameBytes:
    @pytest.mark.slow
    def test_whatever_the_workers_and_however_often_interrupted(self, library, tmp_path):
        feature = ("mel:n_mels=16",)
        library.extract("--augment", VARIANTS, features=feature)
        expected = tree(library.store("mel").path)
        library.data = tmp_path / "own"
        library.extract("--augment", VARIANTS, "--workers", 1, features=feature)
        path = library.store("mel").path
        assert tree(path) == expected
        # The state that a kill leaves: no manifest, and a shard without its fragment.
        (path / "published.json").unlink()
        (path / "shards" / "00000.parquet").unlink()
        assert library.extract("--augment", VARIANTS, features=feature)[0]["decoded"] == 2
        assert tree(path) == expected

    def test_every_byte_is_verified(self, extracted):
        path = extracted.store().path
        assert mgc("verify", path).code == 0
        variant = variant_rows(extracted.store(), "t0")["noise:20"]
        assert variant["first_frame"] > 0
        data = max((path / "shards" / "00000.zarr").rglob("0"), key=lambda file: file.stat().st_size)
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
        assert mgc("verify", path).code == 1
        assert extracted.extract("--augment", VARIANTS, "--verify")[0]["decoded"] == 1
        assert mgc("verify", path).code == 0


class TestSplitsThatMove:
    def test_a_new_training_track_gets_its_variants(self, extracted):
        extracted.splits = [*extracted.splits, "training", "test"]
        assert extracted.extract("--augment", VARIANTS)[0]["decoded"] == 2
        assert {track for track, _, _ in variant_slices(extracted.store())} == {"t0", "t1", "t4", "t5"}

    def test_moved_by_mgc_split_and_back(self, extracted, tmp_path):
        path = extracted.store().path
        moved = write_list(
            tmp_path / "moved.csv", [{"track_id": "t0", "split": "test"}, {"track_id": "t2", "split": "training"}]
        )
        outcome = mgc("split", path, "--splits", moved)
        assert outcome.code == 0, outcome.err
        store = Store.open(path)
        assert {track for track, _, _ in variant_slices(store)} == {"t1", "t4"}
        assert mgc("info", path, "--json").json["variants"]["pitch:+2"]["absent"] == 1
        assert "1 training tracks have no variants yet" in mgc("info", path).out

        assert extracted.extract("--augment", VARIANTS)[0]["decoded"] > 0
        store = Store.open(path)
        assert {track for track, _, _ in variant_slices(store)} == {"t1", "t2", "t4"}
        assert mgc("info", path, "--json").json["variants"]["pitch:+2"]["absent"] == 0
        assert extracted.extract("--augment", VARIANTS)[0]["decoded"] == 0

        back = write_list(tmp_path / "back.csv", [{"track_id": "t0", "split": "training"}])
        assert mgc("split", path, "--splits", back).code == 0
        extracted.extract("--augment", VARIANTS)
        assert {track for track, _, _ in variant_slices(Store.open(path))} == {"t0", "t1", "t2", "t4"}

    def test_drawn_anew(self, extracted):
        path = extracted.store().path
        for seed in range(4):
            assert mgc("split", path, "--redo", "--seed", seed).code == 0
            store = Store.open(path)
            splits = dict(zip(*store.tracks.select(["track_id", "split"]).to_pydict().values(), strict=True))
            slices = variant_slices(store)
            assert {split for _, split, _ in slices} <= {"training"}
            assert {track for track, _, _ in slices} == {t for t in ("t0", "t1", "t4") if splits[t] == "training"}

    def test_a_store_without_variants_is_as_it_was_before_there_were_any(self, library):
        library.extract()
        store = library.store(variants=False)
        for file in [*store.path.glob("*.parquet"), *(store.path / "shards").glob("*.parquet")]:
            assert not {"variant", "variants"} & set(pq.read_schema(file).names)
        head = json.loads((store.path / "store.json").read_text())
        assert head["format"] == 3
        assert "variants" not in head
        assert store.tracks.schema.names == MANIFEST_SCHEMA.names
        assert mgc("verify", store.path).code == 0

    def test_an_mgc_that_does_not_know_variants_refuses_a_store_with_some(self, extracted):
        head = json.loads((extracted.store().path / "store.json").read_text())
        assert head["format"] == 4
        assert head["variants"] == ["noise:20", "pitch:+2", "stretch:0.9"]


class TestNeverOutsideTraining:
    @given(
        st.lists(
            st.tuples(st.sampled_from([*SPLITS, None]), st.booleans(), st.sampled_from([0.3, 1.0, 4.0])), min_size=1
        ),
        st.sampled_from([Slicing(seconds=1.0), Slicing(seconds=None, frames=20), Slicing(seconds=None, whole=True)]),
    )
    @examples(60)
    def test_for_any_splits(self, tracks, slicing):
        rows = []
        for number, (split, has_variants, seconds) in enumerate(tracks):
            n = Mel().frames(seconds)
            variants = [
                {"variant": "pitch:+2", "duration_s": seconds, "first_frame": n, "n_frames": n},
                {"variant": "stretch:0.9", "reason": "too-long", "first_frame": 2 * n, "n_frames": 0},
            ]
            row = {"track_id": f"t{number}", "path": "x", "split": split, "duration_s": seconds, "status": "ok"}
            row |= {"shard": number, "first_frame": 0, "n_frames": n, "variants": variants if has_variants else None}
            rows.append(row)
        slices = cut(slicing, Mel(), pa.Table.from_pylist(rows, MANIFEST_SCHEMA)).to_pylist()
        of_tracks, of_variants = ([row for row in slices if (row["variant"] is None) == own] for own in (True, False))
        assert {row["split"] for row in of_variants} <= {"training"}
        expected = {
            row["track_id"]: row["shard"]
            for row, (split, has_variants, _) in zip(rows, tracks, strict=True)
            if split == "training" and has_variants and any(s["track_id"] == row["track_id"] for s in of_tracks)
        }
        assert {row["track_id"]: row["shard"] for row in of_variants} == expected
        assert {row["variant"] for row in of_variants} <= {"pitch:+2"}
        for row in of_variants:  # within the variant's frames, not the track's
            n = rows[row["shard"]]["n_frames"]
            assert n <= row["first_frame"] <= row["first_frame"] + row["n_frames"] <= 2 * n
