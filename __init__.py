"""Folders of music into trained, honestly evaluated genre classifiers.

The names in `__all__` are the public interface of Python; docs/python.md shows it at work. Each is loaded when it is
first used, so that `import mgc` takes no time.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # type checkers see the names themselves
    from mgc.models.data.stream import Batch
    from mgc.models.evaluation.evaluation import Evaluation
    from mgc.models.interface.extraction import extract
    from mgc.models.interface.run import Run
    from mgc.models.interface.slices import Batches, SliceDataset
    from mgc.models.interface.store import FeatureStore, open_store
    from mgc.models.interface.training import train
    from mgc.models.prediction.prediction import FilePrediction
    from mgc.pipeline.errors import MgcError

    __version__: str

__all__ = [
    "Batch",
    "Batches",
    "Evaluation",
    "FeatureStore",
    "FilePrediction",
    "MgcError",
    "Run",
    "SliceDataset",
    "__version__",
    "extract",
    "open_store",
    "train",
]

#: Module of each public name.
_MODULES = {
    "Batch": "mgc.models.data.stream",
    "Batches": "mgc.models.interface.slices",
    "Evaluation": "mgc.models.evaluation.evaluation",
    "FeatureStore": "mgc.models.interface.store",
    "FilePrediction": "mgc.models.prediction.prediction",
    "MgcError": "mgc.pipeline.errors",
    "Run": "mgc.models.interface.run",
    "SliceDataset": "mgc.models.interface.slices",
    "extract": "mgc.models.interface.extraction",
    "open_store": "mgc.models.interface.store",
    "train": "mgc.models.interface.training",
}

if not TYPE_CHECKING:  # a type checker that saw this function would accept every name

    def __getattr__(name: str) -> object:
        """Load a public name when it is first used."""
        if name == "__version__":
            from mgc.pipeline.versions import versions

            value = versions(["mgc"])["mgc"]
        elif name in _MODULES:
            from importlib import import_module

            value = getattr(import_module(_MODULES[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, loaded or not, and the parts of the package that are loaded."""
    return sorted({*globals(), *__all__})
