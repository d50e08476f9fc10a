"""Exceptions that a user can cause. The command line prints them as one line and exits with their exit code.

0 is success, 1 an error in what is on disk or on the machine, 2 one in the command line, 130 an interruption by Ctrl-C.
"""


class MgcError(Exception):
    """Base class of all errors that a user can cause.

    Args:
        problem: description of the error, with the file, option or value at fault; one line.
        remedy: advice to the user, one line; empty if nothing can be done.

    Attributes:
        exit_code: exit code of the command.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}; {remedy}" if remedy else problem)


class DatasetError(MgcError):
    """A dataset folder, list or metadata file cannot be used."""


class StoreError(MgcError):
    """A feature store is missing, foreign, locked, unfinished or damaged."""


class UsageError(MgcError):
    """The command line is wrong, whatever is on disk: an unknown id, or options that contradict each other."""

    exit_code = 2


class SpecError(UsageError):
    """A parameter is out of its range, or parameters do not fit together."""


class ModelError(MgcError):
    """A model is unknown, or does not fit the store."""


class UnknownModelError(ModelError, UsageError):
    """No model or study has the id that the user named."""


class RunError(MgcError):
    """A training run is missing, damaged, or does not fit its store."""
