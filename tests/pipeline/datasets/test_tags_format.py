"""One's own music: real files in folders of artists and albums; genres, artists and albums stand in their tags."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest
import soundfile
from commands import mgc
from mutagen.apev2 import APEv2
from mutagen.id3 import ID3, TALB, TCON, TIT2, TPE1
from mutagen.mp4 import MP4
from mutagen.oggvorbis import OggVorbis

#: Suffix, artist, album and genres of each file.
SONGS = [
    ("mp3", "Ada", "First", ["Hip Hop"]),
    ("mp3", "Ada", "First", ["hip-hop/rap", "Electronic"]),
    ("ogg", "Ada", "Second", ["Hip-Hop"]),
    ("m4a", "Bo", "Blue", ["Rap"]),
    ("ape.mp3", "Bo", "Blue", ["Rock"]),
    ("mp3", "Cy", "One", ["Rock", "Pop"]),
    ("ogg", "Cy", "One", ["rock"]),
    ("mp3", "Di", "Solo", ["Skiffle"]),
    ("mp3", "Di", "Solo", []),
]


def write_song(path: Path, source: Path, artist: str, album: str, genres: list[str]) -> None:
    """Copy or encode an MP3 and write its tags, in the kind that is usual for the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp3":
        shutil.copyfile(source, path)
        ID3().save(path)  # an empty one in place of that of the corpus
    else:
        encode(source, path)
    words = {"artist": artist, "album": album, "title": f"Title {path.stem}"}
    if path.name.endswith(".ape.mp3"):
        ID3(path).delete(path)
        tags = APEv2()
        tags.update(words | {"genre": genres})
        tags.save(path)
    elif path.suffix == ".mp3":
        id3 = ID3()
        for frame, text in ((TPE1, artist), (TALB, album), (TIT2, words["title"])):
            id3.add(frame(encoding=3, text=text))
        if genres:
            id3.add(TCON(encoding=3, text=genres))
        id3.save(path, v2_version=4)
    elif path.suffix == ".ogg":
        vorbis = OggVorbis(path)
        vorbis.update(words | {"genre": genres})
        vorbis.save()
    else:
        mp4 = MP4(path)
        mp4.update({"\xa9ART": [artist], "\xa9alb": [album], "\xa9nam": [words["title"]], "\xa9gen": genres})
        mp4.save()


def encode(source: Path, path: Path) -> None:
    """Encode the first 5 s of an MP3."""
    samples, rate = soundfile.read(source, frames=5 * 44100, dtype="float32", always_2d=True)
    if path.suffix == ".ogg":
        soundfile.write(path, samples, rate, format="OGG", subtype="VORBIS")
        return
    with av.open(path, "w") as written:
        stream = written.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None, :, 0].copy(), format="fltp", layout="mono")
        frame.sample_rate = rate
        written.mux(stream.encode(frame))
        written.mux(stream.encode(None))


@pytest.mark.corpus
def test_a_library_of_real_files(corpus: Path, scheduler: str, tmp_path: Path) -> None:
    clips = sorted((corpus / "fma_debian").glob("*/*.mp3"))
    music = tmp_path / "music"
    for number, (song, source) in enumerate(zip(SONGS, clips, strict=False)):
        suffix, artist, album, genres = song
        write_song(music / artist / album / f"{number:02}.{suffix}", source, artist, album, genres)
    fold = tmp_path / "genres.csv"
    with fold.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("genre", "as"), *((name, "Hip-Hop") for name in ("Hip Hop", "hip-hop/rap", "Rap"))]
        )
    options = ("--feature", "mel:n_mels=8,n_fft=512", "--scheduler", scheduler, "--data-dir", tmp_path / "data")

    refused = mgc("extract", music, *options)
    assert refused.code == 1
    assert "look like artists" in refused.err
    contradiction = mgc("extract", music, *options, "--format", "tags", "--genre-from", "folder")
    assert (contradiction.code, "contradict each other" in contradiction.err) == (2, True)
    as_list = mgc("extract", fold, *options, "--format", "tags")
    assert (as_list.code, "is a file; it cannot be read as tags" in as_list.err) == (1, True)

    outcome = mgc("extract", music, *options, "--format", "tags", "--genre-map", fold, "--min-tracks", 2)
    assert outcome.code == 0, outcome.err
    for said in (
        "artists of 9 of 9 files read from their tags",
        "files whose tags name several genres, of which the first counts: 2",
        "Skiffle",
        "genres that differ only in case or blanks are one: 'rock' is 'Rock'",
    ):
        assert said in outcome.out
    (manifest,) = (tmp_path / "data").glob("features/music/*/tracks.parquet")
    columns = ["track_id", "genre", "artist_id", "album_id", "title", "status", "reason", "detail"]
    rows = {row.pop("track_id"): row for row in pq.read_table(manifest, columns=columns).to_pylist()}
    used = {track: row for track, row in rows.items() if row["genre"] is not None}
    assert [row["genre"] for _, row in sorted(used.items())] == ["Hip-Hop"] * 4 + ["Rock"] * 3
    assert {row["artist_id"] for row in used.values()} == {"ada", "bo", "cy"}
    assert {row["album_id"] for row in used.values()} == {"ada / first", "ada / second", "bo / blue", "cy / one"}
    assert {row["title"] for row in rows.values()} == {f"Title {path.stem}" for path in music.rglob("*.*")}
    left_out = [row["detail"] for row in rows.values() if row["genre"] is None]
    assert len(left_out) == 2
    assert all(detail.startswith("without a genre: ") for detail in left_out)

    again = mgc("extract", music, *options)  # the store knows how its genres were found
    assert again.code == 0, again.err
    after = {row["track_id"]: row["genre"] for row in pq.read_table(manifest, columns=columns).to_pylist()}
    assert after == {track: row["genre"] for track, row in rows.items()}
