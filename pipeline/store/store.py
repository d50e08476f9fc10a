"""A feature store: the frames of one dataset under one FeatureSpec, each track once.

store.json          spec, dataset, variants, format version, library versions
tracks.parquet      the manifest: one row per track seen, dropped ones with their reason
slices.parquet      the slice index
published.json      how slices were cut, and the digests of manifest and index: written last, it ties them together
shards/00000.zarr   frames of a few dozen tracks; shards/00000.parquet: their manifest rows (the fragment)
plan.parquet        only while an extraction is unfinished: what it set out to do
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mgc.pipeline.datasets.tracks import MANIFEST_SCHEMA, completed
from mgc.pipeline.errors import StoreError
from mgc.pipeline.features import FeatureSpec, from_dict
from mgc.pipeline.features.variants import Variant, parse_variants
from mgc.pipeline.storage import files
from mgc.pipeline.storage.remote import Place, RemotePath
from mgc.pipeline.store.slicing import SLICE_SCHEMA, Slicing
from mgc.pipeline.versions import versions as library_versions

#: 1 and 2 were the same with other checksums.
FORMAT = 3
#: Of a store with variants: an mgc that does not know them would take them for tracks of any split.
FORMAT_VARIANTS = 4
#: Libraries whose version can change the stored numbers.
LIBRARIES = ("mgc", "numpy", "scipy", "librosa", "soundfile", "soxr", "av", "zarr", "zarrs", "pyarrow")

#: Schema metadata of a fragment: `{file: [size, digest]}` of its shard. Of the manifest: those of all, by shard.
FILES_KEY = b"mgc.files"
#: What `published.json` gives the digests of.
PUBLISHED = ("tracks.parquet", "slices.parquet")
_SCHEMAS = {"tracks.parquet": MANIFEST_SCHEMA, "slices.parquet": SLICE_SCHEMA}
REPUBLISH = "run `mgc extract` again: it writes manifest and slice index anew, without decoding"


@dataclass(frozen=True)
class Store:
    """An existing store. Reading never changes it.

    Attributes:
        path: its folder, or its URL.
        spec: the feature it holds.
        dataset: name, root, source, format, metadata, subset and genre order of the dataset.
        versions: of the libraries that made it.
        variants: what it also holds of each training track.
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
        """A new, empty store."""
        versions = library_versions(LIBRARIES)
        path.mkdir(parents=True, exist_ok=True)
        head = {"format": FORMAT, "spec": spec.as_dict(), "dataset": dataset, "versions": versions}
        head["quantisation"] = {"dtype": spec.dtype, "scale": spec.scale, "offset": spec.offset}
        if variants:
            head |= {"format": FORMAT_VARIANTS, "variants": [str(variant) for variant in variants]}
        # First: a folder without it is taken for somebody else's, even by the run that a kill interrupted here.
        files.write_sealed(path / "store.json", head)
        return cls(path, spec, dataset, versions, variants)

    @classmethod
    def open(cls, path: Place) -> Store:
        """The store in a folder.

        Raises:
            StoreError: there is none, or this version of mgc cannot read it.
        """
        head_path = path / "store.json"
        try:
            version = json.loads(head_path.read_bytes())["format"]
        except FileNotFoundError:
            if (path / "shards").is_dir():
                problem = f"{path}: store.json is gone, the rest of the store is there"
                raise StoreError(problem, "delete the folder and run `mgc extract` again") from None
            raise StoreError(
                f"{path}: no feature store", "make one with `mgc extract`, or name another folder"
            ) from None
        except OSError as error:
            raise StoreError(f"{head_path}: {error.strerror}", "check the path and its rights") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise StoreError(f"{head_path}: damaged", "delete the folder and run `mgc extract` again") from None
        if version not in (FORMAT, FORMAT_VARIANTS):
            raise StoreError(
                f"{path}: a store of format {version}, this mgc reads formats {FORMAT} and {FORMAT_VARIANTS}",
                "use the version of mgc that made it, or extract into another folder with --out",
            )
        try:
            head = files.read_sealed(head_path)
            variants = parse_variants(",".join(head["variants"])) if "variants" in head else ()
            return cls(path, from_dict(head["spec"]), head["dataset"], head["versions"], variants)
        except OSError as error:
            problem = f"{head_path}: damaged ({error.strerror})"
            raise StoreError(problem, "delete the folder and run `mgc extract` again") from None

    # -- where things are -------------------------------------------------------------------------------------------

    @property
    def plan_path(self) -> Place:
        """The journal of an unfinished extraction."""
        return self.path / "plan.parquet"

    def shard_path(self, shard: int) -> Place:
        """The Zarr group of a shard."""
        return self.path / "shards" / f"{shard:05d}.zarr"

    def fragment_path(self, shard: int) -> Place:
        """The manifest rows of a shard."""
        return self.path / "shards" / f"{shard:05d}.parquet"

    def fragments(self) -> list[int]:
        """Shards that have a fragment, ascending."""
        return sorted(int(path.stem) for path in (self.path / "shards").glob("*.parquet") if path.stem.isdigit())

    def shards(self) -> list[int]:
        """Shards that have frames, ascending."""
        return sorted(int(path.stem) for path in (self.path / "shards").glob("*.zarr") if path.stem.isdigit())

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def unfinished(self) -> bool:
        """Whether an extraction into this store was interrupted, or runs now."""
        return self.plan_path.exists() or not (self.path / "published.json").exists()

    def require_finished(self) -> None:
        """Raise `StoreError` where the store is unfinished."""
        if self.unfinished:
            raise StoreError(f"{self.path}: its extraction is unfinished", "run `mgc extract` again: it continues")

    @cached_property
    def published(self) -> dict[str, Any]:
        """How the slices were cut, and the digests of manifest and slice index.

        Raises:
            StoreError: it is missing or damaged.
        """
        path = self.path / "published.json"
        try:
            return files.read_sealed(path)
        except FileNotFoundError:
            raise StoreError(f"{path}: missing", REPUBLISH) from None
        except OSError as error:
            raise StoreError(f"{path}: damaged ({error.strerror})", REPUBLISH) from None

    @cached_property
    def tracks(self) -> pa.Table:
        """The manifest (`MANIFEST_SCHEMA`).

        Raises:
            StoreError: it is missing, or not the one that was published.
        """
        return self._published_table("tracks.parquet")

    @cached_property
    def slices(self) -> pa.Table:
        """The slice index (`SLICE_SCHEMA`).

        Raises:
            StoreError: it is missing, or not the one that was published.
        """
        return self._published_table("slices.parquet")

    def read_tracks(self, columns: list[str]) -> pa.Table:
        """Some columns of the manifest, the others left on disk.

        Raises:
            StoreError: it is missing, or not the one that was published.
        """
        if "tracks" in self.__dict__:
            return self.tracks.select(columns)
        return self._published_table("tracks.parquet", columns)

    def read_slices(self, shards: Iterable[int], columns: list[str] = SLICE_SCHEMA.names) -> Iterator[pa.Table]:
        """The slice index by one row group at a time, but for those that hold no slice of some shards.

        Raises:
            StoreError: it is missing, or not the one that was published.
        """
        wanted = pa.schema([SLICE_SCHEMA.field(column) for column in columns])
        with self._published_file("slices.parquet") as file:
            for table in files.parse_groups(file, self.path / "slices.parquet", columns, "shard", sorted(shards)):
                yield completed(table, wanted)

    def slices_are_whole(self) -> bool:
        """Whether the slice index is the one that was published; none of it is kept in memory."""
        try:
            with self._published_file("slices.parquet"):
                return True
        except StoreError:
            return False

    @property
    def slicing(self) -> Slicing:
        """How the slices were cut."""
        return Slicing.from_dict(self.published["slicing"])

    @property
    def manifest_digest(self) -> str:
        """Digest of the manifest file: a run records it."""
        return self.published["digests"]["tracks.parquet"]

    @property
    def genres(self) -> list[str]:
        """Genres of the tracks in use, in the dataset's order."""
        rows = self.read_tracks(["genre", "status"])
        present = set(pc.unique(rows["genre"].filter(pc.equal(rows["status"], "ok"))).to_pylist())
        known = [genre for genre in self.dataset["genres"] if genre in present]
        return known + sorted(present - set(known))

    def shard_files(self) -> dict[str, dict[str, list]]:
        """`{shard: {file: [size, digest]}}` as the manifest records it."""
        return self._shard_files

    @cached_property
    def _shard_files(self) -> dict[str, dict[str, list]]:
        return json.loads(self.read_tracks(["shard"]).schema.metadata[FILES_KEY])

    def read(self, shard: int, first: int = 0, stop: int | None = None) -> np.ndarray:
        """Stored frames `[first, stop)` of a shard, `(n, bins)` in the stored dtype.

        Raises:
            StoreError: a file of the shard is missing or cut short, or a checksum does not match; it names the tracks.
        """
        from mgc.pipeline.store.shard import DamagedFrames, read_frames

        shard_files = self.shard_files().get(f"{shard:05d}", {})
        folder = self._at_hand(shard_files)
        for name, (size, digest) in shard_files.items():
            # zarr reads a missing data file as zeros, and believes whatever length its metadata say; no checksum covers
            # those.
            problem = _damage(folder / name, size, digest if name.endswith("zarr.json") else None)
            if problem:
                raise StoreError(f"{self.path / 'shards' / name}: {problem}{self._tracks_at(shard)}", self._repair)
        try:
            return read_frames(folder / self.shard_path(shard).name, self.spec, first, stop)
        except DamagedFrames as damage:
            tracks = self._tracks_at(shard, damage.first, damage.stop)
            raise StoreError(f"{self.shard_path(shard)}: damaged ({damage}){tracks}", self._repair) from damage
        except Exception as error:  # zarr and zarrs raise whatever their codecs raise
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            problem = f"{self.shard_path(shard)}: damaged ({first_line}){self._tracks_at(shard)}"
            raise StoreError(problem, self._repair) from error

    def _at_hand(self, shard_files: dict[str, list]) -> Path:
        """The folder of the shards; of a store at a URL, one with copies of the files of a shard that are there.

        Raises:
            StoreError: the server cannot be reached, or refuses.
        """
        folder = self.path / "shards"
        if not isinstance(folder, RemotePath):
            return folder
        from mgc.pipeline.store.copies import COPIES

        try:
            return COPIES.get(folder, shard_files)
        except OSError as error:
            raise files.explain_remote(error) from error

    def _tracks_at(self, shard: int, first: int = 0, stop: int = 2**62) -> str:
        """The tracks with frames in `[first, stop)` of a shard, for an error message."""
        from mgc.pipeline.datasets.catalogue import listed

        rows = self.tracks.select(["track_id", "shard", "first_frame", "n_frames"]).to_pylist()
        inside = [
            row["track_id"]
            for row in rows
            if row["shard"] == shard
            and max(first, row["first_frame"]) < min(stop, row["first_frame"] + row["n_frames"])
        ]
        return f", which holds {listed(inside, 3)}" if inside else ""

    @property
    def _repair(self) -> str:
        return "run `mgc extract --verify`: it extracts what is damaged again"

    def _published_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        with self._published_file(name) as file:
            table = files.parse_table(file, self.path / name, columns)
        schema = _SCHEMAS[name]
        wanted = schema if columns is None else pa.schema([schema.field(column) for column in columns])
        return completed(table, wanted)

    @contextlib.contextmanager
    def _published_file(self, name: str) -> Iterator[pa.NativeFile]:
        """A published table, open, its bytes held against their digest. What replaces it meanwhile stays unseen."""
        path = self.path / name
        try:
            file = files.open_native(path)
        except FileNotFoundError:
            raise StoreError(f"{path}: missing", REPUBLISH) from None
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}", "check the path and its rights") from None
        with file:
            if files.stream_digest(file) != self.published["digests"][name]:
                raise StoreError(f"{path}: {files.CHANGED}", REPUBLISH)
            yield file

    # -- one writer at a time ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        """Keep other writers out; the operating system frees the lock when this process ends, however it ends.

        At a URL it is a `mgc.pipeline.storage.lease`, which outlives a process that is killed, and can be lost.

        Yields:
            What raises `StoreError` where the lock was lost.

        Raises:
            StoreError: another process holds it.
        """
        if isinstance(self.path, RemotePath):
            from mgc.pipeline.storage import lease

            with lease.held(self.path / "lock.json", str(self.path)) as held:
                yield held.require
            return
        import filelock

        holder = self.path / ".holder"
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            who = holder.read_text() if holder.exists() else "another process"
            raise StoreError(f"{self.path}: {who} is writing to it", "wait for it to end") from None
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            yield lambda: None
        finally:
            with contextlib.suppress(OSError):
                holder.unlink(missing_ok=True)
            lock.release()


def _damage(path: Path, size: int, digest: str | None) -> str | None:
    """What is wrong with a file that should have this size and, unless it is None, this digest."""
    try:
        found = path.stat().st_size
        if found != size:
            return f"{found} bytes instead of {size}"
        return files.CHANGED if digest is not None and files.file_digest(path) != digest else None
    except OSError as error:
        return error.strerror or "unreadable"
