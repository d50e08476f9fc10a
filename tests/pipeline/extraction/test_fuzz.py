"""A hundred damaged files; `benchmarks/fuzz.py` tests thousands, also made from real music."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile as sf
from sounds import encode, music

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("fuzz")


@pytest.fixture(scope="module")
def mutations(fuzz: ModuleType) -> ModuleType:
    return fuzz.mutations


@pytest.mark.slow
def test_damaged_files_end_as_rows_with_finite_frames(fuzz, mutations):
    """No exception, no hang, no more memory than for a healthy file, and no unknown drop reason."""
    outcomes = [outcome for batch in fuzz.fuzz(mutations.healthy_files(), range(60)) for outcome in batch]
    assert len({outcome.name for outcome in outcomes}) == 60
    assert [outcome for outcome in outcomes if outcome.fault] == []
    ends = Counter(outcome.end for outcome in outcomes)
    assert ends["ok"] > 20
    assert ends["unsupported"] > 5
    assert ends["not-audio"] > 2


class TestMutations:
    def test_a_seed_gives_one_file(self, mutations):
        pool = mutations.healthy_files()
        files = [mutations.mutate(pool, seed) for seed in range(60)]
        assert files == [mutations.mutate(pool, seed) for seed in range(60)]
        healthy = {data for _, data in pool}
        assert sum(data in healthy for _, data in files) < 5
        assert len({data for _, data in files}) > 55

    def test_every_mutation_is_drawn_and_every_container_damaged(self, mutations):
        pool = mutations.healthy_files()
        names = [mutations.mutate(pool, seed)[0] for seed in range(200)]
        assert all(any(kind.__name__ in name for name in names) for kind in mutations.MUTATIONS)
        assert {name.rpartition(".")[2] for name in names} == {"mp3", "ogg", "flac", "wav"}

    def test_a_resealed_ogg_file_is_decoded_with_the_damage_in_it(self, mutations):
        data = bytearray(encode(music(2, 22050), 22050, "OGG"))
        healthy, _ = sf.read(io.BytesIO(data))
        resealed = bytearray(data)
        mutations.reseal(resealed)
        assert resealed == data
        at = data.rfind(b"OggS") - 1000  # in the last but one page
        data[at] ^= 0xFF
        dropped, _ = sf.read(io.BytesIO(data))
        mutations.reseal(data)
        decoded, _ = sf.read(io.BytesIO(data))
        assert len(dropped) < len(decoded) <= len(healthy)


@pytest.mark.slow
class TestChild:
    def child(self, fuzz: ModuleType, change: str) -> list[str]:
        """Command that runs the fuzzer's child process with a change to the pipeline."""
        folders = [str(BENCHMARKS), str(BENCHMARKS.parent / "tests" / "support")]
        script = f"import sys; sys.path[:0] = {folders}; {change}; import fuzz; "
        script += "from pathlib import Path; fuzz.run_child(Path(sys.argv[1]), int(sys.argv[2]))"
        return [sys.executable, "-c", script]

    @pytest.fixture
    def files(self, tmp_path) -> Path:
        for name in ("a", "deadly", "faulty", "endless", "b"):
            (tmp_path / f"{name}.wav").write_bytes(encode(music(1, 22050), 22050, "WAV"))
        return tmp_path

    @pytest.mark.slow
    def test_a_file_that_kills_or_hangs_its_decoder_costs_only_itself(self, fuzz, files):
        names = ["a.wav", "deadly.wav", "faulty.wav", "endless.wav", "b.wav"]
        child = self.child(fuzz, "import hazards; hazards.dask_setup(None)")
        outcomes = fuzz.examine(files, names, child, limit_s=5)
        assert [(outcome.name, outcome.end, outcome.fault) for outcome in outcomes] == [
            ("a.wav", "ok", None),
            ("deadly.wav", "crashed", None),
            ("faulty.wav", "crashed", None),
            ("endless.wav", "crashed", "not done in 5 s"),
            ("b.wav", "ok", None),
        ]

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            ("reading.inspect = lambda path: 1 / 0", "ZeroDivisionError: division by zero"),
            pytest.param("decoding.MAX_AMPLITUDE = math.inf", "frames that are not finite", marks=pytest.mark.slow),
            pytest.param(
                "worker.frame_gaps = lambda *_: [[-5, 1]]", "gaps [[-5, 1]] in 44 frames", marks=pytest.mark.slow
            ),
        ],
    )
    def test_a_broken_rule_is_named(self, fuzz, tmp_path, change, fault):
        """This shows that the first test can fail."""
        sound = music(1, 22050)
        sound[5000] = np.inf
        (tmp_path / "inf.wav").write_bytes(encode(sound, 22050, "WAV", subtype="FLOAT"))
        (outcome,) = fuzz.examine(
            tmp_path,
            ["inf.wav"],
            self.child(
                fuzz,
                "import math; from mgc.pipeline.audio import decoding; "
                f"from mgc.pipeline.extraction import reading, worker; {change}",
            ),
        )
        assert outcome.fault == fault


@pytest.mark.slow
def test_the_command_prints_a_report(fuzz, tmp_path):
    """For the user's own files, too."""
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "clip.flac").write_bytes(encode(music(1, 22050), 22050, "FLAC"))
    command = [sys.executable, BENCHMARKS / "fuzz.py", tmp_path / "music", "--files", "12", "--seed", "7", "--json"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["files"] == sum(report["ends"].values()) == 12
    assert report["listed"] == []
