"""Names that encoders left in real files, and that damage to them does no harm."""

from __future__ import annotations

import av
import numpy as np
import pytest
from sounds import encode, music

from mgc.pipeline.audio import encoders, inspection


@pytest.mark.parametrize(
    ("format", "name"), [("OGG", "Xiph.Org libVorbis"), ("FLAC", "reference libFLAC"), ("MP3", "LAME3"), ("WAV", None)]
)
def test_files_by_libsndfile(tmp_path, format, name):
    data = encode(music(1, 44100, 2), 44100, format)
    (tmp_path / "file").write_bytes(data)
    found = inspection.inspect(bytes(tmp_path / "file")).encoder
    assert found == name if name is None else found.startswith(name)


@pytest.mark.parametrize(("suffix", "codec"), [("mp3", "mp3"), ("opus", "libopus"), ("flac", "flac")])
def test_files_by_ffmpeg(tmp_path, suffix, codec):
    with av.open(str(tmp_path / f"a.{suffix}"), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        silent = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), format="s16", layout="mono")
        silent.sample_rate = 48000
        for frame in (silent, None):
            container.mux(stream.encode(frame))
    assert inspection.inspect(bytes(tmp_path / f"a.{suffix}")).encoder.startswith("Lav")


@pytest.mark.parametrize("format", ["OGG", "FLAC", "MP3"])
def test_a_head_that_was_cut_off_or_overwritten_gives_text_or_nothing(format):
    data = encode(music(0.2, 44100), 44100, format)
    rng = np.random.default_rng(0)
    for _ in range(300):
        cut = bytearray(data[: rng.integers(0, 400)])
        for place in rng.integers(0, max(1, len(cut)), 5 if cut else 0):
            cut[place] = rng.integers(256)
        for find in (encoders.from_container, encoders.from_xing):
            found = find(bytes(cut))
            assert found is None or (found.isprintable() and found.isascii() and found.strip() == found)
