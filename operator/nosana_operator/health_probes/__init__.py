"""Health probes of ops: HTTP requests and WebSocket handshakes to their pods."""

from __future__ import annotations

from nosana_operator.health_probes.errors import ProbeError, ProbeRefused, ProbeUnavailable
from nosana_operator.health_probes.prober import NetworkProber

__all__ = ["NetworkProber", "ProbeError", "ProbeRefused", "ProbeUnavailable"]
