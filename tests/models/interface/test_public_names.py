"""What `import mgc` offers: its names, how long it takes, and what it loads."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import mgc

#: Run in a new process: seconds that `import mgc` takes, and modules that are there afterwards.
_IMPORT = """
import sys, time
start = time.perf_counter()
import mgc
print(time.perf_counter() - start, *sys.modules)
"""


def test_the_import_is_quick_and_loads_no_library() -> None:
    imports = [subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, check=True) for _ in range(3)]
    seconds, *modules = imports[0].stdout.decode().split()
    heavy = {"torch", "librosa", "dask", "numpy", "pyarrow", "zarr", "sklearn", "click", "mgc.pipeline", "mgc.models"}
    assert heavy.isdisjoint(modules)
    assert min(float(one.stdout.split()[0]) for one in imports) < 0.3, seconds


def test_opening_a_store_loads_no_pytorch() -> None:
    script = "import sys, mgc; mgc.open_store, mgc.extract, mgc.Run; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_dozen_names_are_public_and_documented() -> None:
    assert len(mgc.__all__) == 12
    assert sorted(mgc.__all__) == mgc.__all__ == sorted(set(mgc.__all__))
    assert set(mgc.__all__) <= set(dir(mgc))
    for name in mgc.__all__:
        assert getattr(mgc, name).__doc__, name
    assert mgc.__version__ == metadata.version("mgc-music")
    assert not hasattr(mgc, "open_stroe")
    scope: dict[str, object] = {}
    exec("from mgc import *", scope)
    assert set(mgc.__all__) <= scope.keys()
