"""Jobs that run on and on under the operator's own loops: what all of them together ask of the chain.

The loops are put together as in the operator, and their RPC goes to the sandbox's chain, in simulated time. No
job controller works, so no job ever ends by itself.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from unittest import mock

from solders.pubkey import Pubkey

from fakes.chain import keypair
from fakes.edges import RecordedEvents
from fakes.kube import FakeKube, FakeKubeClient
from fakes.market_objects import JOBS, gpu_node, nosana_market, wallet_secret
from fakes.virtual_time import run_virtually
from nosana_operator.api import (
    JOB_KIND,
    LABEL_CHAIN_JOB,
    LABEL_JOB_UID,
    LABEL_RUN,
    MARKET_KIND,
    condition_is_true,
)
from nosana_operator.chain import ChainClient, ChainClock, ChainWatcher
from nosana_operator.kube import AlwaysLeading, ObjectCache
from nosana_operator.runtime import compose, networks
from nosana_operator.runtime.metrics.operator_metrics import OperatorMetrics
from nosana_operator.runtime.operator import OperatorContext
from nosana_operator.runtime.queue import WorkQueue
from nosana_operator.runtime.routing import ObjectKey, Router
from nosana_operator.runtime.settings import parse_settings
from nosana_operator.runtime.watching import Change
from nosana_sandbox.chain import ChainClock as BankClock
from nosana_sandbox.chain import DirectSession
from nosana_sandbox.program import Account
from nosana_sandbox.program.addresses import JOBS_PROGRAM
from nosana_sandbox.program.layout import Job, Market, Run, rent_exempt_minimum
from nosana_sandbox.world import genesis

_COLLECTION: Final = keypair("collection").pubkey()
T = TypeVar("T")
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SLOT = 0.4
_KINDS = ("Node", "Pod", "ResourceQuota", JOB_KIND, MARKET_KIND)


def jobs_account(state: Job | Run | Market) -> Account:
    """An account of the Jobs program as the chain holds it."""
    return Account(rent_exempt_minimum(state.SPACE), JOBS_PROGRAM, state.encode().ljust(state.SPACE, b"\0"))


@dataclass(frozen=True, slots=True)
class Steady:
    """What there is. Keys are dealt out to the markets in turn, and jobs to the keys; a GPU a key is left over.

    Pay goes to another wallet.
    """

    jobs: int = 500
    keys: int = 8
    markets: int = 3
    nodes: int = 2
    """RPC nodes."""


class _Session(DirectSession):
    """Counts by method."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.by_method: Counter[str] = Counter()

    def post(self, url: str, *, json: Any, **options: Any) -> Any:
        self.by_method[json["method"]] += 1
        return super().post(url, json=json, **options)


