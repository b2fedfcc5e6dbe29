"""What is asked of the chain beside the serving of runs: what the keys have, who else uses them, who is paid.

No run's NosanaJob waits for it: the views take what is known. Each check of a network is work of its own, one
reading at a time, so that a method that hangs, or a stranger who fills a key's history, delays nothing else.
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
from nosana_operator.market.keys.foreign_use import KeyUse
from nosana_operator.market.keys.secrets import Wallets
from nosana_operator.market.ports import Chain, Edges

log = logging.getLogger(__name__)

T = TypeVar("T")

What = Literal["access", "funds", "history", "payout"]
Poll = tuple[str, What]
"""(network, what): a piece of work."""

FUNDS_FRESH: Final = 30.0
"""Seconds after which balances and stakes are read again."""
SELDOM: Final = 600.0
"""The same of what hardly ever changes: the access keys that the markets want, payout addresses."""
MISSING: Final = 60.0
"""The same of access keys while one that a market wants is not among them: it may be issued any moment."""
AGAIN: Final = 5.0
"""The same of what got no answer."""
TICK: Final = 1.0
"""Seconds between looks at what is due."""
BACKLOG: Final = 0.5
"""Seconds between looks at a history of which more is to be judged."""


@dataclass(frozen=True, slots=True)
class _Reading(Generic[T]):
    """What was read last, and when it was last asked for."""

    value: T
    asked_at: datetime
    failed: bool = False
    """It got no answer then: the value is older."""

    def due(self, now: datetime, fresh: float) -> bool:
        """Whether it is to be read again; `fresh`: seconds for which an answer holds."""
        return (now - self.asked_at).total_seconds() >= (AGAIN if self.failed else fresh)


Address = tuple[str, str]
"""(network, address)."""


class ChainPolls:
    """Does the checks, and tells what they found. Keeps caches only.

    Args:
        edges: to the world.
        wallets: the keys.
        wake: asks for a check at once; else each is looked at every second.
        changed: called with a network of which something new is known.
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
        """What is wrong with the address."""
        self.use = KeyUse(edges.clock)

    @property
    def all(self) -> tuple[Poll, ...]:
        """Every check that there is."""
        return tuple((network, what) for network in self._edges.networks.names() for what in get_args(What))

    async def reconcile(self, check: Poll) -> float | None:
        """Do what is due of a check; the seconds until the next look."""
        network, what = check
        chain = self._edges.networks.chain(network)
        if chain is None:
            return None
        match what:
            case "access":
                return await self._read_access(chain, network)
            case "funds":
                return await self._read_funds(chain, network)
            case "payout":
                return await self._read_payouts(chain, network)
            case "history":
                return await self._judge(chain, network)

    # -- what is known

    def funds(self, network: str, address: str) -> Funds | Absent:
        """What a key has, as last read."""
        found = self._funds.get((network, address))
        if found is None or isinstance(found.value, Absent):
            return UNKNOWN
        access = self._access.get((network, address))
        return replace(found.value, access_keys=access.value) if access is not None else found.value

    def payout_problem(self, network: str, address: str) -> str | None:
        """Why that address is none to pay to, as far as it is known."""
        found = self._payouts.get((network, address))
        return found.value if found is not None else None

    def asked(self, network: str, keys: Collection[str], payout: str | None) -> bool:
        """Whether all that standing with these keys needs was asked for, whatever came of it; else it soon will
        be.

        `payout`: the payout address.
        """
        chain = self._edges.networks.chain(network)
        wanted = self._collections(chain, network).keys() if chain is not None else ()
        missing: set[What] = set()
        if any((network, key) not in self._funds for key in self._keys(network).intersection(keys)):
            missing.add("funds")
        if any((network, key) not in self._access for key in set(keys).intersection(wanted)):
            missing.add("access")
        if payout is not None and (network, payout) not in self._payouts:
            missing.add("payout")
        for what in missing:
            self._wake((network, what))
        return not missing

    def doubt_access(self, network: str, key: str) -> None:
        """A token that the key held is not there any more: look for it again now."""
        if self._access.pop((network, key), None) is not None:
            self._wake((network, "access"))

    # -- reading

    async def _read_funds(self, chain: Chain, network: str) -> float:
        """All keys of the network together."""
        keys, now = sorted(self._keys(network)), self._edges.clock.now()
        before = {key: self._funds.get((network, key)) for key in keys}
        if not any(one is None or one.due(now, FUNDS_FRESH) for one in before.values()):
            return TICK
        try:
            found: Mapping[str, Funds] | None = await chain.read_funds(keys)
        except NosanaError as exc:
            log.warning("funds not read: %s", exc, extra={"network": network})
            found = None
        news = False
        for key, old in before.items():
            known = old.value if old is not None else UNKNOWN
            value = found[key] if found is not None else known
            self._funds[network, key] = _Reading(value, now, failed=found is None)
            news = news or old is None or value != known
            if found is not None:
                self._edges.metrics.funds(network, key, found[key])
        self._funds = _only(self._funds, network, keys)
        return self._told(network, news)

    async def _read_access(self, chain: Chain, network: str) -> float:
        wanted, news = self._collections(chain, network), False
        for key, collections in sorted(wanted.items()):
            now, old = self._edges.clock.now(), self._access.get((network, key))
            held = old.value if old is not None else None
            has_all = held is not None and collections <= held
            if old is not None and not old.due(now, SELDOM if has_all else MISSING):
                continue
            try:
                self._access[network, key] = _Reading(await chain.read_access_keys(key), now)
            except NosanaError as exc:
                log.warning("access keys not read: %s", exc, extra={"wallet": key})
                self._access[network, key] = _Reading(held, now, failed=True)
            news = news or old is None or self._access[network, key].value != held
        self._access = _only(self._access, network, wanted)
        return self._told(network, news)

    async def _read_payouts(self, chain: Chain, network: str) -> float:
        specs = [body["spec"] for body in self._edges.cache.list(MARKET_KIND)]
        wanted = {one.get("payoutAddress") for one in specs if one.get("network") == network} - {None}
        news = False
        for address in sorted(wanted):
            now, old = self._edges.clock.now(), self._payouts.get((network, address))
            if old is not None and not old.due(now, SELDOM):
                continue
            known = old.value if old is not None else None
            try:
                found = _Reading(await chain.payout_problem(address), now)
            except NosanaError as exc:
                log.warning("payout address not read: %s", exc, extra={"wallet": address})
                found = _Reading(known, now, failed=True)
            self._payouts[network, address] = found
            news = news or old is None or found.value != known
        self._payouts = _only(self._payouts, network, wanted)
        return self._told(network, news)

    async def _judge(self, chain: Chain, network: str) -> float:
        cache = self._edges.cache
        self.use.note(cache.list(MARKET_KIND), cache.list(JOB_KIND))
        news = await self.use.look(chain, network, sorted(self._keys(network)))
        if news:
            self._changed(network)
        return BACKLOG if self.use.behind(network) else TICK

    def _told(self, network: str, news: bool) -> float:
        if news:
            self._changed(network)
        return TICK

    def _keys(self, network: str) -> set[str]:
        """Addresses of all keys of the network, as far as their Secrets were read."""
        out: set[str] = set()
        for body in self._edges.cache.list(MARKET_KIND):
            if body["spec"].get("network") == network:
                out |= self._wallets.addresses(body)
        return out

    def _collections(self, chain: Chain, network: str) -> dict[str, set[str]]:
        """By key: the collections of which its markets want a token."""
        out: dict[str, set[str]] = {}
        for body in self._edges.cache.list(MARKET_KIND):
            if body["spec"].get("network") != network:
                continue
            market = chain.watched_market(body["spec"].get("address", ""))
            if isinstance(market, MarketFacts) and market.node_access_key is not None:
                for key in self._wallets.addresses(body):
                    out.setdefault(key, set()).add(market.node_access_key)
        return out


def _only(
    readings: dict[Address, _Reading[T]], network: str, wanted: Collection[str]
) -> dict[Address, _Reading[T]]:
    """Without what nobody wants any more."""
    return {at: one for at, one in readings.items() if at[0] != network or at[1] in wanted}
