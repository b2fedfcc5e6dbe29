"""The market host's lab: one cluster and one chain, its processes one after the other, and its posters."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from solana.rpc.commitment import Confirmed, Finalized
from solders.pubkey import Pubkey

from fakes.chain import Beginning, FakeRpc, Landed, Ledger, beginning, keypair
from fakes.edges import FakeClock, RecordedEvents
from fakes.figures import RecordedSettlements
from fakes.job_controller import StandInJobs
from fakes.kube import Body, FakeKube
from fakes.market_objects import ADMIN, JOBS, MARKET, gpu_node, nosana_market, wallet_secret
from fakes.market_process import Process
from fakes.pins import FakePins
from fakes.posters import FakePosters
from fakes.trouble import Crash
from nosana_operator.api import JOB_KIND, MARKET_KIND, condition_is_true, find_condition, timestamp
from nosana_operator.api.result import read_result
from nosana_operator.market import Leadership
from nosana_sandbox.chain.transaction import WireTransaction
from nosana_sandbox.program import PROGRAM_ID
from nosana_sandbox.program.addresses import associated_token_account
from nosana_sandbox.program.instructions import BY_DISCRIMINATOR
from nosana_sandbox.program.layout import QUEUE_NODE, STATE_DONE, Job, Market, Run
from nosana_sandbox.world.instructions import end_job, extend_job, list_job

_CLOSERS = {"Finish": 1, "Quit": 1, "End": 2}
"""Instruction → which of its accounts is the run."""
_PURPOSES = {"Finish": 1, "Quit": 1, "Complete": 0, "Work": None, "Stop": None}
"""Instruction → the account that says what it is for; None: its signer."""


@dataclass(slots=True)
class Posted:
    """A job on chain."""

    job: Pubkey
    timeout: int
    at: float


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
