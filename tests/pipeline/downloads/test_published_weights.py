"""`mgc download musicnn`: wheels from a package index that is a process of its own, by the real pip."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import checkpoint, wheel
from commands import MGC, Outcome, mgc, stamps
from package_index import only, serving
from safetensors import safe_open
from safetensors.numpy import load_file

from mgc.pipeline.downloads import weights
from mgc.pipeline.downloads.places import Places
from mgc.pipeline.downloads.published_weights import PublishedNetwork, PublishedWeights, published_weights
from mgc.pipeline.downloads.settings import Settings
from mgc.pipeline.errors import DatasetError, MgcError

RNG = np.random.default_rng(0)
SHAPES = {"conv2d/kernel": (3, 5, 2, 4), "conv2d/bias": (4,), "dense/kernel": (6, 3), "dense/bias": (3,)}
NORM = ("gamma", "beta", "moving_mean", "moving_variance")
SHAPES |= {f"batch_normalization/{leaf}": (4,) for leaf in NORM} | {"dense/kernel/Adam": (6, 3)}
TENSORS = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
INDEX, DATA = checkpoint(TENSORS)
WHEEL = wheel("tiny_ears", {"tiny_ears/net/.index": INDEX, "tiny_ears/net/.data": DATA})
FILE = "tiny_ears-1.0-py3-none-any.whl"
LAYERS = {"conv2d": "stem.conv", "batch_normalization": "stem.norm", "dense": "head"}
NETWORK = PublishedNetwork(
    "net", "test/ears", "a dataset", ("a", "b", "c"), "tiny_ears/net/.index", "tiny_ears/net/.data", LAYERS
)
EARS = PublishedWeights(
    name="ears",
    title="Tiny ears",
    home="none",
    licence="ISC",
    copyright="nobody",
    citation="none",
    note="nothing",
    requirement="tiny-ears==1.0",
    file=FILE,
    size=len(WHEEL),
    sha256=hashlib.sha256(WHEEL).hexdigest(),
    licence_file="tiny_ears-1.0.dist-info/LICENSE.md",
    networks=(NETWORK,),
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    (folder / FILE).write_bytes(WHEEL)
    (folder / "musicnn-0.1.0-py3-none-any.whl").write_bytes(wheel("musicnn", {"musicnn/nothing": b""}, "0.1.0"))
    return folder


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "weights", "ears")


def set_index(patch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        patch.delenv(name)
    for name, value in environment.items():
        patch.setenv(name, value)


def left_in(places: Places) -> list[str]:
    return [path.name for path in places.root.iterdir() if path.name != ".lock"]


def test_tensors_origin_and_licence_are_kept(index: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    with serving(index) as environment:
        set_index(monkeypatch, environment)
        assert weights.download(EARS, places, Settings(notes.append)) == 2
    assert [note.partition(",")[0] for note in notes] == ["pip downloads tiny-ears==1.0"]
    file = places.folder / "net.safetensors"
    tensors = load_file(file)
    expected = {
        "stem.conv.weight": TENSORS["conv2d/kernel"].transpose(3, 2, 0, 1),
        "stem.conv.bias": TENSORS["conv2d/bias"],
        "stem.norm.weight": TENSORS["batch_normalization/gamma"],
        "stem.norm.bias": TENSORS["batch_normalization/beta"],
        "stem.norm.running_mean": TENSORS["batch_normalization/moving_mean"],
        "stem.norm.running_var": TENSORS["batch_normalization/moving_variance"],
        "head.weight": TENSORS["dense/kernel"].T,
        "head.bias": TENSORS["dense/bias"],
    }
    assert tensors.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(tensors[name], values)
    with safe_open(file, "numpy") as opened:
        origin = json.loads(opened.metadata()[weights.ORIGIN])
    assert (origin["licence"], origin["trained_on"], origin["tags"]) == ("ISC", "a dataset", ["a", "b", "c"])
    assert (origin["source"], origin["source_sha256"]) == (FILE, EARS.sha256)
    assert (places.folder / "LICENSE.md").read_bytes() == b"Anyone may do anything.\n"
    assert left_in(places) == ["ears"]

    before = stamps(places.root)
    set_index(monkeypatch, only("http://127.0.0.1:9/simple/"))  # nobody is asked again
    assert weights.download(EARS, places, Settings(notes.append)) == 2
    assert stamps(places.root) == before
    assert notes[-1] == f"{places.folder} is complete: nothing to do; --check verifies its files"
    with pytest.raises(
        DatasetError, match=r"ears was made of another version of ears, or by another one of mgc; remove"
    ):
        weights.download(replace(EARS, sha256="0" * 64), places, Settings(notes.append))
    assert stamps(places.root) == before

    assert weights.check(places.folder, "ears").is_clean
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    (places.folder / "LICENSE.md").unlink()
    result = weights.check(places.folder, "ears")
    assert (result.missing, [*result.problems]) == (["LICENSE.md"], ["net.safetensors"])


def test_a_mirror_serves_the_wheel_without_pip(index: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(index) as environment:
        mirror = environment["PIP_INDEX_URL"].replace("/simple/", "/files/")
        set_index(monkeypatch, only("http://127.0.0.1:9/simple/"))
        assert weights.download(EARS, places, Settings(lambda line: None, mirror=mirror)) == 2
    assert left_in(places) == ["ears"]


def altered(**files: bytes) -> bytes:
    whole = {"tiny_ears/net/.index": INDEX, "tiny_ears/net/.data": DATA}
    return wheel("tiny_ears", {**whole, **{f"tiny_ears/net/.{name}": data for name, data in files.items()}})


def described(data: bytes) -> PublishedWeights:
    return replace(EARS, size=len(data), sha256=hashlib.sha256(data).hexdigest())


FLIPPED = bytes([DATA[0] ^ 1]) + DATA[1:]
#: Wheels that an index may offer, with the description of what should come, and the error.
WRONG = {
    "no wheel": (None, EARS, "pip cannot download tiny-ears==1.0: No matching distribution found for tiny-ears==1.0"),
    "another file": (altered(other=b"x"), EARS, "the published one " + EARS.sha256),
    "a damaged tensor": (altered(data=FLIPPED), described(altered(data=FLIPPED)), "the checksum of "),
    "an index cut off": (altered(index=INDEX[:-9]), described(altered(index=INDEX[:-9])), "does not end like a table"),
    "no checkpoint": (
        WHEEL,
        replace(EARS, networks=(replace(NETWORK, index="tiny_ears/other"),)),
        "tiny_ears-1.0-py3-none-any.whl holds no tiny_ears/other",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line_and_not_kept(
    case: str, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, description, problem = WRONG[case]
    folder = tmp_path / "index"
    folder.mkdir()
    if data is not None:
        if case == "another file":
            data = data[: len(data) - 1] + b"\0"
            description = replace(EARS, size=len(data))
        (folder / FILE).write_bytes(data)
    with serving(folder) as environment:
        set_index(monkeypatch, environment)
        by_pip = case in ("another file", "no wheel")  # which takes seconds
        mirror = None if by_pip else environment["PIP_INDEX_URL"].replace("/simple/", "/files/")
        with pytest.raises(MgcError) as error:
            weights.download(description, places, Settings(lambda line: None, mirror, retries=0))
    assert problem in str(error.value)
    assert "\n" not in str(error.value)
    assert left_in(places) == []


def last_line(outcome: Outcome) -> str:
    """The error; the packages of other tests, which stay installed, may be warned of before."""
    return outcome.err.splitlines()[-1]


def downloaded(data: Path, *options: object) -> Outcome:
    return mgc("download", "musicnn", "--data-dir", data, *options)


def test_the_command_says_what_is_wrong(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = published_weights("musicnn")
    with serving(index) as environment:
        set_index(monkeypatch, environment)
        outcome = downloaded(tmp_path)
        assert outcome.code == 1
        assert f"bytes, {real.size:,} were published; nothing was kept: ask another index" in last_line(outcome)
    set_index(monkeypatch, only("http://127.0.0.1:9/simple/"))
    outcome = downloaded(tmp_path, "--retries", 1)
    assert outcome.code == 1
    assert last_line(outcome).startswith(
        "error: pip cannot reach the index that should have musicnn==0.1.0; check the network"
    )
    assert [path.name for path in (tmp_path / "weights").iterdir()] == [".lock"]
    check = mgc("download", "musicnn", "--check", "--data-dir", tmp_path)
    folder, remedy = tmp_path / "weights" / "musicnn", "get them with `mgc download musicnn`"
    assert (check.code, last_line(check)) == (1, f"error: {folder}: no weights that mgc downloaded; {remedy}")
    plan = mgc("download", "musicnn", "--dry-run", "--json", "--data-dir", tmp_path).json
    assert plan["archives"] == [{"file": real.file, "requirement": "musicnn==0.1.0", "bytes": real.size}]
    kept = mgc("download", "musicnn", "--keep-archives", "--data-dir", tmp_path)
    assert (kept.code, "--keep-archives: musicnn is no dataset" in last_line(kept)) == (2, True)
    assert "licence: ISC" in mgc("download").out


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_call_leaves_nothing_half(
    index: Path, tmp_path: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = tmp_path / "weights" / "musicnn.unfinished"
    with serving(index, pause=60) as environment:
        command = [MGC, "download", "musicnn", "--data-dir", tmp_path]
        set_index(monkeypatch, environment)
        with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
            while not unfinished.exists():
                assert process.poll() is None
                time.sleep(0.02)
            os.killpg(process.pid, how)
            assert process.wait(20) == (130 if how == signal.SIGINT else -how)
    left = {path.name for path in (tmp_path / "weights").iterdir()} - {".lock"}
    assert left == (set() if how == signal.SIGINT else {"musicnn.unfinished"})
    listed = mgc("list", "--json", "--data-dir", tmp_path).json["items"]
    assert [(item["kind"], item["finished"]) for item in listed] == [("weights", False)] * len(left)
    if left:  # the next call removes it, even if that fails, too
        set_index(monkeypatch, only("http://127.0.0.1:9/simple/"))
        outcome = downloaded(tmp_path, "--retries", 0)
        assert outcome.code == 1
        assert not unfinished.exists()


def test_a_python_without_pip_is_told(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(MgcError, match=r"bare/bin/python has no pip, which fetches tiny-ears==1.0; install it"):
        weights.download(EARS, places, Settings(lambda line: None))
    shutil.rmtree(tmp_path / "bare")
