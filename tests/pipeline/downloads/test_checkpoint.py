"""The reader of TensorFlow checkpoints, on files that these tests write byte by byte."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoints import block, checkpoint, crc32c, entry, table

from mgc.pipeline.downloads.checkpoint import read_checkpoint
from mgc.pipeline.errors import DatasetError

RNG = np.random.default_rng(0)
TENSORS = {
    "conv2d/kernel": RNG.normal(size=(3, 2, 1, 4)).astype(np.float32),
    "conv2d/kernel/Adam": RNG.normal(size=(3, 2, 1, 4)).astype(np.float32),
    "conv2d/bias": RNG.normal(size=4).astype(np.float32),
    "conv2d_1/bias": RNG.normal(size=300).astype(np.float32),
    "step": np.float32(7.5).reshape(()),
}
NAMES = ["conv2d/kernel", "conv2d/bias", "conv2d_1/bias", "step"]


def read(index: bytes, data: bytes, names: list[str] = NAMES) -> dict[str, np.ndarray]:
    return read_checkpoint(index, data, names, "ears.whl: net/.index")


def test_what_was_written_is_read() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of RFC 3720
    tensors = read(*checkpoint(TENSORS))
    assert tensors.keys() == set(NAMES)
    for name in NAMES:
        assert tensors[name].dtype == np.float32
        np.testing.assert_array_equal(tensors[name], TENSORS[name])


def test_a_file_that_is_cut_off_anywhere_is_refused() -> None:
    index, data = checkpoint(TENSORS)
    for length in range(len(index)):
        with pytest.raises(DatasetError, match=r"^ears.whl: net/.index is no checkpoint that can be read: [^\n]+$"):
            read(index[:length], data)
    for length in (0, 1, len(data) - 1):
        with pytest.raises(DatasetError, match=r"^ears.whl: net/.index is no checkpoint that can be read: [^\n]+$"):
            read(index, data[:length])


def test_a_byte_that_differs_is_noticed() -> None:
    """Some bytes of the index say nothing: the place of the filters, and what fills the footer up."""
    index, data = checkpoint(TENSORS)
    silent = 0
    for position in range(len(index)):
        damaged = index[:position] + bytes([index[position] ^ 0x41]) + index[position + 1 :]
        try:
            tensors = read(damaged, data)
        except DatasetError:
            continue
        silent += 1
        assert all(np.array_equal(tensors[name], TENSORS[name]) for name in NAMES)
    assert silent <= 40 + 4 + 13
    for position in (0, len(data) // 2, len(data) - 1):
        damaged = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        with pytest.raises(DatasetError, match=r"the checksum of .* is wrong"):
            read(index, damaged, [*TENSORS])


def one_entry(message: bytes) -> bytes:
    return table([block([(b"x", message)])])


RAW = np.arange(6, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (b"", "its index of 0 bytes does not end like a table"),
        (table([block([(b"y", entry((6,), 0, RAW))])]), "it has no tensor x"),
        (one_entry(entry((6,), 0, RAW, dtype=2)), "a tensor is of type 2 in file 0, not float32 in file 0"),
        (one_entry(entry((6,), 0, RAW, shard=1)), "a tensor is of type 1 in file 1, not float32 in file 0"),
        (one_entry(entry((7,), 0, RAW)), "x (7) has 24 bytes at 0, not 24"),
        (one_entry(entry((6,), 4, RAW)), "x (6) has 20 bytes at 4, not 24"),
        (one_entry(entry((6,), 1 << 62, RAW)), "x (6) has 0 bytes at 4,611,686,018,427,387,904, not 24"),
        (one_entry(entry((1 << 40, 6), 0, RAW)), "a shape in its index has another form"),
        (one_entry(b"\x12\x7f\x00"), "an entry of its index is cut off"),
        (one_entry(b"\x0b"), "an entry of its index has a field of kind 3"),
        (one_entry(b"\x08" + b"\xff" * 12), "a number in its index has no end"),
        (table([block([(b"x", b"")], kind=1)]), "the block of its index at 0 is compressed (type 1)"),
        (table([block([(b"x", b"")], restarts=1 << 30)]), "the block of its index at 0 has 1,073,741,824 restarts in"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_hostile_files_are_refused_in_one_line(index: bytes, problem: str) -> None:
    with pytest.raises(DatasetError) as error:
        read(index, RAW, ["x"])
    assert problem in str(error.value)
    assert "\n" not in str(error.value)
