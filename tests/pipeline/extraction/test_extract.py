"""Extraction into a store that is new, or whose dataset, splits or slicing have changed: the least work is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from commands import Outcome, mgc, stamps, tree
from music import write_clip, write_genres, write_list, write_silence

from mgc.pipeline.audio import inspection
from mgc.pipeline.extraction import batches, extract, probe, reading, sharing, worker
from mgc.pipeline.store.store import Store

FEATURE = "stft:n_fft=512"
NO_SCHEDULER = "tcp://127.0.0.1:1"  # no scheduler listens there: an extraction that has to decode fails


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a few clips fill several shards."""
    monkeypatch.setattr(batches, "BATCH_TRACKS", 2)


class Library:
    """A dataset of audio files and the workspace it is extracted into.

    Args:
        folder: parent folder of both.
        scheduler: address of the Dask scheduler whose workers extract.
    """

    def __init__(self, folder: Path, scheduler: str) -> None:
        self.audio = folder / "songs"
        self.source = self.audio
        self.data = folder / "data"
        self._scheduler = scheduler

    def use_list(self, rows: list[dict[str, Any]]) -> None:
        """Make the dataset a CSV list of these tracks from now on."""
        self.source = write_list(self.audio / "songs.csv", rows)

    def try_extract(self, *options: object, feature: str = FEATURE, scheduler: str | None = None) -> Outcome:
        """Run `mgc extract --json`, which may fail."""
        where = ("--dataset", self.source, "--data-dir", self.data, "--scheduler", scheduler or self._scheduler)
        slicing = () if {"--slice", "--frames", "--whole"} & set(options) else ("--slice", "0.4")
        return mgc("extract", *where, "--json", "--feature", feature, *slicing, *options)

    def extract(self, *options: object, **named: str) -> dict[str, Any]:
        """Run `mgc extract --json`, which must succeed, and return its report on the first store."""
        outcome = self.try_extract(*options, **named)
        assert outcome.code == 0, outcome.err
        return outcome.json["stores"][0]

    def extract_without_decoding(self, *options: object, **named: str) -> dict[str, Any]:
        """Run `extract` without a scheduler: it fails if anything has to be decoded."""
        return self.extract(*options, **named, scheduler=NO_SCHEDULER)

    @property
    def path(self) -> Path:
        (path,) = self.data.glob("features/songs/stft-*")
        return path

    @property
    def tracks(self) -> dict[str, dict[str, Any]]:
        """Manifest rows by track id."""
        return {row["track_id"]: row for row in Store.open(self.path).tracks.to_pylist()}

    @property
    def splits(self) -> dict[str, str]:
        return {track_id: row["split"] for track_id, row in self.tracks.items()}

    def shard_stamps(self) -> dict[int, dict[str, tuple[int, int]]]:
        """Inode and time of each file of each shard's Zarr group, by shard."""
        shards = sorted((self.path / "shards").glob("*.zarr"))
        return {int(shard.stem): stamps(shard) for shard in shards}


def splits_in(path: Path) -> dict[str, str]:
    return {row["track_id"]: row["split"] for row in Store.open(path).tracks.to_pylist()}


@pytest.fixture
def library(tmp_path: Path, scheduler: str) -> Library:
    """Two genre folders of six clips, each by an unknown artist."""
    library = Library(tmp_path, scheduler)
    write_genres(library.audio, tracks=6, seconds=0.6)
    return library


@pytest.fixture
def listed(library: Library) -> list[dict[str, Any]]:
    """The library as a list that names artists, of two clips each; the rows of the list."""
    paths = sorted(path.relative_to(library.audio) for path in library.audio.glob("*/*.wav"))
    rows = [{"path": path, "genre": path.parent, "artist": f"{path.parent}{i // 2}"} for i, path in enumerate(paths)]
    library.use_list(rows)
    return rows


