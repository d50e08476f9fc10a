"""The exceptions a user can cause. The command line prints each as one line and exits non-zero."""


class MgcError(Exception):
    """What is wrong, with the file or value at fault, and what to do about it: both on one line.

    Args:
        problem: what is wrong, naming the file, option or value.
        remedy: what the user can do; may be empty where nothing can be done.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}; {remedy}" if remedy else problem)


class DatasetError(MgcError):
    """A dataset folder, list or metadata file cannot be used."""


class StoreError(MgcError):
    """A feature store is missing, foreign, locked, unfinished or damaged."""


class SpecError(MgcError):
    """A parameter is out of its range, or parameters do not fit together (exit code 2)."""


class ModelError(MgcError):
    """A model is unknown, or the store does not hold what it needs."""


class RunError(MgcError):
    """A training run is missing, damaged, or does not fit its store."""
