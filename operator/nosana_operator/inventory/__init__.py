"""Nodes and pods → slots. Pure."""

from __future__ import annotations

from nosana_operator.inventory.division import Holder, Share, divide
from nosana_operator.inventory.requests import Amounts, amounts, holds_node, requests
from nosana_operator.inventory.slots import Inventory, NodeSlots, exclusion, slots

__all__ = [
    "Amounts",
    "Holder",
    "Inventory",
    "NodeSlots",
    "Share",
    "amounts",
    "divide",
    "exclusion",
    "holds_node",
    "requests",
    "slots",
]
