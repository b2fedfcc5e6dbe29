"""One process of the market host over the in-memory API and chain."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from fakes.kube import Body, FakeKubeClient
from fakes.pins import FakePins
from fakes.posters import FakePosters
from nosana_operator.api import JOB_KIND, MARKET_KIND
from nosana_operator.api.placement import NodeSettings
from nosana_operator.chain import DEVNET, ChainClient, ChainClock, ChainWatcher, Network, Sender, Wallet
from nosana_operator.errors import NosanaError, Unavailable
from nosana_operator.kube import AlwaysLeading, ObjectCache
from nosana_operator.market import ChainPolls, Edges, Leadership, MarketHost, RunController, Wallets
from nosana_operator.runtime.solana_network import SolanaNetwork

if TYPE_CHECKING:
    from fakes.market import MarketLab

Key = tuple[str, str]
_KINDS = ("Node", "Pod", "ResourceQuota", JOB_KIND, MARKET_KIND)
_CHECK = "Check"
"""Stands for a kind where work is told apart."""


@dataclass
class OneNetwork:
    """`market.ports.Networks` with one entry."""

    solana: SolanaNetwork
    pins: FakePins
    poster: FakePosters

    def names(self) -> list[str]:
        return ["localnet"]

    def chain(self, network: str) -> SolanaNetwork | None:
        return self.solana if network == "localnet" else None

    def pinner(self, network: str) -> FakePins | None:
        return self.pins if network == "localnet" else None

    def posters(self, network: str) -> FakePosters | None:
        return self.poster if network == "localnet" else None


class Process:
    """One run of the operator: empty memory at first, caches filled by listing."""

    def __init__(self, lab: MarketLab, leadership: Leadership | None = None) -> None:
        self.lab = lab
        self.leadership = leadership or AlwaysLeading()
        self.cache = ObjectCache(_KINDS)
        for kind in _KINDS:
            for body in lab.kube.objects(kind):
                self.cache.put(copy.deepcopy(body))
        self._changes: deque[tuple[int, str, Body, bool]] = deque()
        self._looks = 0
        session: Any = None
        client = ChainClient(Network(("http://unused.invalid",), (), DEVNET), session)
        fake: Any = lab.rpc
        client.rpc = fake
        client.sender = Sender(fake)
        client.clock = ChainClock(lambda: lab.clock.now().timestamp())
        client.watcher = ChainWatcher(
            fake, (), session, DEVNET.jobs, client.clock, clock=lambda: lab.clock.now().timestamp()
        )
        self.client, self.watcher = client, client.watcher
        self.watcher.on_change(lambda kind, address: self.wake_all())
        self.solana = SolanaNetwork(client, account_rent=lab.account_rent)
        self.solana.watch = self._watch  # type: ignore[method-assign]
        self._watched: tuple[set[str], set[str]] = (set(), set())
        edges = Edges(
            kube=FakeKubeClient(lab.kube, self.leadership.check, on_reply=self.cache.put),
            cache=self.cache,
            networks=OneNetwork(self.solana, lab.pins, lab.poster),
            read_wallet=Wallet.parse,
            events=lab.events,
            metrics=lab.metrics,
            clock=lab.clock,
            leadership=self.leadership,
        )
        wallets = Wallets(lab.kube, self.cache, Wallet.parse, lab.clock)
        self.checks = ChainPolls(
            edges,
            wallets,
            wake=lambda check: self.dirty.add((_CHECK, check)),
            changed=lambda _: self.wake_all(),
        )
        self.host = MarketHost(edges, wallets, self.checks, NodeSettings())
        self.keeper = RunController(edges, wallets)
        self.due: dict[tuple[str, Key], datetime] = {}
        self.dirty: set[tuple[str, Key]] = {(_CHECK, check) for check in self.checks.all}
        self.wake_all()

    def _watch(self, *, keys: Any, jobs: Any, markets: Any) -> None:
        self._watched = (set(keys), {*jobs, *markets})
        self.watcher.watch(keys=keys, jobs=jobs, markets=markets)

    def changed(self, kind: str, body: Body, deleted: bool) -> None:
        """A change of an object: in order, as a watch gives them, but each may be late."""
        last = self._changes[-1][0] if self._changes else 0
        self._changes.append((max(self._looks + self.lab.watch_lag(), last), kind, body, deleted))
        self._deliver()

    def _deliver(self) -> None:
        while self._changes and self._changes[0][0] <= self._looks:
            _, kind, body, deleted = self._changes.popleft()
            if kind not in _KINDS:
                continue
            if deleted:
                self.cache.forget(kind, body)
            else:
                self.cache.put(copy.deepcopy(body))
            if kind == "Pod":
                self.host.observe_pod(copy.deepcopy(body))
            self.wake_all()

    def wake_all(self) -> None:
        """Every key is looked at."""
        for kind in (MARKET_KIND, JOB_KIND):
            for body in (*self.lab.kube.objects(kind), *self.cache.list(kind)):
                meta = body["metadata"]
                self.dirty.add((kind, (meta["namespace"], meta["name"])))

    async def slot(self) -> None:
        """What happens in one slot: watches, then work."""
        self._looks += 1
        self._deliver()
        await self._watch_chain()
        now = self.lab.clock.now()
        self.dirty |= {which for which, at in self.due.items() if at <= now}
        await self._work()

    async def _watch_chain(self) -> None:
        """The accounts come in one by one, and some not at all: a snapshot is of no single moment."""
        keys, single = self._watched
        try:
            await self.client.measure_clock()
            for address in sorted(single):
                if not self.lab.blind():
                    await self.watcher.refresh([address])
            for key in sorted(keys):
                if not self.lab.blind():
                    await self.watcher.refresh_runs(key)
        except Unavailable:
            self.lab.failures += 1

    async def _work(self, rounds: int = 20) -> None:
        """Reconcile until nothing is waiting."""
        works: dict[str, Callable[[Any], Awaitable[float | None]]] = {
            _CHECK: self.checks.reconcile,
            MARKET_KIND: self.host.reconcile,
            JOB_KIND: self.keeper.reconcile,
        }
        for _ in range(rounds):
            if not self.dirty:
                return
            batch, self.dirty = sorted(self.dirty), set()
            for kind, key in batch:
                reconcile = works[kind]
                try:
                    again = await reconcile(key)
                except NosanaError:
                    self.lab.failures += 1
                    again = 1.0
                self.due.pop((kind, key), None)
                if again is not None:
                    self.due[(kind, key)] = self.lab.clock.now() + timedelta(seconds=again)
