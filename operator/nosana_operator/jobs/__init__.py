"""The job controller: a NosanaJob and its definition → pods, their end → a fixed result. Knows no chain."""

from __future__ import annotations

from nosana_operator.jobs.controller import JobController
from nosana_operator.jobs.ports import (
    Cache,
    Clock,
    Definitions,
    Events,
    JobSettings,
    Key,
    Kube,
    Metrics,
    Prober,
)

__all__ = [
    "Cache",
    "Clock",
    "Definitions",
    "Events",
    "JobController",
    "JobSettings",
    "Key",
    "Kube",
    "Metrics",
    "Prober",
]
