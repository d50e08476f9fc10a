"""The head of a store, `store.json`: its feature, dataset, variants and versions, in a format with a version number."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from mgc.pipeline.errors import SpecError, StoreError
from mgc.pipeline.features import FeatureSpec, from_dict
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

_EXTRACT_ANEW = "delete the folder and run `mgc extract` again"


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
    versions = library_versions(LIBRARIES)
    path.mkdir(parents=True, exist_ok=True)
    head = {"format": FORMAT, "spec": spec.as_dict(), "dataset": dataset, "versions": versions}
    head["quantisation"] = {"dtype": spec.dtype, "scale": spec.scale, "offset": spec.offset}
    if variants:
        head |= {"format": FORMAT_VARIANTS, "variants": [str(variant) for variant in variants]}
    files.write_json_with_digest(path / "store.json", head)
    return Head(spec, dataset, versions, variants)


def read_head(path: Place) -> Head:
    """Read the head of a store.

    Args:
        path: folder or URL of the store.

    Raises:
        StoreError: there is no store, its head is damaged, or this version of mgc cannot read its format.
    """
    head_path = path / "store.json"
    try:
        version = json.loads(head_path.read_bytes())["format"]
    except FileNotFoundError:
        if (path / "shards").is_dir():
            problem = f"{path}: store.json is missing, but the shards of a store are there"
            raise StoreError(problem, _EXTRACT_ANEW) from None
        raise StoreError(f"{path}: no feature store", "make one with `mgc extract`, or name another folder") from None
    except OSError as error:
        raise StoreError(f"{head_path}: {error.strerror}", "check the path and its permissions") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StoreError(f"{head_path}: damaged", _EXTRACT_ANEW) from None
    if version not in (FORMAT, FORMAT_VARIANTS):
        raise StoreError(
            f"{path}: a store of format {version}, this mgc reads formats {FORMAT} and {FORMAT_VARIANTS}",
            "use the version of mgc that made it, or extract into another folder with --out",
        )
    try:
        head = files.read_json_with_digest(head_path)
        variants = parse_variants(",".join(head["variants"])) if "variants" in head else ()
        return Head(from_dict(head["spec"]), head["dataset"], head["versions"], variants)
    except SpecError as error:  # the feature or a variant is of another package or version
        raise StoreError(f"{path}: {error.problem}", error.remedy) from None
    except OSError as error:
        raise StoreError(f"{head_path}: damaged ({error.strerror})", _EXTRACT_ANEW) from None
