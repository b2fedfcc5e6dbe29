"""The market host: stands in queues, makes a NosanaJob of each run, and settles it (DESIGN 2)."""

from __future__ import annotations

from nosana_operator.market.host.controller import MarketHost
from nosana_operator.market.keys.polls import Check, Checks
from nosana_operator.market.keys.secrets import Wallets
from nosana_operator.market.ports import Edges, Leadership
from nosana_operator.market.runs.controller import RunKeeper

__all__ = ["Check", "Checks", "Edges", "Leadership", "MarketHost", "RunKeeper", "Wallets"]
