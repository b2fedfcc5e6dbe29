"""The market host: keeps wallets in the queues of markets, creates a NosanaJob for each run, and settles it.

(docs/architecture.md#two-loops-one-object)
"""

from __future__ import annotations

from nosana_operator.market.host.controller import MarketHost
from nosana_operator.market.keys.polls import ChainPolls, Poll
from nosana_operator.market.keys.secrets import Wallets
from nosana_operator.market.ports import Edges, Leadership
from nosana_operator.market.runs.controller import RunController

__all__ = ["ChainPolls", "Edges", "Leadership", "MarketHost", "Poll", "RunController", "Wallets"]