class SteadyFleet:
    """The fleet under way: made within `live`.

    `followed`: whether there is a WebSocket that tells of everything, as far as the intervals go; its
    notifications would come on top.
    """

    def __init__(self, shape: Steady) -> None:
        self.shape = shape
        self.followed = False
        self._loop = asyncio.get_running_loop()
        self._base = START.timestamp()
        self.hosts = [keypair(f"host-{n}") for n in range(shape.keys)]
        self.bank = self._found()
        self.kube = FakeKube(now=self.now)
        self.session = _Session(self.bank, seconds=0.05)
        self.clients: list[ChainClient] = []
        self.cache = ObjectCache(
            _KINDS, indexes={"Pod": (LABEL_JOB_UID,), JOB_KIND: (LABEL_RUN, LABEL_CHAIN_JOB)}
        )

    def now(self) -> datetime:
        """Our clock, and the chain's."""
        return START + timedelta(seconds=self._loop.time())

    # the world

    def _found(self) -> Any:
        accounts: dict[Pubkey, Account] = {}
        for host in self.hosts:
            accounts |= genesis.wallet_accounts(host.pubkey(), sol=10, nos=0)
            accounts |= genesis.stake_accounts(host.pubkey(), amount=1000)
            accounts |= genesis.access_key_accounts(host.pubkey(), _COLLECTION)
        founded = genesis.found(
            finality=32, clock=BankClock(lambda: self.now().timestamp()), genesis=accounts
        )
        bank, poster = founded.bank, founded.poster.pubkey()
        held = bank.account(founded.market)
        assert held is not None
        market = Market.decode(held.data)
        self.markets = [keypair(f"market-{n}").pubkey() for n in range(self.shape.markets)]
        for address in self.markets:
            bank.place(address, jobs_account(market))
        self.jobs = [keypair(f"job-{n}").pubkey() for n in range(self.shape.jobs)]
        for n, job in enumerate(self.jobs):
            which = n % self.shape.keys
            key, where = self.hosts[which].pubkey(), self.markets[which % self.shape.markets]
            listed = Job(
                ipfs_job=hashlib.sha256(b"definition").digest(),
                market=where,
                payer=poster,
                project=poster,
                price=market.job_price,
                timeout=7 * 86_400,
            )
            bank.place(job, jobs_account(listed))
            run = Run(job=job, node=key, payer=key, time=int(self._base) - 3600)
            bank.place(keypair(f"run-of-{n}").pubkey(), jobs_account(run))
        bank.tick(40)
        return bank

    def _fill_cluster(self) -> None:
        shape = self.shape
        spec = {"network": "devnet", "payoutAddress": str(keypair("payout").pubkey())}
        self.kube.add(gpu_node("node-1", shape.jobs + shape.keys))
        for n, host in enumerate(self.hosts):
            self.kube.add(wallet_secret(f"wallet-{n}", bytes(host)))
        for n, address in enumerate(self.markets):
            wallets = [f"wallet-{key}" for key in range(shape.keys) if key % shape.markets == n]
            self.kube.add(nosana_market(f"market-{n}", address, wallets, **spec))

    def ask_for_access_keys(self) -> None:
        """From now on the markets are only for hosts that hold a token, as Nosana's own are. All hosts do."""
        for address in self.markets:
            market = replace(self._market(address), node_access_key=_COLLECTION)
            self.bank.place(address, jobs_account(market))

    def _market(self, address: Pubkey) -> Market:
        held = self.bank.account(address)
        assert held is not None
        return Market.decode(held.data)

    # the operator

    def _client(self, *args: Any, **options: Any) -> ChainClient:
        """A client by the simulated clock."""
        client = ChainClient(*args, **options)
        client.endpoints._clock = self._loop.time
        client.clock = ChainClock(lambda: self.now().timestamp())
        kind = type("Watcher", (ChainWatcher,), {"followed": property(lambda _: self.followed)})
        session: Any = self.session
        client.watcher = kind(
            client.watcher._rpc,
            (),
            session,
            client.network.programs.jobs,
            client.clock,
            clock=self._loop.time,
        )
        self.clients.append(client)
        return client

    def start(self) -> None:
        """Chain and operator, for ever."""
        self._fill_cluster()
        for kind in _KINDS:
            for body in self.kube.objects(kind):
                self.cache.put(copy.deepcopy(body))
        jobs, markets, runs = (WorkQueue[ObjectKey](name) for name in ("jobs", "markets", "runs"))
        router = Router(self.cache, jobs, markets, runs)

        def changed(kind: str, body: dict[str, Any], deleted: bool) -> None:
            if kind in _KINDS:
                body = copy.deepcopy(body)
                if deleted:
                    self.cache.forget(kind, body)
                else:
                    self.cache.put(body)
                router(Change(kind, body, deleted))

        self.kube.watch(changed)
        urls = [f"http://node-{n}" for n in range(self.shape.nodes)]
        settings = parse_settings(f"networks: {{devnet: {{rpc: {urls}}}}}")
        kube: Any = FakeKubeClient(self.kube, AlwaysLeading().check, on_reply=self.cache.put)
        events: Any = RecordedEvents()
        http: Any = self.session
        edges = OperatorContext(
            settings=settings,
            kube=kube,
            cache=self.cache,
            events=events,
            metrics=OperatorMetrics(),
            leadership=AlwaysLeading(),
            http=http,
            enqueue_job=jobs.add,
            chain_changed=router.chain_changed,
        )
        with (
            mock.patch.object(compose, "WallClock", return_value=self),
            mock.patch.object(networks, "ChainClient", self._client),
        ):
            loops = compose.build_loops(edges)

        async def slots() -> None:
            while True:
                await asyncio.sleep(SLOT)
                self.bank.tick()

        async def left_alone(key: ObjectKey) -> None:
            return None

        parts = [
            slots(),
            *(part() for _, part in loops.background),
            jobs.run(1, left_alone),
            markets.run(settings.workers.markets, loops.reconcile_market),
            runs.run(settings.workers.runs, loops.reconcile_run),
        ]
        self._tasks = [asyncio.ensure_future(part) for part in parts]
        self._closing = loops.close
        router.open()

    async def stop(self) -> None:
        """End it all; none of it may have ended by itself."""
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for close in self._closing:
            await close()
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends

    @property
    def watcher(self) -> ChainWatcher:
        """The network's."""
        return self.clients[0].watcher

    def verified(self) -> int:
        """NosanaJobs whose run is verified."""
        return sum(
            condition_is_true((body.get("status") or {}).get("conditions"), "RunVerified")
            for body in self.kube.objects(JOB_KIND, JOBS)
        )

    def standing(self) -> int:
        """Keys in the markets' queues."""
        return sum(len(self._market(address).queue) for address in self.markets)

    async def settle_in(self, seconds: float = 90) -> None:
        """Until each run has its NosanaJob and each key stands, and what happens only once is over."""
        await asyncio.sleep(seconds)
        assert (self.verified(), self.standing()) == (self.shape.jobs, self.shape.keys)

    async def rate(self, seconds: float) -> dict[str, float]:
        """Requests a second by method, over this time, and `sum`."""
        before = self.session.by_method.copy()
        await asyncio.sleep(seconds)
        asked = self.session.by_method - before
        return {**{name: n / seconds for name, n in sorted(asked.items())}, "sum": asked.total() / seconds}


def live(shape: Steady, program: Callable[[SteadyFleet], Awaitable[T]]) -> T:
    """Run `program` beside a fleet at work."""

    async def run() -> T:
        fleet = SteadyFleet(shape)
        fleet.start()
        try:
            return await program(fleet)
        finally:
            await fleet.stop()

    return run_virtually(run())
