"""Kubernetes: client, object cache, Events, credentials, election. The one package that imports `kubernetes`.

Objects are plain dicts as the API server sends them; a kind is given by its `kind` string.
"""

from __future__ import annotations

from nosana_operator.kube.cache import ObjectCache
from nosana_operator.kube.client import KubeClient, Snapshot
from nosana_operator.kube.credentials import Credentials, load_credentials
from nosana_operator.kube.election import AlwaysLeading, Election, ElectionSettings, Term
from nosana_operator.kube.errors import (
    CredentialsError,
    KubeConflict,
    KubeError,
    KubeNotFound,
    KubeRefused,
    KubeUnavailable,
    LeadershipLost,
)
from nosana_operator.kube.events import EventRecorder
from nosana_operator.kube.kinds import CORE_KINDS, Resource

__all__ = [
    "CORE_KINDS",
    "AlwaysLeading",
    "Credentials",
    "CredentialsError",
    "Election",
    "ElectionSettings",
    "EventRecorder",
    "KubeClient",
    "KubeConflict",
    "KubeError",
    "KubeNotFound",
    "KubeRefused",
    "KubeUnavailable",
    "LeadershipLost",
    "ObjectCache",
    "Resource",
    "Snapshot",
    "Term",
    "load_credentials",
]
