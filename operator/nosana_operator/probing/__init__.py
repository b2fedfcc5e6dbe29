"""Asking ops over the network whether they are well."""

from __future__ import annotations

from nosana_operator.probing.errors import ProbeError, ProbeRefused, ProbeUnavailable
from nosana_operator.probing.prober import NetworkProber

__all__ = ["NetworkProber", "ProbeError", "ProbeRefused", "ProbeUnavailable"]
