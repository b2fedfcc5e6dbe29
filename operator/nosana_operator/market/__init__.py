"""The market host: stands in queues, makes a NosanaJob of each run, and settles it (DESIGN 2)."""

from __future__ import annotations

from nosana_operator.market.checks import Check, Checks
from nosana_operator.market.host import MarketHost
from nosana_operator.market.ports import Edges, Leadership
from nosana_operator.market.runs import RunKeeper
from nosana_operator.market.wallets import Wallets

__all__ = ["Check", "Checks", "Edges", "Leadership", "MarketHost", "RunKeeper", "Wallets"]
