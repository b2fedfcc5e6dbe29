"""Periodic chain reads that no run waits for: balances, access keys, wallet histories, payout addresses.

The views use what is known. Each poll of a network is a work item of its own, with one request at a time, so that a
method that hangs, or a stranger who fills a wallet's history, delays nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Generic, Literal, TypeVar, get_args

from nosana_operator.api import JOB_KIND, MARKET_KIND
from nosana_operator.errors import NosanaError
from nosana_operator.market.facts import UNKNOWN, Absent, Funds, MarketFacts
from nosana_operator.market.keys.foreign_use import ForeignUse
from nosana_operator.market.keys.secrets import Wallets
from nosana_operator.market.ports import Chain, Edges

log = logging.getLogger(__name__)

T = TypeVar("T")

Subject = Literal["access", "funds", "history", "payout"]
Poll = tuple[str, Subject]
"""(network, subject): one work item."""

FUNDS_FRESH: Final = 30.0
"""Seconds between reads of balances and stakes."""
RARELY: Final = 600.0
"""Seconds between reads of what hardly ever changes: access keys, payout addresses."""
MISSING: Final = 60.0
"""Seconds between reads of access keys while one that a market requires is missing: it may be issued any moment."""
UNANSWERED: Final = 5.0
"""Seconds until a read that got no answer is tried again."""
TICK: Final = 1.0
"""Seconds between checks of what is due."""
BACKLOG: Final = 0.5
"""Seconds between steps through a history that is not examined to its end."""


@dataclass(frozen=True, slots=True)
class _Reading(Generic[T]):
    """What was read last, and when it was last requested."""

    value: T
    asked_at: datetime
    failed: bool = False
    """That request got no answer: the value is older."""

    def due(self, now: datetime, fresh: float) -> bool:
        """Whether to read it again; `fresh`: seconds for which an answer is good."""
        return (now - self.asked_at).total_seconds() >= (UNANSWERED if self.failed else fresh)


Address = tuple[str, str]
"""(network, address)."""


class ChainPolls:
    """Makes the polls and has their results. Keeps caches only.

    Args:
        edges: the chain, the cache, the clock and metrics.
        wallets: the wallets of all NosanaMarkets.
        wake: requests a poll at once; otherwise each is reconciled every second.
        changed: called with a network when a poll brought something new.
    """

    def __init__(
        self,
        edges: Edges,
        wallets: Wallets,
        *,
        wake: Callable[[Poll], None],
        changed: Callable[[str], None],
    ) -> None:
        self._edges = edges
        self._wallets = wallets
        self._wake = wake
        self._changed = changed
        self._funds: dict[Address, _Reading[Funds | Absent]] = {}
        self._access: dict[Address, _Reading[frozenset[str] | None]] = {}
        self._payouts: dict[Address, _Reading[str | None]] = {}
        """Why the address cannot receive a payout."""
        self.foreign_use = ForeignUse(edges.clock)

    @property
    def all(self) -> tuple[Poll, ...]:
        """Every poll of every network."""
        return tuple(
            (network, subject) for network in self._edges.networks.names() for subject in get_args(Subject)
        )

    async def reconcile(self, poll: Poll) -> float | None:
        """Make the requests that are due; returns the seconds until the next reconcile."""
        network, subject = poll
        chain = self._edges.networks.chain(network)
        if chain is None:
            return None
        match subject:
            case "access":
                return await self._read_access(chain, network)
            case "funds":
                return await self._read_funds(chain, network)
            case "payout":
                return await self._read_payouts(chain, network)
            case "history":
                return await self._examine_histories(chain, network)

    # -- results

    def funds(self, network: str, address: str) -> Funds | Absent:
        """What a wallet has, as last read."""
        found = self._funds.get((network, address))
        if found is None or isinstance(found.value, Absent):
            return UNKNOWN
        access = self._access.get((network, address))
        return replace(found.value, access_keys=access.value) if access is not None else found.value

    def payout_problem(self, network: str, address: str) -> str | None:
        """Why this address cannot receive a payout; None: it can, or it has not been read yet."""
        found = self._payouts.get((network, address))
        return found.value if found is not None else None

    def has_polled(self, network: str, wallets: Collection[str], payout: str | None) -> bool:
        """Whether everything that offering slots with these wallets needs was polled, whatever the answers.

        Otherwise it wakes the polls that are missing. `payout`: the payout address.
        """
        chain = self._edges.networks.chain(network)
        gated = self._collections(chain, network).keys() if chain is not None else ()
        missing: set[Subject] = set()
        if any((network, one) not in self._funds for one in self._addresses(network).intersection(wallets)):
            missing.add("funds")
        if any((network, one) not in self._access for one in set(wallets).intersection(gated)):
            missing.add("access")
        if payout is not None and (network, payout) not in self._payouts:
            missing.add("payout")
        for subject in missing:
            self._wake((network, subject))
        return not missing

    def recheck_access_keys(self, network: str, wallet: str) -> None:
        """Read the wallet's access keys again now: one that it held seems to be gone."""
        if self._access.pop((network, wallet), None) is not None:
            self._wake((network, "access"))

    # -- requests

    async def _read_funds(self, chain: Chain, network: str) -> float:
        """All wallets of the network in one request."""
        addresses, now = sorted(self._addresses(network)), self._edges.clock.now()
        before = {one: self._funds.get((network, one)) for one in addresses}
        if not any(old is None or old.due(now, FUNDS_FRESH) for old in before.values()):
            return TICK
        try:
            funds: Mapping[str, Funds] | None = await chain.read_funds(addresses)
        except NosanaError as exc:
            log.warning("cannot read balances and stakes: %s", exc, extra={"network": network})
            funds = None
        news = False
        for address, old in before.items():
            last = old.value if old is not None else UNKNOWN
            value = funds[address] if funds is not None else last
            self._funds[network, address] = _Reading(value, now, failed=funds is None)
            news = news or old is None or value != last
            if funds is not None:
                self._edges.metrics.funds(network, address, funds[address])
        self._funds = _only(self._funds, network, addresses)
        return self._notify(network, news)

    async def _read_access(self, chain: Chain, network: str) -> float:
        required, news = self._collections(chain, network), False
        for address, collections in sorted(required.items()):
            now, old = self._edges.clock.now(), self._access.get((network, address))
            held = old.value if old is not None else None
            has_all = held is not None and collections <= held
            if old is not None and not old.due(now, RARELY if has_all else MISSING):
                continue
            try:
                self._access[network, address] = _Reading(await chain.read_access_keys(address), now)
            except NosanaError as exc:
                log.warning("cannot read access keys: %s", exc, extra={"wallet": address})
                self._access[network, address] = _Reading(held, now, failed=True)
            news = news or old is None or self._access[network, address].value != held
        self._access = _only(self._access, network, required)
        return self._notify(network, news)

    async def _read_payouts(self, chain: Chain, network: str) -> float:
        specs = [body["spec"] for body in self._edges.cache.list(MARKET_KIND)]
        addresses = {one.get("payoutAddress") for one in specs if one.get("network") == network} - {None}
        news = False
        for address in sorted(addresses):
            now, old = self._edges.clock.now(), self._payouts.get((network, address))
            if old is not None and not old.due(now, RARELY):
                continue
            last = old.value if old is not None else None
            try:
                reading = _Reading(await chain.payout_problem(address), now)
            except NosanaError as exc:
                log.warning("cannot read the payout address: %s", exc, extra={"wallet": address})
                reading = _Reading(last, now, failed=True)
            self._payouts[network, address] = reading
            news = news or old is None or reading.value != last
        self._payouts = _only(self._payouts, network, addresses)
        return self._notify(network, news)

    async def _examine_histories(self, chain: Chain, network: str) -> float:
        cache = self._edges.cache
        self.foreign_use.record_intents(cache.list(MARKET_KIND), cache.list(JOB_KIND))
        news = await self.foreign_use.examine(chain, network, sorted(self._addresses(network)))
        if news:
            self._changed(network)
        return BACKLOG if self.foreign_use.has_backlog(network) else TICK

    def _notify(self, network: str, news: bool) -> float:
        if news:
            self._changed(network)
        return TICK

    def _addresses(self, network: str) -> set[str]:
        """Addresses of all wallets of the network whose Secrets were read."""
        out: set[str] = set()
        for body in self._edges.cache.list(MARKET_KIND):
            if body["spec"].get("network") == network:
                out |= self._wallets.addresses(body)
        return out

    def _collections(self, chain: Chain, network: str) -> dict[str, set[str]]:
        """By wallet: the collections of which its markets require a token."""
        out: dict[str, set[str]] = {}
        for body in self._edges.cache.list(MARKET_KIND):
            if body["spec"].get("network") != network:
                continue
            market = chain.watched_market(body["spec"].get("address", ""))
            if isinstance(market, MarketFacts) and market.node_access_key is not None:
                for address in self._wallets.addresses(body):
                    out.setdefault(address, set()).add(market.node_access_key)
        return out


def _only(
    readings: dict[Address, _Reading[T]], network: str, addresses: Collection[str]
) -> dict[Address, _Reading[T]]:
    """The readings without those of the network's addresses that no NosanaMarket uses any more."""
    return {at: one for at, one in readings.items() if at[0] != network or at[1] in addresses}
