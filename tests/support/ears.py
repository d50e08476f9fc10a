"""Stand-ins for the weights of `mgc download musicnn`: the same networks with random weights, in the same files."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save

from mgc.models.registry import systems
from mgc.pipeline.downloads import weights
from mgc.pipeline.downloads.places import RECORD
from mgc.pipeline.downloads.published_weights import published_weights
from mgc.pipeline.storage import files


def write_random_weights(folder: Path) -> None:
    """Fill the folder `weights/musicnn` of a workspace, as if the weights had been downloaded."""
    published = published_weights("musicnn")
    folder.mkdir(parents=True)
    rows = {}
    for number, network in enumerate(published.networks):
        torch.manual_seed(number)
        module = systems.get(network.system).build(len(network.tags))
        state = {name: value for name, value in module.state_dict().items() if not name.endswith("num_batches_tracked")}
        origin = {"system": network.system, "network": network.name, "tags": list(network.tags)}
        data = save(state, {weights.ORIGIN: json.dumps(origin | {"trained_on": "nothing", "licence": "none"})})
        file = folder / f"{network.name}{weights.SUFFIX}"
        file.write_bytes(data)
        rows[file.name] = [len(data), files.digest(data)]
    files.write_json_with_digest(folder / RECORD, {"description": "random", "files": rows})
