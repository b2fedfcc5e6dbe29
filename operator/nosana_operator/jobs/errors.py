"""Errors of the job controller."""

from __future__ import annotations

from nosana_operator.errors import Conflict, NotFound, Refused, Unavailable


class NameTaken(Conflict):
    """An object that is not this job's has the name that a child of the job needs."""


class LogGone(NotFound):
    """The kubelet has dropped the container, and its log with it."""


class LogNotReadYet(Unavailable):
    """A log cannot be read now; the read is repeated for a while before the result does without the log."""


class ResultsNotCapturedYet(Unavailable):
    """The regular expressions of an op still run; their time is bounded, and the next reconcile checks again."""


class NoStorageClass(Refused):
    """No StorageClass can provision a job's volume."""
