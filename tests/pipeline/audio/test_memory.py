"""Decoding from memory: the same samples as from disk, and no reads beyond the file's bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import encode, music

from mgc.pipeline.audio.decoding import open_libsndfile
from mgc.pipeline.audio.inspection import UnusableAudio, inspect
from mgc.pipeline.audio.memory import MemoryFile, _length, _read, _seek, _tell, has_binding, open_in_memory


def samples(sound: soundfile.SoundFile) -> np.ndarray:
    """Read all samples as the extraction does, without seeking."""
    sound.seekable = lambda: False
    blocks = []
    block = np.empty((10_000, sound.channels), np.float32)
    with sound:
        while count := sound.buffer_read_into(block, dtype="float32"):
            blocks.append(block[:count].copy())
    return np.concatenate(blocks)


class TestSamples:
    @pytest.mark.parametrize("format", ["MP3", "WAV", "FLAC", "OGG", "AIFF", "AU", "CAF"])
    def test_are_those_of_the_file(self, tmp_path, format):
        path = tmp_path / "clip"
        soundfile.write(path, music(3, 22050, channels=2), 22050, format=format)
        resident, file = MemoryFile(path.read_bytes(), str(path)), soundfile.SoundFile(str(path))
        assert (resident.format, resident.frames, resident.name) == (file.format, file.frames, file.name)
        assert np.array_equal(samples(resident), samples(file))

    def test_of_a_clip_cut_anywhere_are_those_of_the_cut_file(self, tmp_path):
        whole = encode(music(2, 44100), 44100)
        for size in (*range(0, 3000, 401), len(whole) // 2, len(whole) - 1):
            path = tmp_path / "cut.mp3"
            path.write_bytes(whole[:size])
            results = []
            with contextlib.suppress(soundfile.LibsndfileError):
                results.append(samples(soundfile.SoundFile(path)))
            with contextlib.suppress(soundfile.LibsndfileError):
                results.append(samples(MemoryFile(path.read_bytes(), path)))
            assert len(results) in (0, 2)
            assert not results or np.array_equal(*results)


def test_bytes_that_are_no_audio_raise_the_error_of_a_file():
    with pytest.raises(soundfile.LibsndfileError, match=r"Error opening 'notes.mp3': Format not recognised"):
        MemoryFile(b"no audio at all, but long enough to be looked at" * 20, "notes.mp3")


def decoded(path: Path) -> list[str]:
    """Return what the extraction gets from a file: format, digest of the samples and the decoder's error."""
    try:
        opened = open_libsndfile(inspect(bytes(path)))
    except UnusableAudio as unusable:
        return [unusable.reason, unusable.detail]
    digest = hashlib.sha256(b"".join(block.tobytes() for block in opened.blocks())).hexdigest()
    return [f"{opened.sample_rate} Hz, {opened.channels} ch, {opened.n_samples}", digest, str(opened.error)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    mp3 = encode(music(20, 44100, channels=2), 44100)
    middle = len(mp3) // 2
    (folder / "whole.mp3").write_bytes(mp3)
    (folder / "cut.mp3").write_bytes(mp3[:middle])
    (folder / "damaged.mp3").write_bytes(mp3[:middle] + bytes(50_000) + mp3[middle + 50_000 :])
    (folder / "behind junk.mp3").write_bytes(bytes(range(1, 200)) * 20 + mp3)
    (folder / "tagged.mp3").write_bytes(mp3 + b"TAG" + bytes(125))
    (folder / "clip.flac").write_bytes(encode(music(2, 22050), 22050, "FLAC"))
    (folder / "notes.mp3").write_bytes(b"no audio at all" * 3)
    return sorted(folder.iterdir())


@pytest.mark.slow
class TestOtherSoundfiles:
    """A version of soundfile with other private names: its source with one name replaced."""

    @pytest.mark.parametrize("name", ["_snd", "_ffi", "_info", "_open"])
    def test_the_public_interface_gives_the_same_samples(self, tmp_path, clips, name):
        source = re.sub(rf"\b{name}\b", "_by_another_name", Path(soundfile.__file__).read_text())
        (tmp_path / "soundfile.py").write_text(source)
        program = """
import sys
from pathlib import Path
import soundfile
from test_memory import decoded, has_binding
assert soundfile.__file__ == sys.argv[1]
assert not has_binding()
for path in sys.argv[2:]:
    print("\\n".join(decoded(Path(path))))
"""
        here = Path(__file__).parent
        folders = (tmp_path, here, here.parents[1] / "support", os.environ.get("PYTHONPATH", ""))
        run = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "soundfile.py", *clips],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        expected = [line for path in clips for line in decoded(path)]
        assert run.stdout.splitlines() == expected
        assert {"unsupported", "None"} < set(expected)

    def test_the_installed_one_has_all_names(self, clips):
        assert has_binding()
        assert isinstance(open_in_memory((clips[-1]).read_bytes(), clips[-1]), MemoryFile)


class TestCalls:
    """The callbacks, called directly; the file's bytes lie within a larger array."""

    @pytest.fixture
    def state(self):
        self.around = np.arange(100, dtype=np.uint8)
        return np.array([self.around.ctypes.data + 40, 20, 0], np.int64)

    def read(self, state: np.ndarray, count: int) -> list[int]:
        target = np.full(64, 255, np.uint8)
        n_bytes = _read.ctypes(target.ctypes.data_as(_read.ctypes.argtypes[0]), count, pointer(state))
        assert (target[n_bytes:] == 255).all()
        return target[:n_bytes].tolist()

    def test_reading_ends_with_the_file(self, state):
        assert self.read(state, 15) == list(range(40, 55))
        assert self.read(state, 15) == list(range(55, 60))
        assert self.read(state, 15) == []
        assert self.read(state, -3) == []

    def test_seeking_stays_within_it(self, state):
        assert _length.ctypes(pointer(state)) == 20
        for offset, whence, expected in [(5, 0, 5), (3, 1, 8), (-2, 2, 18), (99, 0, 20), (-99, 1, 0), (1, 2, 20)]:
            assert _seek.ctypes(offset, whence, pointer(state)) == expected == _tell.ctypes(pointer(state))
        assert self.read(state, 1) == []


def pointer(state: np.ndarray) -> object:
    return state.ctypes.data_as(_tell.ctypes.argtypes[0])
