"""Errors of the Kubernetes API.

KubeError
├── KubeUnavailable   no answer, 401, 408, 429 or 5xx: whether the request took effect is unknown
├── KubeNotFound      404
├── KubeConflict      409: exists already, or the resourceVersion is stale
├── KubeRefused       every other 4xx: invalid, forbidden, too large
│   └── CredentialsError   no usable kubeconfig or service account
└── LeadershipLost    another process leads, or may: this one writes nothing more, and ends
"""

from __future__ import annotations

from nosana_operator.errors import Conflict, NosanaError, NotFound, Refused, Unavailable


class KubeError(NosanaError):
    """Anything the Kubernetes API (or the way to it) answered with other than success.

    `code` is the HTTP status, None when there was no answer; `reason` is the API server's
    machine-readable word ("AlreadyExists", "Conflict", "Invalid", …), "" when it gave none.
    """

    def __init__(self, message: str, *, code: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class KubeUnavailable(KubeError, Unavailable):
    """The API server gave no usable answer; whether a write took effect is unknown."""


class KubeNotFound(KubeError, NotFound):
    """The object, its namespace or its kind is not there."""


class KubeConflict(KubeError, Conflict):
    """The object exists already (`reason` AlreadyExists) or changed meanwhile (`reason` Conflict)."""


class KubeRefused(KubeError, Refused):
    """The API server refused the request and would refuse it again."""


class CredentialsError(KubeRefused):
    """There is no usable way to sign in to a cluster."""


class LeadershipLost(KubeError):
    """Another process leads, or may by now: this one writes and signs nothing more, and ends."""
