"""Decoding of audio files: every drop reason, the rescue of damaged files, and the samples of intact ones."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import blake3
import numpy as np
import pytest
import scipy.signal
import soundfile as sf
from sounds import assert_levels_agree, encode, extract_frames, music, tone

from mgc.pipeline.audio import inspection, mpeg
from mgc.pipeline.audio.containers import held_seconds
from mgc.pipeline.audio.decoding import BLOCK_SAMPLES, LENGTH_TOLERANCE, MAX_AMPLITUDE, Decoding, open_libsndfile
from mgc.pipeline.audio.ffmpeg import open_ffmpeg
from mgc.pipeline.audio.inspection import UnusableAudio
from mgc.pipeline.audio.sources import READ_ATTEMPTS
from mgc.pipeline.datasets.catalogue import track_table
from mgc.pipeline.datasets.tracks import escape
from mgc.pipeline.extraction import reading
from mgc.pipeline.extraction.task import Target, Task
from mgc.pipeline.extraction.worker import run_task
from mgc.pipeline.features import FeatureSpec, Mel
from mgc.pipeline.store.manifest import read_fragment
from mgc.pipeline.store.shard import read_frames
from mgc.pipeline.store.store import Store

RANDOM = np.random.default_rng(0).bytes(200_000)
HTML = b"<!DOCTYPE html><html><body>" + b"<p>404 not found</p>" * 300 + b"</body></html>"
ID3 = b"ID3\x04\0\0\0\0\x07\x76" + bytes(1014)


class Extracted:
    """Files of a folder, decoded into a shard by the worker's function within this process."""

    def __init__(self, folder: Path, *names: str | bytes, spec: FeatureSpec | None = None, **task: Any) -> None:
        spec = spec or Mel(dtype="float32")
        self._store = Store.create(
            Path(tempfile.mkdtemp(prefix=".store-", dir=folder)),
            spec,
            {"name": "test", "root": str(folder), "genres": []},
        )
        (self._store.path / "shards").mkdir(exist_ok=True)
        ids = [f"{i:04}" for i in range(len(names))]
        tracks = track_table({"track_id": ids, "path": list(map(escape, names)), "genre": ["any"] * len(names)})
        run_task(Task(str(folder), tracks, [Target(self._store, [(0, 0, len(names))])], **task))
        fragment = read_fragment(self._store, 0)
        assert fragment is not None
        self.rows: list[dict[str, Any]] = fragment.to_pylist()

    def frames(self, row: int) -> np.ndarray:
        """Return the decoded frames of a file, by its row number."""
        first, spec = self.rows[row]["first_frame"], self._store.spec
        stop = first + self.rows[row]["n_frames"]
        return spec.decode(read_frames(self._store.shard_path(0), spec, first, stop))


def row_of(path: Path, **task: Any) -> dict[str, Any]:
    """Extract one file and return its manifest row."""
    return Extracted(path.parent, path.name, **task).rows[0]


def decode(path: Path, opener=open_libsndfile) -> tuple[np.ndarray, Decoding]:
    """Decode a file: mono samples and the `Decoding`."""
    decoding = opener(inspection.inspect(bytes(path)))
    return np.concatenate([np.empty(0, np.float32), *decoding.blocks()]), decoding


def write_sound(path: Path, sound: np.ndarray, sr: int, **settings: Any) -> Path:
    sf.write(path, sound, sr, **settings)
    return path


