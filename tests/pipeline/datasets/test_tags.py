"""Tags of real files in every container, damaged ones, and their cache."""

from __future__ import annotations

import os
from pathlib import Path

import av
import mutagen
import numpy as np
import pytest
from music import write_clip
from mutagen.apev2 import APEv2
from mutagen.id3 import ID3, TCON, TPE1
from sounds import encode, tone

from mgc.pipeline.datasets import blocks, tag_table
from mgc.pipeline.datasets.tags import MAX_LENGTH, Tags, clean, fold, read_tags

#: Tag keys for artist, album artist, album, title and genre, by the kind of tags.
ID3_KEYS = ("TPE1", "TPE2", "TALB", "TIT2", "TCON")
VORBIS = ("artist", "albumartist", "album", "title", "genre")
MP4 = ("\xa9ART", "aART", "\xa9alb", "\xa9nam", "\xa9gen")
APE = ("Artist", "Album Artist", "Album", "Title", "Genre")
VALUES = ("Bj\xf6rk", "Various Artists", "Debut", "Human\nBehaviour", "Pop")
#: Suffix, FFmpeg's codec where libsndfile does not write the format, and keys.
CONTAINERS = {
    "mp3": (None, ID3_KEYS),
    "wav": (None, ID3_KEYS),
    "aiff": (None, ID3_KEYS),
    "flac": (None, VORBIS),
    "ogg": (None, VORBIS),
    "opus": ("libopus", VORBIS),
    "m4a": ("aac", MP4),
    "wv": ("wavpack", APE),
}


def write(path: Path, codec: str | None) -> Path:
    if codec is None:
        return write_clip(path, 0.2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        samples = np.zeros((1, 9_600), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 48_000
        for part in (frame, None):
            container.mux(stream.encode(part))
    return path


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_each_container(suffix: str, tmp_path: Path) -> None:
    codec, keys = CONTAINERS[suffix]
    path = write(tmp_path / f"song.{suffix}", codec)
    assert read_tags(path) == Tags()
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    for key, value in zip(keys, VALUES, strict=True):
        text = [value, "Rock"] if value == "Pop" else [value]
        if keys is ID3_KEYS:
            file.tags.add(getattr(mutagen.id3, key)(encoding=3, text=text))
        else:
            file.tags[key] = text
    file.save()
    assert read_tags(path) == Tags("Bj\xf6rk", "Various Artists", "Debut", "Human Behaviour", "Pop", 2)


def test_old_and_odd_tags_of_mp3s(tmp_path: Path) -> None:
    sound = encode(tone(440, 0.2, 22050), 22050)
    version_1 = b"TAG" + b"Song".ljust(30, b"\0") + b"Nina Simone".ljust(30, b"\0") + bytes(64) + b"\x08"
    (tmp_path / "1.mp3").write_bytes(sound + version_1)
    assert read_tags(tmp_path / "1.mp3") == Tags("Nina Simone", title="Song", genre="Jazz", n_genres=1)

    (tmp_path / "ape.mp3").write_bytes(sound)
    tags = APEv2()
    tags["Artist"], tags["Genre"] = "Low", "Slowcore; Rock"
    tags.save(tmp_path / "ape.mp3")
    assert read_tags(tmp_path / "ape.mp3") == Tags("Low", genre="Slowcore", n_genres=2)

    (tmp_path / "2.mp3").write_bytes(sound)
    number = ID3()
    number.add(TCON(encoding=0, text="(17)"))
    number.add(TPE1(encoding=3, text="\0 \u202e\x1b[31m" + "x" * 1_000))
    number.save(tmp_path / "2.mp3")
    tags = read_tags(tmp_path / "2.mp3")
    assert tags.genre == "Rock"
    assert tags.artist.startswith("[31mxxx")
    assert tags.artist.isprintable()
    assert len(tags.artist) == MAX_LENGTH


def test_damaged_tags_stop_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "song.mp3", None)
    tags = ID3()
    tags.add(TPE1(encoding=3, text="Someone"))
    tags.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole[: int(rng.integers(1, 2_000))])
        for at in rng.integers(0, min(64, len(damaged)), 4):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        assert all(text is None or text.isprintable() for text in read_tags(path)[:5])
    for content in (b"", b"fLaC", b"OggS" + bytes(100), b"RIFF", b"\0\0\0\x20ftypM4A ", b"ID3\4\0\0\x7f\x7f\x7f\x7f"):
        path.write_bytes(content)
        assert read_tags(path) == Tags()
    assert read_tags(tmp_path / "nowhere.mp3") == Tags()


@pytest.mark.corpus
def test_files_of_the_fault_corpus(corpus: Path) -> None:
    tags = {path.name: read_tags(path) for path in (corpus / "faults").iterdir() if path.is_file()}
    assert any(of_file.title == "Fault file" for of_file in tags.values())


def test_names_are_folded_and_cleaned() -> None:
    assert fold(" The  BEATLES\t") == fold("the beatles")
    assert fold("Bjo\u0308rk") == fold("bj\xf6rk") != fold("bjork")
    assert clean("a\x00\x1b\u202eb\n") == "a b"


def test_only_new_and_changed_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = tag_table.read_tags
    monkeypatch.setattr(tag_table, "read_tags", lambda path: (reads.append(path.name), read(path))[1])
    for number in range(3):
        path = write_clip(tmp_path / "music" / f"{number}.flac", 0.2)
        file = mutagen.File(path)
        file["artist"] = f"A{number}"
        file.save()
        os.utime(path, (1e9, 1e9))
    cache_folder = tmp_path / "stores"

    def table() -> list[str | None]:
        reads.clear()
        paths = ["0.flac", "1.flac", "2.flac", "gone.flac"]
        return [
            of_file.artist for of_file in tag_table.tag_table(tmp_path / "music", blocks.collect(paths), cache_folder)
        ]

    assert table() == ["A0", "A1", "A2", None]
    assert reads == ["0.flac", "1.flac", "2.flac"]
    assert table() == ["A0", "A1", "A2", None]
    assert reads == []
    file = mutagen.File(path)
    file["artist"] = "B"
    file.save()
    os.utime(path, (1e9 + 1, 1e9 + 1))
    assert table() == ["A0", "A1", "B", None]
    assert reads == ["2.flac"]
    (cache,) = cache_folder.iterdir()
    for damage in (cache.read_bytes()[:-9], b"", cache.read_bytes().replace(b"A0", b"A9")):
        cache.write_bytes(damage)
        assert table() == ["A0", "A1", "B", None]
