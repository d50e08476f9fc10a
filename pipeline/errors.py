"""Exceptions that a user can cause. The command line prints them as one line and exits with a non-zero code."""


class MgcError(Exception):
    """Base class of all errors that a user can cause.

    Args:
        problem: description of the error, with the file, option or value at fault; one line.
        remedy: advice to the user, one line; empty if nothing can be done.
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
