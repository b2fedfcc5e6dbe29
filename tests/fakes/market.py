"""The market host over the in-memory API and chain: its processes, posters, and a stand-in job controller."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from solana.rpc.commitment import Confirmed, Finalized
from solders.pubkey import Pubkey

from fakes.chain import Beginning, FakeRpc, Landed, Ledger, beginning, keypair
from fakes.edges import FakeClock, RecordedEvents
from fakes.kube import FakeKube, FakeKubeClient
from nosana_operator.api import (
    API_VERSION,
    FINALIZER_JOB,
    JOB_KIND,
    MARKET_KIND,
    condition,
    condition_is_true,
    find_condition,
    micro_timestamp,
    parse_timestamp,
    timestamp,
)
from nosana_operator.api.result import read_result, result_secrets
from nosana_operator.chain import DEVNET, ChainClient, ChainClock, ChainWatcher, Network, Sender, Wallet
from nosana_operator.content import cid_from_digest, cid_of, digest_of
from nosana_operator.errors import NosanaError, Unavailable
from nosana_operator.kube import AlwaysLeading, ObjectCache
from nosana_operator.market import ChainPolls, Edges, Leadership, MarketHost, RunController, Wallets
from nosana_operator.market.facts import Funds
from nosana_operator.runtime.solana_network import SolanaNetwork
from nosana_sandbox.chain.transaction import WireTransaction
from nosana_sandbox.program import PROGRAM_ID
from nosana_sandbox.program.addresses import associated_token_account
from nosana_sandbox.program.instructions import BY_DISCRIMINATOR
from nosana_sandbox.program.layout import QUEUE_NODE, STATE_DONE, Job, Market, Run
from nosana_sandbox.world.instructions import end_job, extend_job, list_job

ADMIN, JOBS = "nosana-system", "nosana-jobs"
MARKET = "gpus"
Body = dict[str, Any]
Key = tuple[str, str]
_KINDS = ("Node", "Pod", JOB_KIND, MARKET_KIND)
_CHECK = "Check"
"""Stands for a kind where work is told apart."""
_CLOSERS = {"Finish": 1, "Quit": 1, "End": 2}
"""Instruction → which of its accounts is the run."""
_PURPOSES = {"Finish": 1, "Quit": 1, "Complete": 0, "Work": None, "Stop": None}
"""Instruction → the account that says what it is for; None: its signer."""


class Crash(BaseException):
    """The process dies here."""


class Silence(Unavailable):
    """No answer."""


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


@dataclass
class FakePins:
    """IPFS: what was pinned, by CID; `down` is for how long it fails."""

    pinned: dict[str, bytes] = field(default_factory=dict)
    down: Callable[[], bool] = lambda: False
    gone: Callable[[], bool] = lambda: False
    """Whether the gateways do not give what is pinned."""

    def cid_of(self, data: bytes) -> str:
        return _cid_of(data)

    def digest_of(self, cid: str) -> bytes:
        return _digest_of(cid)

    def cid_from_digest(self, digest: bytes) -> str:
        return _cid_from_digest(digest)

    async def pin(self, data: bytes, *, name: str) -> None:
        if self.down():
            raise Silence("the pin service is away")
        self.pinned[_cid_of(data)] = data

    async def gives(self, cid: str) -> bool:
        return not self.gone() and cid in self.pinned


@dataclass
class FakePosters:
    """A poster's endpoint: what it gives, what it was given; `answers` are raised one by one before that."""

    gives: bytes = b"{}"
    given: list[bytes] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(verb, URL, Authorization)."""
    get_answers: list[Exception] = field(default_factory=list)
    post_answers: list[Exception] = field(default_factory=list)

    async def get(self, url: str, *, authorization: str) -> bytes:
        self.asked.append(("GET", url, authorization))
        if self.get_answers:
            raise self.get_answers.pop(0)
        return self.gives

    async def post(self, url: str, body: bytes, *, authorization: str) -> None:
        self.asked.append(("POST", url, authorization))
        if self.post_answers:
            raise self.post_answers.pop(0)
        self.given.append(body)


# Thousands of lives ask for the same few.
_cid_of = lru_cache(4096)(cid_of)
_digest_of = lru_cache(4096)(digest_of)
_cid_from_digest = lru_cache(4096)(cid_from_digest)


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


@dataclass(slots=True)
class Posted:
    """A job on chain."""

    job: Pubkey
    timeout: int
    at: float


class StandInJobs:
    """Does to NosanaJobs what the job controller does, as far as the market host sees it."""

    def __init__(self, kube: FakeKube, clock: FakeClock, seconds: Callable[[], float]) -> None:
        self._kube = kube
        self._clock = clock
        self._seconds = seconds
        self._until: dict[str, datetime] = {}
        self.starts: Counter[str] = Counter()
        """uid of the NosanaJob → how often its pods were started."""
        self.bad_definitions = False

    def step(self) -> bool:
        """One look at every NosanaJob; True when something was done."""
        done = [self._look(body) for body in self._kube.objects(JOB_KIND)]
        return any(done)

    def _look(self, body: Body) -> bool:
        meta, status = body["metadata"], body.get("status") or {}
        conditions, now = status.get("conditions"), self._clock.now()
        over = condition_is_true(conditions, "Complete") or condition_is_true(conditions, "Failed")
        deleting = "deletionTimestamp" in meta
        verified = condition_is_true(conditions, "RunVerified")
        if deleting and (over or not verified) and FINALIZER_JOB in meta.get("finalizers", []):
            left = [f for f in meta["finalizers"] if f != FINALIZER_JOB]
            self._kube.edit(JOB_KIND, meta["namespace"], meta["name"], {"metadata": {"finalizers": left}})
            return True
        if over or not verified or "run" not in body["spec"]:
            return False
        if self.bad_definitions:
            accepted = ("Accepted", False, "DefinitionInvalid")
            return self._end(body, "Failed", "DefinitionInvalid", accepted)
        if meta["uid"] not in self._until:
            self._until[meta["uid"]] = now + timedelta(seconds=self._seconds())
            self.starts[meta["uid"]] += 1
        run = status.get("run") or {}
        if run.get("ended"):
            return self._end(body, "Complete", run["ended"])
        if deleting:
            return self._end(body, "Complete", "Deleted")
        if run.get("expiresAt") and now >= parse_timestamp(run["expiresAt"]):
            return self._end(body, "Complete", "Expired")
        if now >= self._until[meta["uid"]]:
            return self._end(body, "Complete", "Succeeded")
        return False

    def _end(self, body: Body, kind: str, reason: str, *more: tuple[str, bool, str]) -> bool:
        meta, now = body["metadata"], self._clock.now()
        raw = json.dumps({"run": body["spec"]["run"]["run"], "uid": meta["uid"], "said": reason}).encode()
        names = []
        for secret in result_secrets(body, raw):
            names.append(secret["metadata"]["name"])
            if self._kube.find("Secret", meta["namespace"], names[-1]) is None:
                self._kube.add(secret)
        status = body.get("status") or {}
        said = [(kind, True, reason), *more]
        new = [
            condition(status.get("conditions"), one, value, why, "by the lab", generation=1, now=now)
            for one, value, why in said
        ]
        others = [c for c in status.get("conditions") or () if c["type"] not in {c["type"] for c in new}]
        patch = {
            "conditions": [*others, *new],
            "resultSecrets": names,
            "timing": {**status.get("timing", {}), "ended": micro_timestamp(now)},
        }
        self._kube.edit(JOB_KIND, meta["namespace"], meta["name"], {"status": patch})
        return True


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
        self.host = MarketHost(edges, wallets, self.checks)
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


class MarketLab:
    """One cluster and one chain, and the operator's processes one after the other."""

    def __init__(
        self,
        *,
        price: int = 10,
        hosts: int = 1,
        gpus: int = 2,
        market: Body | None = None,
        seconds: Callable[[], float] = lambda: 5.0,
        kube: FakeKube | None = None,
        clock: FakeClock | None = None,
        account_rent: int = 20,
        leadership: Leadership | None = None,
    ) -> None:
        self.account_rent = account_rent
        """NOS base units that making a NOS account is worth."""
        self.clock = clock or FakeClock()
        self.begin: Beginning = beginning(price, hosts)
        self.chain_ahead = 3.0
        self.ledger = Ledger(self.begin.accounts, lambda: self.clock.now().timestamp() + self.chain_ahead)
        self.kube = kube or FakeKube(now=self.clock.now)
        self.events = RecordedEvents()
        self.metrics = RecordedSettlements()
        self.pins = FakePins()
        self.poster = FakePosters()
        self.rpc = FakeRpc(self.ledger)
        self.rpc.before_send = self._intent_first
        self.jobs = StandInJobs(self.kube, self.clock, seconds)
        self.stands_in = kube is None
        """No job controller works on that API."""
        self.posted: list[Posted] = []
        self.watch_lag: Callable[[], int] = lambda: 0
        """Looks of the watch by which the cache is behind, for each change."""
        self.blind: Callable[[], bool] = lambda: False
        """Whether a watcher misses an account in this slot."""
        self.later: list[tuple[float, Callable[[], object]]] = []
        self.failures = 0
        self.told: dict[tuple[str, str], dict[str, int]] = {}
        """(run, its start) → what the status of each of its settled NosanaJobs says was earned, by uid.

        There may be two where two processes work at once: the second finds it settled, and says so.
        """
        self.seen_jobs: dict[str, Body] = {}
        """By uid, as last seen, those that are gone included."""
        self.processes: list[Process] = []
        self._durable: set[str] = set()
        """Signed bytes that were ever in a status."""
        self._purposes: dict[tuple[str, str], list[WireTransaction]] = {}
        self._add_world(gpus, market or {})
        self.kube.watch(self._changed)
        self.process = self.twin(leadership)

    def _add_world(self, gpus: int, market: Body) -> None:
        self.kube.add(gpu_node("node-1", gpus))
        for n, key in enumerate(self.begin.hosts):
            self.add_wallet(f"wallet-{n}", bytes(key))
        wallets = [f"wallet-{n}" for n in range(len(self.begin.hosts))]
        self.kube.add(nosana_market(MARKET, self.begin.market, wallets, **market))

    def add_wallet(self, name: str, key: bytes) -> None:
        """A Secret with a key as Solana's tools write it."""
        self.kube.add(wallet_secret(name, key))

    # -- the process

    def boot(self) -> Process:
        """Start a process in place of the one that is at work."""
        if self.processes:
            self.processes.remove(self.process)
        self.process = Process(self)
        self.processes.append(self.process)
        return self.process

    def twin(self, leadership: Leadership | None = None) -> Process:
        """Start a process beside the one at work, which does not know that it was replaced."""
        self.process = Process(self, leadership)
        self.processes.append(self.process)
        return self.process

    def _changed(self, kind: str, body: Body, deleted: bool) -> None:
        status = body.get("status") or {}
        if kind == JOB_KIND:
            self.seen_jobs[body["metadata"]["uid"]] = body
        if kind == JOB_KIND and condition_is_true(status.get("conditions"), "Settled"):
            run = body["spec"]["run"]
            earned = (status.get("settlement") or {}).get("earned", 0)
            self.told.setdefault((run["run"], run["startedAt"]), {})[body["metadata"]["uid"]] = earned
        intents = [*status.get("transactions", ()), (status.get("settlement") or {}).get("transaction")]
        self._durable |= {intent["raw"] for intent in intents if intent}
        for process in self.processes:
            process.changed(kind, body, deleted)

    async def slot(self) -> None:
        """One slot of 0.4 s: chain, posters, watches, the other controller, then the operator."""
        self.clock.advance(0.4)
        self.ledger.tick()
        now = self.clock.now().timestamp()
        ripe = [one for one in self.later if one[0] <= now]
        self.later = [one for one in self.later if one[0] > now]
        for _, act in ripe:
            act()
        if self.stands_in:
            self.jobs.step()
        for process in list(self.processes):
            try:
                await process.slot()
            except Crash:
                self.processes.remove(process)
                if process is self.process:
                    self.process = Process(self)
                    self.processes.append(self.process)

    async def until(self, reached: Callable[[], bool], seconds: float = 300.0) -> None:
        """Let slots pass until the condition holds."""
        end = self.clock.now() + timedelta(seconds=seconds)
        while not reached():
            if self.clock.now() > end:
                raise AssertionError(f"not reached in {seconds} s of virtual time: {self.story()}")
            await self.slot()

    async def pass_time(self, seconds: float) -> None:
        """Let slots pass."""
        end = self.clock.now() + timedelta(seconds=seconds)
        await self.until(lambda: self.clock.now() >= end, seconds + 1)

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something later."""
        self.later.append((self.clock.now().timestamp() + seconds, act))

    # -- what must always hold

    def _intent_first(self, raw: bytes) -> None:
        """Nothing is sent whose signed bytes are not in a status already, nor beside another transaction for
        the same end that may still land. What was in one and is over may arrive late: the chain takes it no more.
        """
        text = base64.b64encode(raw).decode()
        kept = [
            one["raw"]
            for market in self.kube.objects(MARKET_KIND)
            for one in (market.get("status") or {}).get("transactions", [])
        ]
        for job in self.kube.objects(JOB_KIND):
            intent = ((job.get("status") or {}).get("settlement") or {}).get("transaction")
            kept += [intent["raw"]] if intent else []
        wire = WireTransaction.decode(raw)
        if text not in kept and not (text in self._durable and self._is_over(wire)):
            raise AssertionError("sent before its intent was durable")
        before = self._purposes.setdefault(_purpose(wire), [])
        if all(one.signature != wire.signature for one in before):
            for one in before:
                assert self._is_over(one), "signed anew beside a transaction that may still land"
            before.append(wire)

    def _is_over(self, wire: WireTransaction) -> bool:
        """Landed (a fork may undo that, then it is the chain's word against itself), or never to land."""
        landed = self.ledger.landed(str(wire.signature))
        if landed is not None:
            return True
        return not self.ledger.hash_is_good(wire, self.ledger.slot_of(Finalized))

    # -- posters

    def post(self, *, timeout: int = 60, run: str | None = None, content: bytes = b"definition") -> Posted:
        """List a job; `run` names the run's key, which the poster may use again."""
        name = f"job-{len(self.posted)}"
        job, poster = keypair(name), self.begin.poster
        self.posted.append(Posted(job.pubkey(), timeout, self.ledger.time(self.ledger.slot)))
        run_key = keypair(run or f"run-of-{name}")
        listed = list_job(
            self.begin.market,
            job.pubkey(),
            run_key.pubkey(),
            poster.pubkey(),
            ipfs_job=hashlib.sha256(content).digest(),
            timeout=timeout,
        )
        error = self.ledger.act([listed], poster, job, run_key)
        assert error is None, error
        return self.posted[-1]

    def end(self, posted: Posted) -> Any:
        """The owner ends his job, if it runs."""
        found = self.run_of(posted)
        if found is None:
            return "does not run"
        address, run = found
        poster = self.begin.poster.pubkey()
        instruction = end_job(
            self.begin.market,
            posted.job,
            address,
            poster,
            job_payer=poster,
            run_payer=run.payer,
            node=run.node,
        )
        return self.ledger.act([instruction], self.begin.poster)

    def extend(self, posted: Posted, timeout: int) -> Any:
        """The owner gives his job more time."""
        poster = self.begin.poster.pubkey()
        return self.ledger.act(
            [extend_job(self.begin.market, posted.job, poster, poster, timeout=timeout)], self.begin.poster
        )

    def quit_by_admin(self, posted: Posted) -> None:
        """Close the run as `quit_admin` does: the job stays as it is."""
        found = self.run_of(posted)
        if found is not None:
            self.ledger.place(found[0], None)

    # -- looking

    def run_of(self, posted: Posted) -> tuple[Pubkey, Run] | None:
        """The run of a job, as the newest slot has it."""
        for key, account in self.ledger.state(self.ledger.slot).items():
            if account.data[:8] == Run.DISCRIMINATOR:
                run = Run.decode(account.data)
                if run.job == posted.job:
                    return key, run
        return None

    def job_account(self, posted: Posted) -> Job:
        """A job account, as the newest slot has it."""
        found = self.ledger.account(posted.job)
        assert found is not None
        return Job.decode(found.data)

    def earned(self) -> int:
        """NOS on the hosts' accounts."""
        return sum(self.ledger.tokens(associated_token_account(k.pubkey())) for k in self.begin.hosts)

    def nosana_jobs(self) -> list[Body]:
        """All NosanaJobs of the market's namespace."""
        return self.kube.objects(JOB_KIND, JOBS)

    def job_of(self, posted: Posted) -> Body | None:
        """The NosanaJob of a posted job."""
        for body in self.nosana_jobs():
            if body["spec"].get("run", {}).get("job") == str(posted.job):
                return body
        return None

    def market(self) -> Body:
        """The NosanaMarket."""
        found = self.kube.find(MARKET_KIND, ADMIN, MARKET)
        assert found is not None
        return found

    def standing(self) -> bool:
        """Whether one of the hosts stands, at confirmed."""
        found = self.ledger.account(self.begin.market, self.ledger.slot_of(Confirmed))
        assert found is not None
        market = Market.decode(found.data)
        return market.queue_type == QUEUE_NODE and any(
            key.pubkey() in market.queue for key in self.begin.hosts
        )

    def slots(self) -> Body:
        """status.slots."""
        return dict((self.market().get("status") or {}).get("slots") or {})

    def says(self, kind: str, posted: Posted) -> tuple[str, str] | None:
        """Status and reason of a condition of a job's NosanaJob."""
        body = self.job_of(posted)
        found = find_condition(((body or {}).get("status") or {}).get("conditions"), kind)
        return None if found is None else (found["status"], found["reason"])

    def settled(self, *jobs: Posted) -> Callable[[], bool]:
        """A condition for `until`: these jobs (all) are settled."""
        return lambda: all(
            (self.says("Settled", one) or ("", ""))[0] == "True" for one in jobs or self.posted
        )

    def result(self, posted: Posted) -> bytes:
        """The bytes in the Secrets of a job's result."""
        body = self.job_of(posted)
        assert body is not None
        names = body["status"]["resultSecrets"]
        return read_result([self.kube.find("Secret", JOBS, name) or {} for name in names])

    def count(self, name: str) -> int:
        """Successful transactions with that instruction of the program."""
        return sum(one.error is None and name in one.names for one in self.ledger.history)

    def story(self) -> str:
        """Where everything stands."""
        jobs = {
            one["metadata"]["name"]: [
                (c["type"], c["status"], c["reason"], c["message"])
                for c in (one.get("status") or {}).get("conditions", [])
            ]
            for one in self.nosana_jobs()
        }
        status = self.market().get("status") or {}
        accounts = [
            (str(p.job)[:6], self.job_account(p).state, bool(self.run_of(p)))
            for p in self.posted
            if self.ledger.account(p.job) is not None
        ]
        brief = {k: v for k, v in status.items() if k in ("slots", "queue", "wallets")}
        pending = [(t["kind"], t["signature"][:6]) for t in status.get("transactions", [])]
        return json.dumps(
            {"jobs": jobs, "market": brief, "pending": pending, "chain": accounts}, indent=1, default=str
        )

    def check_books(self) -> None:
        """What the chain paid, and what the statuses say of it, agree with what was worked."""
        total = sum(self._cost(one) for one in self.posted)
        assert self.earned() == total, "the hosts have what the seconds cost"
        named = {
            (body["spec"]["run"]["job"], body["spec"]["run"]["startedAt"])
            for body in self.seen_jobs.values()
            if "run" in body["spec"]
        }
        # A run may be ended by the job's owner before anybody has seen it.
        unseen = 0
        for one in self.posted:
            start = datetime.fromtimestamp(self.job_account(one).time_start, UTC)
            if (str(one.job), timestamp(start)) not in named:
                unseen += self._cost(one)
        told = [set(one.values()) for one in self.told.values()]
        assert all(len(one) == 1 for one in told), "all that tell of a run tell the same"
        assert sum(sum(one) for one in told) == total - unseen, "the statuses tell the same"

    def _cost(self, posted: Posted) -> int:
        account = self.job_account(posted)
        if account.state != STATE_DONE:
            return 0
        return account.price * max(0, min(account.time_end - account.time_start, account.timeout))


def gpu_node(name: str, gpus: int) -> Body:
    """A node that is ready."""
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": {}},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus), "pods": str(max(100, 2 * gpus)), "cpu": "64"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def wallet_secret(name: str, key: bytes) -> Body:
    """A Secret with a key as Solana's tools write it."""
    data = base64.b64encode(json.dumps(list(key)).encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": ADMIN},
        "data": {"id.json": data},
    }


def nosana_market(name: str, address: Pubkey, wallets: Iterable[str], /, **spec: Any) -> Body:
    """A NosanaMarket whose keys are in these Secrets."""
    return {
        "apiVersion": API_VERSION,
        "kind": MARKET_KIND,
        "metadata": {"name": name, "namespace": ADMIN},
        "spec": {
            "address": str(address),
            "network": "localnet",
            "jobNamespace": JOBS,
            "wallets": [{"secretRef": {"name": wallet}} for wallet in wallets],
            **spec,
        },
    }


def closed_runs(history: Iterable[Landed]) -> Iterator[str]:
    """The run of each successful transaction that closed one."""
    for landed in history:
        if landed.error is None:
            for instruction in landed.wire.instructions():
                index = _CLOSERS.get(landed.names[-1]) if landed.names else None
                if index is not None and instruction.program_id == PROGRAM_ID:
                    yield str(instruction.accounts[index].pubkey)


def _purpose(wire: WireTransaction) -> tuple[str, str]:
    """What a transaction of the host is to bring about: instruction and run, job or key."""
    instruction = wire.instructions()[-1]
    name = next(s.title for s in BY_DISCRIMINATOR.values() if s.discriminator == instruction.data[:8])
    index = _PURPOSES[name]
    return name, str(wire.fee_payer if index is None else instruction.accounts[index].pubkey)


__all__ = [
    "ADMIN",
    "JOBS",
    "MARKET",
    "Crash",
    "MarketLab",
    "Posted",
    "Silence",
    "closed_runs",
    "gpu_node",
    "nosana_market",
    "wallet_secret",
]
