"""Wheels from the user's package index: pip fetches them, with its own settings, caches and credentials."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mgc.pipeline.downloads.settings import Settings
from mgc.pipeline.errors import DatasetError, MgcError

#: What pip says of its network troubles, before it reports that nothing was found.
_NETWORK = ("Retrying (Retry", "Max retries exceeded", "Connection", "timed out", "No route")
_REMEDY = "check the network, name an index by PIP_INDEX_URL=URL, or a folder that holds the wheel by --mirror URL"


def fetch(requirement: str, folder: Path, settings: Settings) -> None:
    """Have pip download a wheel, without what it requires, and without installing it.

    pip's configuration files and variables, such as `PIP_INDEX_URL` and `PIP_FIND_LINKS`, decide where it looks.

    Args:
        requirement: package and version, such as `musicnn==0.1.0`.
        folder: folder that the wheel goes to.
        settings: limits of the network.

    Raises:
        MgcError: pip is missing, or does not find the wheel.
    """
    arguments = ["download", requirement, "--dest", str(folder), "--no-deps", "--only-binary", ":all:"]
    limits = ["--timeout", f"{max(1, round(settings.timeout))}", "--retries", str(settings.retries)]
    quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    # -P: a module in the current folder must not hide a module that has the same name.
    command = [sys.executable, "-P", "-m", "pip", *arguments, *limits, *quiet]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if result.returncode == 0:
        return
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        raise MgcError(f"{sys.executable} has no pip, which fetches {requirement}", "install it: python -m ensurepip")
    if any(word in line for word in _NETWORK for line in lines if line.startswith("WARNING")):
        raise MgcError(f"pip cannot reach the index that should have {requirement}", _REMEDY)
    reasons = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    reason = (reasons or lines or [f"exit code {result.returncode}"])[-1]
    raise DatasetError(f"pip cannot download {requirement}: {reason[:200]}", _REMEDY)
