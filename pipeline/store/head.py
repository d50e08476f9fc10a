"""The head of a store, `store.json`: its feature, dataset, variants and versions, in a format with a version number."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from mgc.pipeline.errors import MgcError, SpecError, StoreError
from mgc.pipeline.features import Embedding, FeatureSpec, from_dict, parse_feature
from mgc.pipeline.features.variants import Variant, parse_variants
from mgc.pipeline.storage import files
from mgc.pipeline.storage.remote import Place
from mgc.pipeline.versions import versions as library_versions

#: Version of the format. 1 and 2 differ in their checksums only.
FORMAT = 3
#: Version of the format for stores with variants: an mgc that does not know variants must not read them, since it would
#: take them for tracks of any split.
FORMAT_VARIANTS = 4
#: Libraries whose version can change the stored numbers.
LIBRARIES = ("mgc", "numpy", "scipy", "librosa", "soundfile", "soxr", "av", "zarr", "zarrs", "pyarrow")

#: Key of the copy of the head in `published.json`.
COPY_KEY = "store"


class HeadLost(StoreError):
    """The head of a store is damaged or missing, but the store is there; `mgc extract` restores it."""


class Head(NamedTuple):
    """Content of `store.json`; the attributes are those of `Store`."""

    spec: FeatureSpec
    dataset: dict[str, Any]
    versions: dict[str, str]
    variants: tuple[Variant, ...]


def write_head(path: Place, spec: FeatureSpec, dataset: dict[str, Any], variants: tuple[Variant, ...]) -> Head:
    """Create the folder of a store and write its head.

    The head is written before anything else: `mgc extract` refuses a folder with other files and no head, also if a
    killed run of its own left them.

    Args:
        path: folder or URL of the store.
        spec: feature that the store will hold.
        dataset: description of the dataset, see `Store.dataset`.
        variants: augmentation variants of the training tracks.
    """
    head = Head(spec, dataset, library_versions(LIBRARIES), variants)
    path.mkdir(parents=True, exist_ok=True)
    replace_head(path, head)
    return head


def replace_head(path: Place, head: Head) -> None:
    """Write the head of a store whose folder exists, atomically."""
    files.write_json_with_digest(path / "store.json", as_dict(head))


def as_dict(head: Head) -> dict[str, Any]:
    """Return the content of `store.json`, without its digest."""
    spec = head.spec
    values = {"format": FORMAT, "spec": spec.as_dict(), "dataset": head.dataset, "versions": head.versions}
    values["quantisation"] = {"dtype": spec.dtype, "scale": spec.scale, "offset": spec.offset}
    if head.variants:
        values |= {"format": FORMAT_VARIANTS, "variants": [str(variant) for variant in head.variants]}
    return values


def read_head(path: Place) -> Head:
    """Read the head of a store.

    Args:
        path: folder or URL of the store.

    Raises:
        HeadLost: the head is missing or damaged, but the store's shards are there.
        StoreError: there is no store, or this version of mgc cannot read its format.
    """
    head_path = path / "store.json"
    try:
        values = json.loads(head_path.read_bytes())
        version = values["format"]
    except FileNotFoundError:
        if (path / "shards").is_dir():
            problem = f"{path}: store.json is missing, but the shards of a store are there"
            raise HeadLost(problem, _restore_remedy(path)) from None
        raise StoreError(f"{path}: no feature store", "make one with `mgc extract`, or name another folder") from None
    except OSError as error:
        raise StoreError(f"{head_path}: {error.strerror}", "check the path and its permissions") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise HeadLost(f"{head_path}: damaged", _restore_remedy(path)) from None
    if version not in (FORMAT, FORMAT_VARIANTS) and not _is_known_format(values):
        raise StoreError(
            f"{path}: a store of format {version}, this mgc reads formats {FORMAT} and {FORMAT_VARIANTS}",
            "use the version of mgc that made it, or extract into another folder with --out",
        )
    try:
        return _from_dict(files.read_json_with_digest(head_path))
    except SpecError as error:  # the feature or a variant is of another package or version
        raise StoreError(f"{path}: {error.problem}", error.remedy) from None
    except OSError as error:
        raise HeadLost(f"{head_path}: damaged ({error.strerror})", _restore_remedy(path)) from None


def read_copy(path: Place) -> Head | None:
    """Read the copy of a store's head in `published.json`.

    Returns:
        The head; None if the file is missing or damaged, or if an earlier version of mgc wrote it, without a copy.
    """
    with contextlib.suppress(OSError, MgcError, KeyError, TypeError, ValueError):
        return _from_dict(files.read_json_with_digest(path / "published.json")[COPY_KEY])
    return None


def extract_command(path: Place, head: Head) -> str:
    """Return the `mgc extract` or `mgc embed` command, for a shell, that makes a store with this head."""
    if isinstance(head.spec, Embedding):
        read = parse_feature(head.spec.of)
        words = [head.spec.command, head.spec.model, str(path.with_name(f"{read.name}-{read.digest}"))]
        return shlex.join([*words, "--layer", head.spec.layer])
    dataset, variants = head.dataset, ",".join(map(str, head.variants))
    words = ["mgc", "extract", "--dataset", str(dataset.get("source", dataset["root"]))]
    for name, value in dataset.get("options", {}).items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    for name, value in dataset.get("labels", {}).items():  # without a map, whose file may be gone: the copy holds it
        words += [f"--{name.replace('_', '-')}", str(value)] if name != "genre_map" else []
    words += ["--feature", head.spec.as_option(), *(["--augment", variants] if variants else [])]
    return shlex.join([*words, "--out", str(path.parent)])


def _from_dict(values: Mapping[str, Any]) -> Head:
    variants = parse_variants(",".join(values["variants"])) if "variants" in values else ()
    return Head(from_dict(values["spec"]), values["dataset"], values["versions"], variants)


def _restore_remedy(path: Place) -> str:
    """Return the advice to restore a lost head, with the whole command if a copy of the head is there."""
    copy = read_copy(path)
    if copy is None:
        return "run the `mgc extract` that made the store again: it restores store.json without decoding"
    return f"`{extract_command(path, copy)}` restores it without decoding"


def _is_known_format(values: dict[str, Any]) -> bool:
    """Return whether the digest of a head fits another format number than it states: then that number is damaged."""
    rest = {key: value for key, value in values.items() if key != "digest"}
    return any(
        values.get("digest") == files.digest(files.encode_json(rest | {"format": known}))
        for known in (FORMAT, FORMAT_VARIANTS)
    )