def write_by_ffmpeg(path: Path, sound: np.ndarray, sr: int, codec: str, format: str) -> Path:
    """Write a file with FFmpeg, for containers and codecs that libsndfile cannot write.

    Args:
        path: file to write; its suffix selects the container.
        sound: float32 `(samples, channels)`, one or two channels.
        sr: sample rate in Hz.
        codec: FFmpeg's name of the encoder.
        format: FFmpeg's name of the encoder's sample format.
    """
    layout = "stereo" if sound.shape[1] == 2 else "mono"
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), format="fltp", layout=layout)
    frame.sample_rate = sr
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=sr, layout=layout)
        stream.codec_context.format = format
        resampler = av.AudioResampler(format, layout, sr, frame_size=stream.codec_context.frame_size or None)
        for packed in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(packed))
        container.mux(stream.encode(None))
    return path


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Drop root's privilege to read every file, within the context."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class TestReasons:
    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            pytest.param(b"", "empty", id="0-bytes"),
            pytest.param(b"\xff", "not-audio", id="1-byte"),
            pytest.param(HTML, "not-audio", id="html"),
            pytest.param(RANDOM, "not-audio", id="random"),
            pytest.param(bytes(100_000), "not-audio", id="zeros"),
            pytest.param(b"\xff" * 100_000, "not-audio", id="ones"),
            pytest.param(b"\x89PNG\r\n\x1a\n" + RANDOM[:5000], "not-audio", id="png"),
            pytest.param(ID3, "no-audio", id="id3"),
            pytest.param(ID3 + RANDOM[:400], "no-audio", id="id3-random"),
            pytest.param(encode(np.zeros((0, 2)), 44100, "WAV"), "no-audio", id="wav-of-no-samples"),
            pytest.param(b"RIFF\x24\0\0\0WAVEfmt " + bytes(20), "unsupported", id="wav-without-format"),
            pytest.param(b"OggS" + RANDOM[:5000], "unsupported", id="ogg-random"),
            pytest.param(b"fLaC" + RANDOM[:5000], "unsupported", id="flac-random"),
        ],
    )
    @pytest.mark.parametrize("name", ["clip.mp3", "clip.wav"])
    def test_bytes_that_are_no_music(self, tmp_path, data, reason, name):
        (tmp_path / name).write_bytes(data)
        row = row_of(tmp_path / name)
        assert (row["status"], row["reason"], row["n_frames"]) == ("dropped", reason, 0)
        assert row["detail"]
        assert row["size"] == len(data)

    def test_a_video_without_sound_is_no_audio(self, tmp_path):
        with av.open(str(tmp_path / "clip.mkv"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 64
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
            container.mux(stream.encode(None))
        assert row_of(tmp_path / "clip.mkv")["reason"] == "no-audio"

    def test_a_codec_without_a_decoder_is_unsupported(self, tmp_path):
        write_by_ffmpeg(tmp_path / "clip.m4a", music(2, 44100, 2), 44100, "alac", "s16p")
        data = (tmp_path / "clip.m4a").read_bytes()
        (tmp_path / "clip.m4a").write_bytes(data.replace(b"alac", b"abcd"))
        row = row_of(tmp_path / "clip.m4a")
        assert (row["status"], row["reason"], row["n_frames"]) == ("dropped", "unsupported", 0)

    @pytest.mark.parametrize("level", [0.0, 0.99e-4])
    def test_below_minus_80_dbfs_is_silence(self, tmp_path, level):
        write_sound(tmp_path / "quiet.wav", tone(440, 5, 22050, level), 22050, subtype="FLOAT")
        row = row_of(tmp_path / "quiet.wav")
        assert (row["status"], row["reason"], row["duration_s"], row["n_frames"]) == ("dropped", "silence", 5, 0)

    def test_one_sample_above_is_not_silence(self, tmp_path):
        sound = np.zeros(22050, np.float32)
        sound[12345] = -1.01e-4
        assert row_of(write_sound(tmp_path / "click.wav", sound, 22050, subtype="FLOAT"))["status"] == "ok"

    def test_nothing_finite_is_non_finite(self, tmp_path):
        write_sound(tmp_path / "nan.wav", np.full(22050, np.nan), 22050, subtype="FLOAT")
        row = row_of(tmp_path / "nan.wav")
        assert (row["status"], row["reason"], row["n_frames"]) == ("dropped", "non-finite", 0)

    def test_longer_than_allowed_is_too_long(self, tmp_path):
        path = write_sound(tmp_path / "long.wav", music(12, 22050), 22050)
        assert row_of(path, max_duration=12.0)["status"] == "ok"
        row = row_of(path, max_duration=11.9)
        assert (row["reason"], row["n_frames"]) == ("too-long", 0)

    @pytest.mark.parametrize("reason", ["crashed", "timeout"])
    def test_a_file_that_ended_a_worker_is_not_decoded_again(self, tmp_path, reason):
        row = row_of(write_sound(tmp_path / "healthy.wav", music(5, 22050), 22050), failures={0: reason})
        assert (row["status"], row["reason"], row["n_frames"]) == ("dropped", reason, 0)

    def test_a_dropped_file_leaves_no_frames_among_those_of_others(self, tmp_path):
        for name, seed in (("a.wav", 1), ("e.wav", 2)):
            write_sound(tmp_path / name, music(5, 22050, seed=seed), 22050)
        write_sound(tmp_path / "b.wav", np.zeros(22050 * 40), 22050)
        (tmp_path / "c.mp3").write_bytes(RANDOM)
        write_sound(tmp_path / "d.wav", np.full(9999, np.nan), 22050, subtype="FLOAT")
        among = Extracted(tmp_path, "a.wav", "b.wav", "c.mp3", "d.wav", "e.wav")
        assert [row["reason"] for row in among.rows] == [None, "silence", "not-audio", "non-finite", None]
        assert [row["first_frame"] for row in among.rows] == [0, 216, 216, 216, 216]
        for i, name in ((0, "a.wav"), (4, "e.wav")):
            assert np.array_equal(among.frames(i), Extracted(tmp_path, name).frames(0))


class TestPaths:
    """Paths that are no readable regular files. None may be opened: a pipe would block forever."""

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        (tmp_path / "folder.mp3").mkdir()
        os.mkfifo(tmp_path / "pipe.mp3")
        (tmp_path / "loop.mp3").symlink_to("loop.mp3")
        (tmp_path / "dangling.mp3").symlink_to("gone.mp3")
        (tmp_path / "linked-pipe.mp3").symlink_to("pipe.mp3")
        (tmp_path / "device.mp3").symlink_to("/dev/zero")
        write_sound(tmp_path / "clip.wav", music(5, 22050), 22050)
        (tmp_path / "linked.mp3").symlink_to("clip.wav")
        return tmp_path

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("gone.mp3", "missing"),
            ("clip.wav/inside.mp3", "missing"),
            ("folder.mp3", "not-a-file"),
            ("pipe.mp3", "not-a-file"),
            ("linked-pipe.mp3", "not-a-file"),
            ("device.mp3", "not-a-file"),
            ("loop.mp3", "unreadable"),
            ("dangling.mp3", "unreadable"),
            ("x" * 300 + ".mp3", "unreadable"),
        ],
    )
    def test_paths_that_are_no_files(self, folder, name, reason):
        row = Extracted(folder, name).rows[0]
        assert (row["status"], row["reason"], row["n_frames"]) == ("dropped", reason, 0)

    def test_a_socket(self, folder, monkeypatch):
        monkeypatch.chdir(folder)  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.mp3")
            assert Extracted(folder, "socket.mp3").rows[0]["reason"] == "not-a-file"

    def test_a_link_to_a_file_is_that_file(self, folder):
        linked, clip = Extracted(folder, "linked.mp3", "clip.wav").rows
        assert linked["status"] == "ok"
        assert linked["content_hash"] == clip["content_hash"]

    def test_no_permission(self):
        with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
            public = Path(name)
            public.chmod(0o755)
            unreadable = write_sound(public / "clip.wav", music(1, 22050), 22050)
            unreadable.chmod(0)
            (public / "closed").mkdir()
            hidden = write_sound(public / "closed" / "clip.wav", music(1, 22050), 22050)
            hidden.parent.chmod(0)
            try:
                with unprivileged():
                    assert inspection.stat_file(bytes(unreadable)).st_size > 0
                    for examine, path in ((inspection.inspect, unreadable), (inspection.stat_file, hidden)):
                        with pytest.raises(UnusableAudio) as caught:
                            examine(bytes(path))
                        assert (caught.value.reason, caught.value.detail) == ("unreadable", "Permission denied")
            finally:
                hidden.parent.chmod(0o700)

    @pytest.mark.timeout(60)
    def test_a_file_that_became_a_pipe_does_not_block(self, folder):
        """Replaced between the check of its type and its opening."""
        with pytest.raises(UnusableAudio) as caught:
            inspection.inspect(bytes(folder / "pipe.mp3"))
        assert caught.value.reason == "not-a-file"

    def test_names_that_are_not_text_are_opened_as_bytes(self, tmp_path):
        for name in (b"\xff\xfe latin.wav", "音楽 ünïcode.wav".encode(), b"new\nline\t.wav", b"\\xff.wav"):
            Path(os.fsdecode(os.path.join(bytes(tmp_path), name))).write_bytes(encode(music(1, 8000), 8000, "WAV"))  # noqa: PTH118
            row = Extracted(tmp_path, name).rows[0]
            assert (row["status"], row["duration_s"]) == ("ok", 1)


