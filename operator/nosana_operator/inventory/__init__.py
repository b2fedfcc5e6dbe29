"""Nodes and pods → slots. Pure."""

from __future__ import annotations

from nosana_operator.inventory.division import Cluster, Holder, Share, divide
from nosana_operator.inventory.refusals import REMEMBERED, PodStart, RefusingNode, pod_start, refusing_nodes
from nosana_operator.inventory.requests import Amounts, amounts, holds_node, requests
from nosana_operator.inventory.slots import Inventory, NodeSlots, exclusion, slots

__all__ = [
    "REMEMBERED",
    "Amounts",
    "Cluster",
    "Holder",
    "Inventory",
    "NodeSlots",
    "PodStart",
    "RefusingNode",
    "Share",
    "amounts",
    "divide",
    "exclusion",
    "holds_node",
    "pod_start",
    "refusing_nodes",
    "requests",
    "slots",
]
