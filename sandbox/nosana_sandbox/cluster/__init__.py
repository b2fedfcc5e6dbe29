"""A real Kubernetes cluster on one machine, for the demo and the tests.

`LocalCluster` makes one; `CurrentCluster` is the user's own, with the same interface (`Cluster`).
"""

from nosana_sandbox.cluster.current import CurrentCluster
from nosana_sandbox.cluster.errors import ClusterError
from nosana_sandbox.cluster.expose import expose_in_cluster
from nosana_sandbox.cluster.local import LocalCluster
from nosana_sandbox.cluster.status import Cluster, ClusterStatus

__all__ = [
    "Cluster",
    "ClusterError",
    "ClusterStatus",
    "CurrentCluster",
    "LocalCluster",
    "expose_in_cluster",
]