class TestSameBytes:
    @pytest.fixture
    def expected(self, library: Library) -> dict[str, bytes]:
        """The files that two workers of a running cluster write."""
        assert library.extract()["ok"] == 12
        return tree(library.path)

    @pytest.mark.slow
    def test_whatever_the_number_of_workers(self, library, expected, tmp_path):
        """Three workers here; the tests of kills compare one and two."""
        options = ("--dataset", library.source, "--data-dir", tmp_path / "own", "--workers", 3)
        assert mgc("extract", *options, "--feature", FEATURE, "--slice", "0.4").code == 0
        assert tree(next(tmp_path.glob("own/features/songs/stft-*"))) == expected

    def test_features_extracted_together_or_one_by_one(self, library, expected):
        other = "mel:n_mels=16,n_fft=512"
        library.extract(feature=other)
        one_by_one = tree(library.data / "features")
        shutil.rmtree(library.data / "features")
        library.extract("--feature", other)
        assert tree(library.data / "features") == one_by_one
        assert tree(library.path) == expected

    def test_a_second_call_does_nothing(self, library, expected):
        before = stamps(library.path)
        report = library.extract_without_decoding()
        assert report["decoded"] == 0
        assert stamps(library.path) == before
        assert tree(library.path) == expected

    def test_another_seed_does_not_move_what_is_there(self, library, expected):
        library.extract_without_decoding("--seed", 7)
        assert tree(library.path) == expected


class TestGrowth:
    def test_new_files_make_new_shards_and_leave_the_old_ones_alone(self, library):
        library.extract()
        shards, splits = library.shard_stamps(), library.splits
        for i in range(5):
            write_clip(library.audio / "funk" / f"new{i}.flac", 0.7, seed=60 + i)
        report = library.extract()
        assert report["decoded"] == 5
        assert report["genres"] == {"blues": 6, "disco": 6, "funk": 5}
        now = library.shard_stamps()
        assert {shard: now[shard] for shard in shards} == shards
        assert len(now) > len(shards)
        assert splits.items() <= library.splits.items()

    def test_new_tracks_of_a_known_artist_go_where_the_artist_is(self, library, listed):
        library.extract()
        homes = {row["artist_id"]: row["split"] for row in library.tracks.values()}
        assert len(set(homes.values())) == 3
        for i, artist in enumerate(homes):
            path = write_clip(library.audio / "blues" / f"new{i}.wav", 0.7, seed=60 + i)
            listed.append({"path": path.relative_to(library.audio), "genre": "blues", "artist": artist})
        library.use_list(listed)
        library.extract()
        assert all(row["split"] == homes[row["artist_id"]] for row in library.tracks.values())

    @pytest.mark.slow
    def test_a_store_of_another_feature_has_the_same_splits_however_late_it_is_made(self, library):
        library.extract()
        for i in range(6):
            write_clip(library.audio / "disco" / f"new{i}.wav", 0.7, seed=60 + i)
        library.extract()
        late = library.extract("--seed", 5, feature="mel:n_mels=16,n_fft=512")
        tracks = Store.open(Path(late["store"])).tracks
        assert dict(zip(*tracks.select(["track_id", "split"]).to_pydict().values(), strict=True)) == library.splits

    @pytest.mark.slow
    def test_rebuilding_gives_the_layout_of_one_pass_and_keeps_the_splits(self, library, tmp_path):
        library.extract()
        for i in range(5):
            write_clip(library.audio / "blues" / f"new{i}.wav", 0.7, seed=60 + i)
        library.extract()
        grown, splits = tree(library.path), library.splits
        assert library.extract("--rebuild")["decoded"] == 17
        assert library.splits == splits
        assert [path.name for path in library.path.parent.iterdir()] == [library.path.name]

        rows = [{"track_id": track_id, "split": split} for track_id, split in splits.items()]
        fresh = ("--data-dir", tmp_path / "fresh", "--splits", write_list(tmp_path / "splits.csv", rows))
        library.extract(*fresh)
        assert tree(library.path) == tree(next(tmp_path.glob("fresh/features/songs/stft-*"))) != grown


