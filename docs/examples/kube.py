"""Run `mgc extract` on the workers of a Kubernetes cluster (needs dask-kubernetes, and Dask's operator in the cluster).

    python docs/examples/kube.py --image registry/mgc:1 --claim music --mount /shared --workers 10 -- \\
        --dataset /shared/fma_full --feature mel --data-dir /shared/data

What follows `--` goes to `mgc extract`. Audio and store lie on the volume of the claim. This process must see it at the
same path as the workers, so run it in a pod that mounts the claim there. Each worker is a pod with one thread and a
nanny. The pods end with this process; if it is killed, the operator removes them after an hour without work.
"""

import argparse
import contextlib
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dask_kubernetes.operator import KubeCluster, make_cluster_spec
from distributed import Client

#: Seconds without work, as while tracks are planned, after which the operator removes the cluster.
IDLE_SECONDS = 3600
#: Seconds until the first worker has come. Nodes may have to fetch the image; `mgc extract` waits for a minute only.
START_SECONDS = 900


def cluster_spec(options: argparse.Namespace) -> dict[str, Any]:
    """Describe the cluster as a `DaskCluster`, the resource that Dask's operator makes pods of."""
    shares = {"cpu": "1", "memory": options.memory}
    spec = make_cluster_spec(
        name=f"mgc-{secrets.token_hex(4)}",
        image=options.image,
        n_workers=options.workers,
        resources={"requests": shares, "limits": shares},
        env={},
        worker_command=["dask", "worker", "--nthreads", "1"],
        idle_timeout=IDLE_SECONDS,
    )
    # dask-kubernetes 2026.3 calls `dask-scheduler`, a command that distributed 2026.6 no longer has.
    [scheduler] = spec["spec"]["scheduler"]["spec"]["containers"]
    scheduler["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]
    # The scheduler reads no file: only workers mount the volume.
    pod = spec["spec"]["worker"]["spec"]
    pod["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": options.claim}}]
    pod["containers"][0]["volumeMounts"] = [{"name": "shared", "mountPath": options.mount}]
    return spec


def main(
    arguments: Sequence[str] | None = None,
    make_cluster: Callable[..., contextlib.AbstractContextManager] = KubeCluster,
) -> int:
    """Make pods, extract on them, and return the exit code of the extraction.

    Args:
        arguments: the command line; None for that of this process.
        make_cluster: makes the cluster of a `DaskCluster`.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, help="image of all pods; it holds mgc")
    parser.add_argument("--claim", required=True, help="claim of the volume with audio and stores (ReadWriteMany)")
    parser.add_argument("--mount", default="/shared", help="path of the volume, here as in the pods")
    parser.add_argument("--namespace", help="namespace of the pods and of the claim")
    parser.add_argument("--workers", type=int, default=10, help="pods with a worker")
    parser.add_argument("--memory", default="4Gi", help="memory of a pod")
    parser.add_argument("extract", nargs="+", help="options of mgc extract, behind --")
    options = parser.parse_args(arguments)
    # `quiet`: it would draw a table on stdout, where `mgc extract --json` writes.
    with make_cluster(custom_cluster_spec=cluster_spec(options), namespace=options.namespace, quiet=True) as cluster:
        with Client(cluster.scheduler_address) as client:
            client.wait_for_workers(1, timeout=START_SECONDS)
        command = ["mgc", "extract", "--scheduler", cluster.scheduler_address, *options.extract]
        return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
