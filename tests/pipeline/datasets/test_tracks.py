"""Track tables: paths as text, and the columns of the manifest."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mgc.pipeline.datasets.tracks import DATASET_SCHEMA, MANIFEST_SCHEMA, escape, unescape

#: Bytes of a path, with many sequences that could be mistaken for an escape.
paths = st.lists(
    st.one_of(st.binary(max_size=4), st.sampled_from([b"\\", b"x", b"5c", b"ff", b"\\xff", b"\\x5c", "音".encode()])),
    max_size=8,
).map(b"".join)


@given(paths)
@example(b"\xff\xfe latin.mp3")
@example(b"\\xff.mp3")
@example(b"\\x5cxff.mp3")
@example(b"\\\xff")
def test_every_path_survives_as_text(path):
    text = escape(path)
    assert text.encode("utf-8").decode("utf-8") == text
    assert unescape(text) == path


@given(paths, paths)
def test_different_paths_are_different_texts(one, other):
    assert (escape(one) == escape(other)) == (one == other)


@given(paths)
def test_a_path_as_text_or_bytes_is_the_same_path(path):
    assert escape(os.fsdecode(path)) == escape(path)


@pytest.mark.parametrize("name", ["a b/ünïcode – 音楽.mp3", "new\nline\t.mp3", r"C:\music\new.mp3", r"\xFF.mp3"])
def test_ordinary_names_stay_as_they_are(name):
    assert escape(name) == name


def test_undecodable_bytes_are_readable_escapes():
    assert escape(b"caf\xe9.mp3") == r"caf\xe9.mp3"


def test_any_path_can_stand_in_a_manifest(tmp_path):
    names = [b"\xff\xfe.mp3", "音.mp3".encode(), b"\\xff.mp3", b"new\nline.mp3"]
    rows = [{"track_id": escape(name), "path": escape(name)} for name in names]
    pq.write_table(pa.Table.from_pylist(rows, MANIFEST_SCHEMA), tmp_path / "tracks.parquet")
    stored = pq.read_table(tmp_path / "tracks.parquet")["path"].to_pylist()
    assert [unescape(path) for path in stored] == names


def test_the_manifest_has_the_columns_that_are_documented():
    """Readers select columns by name: a column that is removed or changes its type breaks them."""
    assert {field.name: str(field.type) for field in MANIFEST_SCHEMA} == {
        "track_id": "string",
        "path": "string",
        "genre": "string",
        "split": "string",
        "artist_id": "string",
        "album_id": "string",
        "title": "string",
        "bit_rate": "int32",
        "size": "int64",
        "mtime_ns": "int64",
        "content_hash": "string",
        "duration_s": "double",
        "declared_s": "double",
        "decoder": "string",
        "sample_rate": "int32",
        "channels": "int32",
        "encoder": "string",
        "stereo_image": "string",
        "clipped": "int64",
        "status": "string",
        "reason": "string",
        "detail": "string",
        "saturated": "int64",
        "saturated_above": "int64",
        "gaps": "list<item: fixed_size_list<item: int64>[2]>",
        "shard": "int32",
        "first_frame": "int64",
        "n_frames": "int64",
        "variants": "list<item: struct<variant: string, reason: string, detail: string, duration_s: double,"
        " saturated: int64, gaps: list<item: list<item: int64>>, first_frame: int64, n_frames: int64>>",
    }
    assert MANIFEST_SCHEMA.names[: len(DATASET_SCHEMA)] == DATASET_SCHEMA.names
