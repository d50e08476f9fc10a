"""kill -9 and Ctrl-C at every stage: started again, an extraction writes the same bytes as one that ran through."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stalling
from commands import mgc, stamps, tree
from music import write_clip, write_genres, write_list

from mgc.pipeline.storage import files

pytestmark = pytest.mark.timeout(900)

#: Two features that do not import librosa: its import takes longer than everything else here.
FEATURES = ("stft:n_fft=512", "stft:sr=11025,n_fft=256,hop_length=256")

DECODING = "decoding"
WRITTEN = "shard written but not renamed"
RENAMED = "renamed without fragment"
UNPUBLISHED = "fragments without manifest"
STAGES = (DECODING, WRITTEN, RENAMED, UNPUBLISHED)

#: Point at which a process can be held: `(process, function, whether it has returned)`; see `stalling`.
Hold = tuple[str, str, bool]


class Extraction:
    """An extraction in separate processes, which can be killed and started again.

    Args:
        dataset: the dataset.
        data: folder of the workspace.
    """

    def __init__(self, dataset: Path, data: Path) -> None:
        self.stores = data / "features"
        self._options = ["--dataset", str(dataset), "--data-dir", str(data), "--slice", "0.4"]
        self._options += itertools.chain(*(("--feature", feature) for feature in FEATURES))
        self._options += ["--augment", "noise"]  # training tracks also have a variant
        self._flag = data / "held"
        data.mkdir(exist_ok=True)

    def start(self, workers: int, *options: str, hold: Hold | None = None, call: int = 1) -> subprocess.Popen:
        """Start the extraction."""
        return self._start("extract", *self._options, *options, "--workers", workers, hold=hold, call=call)

    def _start(self, *command: object, hold: Hold | None, call: int) -> subprocess.Popen:
        """Start a command in its own process group."""
        environment = dict(os.environ)
        if hold is not None:
            process, at, after = hold
            stall = {"process": process, "at": at, "after": after, "call": call, "flag": str(self._flag)}
            environment["STALL"] = json.dumps(stall)
            environment["DASK_DISTRIBUTED__WORKER__PRELOAD"] = stalling.__file__
        return subprocess.Popen(
            [sys.executable, stalling.__file__, *map(str, command)],
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, workers: int, *options: str) -> None:
        """Run the extraction to its end."""
        running = self.start(workers, *options)
        _, stderr = running.communicate(timeout=120)
        assert running.returncode == 0, stderr

    def kill_at(self, workers: int, hold: Hold, call: int = 1, *options: str) -> bool:
        """Kill client and workers when a process is held; return False if the run ended without being held."""
        return self._kill(self.start(workers, *options, hold=hold, call=call), self.is_held)

    def kill_command_at(self, hold: Hold, call: int, *command: object) -> bool:
        """Kill another command when it is held; return False if it ended without being held."""
        return self._kill(self._start(*command, hold=hold, call=call), self.is_held)

    def kill_after(self, workers: int, seconds: float) -> bool:
        """Kill client and workers this long after the first track is started; False if the run has ended before."""
        start_times: list[float] = []

        def moment() -> bool:
            if not start_times and any(self.stores.glob("*/*/shards/.tmp-*")):
                start_times.append(time.monotonic())
            return bool(start_times) and time.monotonic() - start_times[0] > seconds

        return self._kill(self.start(workers), moment)

    def is_held(self) -> bool:
        """Return whether a process has reached the call at which it is held."""
        return self._flag.exists()

    def wait_until_held(self, running: subprocess.Popen) -> None:
        """Wait until a process has reached the call at which it is held."""
        while not self.is_held():
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.01)
        self._flag.unlink()

    def _kill(self, running: subprocess.Popen, moment: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 120
        with contextlib.closing(running.stderr):
            while not moment() and running.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.0005)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            killed = running.wait() == -signal.SIGKILL
            assert killed or running.returncode == 0, running.stderr.read()
        self._flag.unlink(missing_ok=True)
        return killed


def stages(stores: Path, whole: dict[str, bytes]) -> set[str]:
    """Determine from the files of some stores in which stages a kill left them.

    Args:
        stores: folder of the stores.
        whole: files of an undisturbed run, by path below the folder of the stores.
    """
    reached = set()
    for shards in stores.glob("*/*/shards"):
        prefix = f"{shards.relative_to(stores).as_posix()}/"
        expected = {name.removeprefix(prefix): data for name, data in whole.items() if name.startswith(prefix)}
        for folder in shards.glob(".tmp-*.zarr"):
            final = folder.name.rsplit("-", 1)[1]
            shard = {name.removeprefix(f"{final}/"): data for name, data in expected.items() if name.startswith(final)}
            reached.add(WRITTEN if tree(folder) == shard else DECODING)
        for folder in shards.glob("[0-9]*.zarr"):
            if not folder.with_suffix(".parquet").exists():
                reached.add(RENAMED)
        fragments = {path.name for path in shards.glob("[0-9]*.parquet")}
        complete = fragments == {name for name in expected if name.endswith(".parquet")}
        if complete and not (shards.parent / "published.json").exists():
            reached.add(UNPUBLISHED)
    return reached


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips, which with small batches fill six shards of each feature."""
    return write_genres(tmp_path_factory.mktemp("music") / "clips", tracks=6, seconds=0.6)


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that was not killed."""
    extraction = Extraction(dataset, tmp_path_factory.mktemp("undisturbed"))
    extraction.finish(workers=1)
    files = tree(extraction.stores)
    assert sum(name.endswith(".zarr/zarr.json") for name in files) == 12
    return files


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), pytest.param(2, marks=pytest.mark.slow)])
def test_killed_a_dozen_times_it_ends_with_the_same_bytes(workers, dataset, undisturbed, tmp_path):
    """Each kill hits the stores that the one before left. Half are at chosen calls, half at random moments."""
    rng = random.Random(workers)
    extraction = Extraction(dataset, tmp_path)
    hit: Counter[str] = Counter()
    kills = 0

    def count(killed: bool) -> None:
        nonlocal kills
        kills += killed
        if killed:
            hit.update(stages(extraction.stores, undisturbed))
        else:  # the run ended before the kill
            assert tree(extraction.stores) == undisturbed
            shutil.rmtree(extraction.stores)

    for call in (1, 2, 3, 4):  # store.json and journal of both stores
        count(
            extraction.kill_at(workers, ("client", "mgc.pipeline.storage.files:replace_file", rng.random() < 0.5), call)
        )
    for hold in (
        ("worker", "mgc.pipeline.extraction.reading:inspect", False),
        ("worker", "mgc.pipeline.storage.files:replace_folder", False),
        ("worker", "mgc.pipeline.extraction.output:write_fragment", False),
        ("worker", "mgc.pipeline.extraction.output:write_fragment", True),
    ):
        count(extraction.kill_at(workers, hold, rng.choice((1, 2))))
        count(extraction.kill_after(workers, seconds=rng.uniform(0, 0.2)))
    for call in (1, 2, 3, 4, 5, 6):  # published files of both stores
        count(
            extraction.kill_at(workers, ("client", "mgc.pipeline.storage.files:replace_file", rng.random() < 0.5), call)
        )
    extraction.finish(workers)
    assert kills >= 12
    assert set(hit) == set(STAGES), hit
    assert tree(extraction.stores) == undisturbed


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Path, dict[str, bytes]]:
    """A list of tracks after its extraction: some are new, some have other audio or labels, some files are missing.

    Returns:
        The list; the workspace before the changes; the files of an undisturbed second run, in the workspace `after`
        beside it.
    """
    folder = tmp_path_factory.mktemp("extended")
    write_genres(folder, tracks=6, seconds=0.6)
    names = sorted(path.relative_to(folder) for path in folder.glob("*/*.wav"))
    rows = [{"path": name, "genre": name.parent, "artist": name.stem} for name in names]
    songs = write_list(folder / "songs.csv", rows)
    before = Extraction(songs, folder / "before")
    before.finish(workers=1)

    write_clip(folder / "blues" / "blues01.wav", 0.9, seed=77)
    (folder / "disco" / "disco02.wav").unlink()
    rows[3] |= {"genre": "disco", "artist": "somebody else"}
    rows += [
        {"path": write_clip(folder / f"new{i}.wav", 0.7, seed=50 + i).name, "genre": "blues", "artist": f"new{i}"}
        for i in range(3)
    ]
    write_list(songs, rows)
    shutil.copytree(folder / "before", folder / "after")
    after = Extraction(songs, folder / "after")
    after.finish(workers=1)
    return songs, folder / "before", tree(after.stores)


@pytest.mark.slow
def test_killed_while_it_is_extended_it_ends_with_the_same_bytes(finished, tmp_path):
    songs, before, after = finished
    extraction = Extraction(songs, shutil.copytree(before, tmp_path / "data"))
    untouched = stamps(extraction.stores)
    for workers, hold, call in (
        (1, ("client", "mgc.pipeline.extraction.journal:write_journal", True), 1),
        (1, ("client", "mgc.pipeline.store.manifest:write_fragment", False), 2),
        # Between the removal of the old shard and the arrival of the new one.
        (2, ("worker", "shutil:rmtree", True), 3),
        (2, ("worker", "mgc.pipeline.extraction.output:write_fragment", False), 1),
        (1, ("client", "mgc.pipeline.storage.files:replace_file", True), 1),
    ):
        assert extraction.kill_at(workers, hold, call)
    extraction.finish(workers=2)
    assert tree(extraction.stores) == after
    kept = {name for name, stamp in stamps(extraction.stores).items() if untouched.get(name) == stamp}
    assert sum(name.endswith(".zarr/zarr.json") for name in kept) >= 8


@pytest.mark.slow
def test_killed_while_it_is_rebuilt_it_keeps_every_split(finished, tmp_path):
    songs, _, after = finished
    undisturbed = Extraction(songs, shutil.copytree(songs.parent / "after", tmp_path / "undisturbed"))
    undisturbed.finish(1, "--rebuild")
    rebuilt = tree(undisturbed.stores)
    assert splits(rebuilt) == splits(after)
    assert rebuilt != after  # the new tracks have joined the shards of the others

    extraction = Extraction(songs, shutil.copytree(songs.parent / "after", tmp_path / "data"))
    assert extraction.kill_at(1, ("client", "shutil:copystat", False), 2, "--rebuild")
    assert extraction.kill_at(1, ("worker", "mgc.pipeline.extraction.output:write_fragment", True), 2, "--rebuild")
    extraction.finish(2)
    assert tree(extraction.stores) == rebuilt


def splits(stores: dict[str, bytes]) -> dict[str, dict[str, str]]:
    """Return the split of each track, by manifest path and track id."""
    tables = {
        name: pq.read_table(pa.BufferReader(data)) for name, data in stores.items() if name.endswith("tracks.parquet")
    }
    return {
        name: dict(zip(table["track_id"].to_pylist(), table["split"].to_pylist(), strict=True))
        for name, table in tables.items()
    }


@pytest.mark.slow
def test_workers_of_a_killed_client_end_and_its_store_is_free_at_once(dataset, undisturbed, tmp_path):
    extraction = Extraction(dataset, tmp_path)
    client = extraction.start(2, hold=("worker", "mgc.pipeline.storage.files:replace_folder", False))
    extraction.wait_until_held(client)
    family = psutil.Process(client.pid).children(recursive=True)
    assert len(family) >= 2
    client.kill()
    client.wait()
    extraction.finish(workers=2)
    assert tree(extraction.stores) == undisturbed
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


@pytest.mark.slow
class TestWithoutDecoding:
    """`mgc split` and `mgc slice`, which rewrite a finished store."""

    @pytest.fixture
    def extraction(self, dataset: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> Extraction:
        """A finished extraction."""
        extraction = Extraction(dataset, tmp_path / "data")
        for name, data in undisturbed.items():
            (extraction.stores / name).parent.mkdir(parents=True, exist_ok=True)
            (extraction.stores / name).write_bytes(data)
        return extraction

    @pytest.mark.slow
    def test_a_killed_split_is_brought_to_its_end_by_extract(self, extraction, tmp_path):
        store = next(extraction.stores.glob("*/*"))
        other = shutil.copytree(store, tmp_path / "other")
        redo = ("--redo", "--seed", "1")
        assert mgc("split", other, *redo).code == 0
        expected = splits(tree(other))
        assert expected != splits(tree(store))

        assert extraction.kill_command_at(
            ("client", "mgc.pipeline.store.manifest:write_fragment", False), 2, "split", store, *redo
        )
        for command in (("info", store), ("split", store, *redo), ("slice", store, "--slice", "0.3")):
            assert (
                mgc(*command).error == f"{store}: its extraction is unfinished; run `mgc extract` again: it continues"
            )
        extraction.finish(1)
        assert splits(tree(store)) == expected
        assert mgc("verify", store).code == 0

    @pytest.mark.parametrize("call", [1, 2])
    def test_a_killed_slice_is_noticed_and_can_be_repeated(self, call, extraction, tmp_path):
        store = next(extraction.stores.glob("*/*"))
        other = shutil.copytree(store, tmp_path / "other")
        how = ("--slice", "0.7", "--overlap", "0")
        assert mgc("slice", other, *how).code == 0

        assert extraction.kill_command_at(
            ("client", "mgc.pipeline.storage.files:replace_file", True), call, "slice", store, *how
        )
        assert f"{files.CHECKSUM_MISMATCH}; run `mgc extract` again" in mgc("info", store).error
        assert mgc("slice", store, *how).code == 0
        assert tree(store) == tree(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "hold",
    [
        ("worker", "mgc.pipeline.extraction.reading:inspect", False),
        ("worker", "mgc.pipeline.extraction.output:write_fragment", False),
        ("client", "mgc.pipeline.extraction.cluster:connect", False),
        ("client", "mgc.pipeline.storage.files:replace_file", True),
    ],
)
def test_interrupted_it_says_so_in_one_line_and_can_be_continued(hold, dataset, undisturbed, tmp_path):
    """A terminal sends Ctrl-C to the client and to its workers."""
    extraction = Extraction(dataset, tmp_path)
    running = extraction.start(2, hold=hold)
    extraction.wait_until_held(running)
    family = psutil.Process(running.pid).children(recursive=True)
    os.killpg(running.pid, signal.SIGINT)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    lines = [line for line in stderr.splitlines() if not line.startswith("extract: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: interrupted; finished work is kept: run the same command again")
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    extraction.finish(workers=2)
    assert tree(extraction.stores) == undisturbed