class TestChangingFiles:
    """Files that change while they are read: the hash in the manifest row is that of the decoded bytes."""

    @pytest.fixture
    def clip(self, tmp_path) -> Path:
        return write_sound(tmp_path / "clip.wav", music(5, 22050, seed=1), 22050)

    @pytest.fixture
    def meanwhile(self, monkeypatch) -> Callable[[Callable[[], Any], int], None]:
        """Returns a function that arranges a call after each of the first `times` inspections, before decoding."""

        def arrange(action: Callable[[], Any], times: int = 1) -> None:
            inspect, left = inspection.inspect, iter(range(times))

            def inspect_then_act(path: bytes) -> inspection.AudioFile:
                file = inspect(path)
                if next(left, None) is not None:
                    action()
                return file

            monkeypatch.setattr(reading, "inspect", inspect_then_act)

        return arrange

    @pytest.mark.parametrize("decoder", ["libsndfile", "ffmpeg"])
    def test_deleted_it_is_missing(self, tmp_path, clip, meanwhile, decoder):
        """The FileNotFoundError used to end the run."""
        if decoder == "ffmpeg":
            clip = write_by_ffmpeg(tmp_path / "clip.m4a", music(5, 44100, 2), 44100, "aac", "fltp")
        meanwhile(clip.unlink)
        row = row_of(clip)
        assert (row["status"], row["reason"], row["n_frames"]) == ("dropped", "missing", 0)
        assert (row["size"], row["content_hash"], row["duration_s"]) == (None, None, None)

    @pytest.mark.parametrize("in_place", [True, False])
    def test_replaced_it_is_read_again(self, tmp_path, clip, meanwhile, in_place):
        other = write_sound(tmp_path / "other.wav", music(7, 22050, seed=2), 22050)
        alone = Extracted(tmp_path, "other.wav")
        new = other.read_bytes()
        meanwhile(lambda: clip.write_bytes(new) if in_place else other.replace(clip))
        extraction = Extracted(tmp_path, "clip.wav")
        (row,) = extraction.rows
        assert (row["status"], row["duration_s"]) == ("ok", 7)
        assert row["content_hash"] == alone.rows[0]["content_hash"]
        assert row["size"] == clip.stat().st_size
        assert np.array_equal(extraction.frames(0), alone.frames(0))

    def test_growing_all_the_time_it_is_left_to_the_next_run(self, tmp_path, clip, meanwhile):
        healthy = write_sound(tmp_path / "healthy.wav", music(5, 22050, seed=2), 22050)

        def grow() -> None:
            with clip.open("ab") as file:
                file.write(bytes(1000))

        meanwhile(grow, times=READ_ATTEMPTS)
        among = Extracted(tmp_path, "clip.wav", "healthy.wav")
        row, other = among.rows
        assert (row["status"], row["reason"], row["n_frames"]) == ("dropped", "unreadable", 0)
        assert row["detail"] == "it changed while it was read"
        assert (row["size"], row["content_hash"], row["duration_s"]) == (None, None, None)
        assert other["status"] == "ok"
        assert np.array_equal(among.frames(1), Extracted(tmp_path, healthy.name).frames(0))

    def test_growing_once_it_is_whole(self, tmp_path, clip, meanwhile):
        whole = clip.read_bytes()
        clip.write_bytes(whole[: len(whole) // 2])
        meanwhile(lambda: clip.write_bytes(whole))
        row = row_of(clip)
        assert (row["status"], row["duration_s"], row["detail"]) == ("ok", 5, None)


class TestInspection:
    def test_the_hash_is_that_of_all_bytes(self, tmp_path):
        (tmp_path / "data.mp3").write_bytes(RANDOM)
        expected = blake3.blake3(RANDOM).hexdigest()[:32]
        assert inspection.inspect(bytes(tmp_path / "data.mp3")).content_hash == expected

    def test_a_file_of_several_reads_is_scanned_as_one(self, tmp_path):
        """A tag of 9 MB with a picture before an MP3, read 4 MB at a time."""
        clip, size = encode(music(4, 44100), 44100), 9_000_000
        tag = b"ID3\x04\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + (RANDOM * 46)[:size]
        (tmp_path / "picture.mp3").write_bytes(tag + clip)
        file = inspection.inspect(bytes(tmp_path / "picture.mp3"))
        scanner = mpeg.FrameScanner()
        scanner.feed(clip)
        bare = scanner.finish()
        assert file.frame_stats == replace(bare, has_id3=True)
        assert row_of(tmp_path / "picture.mp3")["duration_s"] == pytest.approx(4, abs=0.03)

    def test_content_decides_and_not_the_name(self, tmp_path):
        (tmp_path / "really.mp3").write_bytes(encode(music(2, 22050), 22050, "WAV"))
        (tmp_path / "really.wav").write_bytes(encode(music(2, 22050), 22050, "MP3"))
        (tmp_path / "really").write_bytes(encode(music(2, 22050), 22050, "FLAC"))
        rows = Extracted(tmp_path, "really.mp3", "really.wav", "really").rows
        assert [(row["status"], row["duration_s"]) for row in rows] == [("ok", 2)] * 3


class TestChannels:
    """What the manifest says of a file's channels and of samples at full scale."""

    @pytest.mark.parametrize(
        ("gains", "image"),
        [
            ((1, 1), "equal"),
            ((1, 0), "left"),
            ((0, 1), "right"),
            ((1, -1), "opposite"),
            ((1, 0.9), "different"),
            ((1, 1e-3), "different"),
            ((1, 1, 1), "equal"),
            ((1, 1, 0), "different"),
        ],
    )
    def test_the_stereo_image(self, tmp_path, gains, image):
        sound = tone(440, 2.5, 44100)[:, None] * np.float32(gains)
        for suffix in (".ogg", ".flac", ".mp3")[: 2 if len(gains) > 2 else 3]:
            assert row_of(write_sound(tmp_path / f"tone{suffix}", sound, 44100))["stereo_image"] == image

    def test_one_channel_and_music(self, tmp_path):
        for channels, image in ((1, "mono"), (2, "different")):
            path = write_sound(tmp_path / f"{channels}.wav", music(2, 44100, channels), 44100)
            assert row_of(path)["stereo_image"] == image

    def test_a_channel_that_begins_late_is_not_silent(self, tmp_path):
        sound = np.stack([tone(440, 6, 44100), tone(330, 6, 44100)], axis=1)
        sound[: 3 * 44100, 0] = 0
        assert row_of(write_sound(tmp_path / "late.wav", sound, 44100))["stereo_image"] == "different"

    @pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
    def test_samples_at_full_scale_are_counted_in_all_channels(self, tmp_path, subtype):
        sound = music(3, 44100, 2) * 0.5
        sound[1000:1010, 0], sound[90_000:90_007, 1], sound[5, 1] = 1.0, -1.0, 0.999
        row = row_of(write_sound(tmp_path / "clipped.wav", sound, 44100, subtype=subtype))
        assert (row["clipped"], row["encoder"]) == (17, subtype.lower())

    def test_ffmpeg_says_the_same(self, tmp_path):
        path = write_sound(tmp_path / "left.flac", 1.5 * tone(440, 2, 44100)[:, None] * np.float32([1, 0]), 44100)
        decodings = [decode(path, opener)[1] for opener in (open_libsndfile, open_ffmpeg)]
        assert [decoding.stereo_image for decoding in decodings] == ["left", "left"]
        assert decodings[0].clipped == decodings[1].clipped == 0
        path = write_sound(tmp_path / "a.mp3", music(2, 44100, 2), 44100)
        assert [decode(path, opener)[1].codec for opener in (open_libsndfile, open_ffmpeg)] == ["mp3", "mp3"]


class TestRescue:
    SOUND = music(20, 44100, 2)
    MP3 = encode(SOUND, 44100, bitrate_mode="CONSTANT", compression_level=0.5)

    @classmethod
    def write_with_hole(cls, path: Path) -> Path:
        """Write the MP3 with 8000 bytes (0.4 s) in the middle set to zero."""
        hole, middle = bytearray(cls.MP3), len(cls.MP3) // 2
        hole[middle : middle + 8000] = bytes(8000)
        path.write_bytes(hole)
        return path

    def test_a_hole_in_the_middle_costs_little_more_than_itself(self, tmp_path):
        lost = 8000 / len(self.MP3) * 20
        row = row_of(self.write_with_hole(tmp_path / "hole.mp3"))
        assert (row["status"], row["decoder"], row["declared_s"]) == ("ok", "ffmpeg", 20)
        assert 20 - lost - 0.2 < row["duration_s"] < 20
        assert "libsndfile stopped at " in row["detail"]
        assert f"damaged: {row['duration_s']:.1f} of 20.0 s decoded" in row["detail"]

    def test_the_music_around_a_hole_is_intact(self, tmp_path):
        (tmp_path / "healthy.mp3").write_bytes(self.MP3)
        healthy, _ = decode(tmp_path / "healthy.mp3")
        rescued, _ = decode(self.write_with_hole(tmp_path / "hole.mp3"), open_ffmpeg)
        np.testing.assert_allclose(rescued[: 9 * 44100], healthy[: 9 * 44100], atol=1e-3)
        behind = healthy[12 * 44100 : 19 * 44100]
        position = scipy.signal.correlate(rescued, behind, mode="valid", method="fft").argmax()
        assert 11 * 44100 < position < 12 * 44100
        np.testing.assert_allclose(rescued[position : position + len(behind)], behind, atol=1e-3)

    def test_the_frames_of_a_rescued_file_replace_those_of_the_first_attempt(self, tmp_path):
        self.write_with_hole(tmp_path / "hole.mp3")
        write_sound(tmp_path / "other.wav", music(5, 22050), 22050)
        extraction = Extracted(tmp_path, "hole.mp3", "other.wav", "hole.mp3")
        rescued, decoding = decode(tmp_path / "hole.mp3", open_ffmpeg)
        assert np.array_equal(extraction.frames(0), extract_frames([rescued], decoding.sample_rate, Mel()))
        assert np.array_equal(extraction.frames(2), extraction.frames(0))
        assert extraction.rows[1]["first_frame"] == len(extraction.frames(0))

    @classmethod
    def write_headless_vbr(cls, path: Path, gain: np.ndarray) -> Path:
        """Write the music as VBR with a varying level, hence bit rate, and without the header frame with its length."""
        sound = (cls.SOUND * gain[:, None]).astype(np.float32)
        vbr = encode(sound, 44100, bitrate_mode="VARIABLE", compression_level=0.3)
        with av.open(io.BytesIO(vbr)) as container:
            first = next(packet.pos for packet in container.demux(audio=0))
        path.write_bytes(vbr[first:])
        return path

    def test_vbr_without_header_is_decoded_to_its_end(self, tmp_path):
        """libsndfile guesses the length from the first bit rate and stops there without an error."""
        path = self.write_headless_vbr(tmp_path / "fading.mp3", np.linspace(1, 1e-3, len(self.SOUND)))
        alone, decoding = decode(path)
        assert decoding.error is None
        assert len(alone) < 18 * 44100
        row = row_of(path)
        assert (row["status"], row["decoder"]) == ("ok", "ffmpeg")
        assert row["duration_s"] == pytest.approx(20, abs=0.06)
        assert row["declared_s"] == pytest.approx(row["duration_s"], abs=0.03)
        assert row["detail"] == f"decoded by FFmpeg: libsndfile stopped at {len(alone) / 44100:.1f} s"

    def test_an_overestimated_length_is_not_reported_as_damage(self, tmp_path):
        path = self.write_headless_vbr(
            tmp_path / "rising.mp3", np.where(np.arange(len(self.SOUND)) < 3 * 44100, 1e-4, 1)
        )
        assert sf.info(path).duration > 21
        row = row_of(path)
        assert (row["status"], row["decoder"], row["detail"]) == ("ok", "libsndfile", None)
        assert row["duration_s"] == pytest.approx(20, abs=0.06)
        assert row["declared_s"] == pytest.approx(row["duration_s"], abs=0.03)

    def test_nothing_is_lost_where_the_rate_changes(self, tmp_path):
        parts = [encode(music(2, rate), rate) for rate in (44100, 22050, 48000, 44100, 24000)]
        (tmp_path / "parts.mp3").write_bytes(b"".join(parts))
        with av.open(str(tmp_path / "parts.mp3")) as container:
            exact = sum(frame.samples * 44100 / frame.sample_rate for frame in container.decode(audio=0))
        samples, _ = decode(tmp_path / "parts.mp3", open_ffmpeg)
        assert len(samples) == pytest.approx(exact, abs=len(parts))

    @pytest.mark.parametrize(("rate", "channels"), [(22050, 2), (22050, 1), (48000, 2), (44100, 1)])
    def test_a_change_of_rate_or_channels_is_played_on_at_the_right_pitch(self, tmp_path, rate, channels):
        first = np.stack([tone(440, 6, 44100)] * 2, axis=1)
        second = np.stack([tone(1000, 5, rate)] * channels, axis=1)
        (tmp_path / "both.mp3").write_bytes(encode(first, 44100) + encode(second, rate))
        row = row_of(tmp_path / "both.mp3")
        assert (row["status"], row["decoder"], row["sample_rate"], row["channels"]) == ("ok", "ffmpeg", 44100, 2)
        assert row["duration_s"] == pytest.approx(11, abs=0.2)
        samples, _ = decode(tmp_path / "both.mp3", open_ffmpeg)
        for moment, pitch in ((1, 440), (4, 440), (7, 1000), (9.5, 1000)):
            piece = samples[int(moment * 44100) :][:44100] * np.hanning(44100)
            assert np.abs(np.fft.rfft(piece)).argmax() == pytest.approx(pitch, abs=1)
            assert np.abs(piece).max() == pytest.approx(0.5, abs=0.05)

    def test_a_file_cut_short_keeps_the_first_decoder_and_is_marked(self, tmp_path):
        (tmp_path / "cut.mp3").write_bytes(self.MP3[: len(self.MP3) // 2])
        row = row_of(tmp_path / "cut.mp3")
        assert (row["status"], row["decoder"], row["declared_s"]) == ("ok", "libsndfile", 20)
        assert row["duration_s"] == pytest.approx(10, abs=0.15)
        assert row["detail"] == f"damaged: {row['duration_s']:.1f} of 20.0 s decoded"

    def test_bytes_before_the_first_frame_do_no_harm(self, tmp_path):
        for junk in (b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n\r\n", RANDOM[:4000], bytes(100_000)):
            (tmp_path / "junk.mp3").write_bytes(junk + self.MP3)
            row = row_of(tmp_path / "junk.mp3")
            assert row["status"] == "ok"
            assert row["duration_s"] == pytest.approx(20, abs=0.1)

    @pytest.mark.parametrize(
        ("name", "codec", "format"),
        [
            ("clip.m4a", "aac", "fltp"),
            ("clip.m4a", "alac", "s16p"),
            ("clip.wv", "wavpack", "s16p"),
            ("clip.tta", "tta", "s16"),
        ],
    )
    def test_formats_that_only_ffmpeg_reads(self, tmp_path, name, codec, format):
        sound = music(5, 44100, 2)
        write_by_ffmpeg(tmp_path / name, sound, 44100, codec, format)
        with pytest.raises(UnusableAudio):
            open_libsndfile(inspection.inspect(bytes(tmp_path / name)))
        row = row_of(tmp_path / name)
        assert (row["status"], row["decoder"], row["sample_rate"], row["channels"]) == ("ok", "ffmpeg", 44100, 2)
        assert row["detail"] == "decoded by FFmpeg"
        samples, _ = decode(tmp_path / name, open_ffmpeg)
        if codec != "aac":
            np.testing.assert_allclose(samples, sound.mean(axis=1), rtol=0, atol=2**-15)

    def test_damage_anywhere_ends_in_a_row(self, tmp_path):
        """Flipped, zeroed and deleted bytes in every container cause no exception and no non-finite frames."""
        rng = np.random.default_rng(5)
        healthy = {
            "mp3": encode(music(3, 22050, 2), 22050),
            "flac": encode(music(3, 22050, 2), 22050, "FLAC"),
            "ogg": encode(music(3, 22050, 2), 22050, "OGG"),
            "wav": encode(music(3, 22050, 2), 22050, "WAV", subtype="FLOAT"),
        }
        names = []
        for suffix, data in healthy.items():
            for kind in range(12):
                broken, start = bytearray(data), int(rng.integers(0, len(data)))
                if kind % 4 == 0:
                    for position in rng.integers(0, len(data), 40):
                        broken[position] ^= int(rng.integers(1, 256))
                elif kind % 4 == 1:
                    broken[start : start + 2000] = bytes(2000)
                elif kind % 4 == 2:
                    del broken[start : start + 3000]
                else:
                    broken[start : start + 500] = rng.bytes(500)
                names.append(f"{kind}.{suffix}")
                (tmp_path / names[-1]).write_bytes(broken)
        extraction = Extracted(tmp_path, *names)
        for i, row in enumerate(extraction.rows):
            assert row["status"] in ("ok", "dropped")
            assert (row["reason"] is None) == (row["status"] == "ok")
            assert np.isfinite(extraction.frames(i)).all()
        assert sum(row["status"] == "ok" for row in extraction.rows) > len(names) / 2


class TestHeaders:
    """Headers with impossible values."""

    @pytest.mark.parametrize("rate", [1, 7, 999, 768_001, 2**31 - 1])
    def test_an_impossible_sample_rate_is_unsupported(self, tmp_path, rate):
        """With 1 Hz in its header, a file of half a megabyte used to be resampled to 22 GB."""
        data = bytearray(encode(music(5, 22050, 2), 22050, "WAV"))
        data[24:28] = rate.to_bytes(4, "little")
        (tmp_path / "rate.wav").write_bytes(data)
        row = row_of(tmp_path / "rate.wav")
        assert (row["status"], row["reason"], row["n_frames"]) == ("dropped", "unsupported", 0)

    @pytest.mark.parametrize("rate", [1000, 768_000])
    def test_the_lowest_and_the_highest_rate_are_read(self, tmp_path, rate):
        row = row_of(write_sound(tmp_path / "rate.wav", music(2, rate), rate))
        assert (row["status"], row["duration_s"], row["sample_rate"]) == ("ok", 2, rate)

    def test_blocks_of_many_channels_or_of_a_low_rate_are_shorter(self, tmp_path):
        """Otherwise a block of 1024 channels would take 1 GB."""
        many = write_sound(tmp_path / "many.wav", np.zeros((3000, 1024), np.float32), 44100, subtype="FLOAT")
        slow = write_sound(tmp_path / "slow.wav", np.zeros(100_000, np.float32), 1000, subtype="FLOAT")
        for path, longest in ((many, 4 * BLOCK_SAMPLES // 1024), (slow, 30 * 1000)):
            lengths = [len(block) for block in open_libsndfile(inspection.inspect(bytes(path))).blocks()]
            assert max(lengths) == longest
            assert sum(lengths) == sf.info(path).frames

    def test_any_exception_of_a_decoder_ends_the_file_and_not_the_run(self, tmp_path, monkeypatch):
        """soundfile raises ValueError, for instance, if libsndfile reports a position beyond the end of the file."""
        path = write_sound(tmp_path / "clip.wav", music(20, 22050), 22050)
        read, calls = sf.SoundFile.buffer_read_into, iter([True])

        def read_once(*args: Any, **kwargs: Any) -> int:
            if next(calls, False):
                return read(*args, **kwargs)
            raise ValueError("negative dimensions are not allowed")

        monkeypatch.setattr(sf.SoundFile, "buffer_read_into", read_once)
        row = row_of(path)
        assert (row["status"], row["decoder"], row["duration_s"]) == ("ok", "ffmpeg", 20)

    @pytest.mark.slow
    def test_a_file_that_needs_too_much_memory_is_dropped_alone(self, tmp_path):
        """In a process whose memory limit is 512 MB above its use."""
        script = """
import resource, sys
from pathlib import Path
import numpy as np, psutil, soundfile as sf
from sounds import music
from test_decoding import Extracted
folder = Path(sys.argv[1])
sf.write(folder / "clip.wav", music(5, 22050), 22050)
sf.write(folder / "huge.wav", np.zeros((1, 1024)), 44100, subtype="PCM_U8")
size = 200_000 * 1024
with open(folder / "huge.wav", "r+b") as file:  # a sparse file
    head = file.read(200)
    data = head.index(b"data") + 4
    file.seek(4), file.write((data - 4 + size).to_bytes(4, "little"))
    file.seek(data), file.write(size.to_bytes(4, "little"))
    file.truncate(data + 4 + size)
from mgc.pipeline.audio import decoding
Extracted(folder, "clip.wav")
decoding._BLOCK_CHANNELS = 10**6  # blocks are not shortened
decoding.BLOCK_SAMPLES = 2**22
decoding._BLOCK_S = 1000
space = psutil.Process().memory_info().vms + (1 << 29)
resource.setrlimit(resource.RLIMIT_AS, (space, space))
print([row["reason"] for row in Extracted(folder, "huge.wav", "clip.wav").rows])
"""
        here = Path(__file__).parent
        support = here.parents[1] / "support"
        environment = os.environ | {"PYTHONPATH": f"{here}:{support}:{os.environ.get('PYTHONPATH', '')}"}
        run = subprocess.run(
            [sys.executable, "-c", script, tmp_path],
            env=environment,
            capture_output=True,
            text=True,
            cwd=here.parents[1],
        )
        assert run.stdout == "['crashed', None]\n", run.stderr


class TestRawStreams:
    """Raw AAC and AC-3 streams, whose length FFmpeg guesses from the bit rate of the first frames."""

    SOUND = np.concatenate([1e-3 * music(3, 44100, 2), music(9, 44100, 2)])

    @pytest.mark.parametrize(("name", "codec"), [("clip.aac", "aac"), ("clip.ac3", "ac3")])
    def test_their_length_is_that_of_their_frames(self, tmp_path, name, codec):
        """Raw AAC used to be marked as damaged: a quiet beginning makes the guess too long."""
        path = write_by_ffmpeg(tmp_path / name, self.SOUND, 44100, codec, "fltp")
        row = row_of(path)
        assert (row["status"], row["decoder"], row["detail"]) == ("ok", "ffmpeg", "decoded by FFmpeg")
        assert row["duration_s"] == pytest.approx(12, abs=0.1)
        assert row["declared_s"] == pytest.approx(row["duration_s"], abs=0.03)

    def test_the_guess_is_wrong(self, tmp_path):
        """Shows that the test above can fail."""
        with av.open(str(write_by_ffmpeg(tmp_path / "clip.aac", self.SOUND, 44100, "aac", "fltp"))) as container:
            stream = container.streams.audio[0]
            assert float(stream.duration * stream.time_base) - 12 > LENGTH_TOLERANCE / 44100

    def test_frames_that_cannot_be_decoded_are_reported(self, tmp_path):
        path = write_by_ffmpeg(tmp_path / "clip.aac", self.SOUND, 44100, "aac", "fltp")
        data = bytearray(path.read_bytes())
        start = n_frames = 0
        while start < len(data):  # ISO/IEC 13818-7, section 6.2: the frame length is the 13 bits from bit 30 on
            length = (data[start + 3] & 3) << 11 | data[start + 4] << 3 | data[start + 5] >> 5
            if 200 <= n_frames < 260:
                data[start + 7 : start + length] = b"\xff" * (length - 7)
            start, n_frames = start + length, n_frames + 1
        path.write_bytes(data)
        row = row_of(path)
        assert row["declared_s"] == pytest.approx(n_frames * 1024 / 44100, abs=0.05)
        assert row["duration_s"] < row["declared_s"] - 0.5
        assert "damaged packets skipped" in row["detail"]
        assert "damaged: " in row["detail"]


class TestNonFinite:
    RATE = 44100
    SOUND = music(6, RATE)[:, 0]

    def write_broken(self, path: Path, *spans: tuple[int, int, float]) -> Path:
        sound = self.SOUND.copy()
        for first, stop, value in spans:
            sound[first:stop] = value
        return write_sound(path, sound, self.RATE, subtype="FLOAT")

    def test_bad_samples_become_zeros_and_are_recorded(self, tmp_path):
        spans = [
            (1000, 1001, np.nan),
            (100_000, 100_010, np.inf),
            (150_000, 150_003, -np.inf),
            (200_000, 200_001, 1e30),
        ]
        samples, decoding = decode(self.write_broken(tmp_path / "gaps.wav", *spans))
        assert decoding.gaps == [[first, stop] for first, stop, _ in spans]
        expected = self.SOUND.copy()
        for first, stop, _ in spans:
            expected[first:stop] = 0
        np.testing.assert_array_equal(samples, expected)
        assert decoding.peak == np.abs(expected).max()

    def test_bad_samples_close_together_are_one_gap_across_blocks_too(self, tmp_path):
        edge = BLOCK_SAMPLES
        path = self.write_broken(
            tmp_path / "gaps.wav",
            (5000, 5001, np.nan),
            (9000, 9002, np.nan),  # 0.09 s later
            (14000, 14001, np.nan),  # 0.11 s later
            (edge - 3, edge + 2, np.nan),
            (2 * edge - 100, 2 * edge - 90, np.nan),
            (2 * edge + 100, 2 * edge + 110, np.nan),
        )
        assert decode(path)[1].gaps == [
            [5000, 9002],
            [14000, 14001],
            [edge - 3, edge + 2],
            [2 * edge - 100, 2 * edge + 110],
        ]

    @pytest.mark.parametrize("spec", [Mel(sr=44100, dtype="float32"), Mel(dtype="float32")], ids=["44100", "22050"])
    def test_frames_outside_the_gaps_are_those_of_the_healthy_file(self, tmp_path, spec):
        """A gap covers all frames that the bad samples affect through the window and the resampler's filter."""
        self.write_broken(tmp_path / "gaps.wav", (30_000, 30_001, np.nan), (150_000, 150_400, np.inf))
        write_sound(tmp_path / "healthy.wav", self.SOUND, self.RATE, subtype="FLOAT")
        extraction = Extracted(tmp_path, "gaps.wav", "healthy.wav", spec=spec)
        assert (extraction.rows[0]["status"], extraction.rows[1]["gaps"]) == ("ok", None)
        assert "2 gaps of non-finite samples, at 0.68 s, 3.40 s" in extraction.rows[0]["detail"]
        gaps = extraction.rows[0]["gaps"]
        window = spec.n_fft / spec.hop_length
        assert len(gaps) == 2
        assert all(window <= stop - first <= window + 5 for first, stop in gaps)
        outside = np.ones(len(extraction.frames(0)), bool)
        for first, stop in gaps:
            outside[first:stop] = False
        assert_levels_agree(extraction.frames(0)[outside], extraction.frames(1)[outside])
        assert np.abs(extraction.frames(0) - extraction.frames(1))[~outside].max() > 3

    def test_loud_is_not_broken(self, tmp_path):
        """Clipped MP3s decode to peaks of about twice full scale; float files may hold any level."""
        for level in (2.0, 1000.0, MAX_AMPLITUDE):
            samples, decoding = decode(
                write_sound(tmp_path / "loud.wav", tone(440, 1, 8000, level), 8000, subtype="FLOAT")
            )
            assert decoding.gaps == []
            assert np.abs(samples).max() == pytest.approx(level, rel=1e-2)


class TestPlaylists:
    """Playlists are not followed: otherwise a dataset could read any file of its user."""

    def playlists(self, folder: Path) -> dict[str, str]:
        clip = folder / "clip.wav"
        return {
            "extm3u": f"#EXTM3U\n#EXTINF:5,clip\n{clip}\n",
            "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:5.0,\nfile://{clip}\n#EXT-X-ENDLIST\n",
            "ffconcat": "ffconcat version 1.0\nfile 'clip.wav'\n",
            "pls": f"[playlist]\nFile1={clip}\nNumberOfEntries=1\n",
        }

    @pytest.mark.parametrize("kind", ["extm3u", "hls", "ffconcat", "pls"])
    @pytest.mark.parametrize("suffix", ["mp3", "m3u8", "ffconcat", "wav"])
    def test_a_playlist_named_like_audio_is_not_audio(self, tmp_path, kind, suffix):
        write_sound(tmp_path / "clip.wav", music(5, 22050), 22050)
        (tmp_path / f"list.{suffix}").write_text(self.playlists(tmp_path)[kind])
        row = row_of(tmp_path / f"list.{suffix}")
        assert (row["status"], row["reason"], row["duration_s"]) == ("dropped", "not-audio", None)

    def test_ffmpeg_follows_playlists_by_default(self, tmp_path):
        """Shows that the test above can fail."""
        write_sound(tmp_path / "clip.wav", music(5, 22050), 22050)
        (tmp_path / "list.mp3").write_text(self.playlists(tmp_path)["ffconcat"])
        with av.open(str(tmp_path / "list.mp3")) as container:
            assert sum(frame.samples for frame in container.decode(audio=0)) == 5 * 22050


class TestSamples:
    @pytest.mark.parametrize("opener", [open_libsndfile, open_ffmpeg])
    @pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 9, 16])
    def test_channels_are_mixed_down_to_their_mean(self, tmp_path, channels, opener):
        """PyAV reads beyond the planes of planar frames with eight or more channels, which can crash the process."""
        sound = music(1, 22050, channels)
        samples, decoding = decode(write_sound(tmp_path / "sound.wav", sound, 22050, subtype="FLOAT"), opener)
        assert (decoding.channels, decoding.sample_rate) == (channels, 22050)
        np.testing.assert_allclose(samples, sound.astype(np.float64).mean(axis=1), rtol=0, atol=2e-7)

    def test_integers_are_fractions_of_full_scale(self, tmp_path):
        steps = np.arange(-32768, 32768, dtype=np.int16)
        samples, decoding = decode(write_sound(tmp_path / "int16.wav", steps, 44100))
        np.testing.assert_array_equal(samples, steps.astype(np.float32) / 32768)
        assert (decoding.peak, decoding.n_samples) == (1.0, 65536)

    @pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (48000, 2), (48000, 1), (22050, 2), (11025, 1)])
    @pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
    def test_both_decoders_agree_on_a_healthy_mp3(self, tmp_path, rate, channels, mode):
        sound = music(4, rate, channels)
        path = write_sound(tmp_path / "clip.mp3", sound, rate, bitrate_mode=mode)
        samples, expected = decode(path)[0], decode(path, open_ffmpeg)[0]
        assert len(samples) == len(expected) == len(sound)  # without the encoder's padding
        np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-3)

    @pytest.mark.corpus
    def test_blocks_are_the_samples_of_one_read(self, corpus):
        """Seeking around every read, soundfile's default, changed the last bits of some blocks."""
        for clip in sorted((corpus / "fma_debian").rglob("*.mp3"))[::9]:
            samples, _ = sf.read(clip, dtype="float32", always_2d=True)
            mono = samples @ np.full(samples.shape[1], 1 / samples.shape[1], np.float32)
            np.testing.assert_array_equal(decode(clip)[0], mono)

    @pytest.mark.corpus
    def test_both_decoders_agree_on_real_clips(self, corpus):
        for clip in sorted((corpus / "fma_debian").rglob("*.mp3"))[::17]:
            samples, expected = decode(clip)[0], decode(clip, open_ffmpeg)[0]
            # A clip cut out of a longer MP3 may begin with frames that refer to missing data; decoders treat them
            # differently.
            whole = slice(4 * 1152, min(len(samples), len(expected)))
            assert abs(len(samples) - len(expected)) < 1152
            np.testing.assert_allclose(samples[whole], expected[whole], rtol=0, atol=1e-3)

    @pytest.mark.parametrize(
        ("format", "subtype", "rate", "error"),
        [
            ("WAV", "PCM_U8", 44100, 2**-7),
            ("WAV", "PCM_16", 44100, 2**-15),
            ("WAV", "PCM_24", 48000, 2**-23),
            ("WAV", "PCM_32", 96000, 2**-23),
            ("WAV", "FLOAT", 44100, 0),
            ("WAV", "DOUBLE", 44100, 0),
            ("WAV", "ULAW", 8000, 2**-5),
            ("WAVEX", "PCM_16", 44100, 2**-15),
            ("RF64", "PCM_16", 44100, 2**-15),
            ("W64", "PCM_16", 44100, 2**-15),
            ("FLAC", "PCM_16", 44100, 2**-15),
            ("FLAC", "PCM_24", 44100, 2**-23),
            ("AIFF", "PCM_16", 44100, 2**-15),
            ("AIFF", "FLOAT", 44100, 0),
            ("AU", "PCM_16", 22050, 2**-15),
            ("CAF", "PCM_24", 44100, 2**-23),
            ("CAF", "ALAC_16", 44100, 2**-15),
            ("VOC", "PCM_16", 44100, 2**-15),
            ("NIST", "PCM_16", 16000, 2**-15),
        ],
    )
    @pytest.mark.parametrize("channels", [1, 2])
    def test_lossless_files_come_back_as_written(self, tmp_path, format, subtype, rate, error, channels):
        sound = music(3, rate, channels)
        path = write_sound(tmp_path / "sound.mp3", sound, rate, format=format, subtype=subtype)  # the suffix is ignored
        samples, decoding = decode(path)
        assert (decoding.sample_rate, decoding.channels, decoding.declared_s) == (rate, channels, 3)
        np.testing.assert_allclose(samples, sound.mean(axis=1), rtol=0, atol=error + 1e-7)
        assert decoding.notes() == []
        row = row_of(path)
        assert (row["status"], row["detail"], row["decoder"]) == ("ok", None, "libsndfile")

    @pytest.mark.parametrize(
        ("format", "subtype", "rate"),
        [("MP3", "MPEG_LAYER_III", 44100), ("OGG", "VORBIS", 44100), ("OGG", "OPUS", 48000)],
    )
    @pytest.mark.parametrize("channels", [1, 2])
    def test_lossy_files_come_back_in_time_and_level(self, tmp_path, format, subtype, rate, channels):
        chords = [sum(tone(pitch, 3, rate, 0.2) for pitch in pitches) for pitches in ((220, 880, 3000), (330, 1500))]
        sound = np.stack(chords[:channels], axis=1)
        samples, decoding = decode(write_sound(tmp_path / "sound", sound, rate, format=format, subtype=subtype))
        assert (decoding.sample_rate, decoding.channels) == (rate, channels)
        assert len(samples) == len(sound)
        mono = sound.mean(axis=1)
        gain = np.dot(samples, mono) / np.dot(mono, mono)
        assert gain == pytest.approx(1, abs=0.02)
        assert np.mean((samples - mono)[rate // 4 :] ** 2) < 0.02 * np.mean(mono**2)

    def test_blocks_are_bounded_whatever_the_length(self, tmp_path):
        path = write_sound(tmp_path / "long.flac", music(30, 44100, 2), 44100)
        for opener in (open_libsndfile, open_ffmpeg):
            decoding = opener(inspection.inspect(bytes(path)))
            assert max(map(len, decoding.blocks())) <= BLOCK_SAMPLES
            assert (decoding.n_samples, decoding.seconds) == (30 * 44100, 30)


class TestWhatAFileHolds:
    """Where libsndfile returns clearly less than the container states, FFmpeg decodes, and the manifest says so."""

    RATE = 44100
    WAV = encode(music(3, RATE, 2), RATE, "WAV", subtype="PCM_16")

    @classmethod
    def wav_of_size(cls, size: int) -> bytes:
        """Return the WAV file with another size in its data chunk's header."""
        start = cls.WAV.index(b"data") + 4
        return cls.WAV[:start] + size.to_bytes(4, "little") + cls.WAV[start + 4 :]

    def test_a_wav_from_a_pipe_is_not_empty(self, tmp_path):
        """A data chunk of 0 bytes used to be `no-audio`. Other programs state 2 or 4 GiB."""
        (tmp_path / "whole.wav").write_bytes(self.WAV)
        for name, size in (("zero.wav", 0), ("sox.wav", 0x7FFFF000), ("ffmpeg.wav", 0xFFFFFFFF)):
            (tmp_path / name).write_bytes(self.wav_of_size(size))
        extraction = Extracted(tmp_path, "whole.wav", "zero.wav", "sox.wav", "ffmpeg.wav")
        assert [row["duration_s"] for row in extraction.rows] == [3] * 4
        assert [row["declared_s"] for row in extraction.rows] == [3] * 4
        remarks = [None, "decoded by FFmpeg: libsndfile stopped at 0.0 s", None, None]
        assert [row["detail"] for row in extraction.rows] == remarks
        assert_levels_agree(extraction.frames(1), extraction.frames(0))

    def test_other_chunks_behind_an_empty_data_chunk_are_no_audio(self, tmp_path):
        header = self.wav_of_size(0)[: self.WAV.index(b"data") + 8]
        (tmp_path / "empty.wav").write_bytes(header + b"LIST" + (100_000).to_bytes(4, "little") + RANDOM[:100_000])
        assert row_of(tmp_path / "empty.wav")["reason"] == "no-audio"

    @pytest.mark.parametrize("format", ["WAV", "RF64"])
    def test_a_wav_cut_short_is_damaged(self, tmp_path, format):
        """libsndfile takes a file that was cut off as whole."""
        whole = encode(music(3, self.RATE, 2), self.RATE, format, subtype="PCM_16")
        (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
        row = row_of(tmp_path / "cut.wav")
        assert (row["status"], row["declared_s"], row["detail"]) == ("ok", 3, "damaged: 1.5 of 3.0 s decoded")

    @pytest.mark.parametrize(("subtype", "rate"), [("VORBIS", 44100), ("OPUS", 48000)])
    def test_a_chained_ogg_is_decoded_to_its_end(self, tmp_path, subtype, rate):
        """Radio recorders write one stream after the other: libsndfile ends with the first, without an error."""
        streams = [encode(music(4, rate, 2, seed=i), rate, "OGG", subtype=subtype) for i in range(2)]
        (tmp_path / "both.ogg").write_bytes(b"".join(streams))
        (tmp_path / "one.ogg").write_bytes(streams[0])
        both, one = Extracted(tmp_path, "both.ogg", "one.ogg").rows
        assert (one["decoder"], one["detail"], one["declared_s"]) == ("libsndfile", None, 4)
        assert (both["decoder"], both["detail"]) == ("ffmpeg", "decoded by FFmpeg: libsndfile stopped at 4.0 s")
        assert both["duration_s"] == pytest.approx(8, abs=0.05)
        assert both["declared_s"] == pytest.approx(8, abs=0.05)

    def test_a_chained_ogg_that_no_decoder_reads_to_its_end_is_marked(self, tmp_path):
        """FFmpeg loses the second stream if its sample rate or number of channels differs."""
        streams = encode(music(4, 44100, 2), 44100, "OGG"), encode(music(4, 24000), 24000, "OGG")
        (tmp_path / "both.ogg").write_bytes(b"".join(streams))
        row = row_of(tmp_path / "both.ogg")
        assert (row["status"], row["detail"]) == ("ok", "damaged: 4.0 of 8.0 s decoded")

    def test_pages_of_an_ogg_that_was_cut_out_of_a_stream_count_from_its_first(self, tmp_path):
        """The positions of a recorded broadcast go on from the hours before."""
        data, start = bytearray(encode(music(4, 44100, 2), 44100, "OGG")), 0
        plain = held_seconds(lambda position, length: bytes(data[position : position + length]), len(data))
        while (start := data.find(b"OggS", start)) >= 0:
            granule = int.from_bytes(data[start + 6 : start + 14], "little", signed=True)
            if granule > 0:
                data[start + 6 : start + 14] = (granule + 7200 * 44100).to_bytes(8, "little")
            start += 4
        shifted = held_seconds(lambda position, length: bytes(data[position : position + length]), len(data))
        assert plain == 4
        assert shifted is not None
        assert 2 < shifted <= 4

    def test_an_mp4_or_matroska_cut_short_is_damaged(self, tmp_path):
        for name in ("clip.m4a", "clip.mka"):
            path = write_by_ffmpeg(tmp_path / name, music(6, 44100, 2), 44100, "aac", "fltp")
            assert row_of(path)["detail"] == "decoded by FFmpeg"
            path.write_bytes(path.read_bytes()[:-20_000])
        lost, cut = row_of(tmp_path / "clip.m4a"), row_of(tmp_path / "clip.mka")
        assert (lost["reason"], lost["detail"]) == ("unsupported", "no decoder reads this audio container")
        assert cut["detail"].startswith("decoded by FFmpeg; damaged: ")


class TestOppositePhase:
    """Stereo whose channels cancel in the mix used to be dropped as silence, although it sounds."""

    RATE = 44100
    SOUND = music(4, RATE)[:, 0]

    @pytest.mark.parametrize("left", [0.9, 1.1])
    @pytest.mark.parametrize("format", ["FLAC", "MP3", "m4a"])
    def test_the_louder_channel_is_taken(self, tmp_path, format, left):
        sound = np.stack([left * self.SOUND, -self.SOUND], axis=1)
        name = f"clip.{format.lower()}"
        if format == "m4a":
            write_by_ffmpeg(tmp_path / name, sound, self.RATE, "alac", "s16p")
        else:
            (tmp_path / name).write_bytes(encode(sound, self.RATE, format))
        loudest, remark = (0, "mono: left") if left > 1 else (1, "mono: right")
        write_sound(tmp_path / "channel.wav", np.ascontiguousarray(sound[:, loudest]), self.RATE, subtype="FLOAT")
        extraction = Extracted(tmp_path, name, "channel.wav")
        first, second = extraction.rows
        text = f"{remark}, since the channels cancel in their mix"
        assert (first["status"], first["channels"], first["duration_s"]) == ("ok", 2, pytest.approx(4, abs=0.05))
        assert first["detail"] == (f"decoded by FFmpeg; {text}" if format == "m4a" else text)
        assert second["detail"] is None
        assert first["first_frame"] + first["n_frames"] == second["first_frame"]
        if format != "MP3":
            assert np.median(np.abs(extraction.frames(0) - extraction.frames(1))) < 0.2

    def test_channels_that_cancel_partly_are_marked(self, tmp_path):
        other = music(4, self.RATE, seed=9)[:, 0]
        for name, right in (("partly", 0.5 * other - self.SOUND), ("unrelated", other), ("one-sided", 0 * other)):
            write_sound(tmp_path / f"{name}.wav", np.stack([self.SOUND, right], axis=1), self.RATE, subtype="FLOAT")
        partly, unrelated, one_sided = Extracted(tmp_path, "partly.wav", "unrelated.wav", "one-sided.wav").rows
        assert partly["detail"].startswith("channels partly cancel: the mix is ")
        assert (unrelated["detail"], one_sided["detail"]) == (None, None)

    def test_more_than_two_channels(self, tmp_path):
        sound = np.stack([self.SOUND, -0.5 * self.SOUND, -0.5 * self.SOUND], axis=1)
        row = row_of(write_sound(tmp_path / "clip.wav", sound, self.RATE, subtype="FLOAT"))
        assert (row["status"], row["detail"]) == ("ok", "mono: channel 1, since the channels cancel in their mix")

    def test_silence_is_silence_in_every_channel(self, tmp_path):
        quiet = 5e-5 * self.SOUND / np.abs(self.SOUND).max()
        row = row_of(write_sound(tmp_path / "clip.wav", np.stack([quiet, -quiet], axis=1), self.RATE, subtype="FLOAT"))
        assert row["reason"] == "silence"
