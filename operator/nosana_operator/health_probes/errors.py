"""What a probe comes back with in place of an answer."""

from __future__ import annotations

from nosana_operator.errors import NosanaError, Refused, Unavailable


class ProbeError(NosanaError):
    """Branch of the probes."""


class ProbeUnavailable(ProbeError, Unavailable):
    """The pod was not reached, which says nothing about the op: we may stand outside the pods' network."""


class ProbeRefused(ProbeError, Refused):
    """The pod was reached, and the op does not answer as a server would."""
