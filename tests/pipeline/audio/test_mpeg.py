"""The MPEG frame scan against FFmpeg's packets in real files, and on bytes that are not MPEG."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from sounds import encode, music, split_blocks

from mgc.pipeline.audio.mpeg import FrameScanner, FrameStats

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MODES = ("CONSTANT", "AVERAGE", "VARIABLE")


def scan(data: bytes, size: int = 1 << 22) -> FrameStats:
    scanner = FrameScanner()
    for piece in split_blocks(data, size):
        scanner.feed(piece)
    return scanner.finish()


def packets(data: bytes) -> list[tuple[int, float]]:
    """Return position and seconds of each MPEG frame according to FFmpeg, which omits the header frame."""
    with av.open(io.BytesIO(data), format="mp3") as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [(packet.pos, float(packet.duration * packet.time_base)) for packet in packets]


def seconds(data: bytes) -> float:
    return sum(duration for _, duration in packets(data))


def frame_seconds(rate: int) -> float:
    return (1152 if rate >= 32000 else 576) / rate


def headless(data: bytes) -> bytes:
    """Return an MP3 without its Xing/Info frame and anything before it."""
    return data[packets(data)[0][0] :]


def id3v2(size: int) -> bytes:
    """Return a tag with `size` bytes of content that look like frame headers, instead of the usual zeros."""
    digits = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + digits + (b"\xff\xfb\x90\x00" * (size // 4 + 1))[:size]


MP3 = encode(music(3, 44100, 2), 44100)
HEADLESS = headless(MP3)
SECONDS = len(packets(MP3)) * frame_seconds(44100)


class TestRealFiles:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("channels", [1, 2])
    @pytest.mark.parametrize("rate", RATES)
    def test_all_frames_that_lame_writes_are_counted(self, rate, channels, mode):
        sound = music(1.5, rate, channels)
        for level in (0.0, 0.4, 0.8):  # 0.0 is the mode's highest bit rate
            data = encode(sound, rate, bitrate_mode=mode, compression_level=level)
            stats = scan(data)
            has_header = packets(data)[0][0] > 0  # LAME omits the header frame if frames are too small for it
            length = pytest.approx(seconds(data) + has_header * frame_seconds(rate))
            assert stats == FrameStats(length, 1.0, False, has_header, "LAME3.100" if has_header else None)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("rate", [16000, 44100])
    def test_a_file_without_header_frame_does_not_state_its_length(self, rate, mode):
        data = headless(encode(music(1.5, rate, 2), rate, bitrate_mode=mode))
        stats = scan(data)
        assert not stats.has_length_header
        assert stats.frame_share == 1
        assert stats.seconds == pytest.approx(seconds(data), abs=1e-9)

    @pytest.mark.parametrize(("codec", "rate"), [("mp2", 48000), ("mp2", 44100), ("mp2", 22050)])
    def test_layer_two_is_counted_too(self, codec, rate):
        file = io.BytesIO()
        with av.open(file, "w", format="mp2") as container:
            stream = container.add_stream(codec, rate=rate, layout="stereo")
            sound = np.ascontiguousarray((music(1, rate, 2) * 32767).astype(np.int16).reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="stereo")
            frame.sample_rate = rate
            size = stream.codec_context.frame_size or 1152
            for part in av.AudioResampler("s16", "stereo", rate, frame_size=size).resample(frame):
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
        data = file.getvalue()
        stats = scan(data)
        assert stats.frame_share == pytest.approx(1)
        assert stats.seconds == pytest.approx(len(packets(data)) * 1152 / rate)
        assert stats.seconds == pytest.approx(1, abs=0.06)

    @pytest.mark.slow
    @pytest.mark.corpus
    def test_the_clips_of_the_corpus_hold_what_ffmpeg_finds(self, corpus):
        paths = sorted((corpus / "fma_debian").rglob("*.mp3"))
        kinds = set()
        for path in paths:
            data = path.read_bytes()
            stats = scan(data)
            rate = sf.info(path).samplerate
            header = frame_seconds(rate) if stats.has_length_header else 0
            assert stats.seconds == pytest.approx(seconds(data) + header, abs=1e-6), path.name
            assert stats.frame_share > 0.99, path.name
            kinds.add((stats.has_length_header, stats.has_id3))
        assert len(paths) == 102
        assert {states for states, _ in kinds} == {tagged for _, tagged in kinds} == {True, False}


class TestTagsAndJunk:
    @pytest.mark.parametrize("size", [0, 1, 2000, 300_000])
    def test_an_id3v2_tag_is_passed_over(self, size):
        stats = scan(id3v2(size) + MP3)
        assert stats == replace(scan(MP3), has_id3=True)

    def test_an_id3v2_footer_belongs_to_the_tag(self):
        tag = bytearray(id3v2(2000))
        tag[5] |= 0x10
        assert scan(bytes(tag) + b"3DI" + bytes(tag[3:10]) + MP3) == replace(scan(MP3), has_id3=True)

    def test_an_id3v1_tag_is_passed_over(self):
        assert scan(MP3 + b"TAG" + bytes(125)) == scan(MP3)

    def test_a_tag_longer_than_its_file_is_no_audio(self):
        stats = scan(id3v2(2000)[:700])
        assert (stats.seconds, stats.frame_share, stats.has_id3) == (0, 0, True)

    def test_a_tag_in_the_middle_does_not_make_the_file_tagged(self):
        stats = scan(MP3 + id3v2(500) + HEADLESS)
        assert stats.seconds == pytest.approx(SECONDS * 2 + frame_seconds(44100))
        assert (stats.frame_share, stats.has_id3) == (1, False)

    @pytest.mark.parametrize("junk", [1, 4096, 100_000])
    def test_junk_before_the_first_frame(self, junk):
        data = np.random.default_rng(junk).bytes(junk) + MP3
        stats = scan(data)
        # An accidental frame in the random bytes may overlap the first real one.
        assert stats.seconds == pytest.approx(scan(MP3).seconds, abs=3 * frame_seconds(8000))
        assert stats.frame_share == pytest.approx(len(MP3) / len(data), abs=0.03)

    def test_a_hole_in_the_middle_costs_its_own_length(self):
        hole = bytearray(HEADLESS)
        first, stop = len(hole) // 3, len(hole) // 3 + 6000
        hole[first:stop] = bytes(6000)
        n_damaged = sum(
            first < b and a < stop for a, b in zip(self.starts(), [*self.starts()[1:], 1 << 40], strict=True)
        )
        stats = scan(bytes(hole))
        # The frame that the hole cuts off is not counted, since no other follows at its end.
        assert stats.seconds == pytest.approx(
            SECONDS - n_damaged * frame_seconds(44100), abs=1.01 * frame_seconds(44100)
        )
        assert stats.frame_share == pytest.approx(1 - 6000 / len(hole), abs=0.03)

    def starts(self) -> list[int]:
        return [position for position, _ in packets(HEADLESS)]

    def test_a_file_cut_in_mid_frame_ends_with_a_whole_frame_counted(self):
        cut = HEADLESS[: self.starts()[50] + 100]
        assert scan(cut) == FrameStats(pytest.approx(51 * frame_seconds(44100)), 1.0, False, False)

    def test_two_rates_in_one_file_add_up(self):
        slow = encode(music(2, 22050), 22050)
        stats = scan(MP3 + slow)
        assert stats.seconds == pytest.approx(scan(MP3).seconds + scan(slow).seconds)
        assert stats.frame_share == 1


class TestOtherBytes:
    def test_random_bytes_are_no_mpeg_stream(self):
        rng = np.random.default_rng(0)
        shares = [scan(rng.bytes(int(size))).frame_share for size in rng.integers(1, 60_000, 150)]
        assert max(shares) < 0.5

    @pytest.mark.parametrize("data", [b"", b"\xff", b"ID3", b"\xff\xfb", b"\0" * 9999, b"\xff" * 9999])
    def test_degenerate_bytes_hold_nothing(self, data):
        assert scan(data) == FrameStats(0.0, 0.0, False, False)

    @pytest.mark.parametrize("unit", [b"\xff\x00", b"\xff\xe3ab", b"ID", b"TA\xff"])
    def test_the_scan_takes_linear_time(self, unit):
        """Each false sync used to start two searches to the end of the chunk: 70 s for 4 MB of random bytes."""
        data = unit * (4_000_000 // len(unit))
        start = time.process_time()
        assert scan(data).frame_share < 0.001
        assert time.process_time() - start < 15

    @pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "AIFF", "CAF"])
    def test_other_containers_are_no_mpeg_stream(self, format):
        assert scan(encode(music(3, 44100, 2), 44100, format)).frame_share < 0.1

    @given(st.binary(max_size=3000))
    def test_any_bytes_are_scanned_to_the_end(self, data):
        stats = scan(data)
        assert stats.seconds >= 0
        assert 0 <= stats.frame_share <= 1


BYTES = st.one_of(
    st.binary(max_size=2000),
    st.sampled_from([b"ID3", b"TAG", b"\xff", b"\xff\xfb\x90\x00", id3v2(900), b"TAG" + bytes(125), bytes(3000)]),
    st.integers(0, len(MP3)).flatmap(lambda a: st.integers(a, min(len(MP3), a + 9000)).map(lambda b: MP3[a:b])),
)


class TestChunks:
    @examples(150)
    @given(parts=st.lists(BYTES, max_size=6), data=st.data())
    def test_chunks_of_any_size_give_the_same_statistics(self, parts, data):
        whole = b"".join(parts)
        edges = data.draw(st.lists(st.integers(0, len(whole)), max_size=8).map(sorted))
        scanner = FrameScanner()
        for first, stop in zip([0, *edges], [*edges, len(whole)], strict=True):
            scanner.feed(whole[first:stop])
        assert scanner.finish() == scan(whole)

    def test_a_tag_across_chunks_is_found(self):
        """The search used to stop before the end of a chunk, and a tag that began there was scanned as junk."""
        data = bytes(5000) + id3v2(1014) + MP3
        assert {scan(data, size) for size in range(2, 9000, 7)} == {scan(data)}
        assert {scan(data, size) for size in range(5000, 5040)} == {scan(data)}
        assert {scan(data, size) for size in range(7880, 7900)} == {scan(data)}
