"""The recipe for Kubernetes: its `DaskCluster` against the schema of Dask's operator, its pods as processes."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import inspect
import json
import os
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jsonschema
import pytest
import yaml
from commands import MGC, mgc, tree
from distributed.cli import dask_scheduler, dask_worker
from music import write_genres
from pods import local_pods

RECIPE = Path(__file__).parents[3] / "docs" / "examples" / "kube.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    pytest.importorskip("dask_kubernetes")
    spec = importlib.util.spec_from_file_location("kube_recipe", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cluster(recipe: ModuleType) -> dict[str, Any]:
    """The cluster of some options."""
    options = argparse.Namespace(image="registry/mgc:1", claim="music", mount="/shared", workers=3, memory="4Gi")
    return recipe.cluster_spec(options)


def closed(schema: Any) -> Any:
    """The schema of a custom resource, without its permission of fields that it does not name."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: closed(part) for key, part in schema.items()}
    is_object = parts.get("type") == "object" and "properties" in parts
    return parts | ({"additionalProperties": False} if is_object else {})


def test_the_operator_accepts_the_cluster(cluster: dict[str, Any]) -> None:
    """Kubernetes refuses what its schema does not allow, and drops fields that it does not name."""
    import dask_kubernetes

    charts = Path(dask_kubernetes.__file__).parent / "operator" / "deployment" / "helm"
    definition = yaml.safe_load((charts / "dask-kubernetes-operator" / "crds" / "daskcluster.yaml").read_text())
    names, [version] = definition["spec"]["names"], definition["spec"]["versions"]
    assert cluster["apiVersion"] == f"{definition['spec']['group']}/{version['name']}"
    assert cluster["kind"] == names["kind"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    content = {key: value for key, value in cluster.items() if key in ("spec", "status")}
    jsonschema.validate(content, schema)
    misspelt = json.loads(json.dumps(content).replace("volumeMounts", "volumeMount"))
    with pytest.raises(jsonschema.ValidationError, match="'volumeMount' was unexpected"):
        jsonschema.validate(misspelt, schema)


def test_local_pods_are_called_as_a_kube_cluster_is(recipe: ModuleType) -> None:
    from dask_kubernetes.operator import KubeCluster

    options = set(inspect.signature(local_pods).parameters) - {"folder"}
    assert options <= set(inspect.signature(KubeCluster).parameters)


def test_workers_have_one_thread_a_nanny_and_the_volume(cluster: dict[str, Any]) -> None:
    worker, scheduler = (cluster["spec"][name]["spec"] for name in ("worker", "scheduler"))
    [container] = worker["containers"]
    assert container["args"][:2] == ["dask", "worker"]
    options = dask_worker.main.make_context("dask worker", container["args"][2:]).params
    assert (options["nthreads"], options["nanny"], options["memory_limit"]) == (1, True, "auto")
    [volume], [mount] = worker["volumes"], container["volumeMounts"]
    assert volume == {"name": mount["name"], "persistentVolumeClaim": {"claimName": "music"}}
    assert mount["mountPath"] == "/shared"
    assert container["image"] == "registry/mgc:1"
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "4Gi"} == container["resources"]["requests"]
    assert cluster["spec"]["worker"]["replicas"] == 3
    assert "volumes" not in scheduler
    [container] = scheduler["containers"]
    assert container["args"][:2] == ["dask", "scheduler"]
    assert dask_scheduler.main.make_context("dask scheduler", container["args"][2:]).params["host"] == "0.0.0.0"


@pytest.mark.slow
def test_its_pods_extract_the_same_bytes(
    recipe: ModuleType,
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    songs = write_genres(tmp_path / "songs", tracks=3, seconds=0.6)
    extract = ("--dataset", songs, "--feature", "stft:n_fft=512", "--slice", "0.4", "--json")
    [expected] = mgc("extract", *extract, "--data-dir", tmp_path / "calm", "--scheduler", scheduler).json["stores"]
    assert expected["ok"] == 6
    monkeypatch.setenv("PATH", f"{Path(MGC).parent}{os.pathsep}{os.environ['PATH']}")
    words = ["--image", "registry/mgc:1", "--claim", "music", "--workers", 2, "--", *extract]
    capfd.readouterr()
    code = recipe.main(
        [str(word) for word in [*words, "--data-dir", tmp_path / "pods"]], functools.partial(local_pods, tmp_path)
    )
    out, err = capfd.readouterr()
    assert code == 0, err
    assert "nanny" not in err
    [actual] = json.loads(out)["stores"]
    assert tree(Path(actual["store"])) == tree(Path(expected["store"]))
    log = (tmp_path / "log").read_text()
    assert log.count("Start Nanny at: ") == 2
    assert "Register worker" in log


def test_the_exit_code_is_that_of_the_extraction(
    recipe: ModuleType, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(MGC).parent}{os.pathsep}{os.environ['PATH']}")
    running = contextlib.nullcontext(SimpleNamespace(scheduler_address=scheduler))
    words = ["--image", "x", "--claim", "y", "--", "--dataset", str(tmp_path / "absent"), "--feature", "mel"]
    assert recipe.main(words, lambda **options: running) == 1
