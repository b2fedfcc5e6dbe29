"""Errors of the job controller."""

from __future__ import annotations

from nosana_operator.errors import Conflict, NotFound, Refused, Unavailable


class NameTaken(Conflict):
    """An object with the name that a job's child has to have exists, and is not this job's."""


class LogGone(NotFound):
    """The kubelet has dropped the container, and its log with it."""


class LogNotReadYet(Unavailable):
    """A log cannot be read at the moment; it is tried again for a while before the result goes without it."""


class ResultsNotCapturedYet(Unavailable):
    """The regular expressions of an op take their time; they are bounded, and looked at again."""


class NoStorageClass(Refused):
    """No StorageClass can make a job's volume."""
