"""Errors of the sandbox's Kubernetes cluster. Every message ends with the remedy."""

from __future__ import annotations

from nosana_operator.errors import NosanaError


class ClusterError(NosanaError):
    """The sandbox cluster cannot be brought up, used or taken down."""


class UnsupportedMachineError(ClusterError):
    """This machine cannot host a local cluster: it is not Linux, the user is not root, a tool is missing."""


class BuildError(ClusterError):
    """The cluster's programs could not be built from their Go modules."""


class StartError(ClusterError):
    """A program of the cluster ended or did not become ready in time."""


class NamespaceError(ClusterError):
    """The cluster's network namespace cannot be entered."""


class KubectlError(ClusterError):
    """The cluster's API refused a request or cannot be reached."""
