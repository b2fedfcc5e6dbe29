"""Errors of the Kubernetes API.

KubeError
├── KubeUnavailable   no answer, 401, 408, 429 or 5xx: it is unknown whether the request took effect
├── KubeNotFound      404
├── KubeConflict      409: exists already, or the resourceVersion is stale
├── KubeRefused       every other 4xx: invalid, forbidden, too large
│   └── CredentialsError   no usable kubeconfig or service account
└── LeadershipLost    another process leads or may lead: this one stops writing, and ends
"""

from __future__ import annotations

from nosana_operator.errors import Conflict, NosanaError, NotFound, Refused, Unavailable


class KubeError(NosanaError):
    """Any outcome of a request to the Kubernetes API other than success.

    `code` is the HTTP status, None when there was no answer; `reason` is the API server's
    machine-readable word ("AlreadyExists", "Conflict", "Invalid", …), "" when it gave none.
    """

    def __init__(self, message: str, *, code: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class KubeUnavailable(KubeError, Unavailable):
    """The API server gave no usable answer; it is unknown whether a write took effect."""


class KubeNotFound(KubeError, NotFound):
    """The object, its namespace or its kind does not exist."""


class KubeConflict(KubeError, Conflict):
    """The object exists already (`reason` AlreadyExists) or has changed (`reason` Conflict)."""


class KubeRefused(KubeError, Refused):
    """The API server refused the request and would refuse it again."""


class CredentialsError(KubeRefused):
    """No usable credentials for a cluster were found."""


class LeadershipLost(KubeError):
    """Another process leads or may lead by now: this one stops writing and signing, and ends."""
