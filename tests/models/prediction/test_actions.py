"""Genres in tags, and music sorted into folders: the sound stays what it was, and no file is overwritten."""

from __future__ import annotations

import os
from pathlib import Path

import av
import mutagen
import numpy as np
import pytest
import soundfile
from commands import tree
from mutagen.id3 import ID3, TCON, TIT2

from mgc.models.prediction import actions, sorting, tagging
from mgc.models.prediction.prediction import FilePrediction
from mgc.pipeline.datasets.tags import read_tags
from mgc.pipeline.errors import MgcError

RATE = 22050
SAMPLES = (0.1 * np.sin(np.arange(RATE) / 20)).astype(np.float32)
FORMATS = ("mp3", "flac", "ogg", "wav", "aiff", "m4a")


def write(path: Path) -> Path:
    if path.suffix != ".m4a":
        soundfile.write(path, SAMPLES, RATE)
        return path
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(SAMPLES[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path


def packets(path: Path) -> list[bytes]:
    """The encoded audio of a file."""
    with av.open(path) as container:
        return [bytes(packet) for packet in container.demux(audio=0)]


def named(path: Path, genre: str = "Jazz", probability: float = 0.8) -> FilePrediction:
    return FilePrediction(str(path), "ok", probabilities={"Rock": 1 - probability, genre: probability})


class TestTags:
    @pytest.mark.parametrize("suffix", FORMATS)
    def test_the_genre_is_written_the_old_one_kept_and_the_sound_not_touched(self, suffix: str, tmp_path: Path) -> None:
        path = write(tmp_path / f"a.{suffix}")
        path.chmod(0o640)
        audio = packets(path)
        assert tagging.write_genre(path, "Hip-Hop") == []
        assert read_tags(path).genre == "Hip-Hop"
        assert tagging.write_genre(path, "Jazz") == ["Hip-Hop"]
        assert tagging.write_genre(path, "Folk") == ["Jazz"]
        assert read_tags(path).genre == "Folk"
        assert previous(path) == ["Hip-Hop"]  # that of before the first change
        assert packets(path) == audio
        assert path.stat().st_mode & 0o777 == 0o640
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("version", [3, 4])
    def test_other_fields_and_the_version_of_id3_stay(self, version: int, tmp_path: Path) -> None:
        path = write(tmp_path / "a.mp3")
        tags = ID3()
        tags.add(TCON(encoding=3, text=["Rock", "Pop"]))
        tags.add(TIT2(encoding=3, text=["Ünder"]))
        tags.save(path, v2_version=version)
        sound = packets(path)
        assert tagging.write_genre(path, "Jazz") == (["Rock", "Pop"] if version == 4 else ["Rock/Pop"])
        assert ID3(path).version[:2] == (2, version)
        assert (read_tags(path).genre, read_tags(path).title) == ("Jazz", "Ünder")
        assert packets(path) == sound

    def test_a_file_that_has_the_genre_already_is_not_written(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.flac")
        tagging.write_genre(path, "hip hop")
        before = path.read_bytes()
        assert tagging.write_genre(path, "Hip  Hop") is None
        assert path.read_bytes() == before

    def test_outcomes(self, tmp_path: Path) -> None:
        """A dry run writes nothing; unsure and foreign files are left as they are."""
        good, unsure = write(tmp_path / "good.flac"), write(tmp_path / "unsure.flac")
        foreign, broken = tmp_path / "a.au", tmp_path / "broken.mp3"
        soundfile.write(foreign, SAMPLES, RATE)
        broken.write_bytes(b"no music")
        predictions = [named(good), named(unsure, probability=0.6), named(foreign), named(broken)]
        predictions.append(FilePrediction("refused.mp3", "dropped", "empty"))
        before = tree(tmp_path)
        lines = [each.line for each in actions.write_tags(predictions, 0.7, dry_run=True)]
        assert lines[0] == f"{good}: would be tagged Jazz, before: no genre"
        assert tree(tmp_path) == before
        outcomes = list(actions.write_tags(predictions, 0.7, dry_run=False))
        assert [each.failed for each in outcomes] == [False, True, True]
        assert outcomes[1].line.startswith(f"{foreign}: not tagged, ")
        assert {name for name, data in tree(tmp_path).items() if before[name] != data} == {"good.flac"}
        assert next(actions.write_tags([named(good)], 0, dry_run=False)).line == f"{good}: is tagged Jazz already"


def previous(path: Path) -> list[str]:
    tags = mutagen.File(path).tags
    [value] = [tags[key] for key in tags.keys() if tagging.PREVIOUS.lower() in key.lower()]  # noqa: SIM118
    return [each.decode() if isinstance(each, bytes) else str(each) for each in getattr(value, "text", value)]


class TestSorting:
    @pytest.mark.parametrize("way", ["copy", "link", "move"])
    def test_each_file_goes_into_the_folder_of_its_genre(self, way: sorting.Way, tmp_path: Path) -> None:
        path = write(tmp_path / "a.wav")
        data = path.read_bytes()
        [outcome] = actions.sort([named(path)], tmp_path / "sorted", way, 0, dry_run=False)
        final = tmp_path / "sorted" / "Jazz" / "a.wav"
        assert (outcome.failed, final.read_bytes()) == (False, data)
        assert final.is_symlink() == (way == "link")
        assert path.exists() == (way != "move")
        assert list(final.parent.iterdir()) == [final]
        if way != "move":
            [again] = actions.sort([named(path)], tmp_path / "sorted", way, 0, dry_run=False)
            assert again.line == f"{path}: is already in {final}"

    @pytest.mark.parametrize("way", ["copy", "link", "move"])
    def test_no_file_is_overwritten(self, way: sorting.Way, tmp_path: Path) -> None:
        """Nor is a link to nowhere."""
        path = write(tmp_path / "a.wav")
        other, dangling = tmp_path / "sorted" / "Jazz" / "a.wav", tmp_path / "sorted" / "Rock" / "a.wav"
        for folder in (other.parent, dangling.parent):
            folder.mkdir(parents=True)
        other.write_bytes(b"another song")
        dangling.symlink_to("nowhere")
        before = tree(tmp_path)
        outcomes = [*actions.sort([named(path), named(path, "Rock")], tmp_path / "sorted", way, 0, dry_run=False)]
        assert [each.failed for each in outcomes] == [True, True]
        assert tree(tmp_path) == before
        assert dangling.readlink() == Path("nowhere")

    def test_a_file_that_appears_meanwhile_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, final = write(tmp_path / "a.wav"), tmp_path / "b.wav"
        final.write_bytes(b"just now")
        monkeypatch.setattr(os.path, "lexists", lambda path: False)
        for way in ("copy", "link", "move"):
            with pytest.raises(MgcError, match="another file of this name is there"):
                sorting.place(path, final, way)
        assert final.read_bytes() == b"just now"
        assert path.exists()

    def test_without_hard_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As between two file systems."""

        def refuse(*_: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refuse)
        path = write(tmp_path / "a.wav")
        data = path.read_bytes()
        assert sorting.place(path, tmp_path / "x" / "a.wav", "copy")
        assert sorting.place(path, tmp_path / "y" / "a.wav", "move")
        assert tree(tmp_path) == {"x/a.wav": data, "y/a.wav": data}

    @pytest.mark.parametrize(
        ("genre", "name"),
        [
            ("Hip-Hop", "Hip-Hop"), ("../../etc", "_.._etc"), ("..", "_"), ("/", "_"),
            ("a/b\\c:d", "a_b_c_d"),
            ("", "_"), ("two\nlines", "two_lines"), ("Ünder 音楽", "Ünder 音楽"),
        ],
    )  # fmt: skip
    def test_names_of_genres_cannot_lead_elsewhere(self, genre: str, name: str, tmp_path: Path) -> None:
        assert sorting.folder_name(genre) == name
        final = sorting.target("x/a.wav", tmp_path, genre)
        assert final.parent.parent.resolve() == tmp_path.resolve()
