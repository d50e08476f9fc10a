"""The pods of a `DaskCluster` as processes on this machine, where there is no Kubernetes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import requests
from clusters import end, free_port, start

HOST = "127.0.0.1"


@contextlib.contextmanager
def local_pods(
    folder: Path, *, custom_cluster_spec: dict[str, Any], namespace: str | None, quiet: bool
) -> Iterator[SimpleNamespace]:
    """Run the containers of the pods that Dask's operator would make, with their commands and environment.

    Images, volumes and limits are not applied, and all pods have the address of this machine.

    Args:
        folder: working directory and log of the processes.
        custom_cluster_spec, namespace, quiet: see `KubeCluster`.

    Yields:
        What has the attribute `scheduler_address`, as a `KubeCluster` has.
    """
    from dask_kubernetes.operator.controller.controller import (
        build_scheduler_deployment_spec,
        build_worker_deployment_spec,
    )

    assert quiet  # the output of the command is the extraction's
    spec, name, space = custom_cluster_spec["spec"], custom_cluster_spec["metadata"]["name"], namespace or "default"
    port, dashboard = free_port(HOST), free_port(HOST)
    address = f"tcp://{HOST}:{port}"
    deployments = [build_scheduler_deployment_spec(name, spec["scheduler"]["spec"], {}, {})]
    for number in range(spec["worker"]["replicas"]):
        pod = spec["worker"]["spec"]
        deployments.append(build_worker_deployment_spec(f"{name}-default", space, name, str(number), pod, {}, {}))
    # These options come last, so they take the place of those of the pod.
    here = ["--host", HOST, "--port", str(port), "--dashboard-address", f"{HOST}:{dashboard}"]
    with contextlib.ExitStack() as stack:
        for deployment in deployments:
            [container] = deployment["spec"]["template"]["spec"]["containers"]
            stack.callback(end, start(*_process(container, here, address, folder)))
            here = ["--dashboard-address", f"{HOST}:0"]
        [scheduler] = spec["scheduler"]["spec"]["containers"]
        _wait_until_ready(f"http://{HOST}:{dashboard}{scheduler['readinessProbe']['httpGet']['path']}", folder)
        yield SimpleNamespace(scheduler_address=address)


def _process(
    container: dict[str, Any], options: list[str], address: str, folder: Path
) -> tuple[list[str], Path, dict[str, str]]:
    """Command, working directory and environment of a container's process, which finds the scheduler at an address."""
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    if "DASK_SCHEDULER_ADDRESS" in variables:
        assert variables["DASK_SCHEDULER_ADDRESS"].startswith("tcp://mgc-")  # a name that only Kubernetes resolves
        variables["DASK_SCHEDULER_ADDRESS"] = address
    command = [*container["args"], *options]
    for name, value in variables.items():
        command = [word.replace(f"$({name})", value) for word in command]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return command, folder, variables | {"PATH": path}


def _wait_until_ready(url: str, folder: Path) -> None:
    """Wait until a pod answers its readiness probe."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(url, timeout=60).ok:
                return
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)