class TestChange:
    def test_a_changed_file_rewrites_its_shard_alone(self, library):
        library.extract()
        shards, shard = library.shard_stamps(), library.tracks["blues/blues03"]["shard"]
        write_clip(library.audio / "blues" / "blues03.wav", 1.5, seed=99)
        assert 1 <= library.extract()["decoded"] <= 2
        changed = {number for number, files in library.shard_stamps().items() if files != shards[number]}
        assert changed == {shard}
        assert library.tracks["blues/blues03"]["duration_s"] == 1.5

    def test_a_file_replaced_by_one_of_the_same_size_is_noticed(self, library):
        library.extract()
        before = library.tracks["blues/blues03"]
        write_clip(library.audio / "blues" / "blues03.wav", before["duration_s"], seed=99)
        library.extract()
        assert library.tracks["blues/blues03"]["content_hash"] != before["content_hash"]

    def test_a_touched_file_is_not_decoded_again(self, library):
        library.extract()
        shards = library.shard_stamps()
        os.utime(library.audio / "blues" / "blues03.wav", ns=(1, 1))
        library.extract_without_decoding()
        assert library.shard_stamps() == shards
        assert library.tracks["blues/blues03"]["mtime_ns"] == 1
        before = stamps(library.path)
        library.extract_without_decoding()
        assert stamps(library.path) == before

    @pytest.mark.parametrize("as_list", [False, True])
    def test_a_removed_file_leaves_the_index_and_comes_back_without_decoding(self, as_list, library, request):
        if as_list:  # its row stays
            request.getfixturevalue("listed")
        library.extract()
        whole, shards = tree(library.path), library.shard_stamps()
        file = library.audio / "disco" / "disco02.wav"
        track_id = next(track_id for track_id, row in library.tracks.items() if row["path"] == "disco/disco02.wav")
        file.rename(library.data / "elsewhere")
        report = library.extract_without_decoding()
        assert report["dropped"] == {"missing": 1}
        assert track_id not in Store.open(library.path).slices["track_id"].to_pylist()
        assert library.shard_stamps() == shards

        before = stamps(library.path)
        assert library.extract_without_decoding()["dropped"] == {"missing": 1}
        assert stamps(library.path) == before

        (library.data / "elsewhere").rename(file)
        assert library.extract_without_decoding()["ok"] == 12
        assert tree(library.path) == whole

    def test_a_file_that_comes_back_changed_is_decoded(self, library):
        library.extract()
        file = library.audio / "disco" / "disco02.wav"
        file.unlink()
        library.extract_without_decoding()
        write_clip(file, 1.5, seed=99)
        assert library.extract()["ok"] == 12
        assert library.tracks["disco/disco02"]["duration_s"] == 1.5

    def test_labels_change_without_decoding(self, library, listed):
        library.extract()
        shards, splits = library.shard_stamps(), library.splits
        listed[0] |= {"genre": "funk", "artist": "somebody", "title": "a title"}
        library.use_list(listed)
        assert library.extract_without_decoding()["genres"] == {"blues": 5, "disco": 6, "funk": 1}
        row = library.tracks["blues/blues00"]
        assert (row["genre"], row["artist_id"], row["title"]) == ("funk", "somebody", "a title")
        assert library.shard_stamps() == shards
        assert library.splits == splits

    def test_a_track_whose_path_now_names_another_file_is_decoded(self, library, listed):
        for number, row in enumerate(listed):
            row["track_id"] = number
        library.use_list(listed)
        library.extract()
        now = library.audio / "blues" / "other.wav"
        first = library.audio / listed[0]["path"]
        write_clip(now, library.tracks["0"]["duration_s"], seed=99)
        os.utime(now, ns=(first.stat().st_atime_ns, first.stat().st_mtime_ns))
        assert now.stat().st_size == first.stat().st_size
        listed[0]["path"] = "blues/other.wav"
        library.use_list(listed)
        library.extract()
        assert library.tracks["0"]["content_hash"] == inspection.inspect(os.fsencode(now)).content_hash

    def test_a_listed_file_that_appears_later_is_extracted(self, library, listed):
        listed.append({"path": "blues/late.wav", "genre": "blues", "artist": "late"})
        library.use_list(listed)
        report = library.extract()
        assert (report["ok"], report["dropped"]) == (12, {"missing": 1})
        before = stamps(library.path)
        library.extract_without_decoding()
        assert stamps(library.path) == before
        splits = library.splits
        write_clip(library.audio / "blues" / "late.wav", 0.7, seed=61)
        assert library.extract()["ok"] == 13
        assert library.splits == splits


