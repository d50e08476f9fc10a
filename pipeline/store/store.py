"""Feature store: a folder, or a URL, with one feature of every track of a dataset.

store.json             the head: feature, dataset, variants, format version, library versions
tracks.parquet         the manifest: one row per track, including dropped tracks and their reason
slices.parquet         the slice index of the default cut: one row per slice
slices-NAME.parquet    the slice index of another cut; see `cuts`
published.json         how tracks were cut into slices, the digests of the tables above, and a copy of the head;
                       written after them
shards/00000.zarr      frames of a few dozen tracks
shards/00000.parquet   the fragment of that shard: the manifest rows of its tracks
audit.json             what the last `mgc audit` found out about the test split; see `last_audit`
plan.parquet           the journal of an unfinished extraction; exists only until the extraction is finished
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA, with_optional_columns
from mgc.pipeline.errors import StoreError
from mgc.pipeline.features import FeatureSpec
from mgc.pipeline.features.variants import Variant
from mgc.pipeline.storage import files, parquet
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.store.cuts import Cut, read_cuts
from mgc.pipeline.store.head import Head, read_head, write_head
from mgc.pipeline.store.lock import write_lock
from mgc.pipeline.store.slicing import SLICE_SCHEMA, Slicing

#: Key in the schema metadata of a fragment; the value is `{file: [size, digest]}` of its shard as JSON. In the metadata
#: of the manifest, the value is `{shard: {file: [size, digest]}}`.
FILES_KEY = b"mgc.files"


@dataclass(frozen=True)
class Store:
    """A feature store on disk or at a URL, open for reading; reading never changes it.

    Attributes:
        path: folder or URL of the store.
        spec: feature that the store holds.
        dataset: `name`, `root`, `source`, `format`, `genres` (in their order), `seed` and `options` of the dataset.
        versions: versions of the libraries that extracted the store, by name.
        variants: augmentation variants that the store holds of each training track.
    """

    path: Place
    spec: FeatureSpec
    dataset: dict[str, Any]
    versions: dict[str, str]
    variants: tuple[Variant, ...] = ()

    @classmethod
    def create(
        cls, path: Place, spec: FeatureSpec, dataset: dict[str, Any], variants: tuple[Variant, ...] = ()
    ) -> Store:
        """Create an empty store in a new folder or at a URL; the arguments are the attributes of the class."""
        return cls(path, *write_head(path, spec, dataset, variants))

    @classmethod
    def open(cls, path: Place) -> Store:
        """Open the store in a folder or at a URL.

        Raises:
            StoreError: there is no store, its head is damaged, or this version of mgc cannot read its format.
        """
        return cls(path, *read_head(path))

    @property
    def head(self) -> Head:
        """Content of `store.json`."""
        return Head(self.spec, self.dataset, self.versions, self.variants)

    # -- paths ------------------------------------------------------------------------------------------------------

    @property
    def journal_path(self) -> Place:
        """Path of the journal of an unfinished extraction."""
        return self.path / "plan.parquet"

    def shard_path(self, shard: int) -> Place:
        """Return the path of a shard's Zarr group."""
        return self.path / "shards" / f"{shard:05d}.zarr"

    def fragment_path(self, shard: int) -> Place:
        """Return the path of a shard's fragment, the table with its manifest rows."""
        return self.path / "shards" / f"{shard:05d}.parquet"

    def fragments(self) -> list[int]:
        """List the numbers of the shards that have a fragment, ascending."""
        return sorted(int(path.stem) for path in (self.path / "shards").glob("*.parquet") if path.stem.isdigit())

    def shards(self) -> list[int]:
        """List the numbers of the shards that have a Zarr group, ascending."""
        return sorted(int(path.stem) for path in (self.path / "shards").glob("*.zarr") if path.stem.isdigit())

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def unfinished(self) -> bool:
        """True if an extraction into this store was interrupted or is still running."""
        return self.journal_path.exists() or not (self.path / "published.json").exists()

    def require_finished(self) -> None:
        """Require that no extraction into this store is unfinished.

        Raises:
            StoreError: one is.
        """
        if self.unfinished:
            remedy = f"run `{self.spec.command}` again: it continues"
            raise StoreError(f"{self.path}: its extraction is unfinished", remedy)

    @property
    def repair_remedy(self) -> str:
        """What to do if shards are damaged."""
        return f"run `{self.spec.command} --verify`: it makes them again"

    @property
    def republish_remedy(self) -> str:
        """What to do if a table is missing or damaged."""
        return f"run `{self.spec.command}` again: it writes manifest and slice index anew, without decoding"

    @cached_property
    def publication(self) -> dict[str, Any]:
        """Content of `published.json`: cuts, digests of the manifest and of the slice indices, a copy of the head.

        Raises:
            StoreError: the file is missing or damaged.
        """
        path = self.path / "published.json"
        try:
            return files.read_json_with_digest(path)
        except FileNotFoundError:
            raise StoreError(f"{path}: missing", self.republish_remedy) from None
        except OSError as error:
            raise StoreError(f"{path}: damaged ({error.strerror})", self.republish_remedy) from None

    @cached_property
    def tracks(self) -> pa.Table:
        """The manifest: one row per track (`MANIFEST_SCHEMA`).

        Raises:
            StoreError: the file is missing, or does not match its digest in `published.json`.
        """
        return self.read_table("tracks.parquet")

    @cached_property
    def slices(self) -> pa.Table:
        """The slice index of the default cut: one row per slice (`SLICE_SCHEMA`).

        Raises:
            StoreError: the file is missing, or does not match its digest in `published.json`.
        """
        return self.read_table("slices.parquet")

    def read_tracks(self, columns: list[str]) -> pa.Table:
        """Read only these columns of the manifest from disk.

        Raises:
            StoreError: the file is missing, or does not match its digest in `published.json`.
        """
        if "tracks" in self.__dict__:
            return self.tracks.select(columns)
        return self.read_table("tracks.parquet", columns)

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read a published table, `tracks.parquet` or the slice index of a cut; None reads all columns.

        Raises:
            StoreError: the file is missing, or does not match its digest in `published.json`.
        """
        with self._published_file(name) as file:
            table = parquet.read_table_file(file, self.path / name, columns)
        schema = MANIFEST_SCHEMA if name == "tracks.parquet" else SLICE_SCHEMA
        if columns is not None:
            schema = pa.schema([schema.field(column) for column in columns])
        return with_optional_columns(table, schema)

    def read_slices(
        self, shards: Iterable[int], columns: list[str] = SLICE_SCHEMA.names, cut: Cut | None = None
    ) -> Iterator[pa.Table]:
        """Yield the row groups of a slice index that may hold slices of some shards.

        A row group can also hold slices of other shards: the caller filters the rows.

        Args:
            shards: numbers of the shards.
            columns: columns of `SLICE_SCHEMA` to read.
            cut: one of `cuts`; None for the default.

        Raises:
            StoreError: the file is missing, or does not match its digest in `published.json`.
        """
        schema = pa.schema([SLICE_SCHEMA.field(column) for column in columns])
        name = cut.file if cut is not None else "slices.parquet"
        with self._published_file(name) as file:
            for table in parquet.read_row_groups(file, self.path / name, columns, "shard", sorted(shards)):
                yield with_optional_columns(table, schema)

    def tables_are_intact(self) -> bool:
        """Return whether manifest and slice indices match their digests in `published.json`; no table is loaded."""
        try:
            for name in ("tracks.parquet", *(cut.file for cut in self.cuts)):
                with self._published_file(name):
                    pass
        except StoreError:
            return False
        return True

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The cuts of the store, the default first; `cuts.find_cut` finds one by name."""
        return read_cuts(self.publication)

    @property
    def slicing(self) -> Slicing:
        """Slicing of the default cut."""
        return self.cuts[0].slicing

    def cut_of(self, slicing: Slicing) -> Cut | None:
        """Return the first cut with this slicing; None if there is none."""
        return next((cut for cut in self.cuts if cut.slicing == slicing), None)

    @property
    def manifest_digest(self) -> str:
        """Digest of the manifest file; a training run records it."""
        return self.publication["digests"]["tracks.parquet"]

    @property
    def genres(self) -> list[str]:
        """Genres of the tracks in use: in the dataset's order, then those that it does not list, by name."""
        rows = self.read_tracks(["genre", "status"])
        present = set(pc.unique(rows["genre"].filter(pc.equal(rows["status"], "ok"))).to_pylist())
        known = [genre for genre in self.dataset["genres"] if genre in present]
        return known + sorted(present - set(known))

    def shard_files(self) -> dict[str, dict[str, list]]:
        """Return `{shard: {file: [size, digest]}}` from the metadata of the manifest."""
        return self._shard_files

    @cached_property
    def _shard_files(self) -> dict[str, dict[str, list]]:
        return json.loads(self.read_tracks(["shard"]).schema.metadata[FILES_KEY])

    def read(self, shard: int, first: int = 0, stop: int | None = None) -> np.ndarray:
        """Read frames `[first, stop)` of a shard, `(n, bins)` in the stored dtype, and check their checksums.

        Args:
            shard: number of the shard.
            first: first frame, counted from the start of the shard.
            stop: end (exclusive); None reads to the end of the shard.

        Raises:
            StoreError: a file of the shard is missing or truncated, or a checksum does not match. The message names
                the affected tracks.
        """
        from mgc.pipeline.store.shard import DamagedFrames, read_frames

        shard_files = self.shard_files().get(f"{shard:05d}", {})
        folder = self.path / "shards"
        if isinstance(folder, RemotePath):
            from mgc.pipeline.store.copies import local_copy

            folder = local_copy(folder, shard_files)
        for name, (size, digest) in shard_files.items():
            # zarr reads a missing data file as zeros, and trusts the array length in zarr.json, which none of its own
            # checksums covers.
            description = files.file_problem(folder / name, size, digest if name.endswith("zarr.json") else None)
            if description:
                problem = f"{self.path / 'shards' / name}: {description}{self._affected_tracks(shard)}"
                raise StoreError(problem, self.repair_remedy)
        try:
            return read_frames(folder / self.shard_path(shard).name, self.spec, first, stop)
        except DamagedFrames as damage:
            tracks = self._affected_tracks(shard, damage.first, damage.stop)
            raise StoreError(f"{self.shard_path(shard)}: damaged ({damage}){tracks}", self.repair_remedy) from damage
        except Exception as error:  # zarr and zarrs raise errors of any type for damaged files
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            problem = f"{self.shard_path(shard)}: damaged ({first_line}){self._affected_tracks(shard)}"
            raise StoreError(problem, self.repair_remedy) from error

    def _affected_tracks(self, shard: int, first: int = 0, stop: int = 2**62) -> str:
        """Format the ids of the tracks with frames in `[first, stop)` of a shard, for the end of an error message."""
        from mgc.pipeline.datasets.catalogue import format_names

        rows = self.tracks.select(["track_id", "shard", "first_frame", "n_frames"]).to_pylist()
        track_ids = [
            row["track_id"]
            for row in rows
            if row["shard"] == shard
            and max(first, row["first_frame"]) < min(stop, row["first_frame"] + row["n_frames"])
        ]
        return f" (contains frames of {format_names(track_ids, 3)})" if track_ids else ""

    @contextlib.contextmanager
    def _published_file(self, name: str) -> Iterator[pa.NativeFile]:
        """Open a published table and check its digest. A file that replaces it meanwhile does not affect the reader."""
        path = self.path / name
        try:
            file = parquet.open_native(path)
        except FileNotFoundError:
            raise StoreError(f"{path}: missing", self.republish_remedy) from None
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}", "check the path and its permissions") from None
        with file:
            if files.stream_digest(file) != self.publication["digests"][name]:
                raise StoreError(f"{path}: {files.CHECKSUM_MISMATCH}", self.republish_remedy)
            yield file

    # -- writing ----------------------------------------------------------------------------------------------------

    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        """Return a context manager that keeps other writers out; see `lock.write_lock`."""
        return write_lock(self.path)
