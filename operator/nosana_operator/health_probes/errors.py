"""Errors of health probes."""

from __future__ import annotations

from nosana_operator.errors import NosanaError, Refused, Unavailable


class ProbeError(NosanaError):
    """A probe got no valid answer."""


class ProbeUnavailable(ProbeError, Unavailable):
    """The pod was not reached, which says nothing about the op: the operator may run outside the pod network."""


class ProbeRefused(ProbeError, Refused):
    """The pod was reached, but the op does not answer as a server would."""