class TestMeanwhile:
    """Files that change after planning, and before or while they are decoded."""

    @pytest.fixture
    def after_planning(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
        """Function that arranges for an action to be done once, after planning and before decoding."""

        def arrange(action: Callable[[], Any]) -> None:
            dispatch = extract._dispatch

            def act_and_dispatch(*arguments: Any) -> None:
                action()
                monkeypatch.setattr(extract, "_dispatch", dispatch)
                dispatch(*arguments)

            monkeypatch.setattr(extract, "_dispatch", act_and_dispatch)

        return arrange

    def test_deleted(self, library, after_planning):
        file = library.audio / "blues" / "blues03.wav"
        content = file.read_bytes()
        after_planning(file.unlink)
        report = library.extract()
        assert (report["ok"], report["dropped"]) == (11, {"missing": 1})
        assert [row["track_id"] for row in report["dropped_tracks"]] == ["blues/blues03"]
        assert library.extract_without_decoding()["dropped"] == {"missing": 1}
        file.write_bytes(content)
        assert library.extract()["ok"] == 12
        assert mgc("verify", library.path).code == 0

    def test_replaced(self, library, after_planning):
        file = library.audio / "blues" / "blues03.wav"
        after_planning(lambda: write_clip(file, 1.5, seed=99))
        assert library.extract()["ok"] == 12
        row = library.tracks["blues/blues03"]
        assert row["duration_s"] == 1.5
        assert row["content_hash"] == inspection.inspect(os.fsencode(file)).content_hash
        before = stamps(library.path)
        library.extract_without_decoding()
        assert stamps(library.path) == before

    def test_replaced_by_a_folder_or_a_pipe(self, library, after_planning):
        def replace() -> None:
            for name in ("blues03", "blues04"):
                (library.audio / "blues" / f"{name}.wav").unlink()
            (library.audio / "blues" / "blues03.wav").mkdir()
            os.mkfifo(library.audio / "blues" / "blues04.wav")

        after_planning(replace)
        report = library.extract()
        assert (report["ok"], report["dropped"]) == (10, {"not-a-file": 2})

    def test_appeared(self, library, after_planning):
        after_planning(lambda: write_clip(library.audio / "blues" / "late.wav", 0.7, seed=61))
        assert library.extract()["tracks"] == 12
        report = library.extract()
        assert (report["ok"], report["decoded"]) == (13, 1)

    def test_growing_while_it_is_read_and_complete_at_the_next_run(self, library, monkeypatch):
        """Its shard is extracted again, with the same result as if the file had been complete from the start."""
        library.extract()
        complete = tree(library.path)
        shutil.rmtree(library.path)
        file = library.audio / "blues" / "blues03.wav"
        whole = file.read_bytes()
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns
        file.write_bytes(whole[:9000])
        inspect = inspection.inspect

        def grow(path: bytes) -> inspection.AudioFile:
            audio_file = inspect(path)
            if path == os.fsencode(file):
                with file.open("ab") as growing:
                    growing.write(whole[len(file.read_bytes()) :][:1000])
            return audio_file

        def run_here(shared_batches: list, dataset: Any, options: Any, advance: Callable, *_: object) -> None:
            for task in sharing.make_tasks(shared_batches, dataset, options):
                worker.run_task(task)
                advance(len(task.tracks))

        with monkeypatch.context() as patch:
            patch.setattr(reading, "inspect", grow)
            patch.setattr(extract, "_dispatch", run_here)
            report = library.extract()
        assert (report["ok"], report["dropped"]) == (11, {"unreadable": 1})
        assert report["dropped_tracks"][0]["detail"] == "it changed while it was read"
        file.write_bytes(whole)
        os.utime(file, ns=times)
        assert library.extract()["ok"] == 12
        assert tree(library.path) == complete


class TestRoot:
    def test_another_dataset_of_the_same_name_is_refused_with_a_hint_at_name(self, library, tmp_path):
        library.extract()
        before = stamps(library.path)
        other = write_genres(tmp_path / "other" / "songs", tracks=3)
        outcome = library.try_extract("--dataset", other)
        assert outcome.code == 1
        assert f"was made from {library.audio}, not from {other}; if its files have moved, add --moved" in outcome.error
        assert "--name" in outcome.error
        assert stamps(library.path) == before
        assert library.extract("--dataset", other, "--name", "others")["ok"] == 6
        assert stamps(library.path) == before


class TestSplits:
    @pytest.fixture
    def moved(self, library: Library, tmp_path: Path) -> tuple[str, Path]:
        """A training track, and a CSV file that moves it to the test split."""
        library.extract()
        track_id = next(track_id for track_id, split in library.splits.items() if split == "training")
        return track_id, write_list(tmp_path / "splits.csv", [{"track_id": track_id, "split": "test"}])

    @pytest.mark.parametrize("command", ["extract", "split"])
    def test_a_file_of_splits_moves_what_it_names_and_nothing_else(self, command, library, moved):
        track_id, file = moved
        shards, splits = library.shard_stamps(), library.splits
        if command == "extract":
            outcome = library.try_extract("--splits", file, scheduler=NO_SCHEDULER)
        else:
            outcome = mgc("split", library.path, "--splits", file, "--json")
        assert outcome.code == 0
        assert "1 tracks changed their split" in outcome.err
        assert library.splits == splits | {track_id: "test"}
        assert library.shard_stamps() == shards
        in_index = {row["track_id"]: row["split"] for row in Store.open(library.path).slices.to_pylist()}
        assert in_index == library.splits
        assert mgc("verify", library.path).code == 0

    def test_they_stay_where_they_were_moved_to(self, library, moved):
        track_id, file = moved
        library.extract_without_decoding("--splits", file)
        before = stamps(library.path)
        library.extract_without_decoding()
        assert stamps(library.path) == before
        assert library.splits[track_id] == "test"

    def test_redo_draws_them_anew_without_decoding(self, library):
        library.extract()
        shards, splits = library.shard_stamps(), library.splits
        outcome = mgc("split", library.path, "--redo", "--seed", 1)
        assert outcome.code == 0
        moved = sum(library.splits[track_id] != split for track_id, split in splits.items())
        assert moved > 0
        assert f"{moved} tracks changed their split" in outcome.out
        assert library.shard_stamps() == shards
        assert sorted(library.splits.values()) == sorted(splits.values())
        assert mgc("verify", library.path).code == 0

    def test_stores_of_one_dataset_keep_the_same_ones(self, library, tmp_path):
        library.extract()
        other = "mel:n_mels=16,n_fft=512"
        library.extract("--slice", "0.3", feature=other)
        (mel,) = library.data.glob("features/songs/mel-*")
        frames = {path: data for path, data in tree(mel).items() if ".zarr/" in path}
        outcome = mgc("split", library.path, "--redo", "--seed", 1)
        assert outcome.code == 0
        assert f"{mel.name}: " in outcome.out
        assert splits_in(mel) == library.splits
        assert {path: data for path, data in tree(mel).items() if ".zarr/" in path} == frames
        assert Store.open(mel).slicing.seconds == 0.3
        assert mgc("verify", mel).code == 0
        before = stamps(mel)
        assert mgc("split", library.path, "--redo", "--seed", 1).code == 0
        assert stamps(mel) == before
        # If `extract` moves tracks in one store, it prints the command that moves them in the other.
        track_id = next(iter(library.splits))
        file = write_list(tmp_path / "one.csv", [{"track_id": track_id, "split": "test"}])
        assert library.splits[track_id] == "training"
        notes = library.try_extract("--splits", file, scheduler=NO_SCHEDULER).err
        assert f"{mel.name}: 1 tracks have another split there; `mgc split {mel} --splits" in notes
        command = notes.split("`")[1].split()
        assert mgc(*command[1:]).code == 0
        assert splits_in(mel) == library.splits
        assert library.splits[track_id] == "test"

    def test_none_is_changed_where_another_is_unfinished(self, library):
        library.extract()
        library.extract(feature="mel:n_mels=16,n_fft=512")
        (mel,) = library.data.glob("features/songs/mel-*")
        (mel / "published.json").unlink()
        before = tree(library.path)
        outcome = mgc("split", library.path, "--redo", "--seed", 1)
        assert outcome.error.startswith(f"{mel}: its extraction is unfinished; ")
        assert tree(library.path) == before

    def test_redo_keeps_the_options_of_the_dataset(self, tmp_path, scheduler):
        """In an earlier version `--audio-root` and `--genre-column` had to be repeated."""
        audio = write_genres(tmp_path / "audio", tracks=4, seconds=0.5)
        rows = [{"path": path.relative_to(audio), "style": path.parent.name} for path in sorted(audio.glob("*/*.wav"))]
        listed = write_list(tmp_path / "songs.csv", rows)
        dataset_options = ("--audio-root", audio, "--genre-column", "style")
        where = ("--out", tmp_path / "out", "--scheduler", scheduler, "--seed", 5)
        options = (*dataset_options, *where, "--feature", FEATURE, "--slice", "0.4", "--json")
        outcome = mgc("extract", "--dataset", listed, *options)
        assert outcome.code == 0, outcome.err
        store = outcome.json["stores"][0]["store"]
        before = splits_in(Path(store))
        assert mgc("split", store, "--redo").code == 0
        assert splits_in(Path(store)) == before  # the seed is remembered, too

    def test_without_options_it_shows_them(self, library):
        library.extract()
        before = stamps(library.path)
        outcome = mgc("split", library.path)
        assert outcome.code == 0
        assert "training 8 " in outcome.out
        assert stamps(library.path) == before

    def test_another_dataset_is_refused(self, library, tmp_path):
        library.extract()
        before = stamps(library.path)
        other = write_genres(tmp_path / "other" / "songs", tracks=6)
        outcome = mgc("split", library.path, "--redo", "--dataset", other)
        assert outcome.code == 1
        assert f"was made from {library.audio}, not from {other}" in outcome.error
        assert stamps(library.path) == before


class TestSlices:
    def test_too_short_belongs_to_the_slicing(self, library):
        """The clips have 0.6 to 0.85 s."""
        assert library.extract()["ok"] == 12
        whole, shards = tree(library.path), library.shard_stamps()
        report = mgc("slice", library.path, "--slice", "0.7", "--overlap", "0", "--json").json
        assert (report["ok"], report["dropped"], report["slices"]) == (8, {"too-short": 4}, 8)
        assert library.tracks["blues/blues00"]["reason"] == "too-short"
        assert mgc("slice", library.path, "--slice", "0.4", "--json").json["ok"] == 12
        assert mgc("slice", library.path, "--remove", "0.7s").code == 0
        assert tree(library.path) == whole
        assert library.shard_stamps() == shards

    def test_the_slicing_stays_when_the_dataset_grows(self, library):
        library.extract("--slice", "0.3", "--overlap", "0.25")
        slicing = Store.open(library.path).slicing
        write_clip(library.audio / "blues" / "new.wav", 0.7, seed=60)
        outcome = mgc(
            "extract", "--dataset", library.source, "--data-dir", library.data, "--feature", FEATURE,
            "--scheduler", library._scheduler,
        )  # fmt: skip
        assert outcome.code == 0
        assert "slices of 0.3 s, 25% overlap" in outcome.out
        assert Store.open(library.path).slicing == slicing

    def test_extract_with_another_slicing_cuts_anew_without_decoding(self, library):
        library.extract()
        assert library.extract_without_decoding("--slice", "0.2", "--overlap", "0")["slices"] > 12

    def test_another_slicing_keeps_the_former_cut_through_growth_and_rebuilding(self, library):
        """In an earlier version `--slice` cut the store anew for everybody without a word; `--rebuild`, to 4 s."""
        library.extract()
        outcome = library.try_extract("--slice", "0.2", "--overlap", "0", scheduler=NO_SCHEDULER)
        note = f"{library.path.name}: default cut 0.4 s, 50 %: 28 slices -> 0.2 s: 40 slices"
        assert f"{note}; the former is kept as 0.4s-50 (mgc train --cut 0.4s-50)" in outcome.err.splitlines()
        write_clip(library.audio / "blues" / "new.wav", 0.7, seed=60)
        dataset = ("--dataset", library.source, "--data-dir", library.data, "--scheduler", library._scheduler)
        for rebuild in ((), ("--rebuild",)):
            grown = mgc("extract", *dataset, "--feature", FEATURE, "--json", *rebuild)
            assert grown.code == 0, grown.err
            assert "default cut" not in grown.err
            found = [(cut["name"], cut["slices"], cut["tracks"]) for cut in grown.json["stores"][0]["cuts"]]
            assert found == [("0.2s", 43, 13), ("0.4s-50", 30, 13)]
            assert mgc("verify", library.path).code == 0

    def test_for_a_system_adds_its_cut_and_leaves_the_default(self, library):
        """In an earlier version it cut the store anew for everybody."""
        dataset = ("--dataset", library.source, "--data-dir", library.data, "--scheduler", library._scheduler)
        assert mgc("extract", *dataset, "--feature", "mel", "--slice", "0.4").code == 0
        (mel,) = library.data.glob("features/songs/mel-*")
        before = tree(mel)
        outcome = mgc("extract", *dataset[:4], "--scheduler", NO_SCHEDULER, "--for", "moments/knn")
        # The clips are shorter than the recipe's slices: it is said how many there are.
        note = "cut 4s-50 for moments/knn is added (4 s, 50 %): 0 slices; the default stays 0.4 s, 50 %: 28 slices"
        assert f"{mel.name}: {note}" in outcome.out.splitlines()
        after = tree(mel)
        assert {name for name in after if after[name] != before.get(name)} == {"slices-4s-50.parquet", "published.json"}

    def test_a_slice_longer_than_every_track_is_refused_by_slice(self, library):
        library.extract()
        before = stamps(library.path)
        outcome = mgc("slice", library.path, "--slice", 5)
        assert outcome.code == 1
        assert "no track holds one slice (slices of 5 s, 50% overlap); the longest has 0.8 s; choose" in outcome.error
        assert stamps(library.path) == before

    def test_a_slice_longer_than_every_track_fails_extraction_and_can_be_mended(self, library, monkeypatch):
        """Where it was not noticed beforehand."""
        monkeypatch.setattr(probe, "MAX_BYTES", 0)
        outcome = library.try_extract("--slice", 5)
        assert outcome.code == 1
        assert "no usable track is left (too-short 12); choose a shorter slice: `mgc slice " in outcome.error
        outcome = mgc("slice", library.path, "--slice", "0.4", "--json")
        assert outcome.json["ok"] == 12
        assert [cut["name"] for cut in outcome.json["cuts"]] == ["0.4s-50"]  # none without slices is kept
        assert outcome.err == "default cut 5 s, 50 %: 0 slices -> 0.4 s, 50 %: 28 slices\n"


class TestLimits:
    @pytest.mark.parametrize(("limit", "code"), [("2", 0), ("1", 1), ("15%", 0), ("14%", 1)])
    def test_max_dropped(self, limit, code, library):
        """Two of fourteen tracks: 14.3 %."""
        for name, seconds in (("a", 1.0), ("b", 1.5)):  # equal files would be reported
            write_silence(library.audio / "blues" / f"{name}.wav", seconds)
        outcome = library.try_extract("--max-dropped", limit)
        assert outcome.code == code
        assert outcome.json["stores"][0]["dropped"] == {"silence": 2}
        if code:
            assert f"2 of 14 tracks were dropped, more than --max-dropped {limit}; see `mgc info`" in outcome.error
        assert library.extract_without_decoding()["ok"] == 12

    def test_max_duration(self, library):
        write_clip(library.audio / "blues" / "long.wav", 3.0)
        report = library.extract("--max-duration", 1)
        assert (report["ok"], report["dropped"]) == (12, {"too-long": 1})
        assert library.tracks["blues/long"]["n_frames"] == 0

    @pytest.mark.slow
    def test_a_track_too_long_for_one_feature_is_kept_by_the_others(self, library):
        shutil.rmtree(library.audio / "disco")
        rng = np.random.default_rng(0)
        soundfile.write(library.audio / "blues" / "long.wav", 0.1 * rng.standard_normal(901 * 8000), 8000)
        outcome = library.try_extract("--feature", "stats", feature="chroma:sr=8000")
        assert outcome.code == 0, outcome.err
        chroma, stats = outcome.json["stores"]
        assert (chroma["ok"], chroma["dropped"]) == (7, {})
        assert (stats["ok"], stats["dropped"]) == (6, {"too-long": 1})
        assert stats["dropped_tracks"][0]["detail"] == "longer than 900 s: stats holds the whole track in memory"
        assert (stats["slices"], stats["slicing"]["whole"]) == (6, True)
        assert library.extract_without_decoding("--feature", "stats", feature="chroma:sr=8000")["ok"] == 7
        assert mgc("verify", stats["store"]).code == 0
        assert mgc("slice", stats["store"], "--slice", "0.2", "--json").json["slices"] == 6
