"""Archives that climb, lie, swell, end early or are locked: nothing of them leaves the folder."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import pytest
from commands import tree
from hypothesis import given
from hypothesis import strategies as st
from tiny_archives import noise, write_tar, write_zip

from mgc.pipeline.downloads import guard
from mgc.pipeline.downloads.guard import Budget, safe_path
from mgc.pipeline.downloads.unpacking import contents, unpack
from mgc.pipeline.errors import DatasetError

NAMES = st.lists(
    st.sampled_from(["..", ".", "", "a", "b c", "...", "C:", "\\", "..\\x", "ü", "\x00", "\n", "a" * 300]),
    min_size=1,
    max_size=6,
).map("/".join)


@given(name=NAMES | st.text(max_size=40))
def test_a_safe_path_stays_below_the_folder(name: str):
    try:
        path = safe_path(name)
    except DatasetError:
        return
    root = Path("/music/of/it")
    assert (root / path).resolve().is_relative_to(root)
    assert path == Path(path).as_posix() != "."
    on_windows = PureWindowsPath("Z:\\root").joinpath(path)
    assert on_windows.is_relative_to("Z:\\root")
    assert ".." not in on_windows.parts


@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/etc/passwd", "C:/a", "c:a", "a\\b", "\\\\host\\a", "", ".", "a\x00", "a/\x1b[2J"]
)
def test_names_that_are_refused(name: str):
    with pytest.raises(DatasetError, match="nothing of it was used"):
        safe_path(name)


def test_names_that_are_kept():
    assert safe_path("./fma_small//000/000002.mp3") == "fma_small/000/000002.mp3"
    assert safe_path("..a/b..") == "..a/b.."


def tar_with(path: Path, **fields: object) -> Path:
    """A tar archive with a good file, and one with other fields."""
    with tarfile.open(path, "w:gz") as archive:
        for values in ({"name": "good", "size": 4}, {"name": "bad"} | fields):
            info = tarfile.TarInfo()
            for name, value in values.items():
                setattr(info, name, value)
            archive.addfile(info, io.BytesIO(bytes(4)))
    return path


def linked_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return path


def patched_zip(path: Path, offset: int, value: int) -> Path:
    """A zip archive with another two-byte number in the headers of its file; offsets are those of the local header."""
    data = bytearray(write_zip(path, {"a": b"text" * 100}, zipfile.ZIP_DEFLATED).read_bytes())
    for begin in (0, data.index(b"PK\x01\x02") + 2):
        struct.pack_into("<H", data, begin + offset, value)
    path.write_bytes(data)
    return path


def bomb_tar(path: Path) -> Path:
    """200 MB of zeros in 200 kB."""
    with gzip.open(path, "wb", compresslevel=9) as file:
        info = tarfile.TarInfo("zeros")
        info.size = 200_000_000
        file.write(info.tobuf())
        for _ in range(200):
            file.write(bytes(1_000_000))
    return path


def lying_tar(path: Path) -> Path:
    """A file declares more bytes than the archive has."""
    info = tarfile.TarInfo("a")
    info.size = 50_000
    path.write_bytes(gzip.compress(info.tobuf() + noise(20_000)))
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-40])
    return path


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "climbing.zip": (lambda path: write_zip(path, {"a": b"1", "../b": b"2"}), "it climbs out of the folder"),
    "absolute.zip": (lambda path: write_zip(path, {"/b": b"2"}), "it is not relative"),
    "link.zip": (linked_zip, "a link, a device or a sparse file"),
    "bomb.zip": (
        lambda path: write_zip(path, {f"{n}": bytes(30_000_000) for n in range(5)}, zipfile.ZIP_DEFLATED),
        "that is a bomb, not a dataset",
    ),
    "twice.zip": (lambda path: write_zip(path, {"a": b"1", "./a": b"2"}), "another file has this path"),
    "both.zip": (lambda path: write_zip(path, {"a": b"1", "a/b": b"2"}), "another file has this path"),
    "encrypted.zip": (lambda path: patched_zip(path, 6, 1), "a is encrypted; unpack it by hand with `7z x"),
    "deflate64.zip": (lambda path: patched_zip(path, 8, 9), "a is compressed by deflate64, which Python cannot read"),
    "cut.zip": (lambda path: cut(write_zip(path, {"a": noise(9000)})), "damaged or cut off"),
    "none.zip": (lambda path: path.write_bytes(b"<html>not found</html>") and path, "damaged or cut off"),
    "climbing.tar.gz": (lambda path: tar_with(path, name="a/../../b", size=4), "it climbs out of the folder"),
    "symlink.tar.gz": (lambda path: tar_with(path, type=tarfile.SYMTYPE, linkname="/etc"), "a link, a device"),
    "hard.tar.gz": (lambda path: tar_with(path, type=tarfile.LNKTYPE, linkname="good"), "a link, a device"),
    "pipe.tar.gz": (lambda path: tar_with(path, type=tarfile.FIFOTYPE), "a link, a device"),
    "bomb.tar.gz": (bomb_tar, "that is a bomb, not a dataset"),
    "cut.tar.gz": (lambda path: cut(write_tar(path, {"a": noise(9000)})), "damaged or cut off"),
    "lying.tar.gz": (lying_tar, "damaged or cut off|does not have the 50,000 bytes"),
    "none.tar.gz": (lambda path: path.write_bytes(b"<html>not found</html>") and path, "damaged or cut off"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(name: str, tmp_path: Path):
    make, message = HOSTILE[name]
    archive, folder = make(tmp_path / name), tmp_path / "in" / "folder"
    with pytest.raises(DatasetError, match=message) as caught:
        unpack(archive, folder)
    assert "\n" not in str(caught.value)
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")} == {name, "in"}
    assert set(tree(tmp_path / "in")) <= {"folder/good", "folder/a"}


def test_a_zip_that_hides_its_size(tmp_path: Path):
    """The headers declare 8 bytes: the 400 of the file are not written."""
    archive = tmp_path / "a.zip"
    data = bytearray(write_zip(archive, {"a": b"text" * 100}, zipfile.ZIP_DEFLATED).read_bytes())
    struct.pack_into("<I", data, 22, 8)
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 8)
    archive.write_bytes(data)
    with pytest.raises(DatasetError, match="damaged"):
        unpack(archive, tmp_path / "folder")
    assert tree(tmp_path / "folder") == {}


def test_a_link_in_the_way(tmp_path: Path):
    """A folder that someone replaced by a link between two calls."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="is in the way"):
        unpack(write_zip(tmp_path / "x.zip", {"a/b": b"1"}), tmp_path / "folder")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_empty_files_folders_and_all_bytes(write: Callable[..., Path], tmp_path: Path):
    files = {"a/empty": b"", "a/b/c.bin": noise(3_000_000), "d": b"x"}
    archive = write(tmp_path / ("a.zip" if write is write_zip else "a.tar.gz"), files)
    unpacked = unpack(archive, tmp_path / "folder")
    assert tree(tmp_path / "folder") == files
    assert unpacked == contents(archive)
    with pytest.raises(DatasetError, match="another file has this path"):
        unpack(archive, tmp_path / "folder", known=["a"])


def test_the_disk_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = write_zip(tmp_path / "a.zip", {"a": noise(5000), "b": noise(5000)})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=9000))
    with pytest.raises(DatasetError, match=r"not enough space on the disk: 10 kB needed, 9.0 kB free"):
        unpack(archive, tmp_path / "folder")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10_000))
    unpack(archive, tmp_path / "folder")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=0))
    unpack(archive, tmp_path / "folder")  # all of it is there


def test_too_many_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "MAX_MEMBERS", 2)
    budget = Budget(1000, 1000)
    budget.admit("a", 1)
    budget.admit("b", 1)
    with pytest.raises(DatasetError, match="bomb"):
        budget.admit("c", 1)
