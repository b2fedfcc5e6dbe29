"""The market host's figures, recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

from nosana_operator.market.facts import Funds


@dataclass
class RecordedSettlements:
    """The market host's figures."""

    matches: int = 0
    lamports: dict[str, int] = field(default_factory=dict)
    sent: list[float] = field(default_factory=list)
    settlements: list[tuple[str, int, int, int]] = field(default_factory=list)

    def matched(self, market: str) -> None:
        self.matches += 1

    def funds(self, network: str, key: str, funds: Funds) -> None:
        self.lamports[key] = funds.lamports

    def finish_sent(self, market: str, seconds: float) -> None:
        self.sent.append(seconds)

    def settled(
        self, market: str, kind: str, earned: int, refunded: int, seconds: int, *, took: float
    ) -> None:
        assert took >= 0
        self.settlements.append((kind, earned, refunded, seconds))
