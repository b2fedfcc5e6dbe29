"""Nodes and pods → slots. Pure; from the cache."""

from __future__ import annotations

from nosana_operator.inventory.requests import Amounts, amounts, holds_node, requests
from nosana_operator.inventory.slots import Inventory, NodeSlots, exclusion, slots

__all__ = ["Amounts", "Inventory", "NodeSlots", "amounts", "exclusion", "holds_node", "requests", "slots"]
