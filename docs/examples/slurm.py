"""Run `mgc extract` on the workers of a SLURM cluster (needs dask-jobqueue).

    python docs/examples/slurm.py --queue batch --jobs 10 --minutes 60 -- --dataset /shared/fma_full --feature mel

What follows `--` goes to `mgc extract`. Audio, store and environment must lie in folders that all nodes share. The
scheduler lives in this process, on the node where it runs. Each job is one worker; it leaves five minutes before its
time is over, and another job takes its place.
"""

import argparse
import subprocess
import sys

from dask_jobqueue import SLURMCluster


def main() -> int:
    """Submit jobs, extract on them, and return the exit code of the extraction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queue", help="partition of the jobs")
    parser.add_argument("--jobs", type=int, default=10, help="workers at a time")
    parser.add_argument("--minutes", type=int, default=60, help="time of a job")
    parser.add_argument("--memory", default="4GB", help="memory of a job")
    parser.add_argument("--lifetime", help="time after which a worker leaves, such as 55m")
    parser.add_argument("--host", help="address of this node that the workers reach")
    parser.add_argument("extract", nargs="+", help="options of mgc extract, behind --")
    options = parser.parse_args()
    lifetime = options.lifetime or f"{max(1, options.minutes - 5)}m"
    jobs = {
        "queue": options.queue,
        "cores": 1,  # one thread: mgc has one worker for each core
        "processes": 1,
        "memory": options.memory,
        "walltime": f"{options.minutes // 60:02}:{options.minutes % 60:02}:00",
        "worker_extra_args": ["--lifetime", lifetime, "--lifetime-stagger", "1m" if options.minutes > 10 else "2s"],
        "scheduler_options": {"host": options.host, "dashboard_address": ":0"},
        "python": sys.executable,
    }
    with SLURMCluster(**jobs) as cluster:
        # `adapt` replaces jobs that have ended; `scale` would not.
        cluster.adapt(minimum_jobs=options.jobs, maximum_jobs=options.jobs)
        command = ["mgc", "extract", "--scheduler", cluster.scheduler_address, *options.extract]
        return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
