"""Crashes, cuts, lost and late transactions, forks, lagging nodes and hostile posters, by seed.

Whatever happens: each run is closed exactly once, each payment is what the seconds cost, each job is settled
once and its result is to be had, nothing is sent before its intent is durable, no run is served twice, and
there are never more matches than slots. Virtual time, no sockets; a failure names its seed and step.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import pytest

from fakes.chain import Landed
from fakes.kube import Request
from fakes.market import MarketLab, Posted, closed_runs
from fakes.market_objects import JOBS
from fakes.trouble import Crash, Silence
from nosana_operator.api import JOB_KIND, condition_is_true, timestamp
from nosana_operator.api.result import read_result
from nosana_operator.content import cid_of, digest_of
from nosana_sandbox.program.addresses import associated_token_account
from nosana_sandbox.program.layout import STATE_DONE, STATE_QUEUED, STATE_STOPPED, Market, Run

SEEDS = int(os.environ.get("NOSANA_CRASH_SEEDS", "300"))
SOAK_SEEDS = int(os.environ.get("NOSANA_CRASH_SOAK_SEEDS", "10000"))
_BATCH = 25
_STORM = 35.0
"""Seconds of trouble; then all of it ends, and everything has to come right."""
_CALM_LIMIT = 240.0


@dataclass(frozen=True)
class Plan:
    """What a seed stands for."""

    price: int
    hosts: int
    gpus: int
    jobs: int
    bad_definitions: bool
    on_bad_definition: str
    crash: float
    cut: float
    drop: float
    late: int
    lag: int
    fork: float
    watch_lag: int
    blind: float
    pin_down: bool
    twin: float


def plan(rng: random.Random) -> Plan:
    return Plan(
        price=rng.choice([10, 10, 1000, 0]),
        hosts=rng.choice([1, 1, 2]),
        gpus=rng.choice([1, 2, 2]),
        jobs=rng.randint(1, 3),
        bad_definitions=rng.random() < 0.1,
        on_bad_definition=rng.choice(["Finish", "Quit"]),
        crash=rng.choice([0.0, 0.02, 0.08]),
        cut=rng.choice([0.0, 0.02, 0.2]),
        drop=rng.choice([0.0, 0.2, 0.6]),
        late=rng.choice([1, 5, 30]),
        lag=rng.choice([0, 2, 8]),
        fork=rng.choice([0.0, 0.0, 0.03]),
        watch_lag=rng.choice([0, 3]),
        blind=rng.choice([0.0, 0.3, 0.9]),
        pin_down=rng.random() < 0.2,
        twin=rng.choice([0.0, 0.0, 0.05]),
    )


class Storm:
    """One seed's life of a market."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.plan = plan(self.rng)
        self.lab = MarketLab(
            price=self.plan.price,
            hosts=self.plan.hosts,
            gpus=self.plan.gpus,
            market={"onBadDefinition": self.plan.on_bad_definition},
            seconds=lambda: self.rng.uniform(0, 12),
        )
        self.step = 0
        self.quiet = False
        self.crashes = 0
        self.forks = 0
        self.admin_quits: set[str] = set()
        self._arm()

    def _arm(self) -> None:
        lab, rng, wanted = self.lab, self.rng, self.plan
        lab.jobs.bad_definitions = wanted.bad_definitions
        lab.kube.interrupt = self._kube_gate
        lab.rpc.gate = self._rpc_gate
        lab.rpc.lag = lambda: rng.randint(0, wanted.lag)
        lab.rpc.delay = lambda: None if rng.random() < wanted.drop else rng.randint(1, wanted.late)
        lab.watch_lag = lambda: rng.randint(0, wanted.watch_lag)
        lab.blind = lambda: rng.random() < wanted.blind
        lab.pins.down = lambda: wanted.pin_down
        for _ in range(wanted.jobs):
            lab.after(rng.uniform(0, 15), self._post)

    def _quiet(self) -> None:
        lab, self.quiet = self.lab, True
        lab.kube.interrupt = None
        lab.rpc.gate = self._always
        lab.rpc.lag = lambda: 0
        lab.rpc.delay = lambda: 1
        lab.watch_lag = lambda: 0
        lab.blind = lambda: False
        lab.pins.down = lambda: False

    async def _always(self, method: str, when: str) -> None:
        """A node that answers."""

    async def _kube_gate(self, request: Request, when: Literal["before", "after"]) -> None:
        self._chance()

    async def _rpc_gate(self, method: str, when: Literal["before", "after"]) -> None:
        self._chance()

    def _chance(self) -> None:
        self.step += 1
        drawn = self.rng.random()
        if drawn < self.plan.crash:
            self.crashes += 1
            raise Crash
        if drawn < self.plan.crash + self.plan.cut:
            raise Silence("cut")

    def _post(self) -> None:
        rng, lab = self.rng, self.lab
        timeout = rng.choice([60, 60, 20, 3])
        if not self.plan.price:
            timeout = rng.choice([60, 3, 0, -5, -(2**63), 2**63 - 1, 2**40])
        posted = lab.post(timeout=timeout, content=rng.randbytes(8))
        drawn = rng.random()
        if drawn < 0.2:
            lab.after(rng.uniform(1, 25), lambda: lab.end(posted))
        elif drawn < 0.3:
            lab.after(rng.uniform(1, 10), lambda: lab.extend(posted, 80))
        elif drawn < 0.37:
            lab.after(rng.uniform(1, 25), lambda: self._admin(posted))
        elif drawn < 0.47:
            lab.after(rng.uniform(1, 25), lambda: self._delete(posted))
        elif drawn < 0.55:
            account = associated_token_account(lab.begin.poster.pubkey())
            others_to_come = self.plan.jobs - len(lab.posted)
            lab.after(
                rng.uniform(1, 20), lambda: lab.ledger.place(account, None) if not others_to_come else None
            )

    def _admin(self, posted: Posted) -> None:
        found = self.lab.run_of(posted)
        if found is not None:
            self.admin_quits.add(str(found[0]))
            self.lab.quit_by_admin(posted)

    def _delete(self, posted: Posted) -> None:
        body = self.lab.job_of(posted)
        if body is not None:
            self.lab.kube.remove(JOB_KIND, JOBS, body["metadata"]["name"])

    # -- the life

    async def live(self) -> None:
        lab, end = self.lab, self.lab.clock.now().timestamp() + _STORM
        while lab.clock.now().timestamp() < end:
            await self._slot()
        self._quiet()
        end = lab.clock.now().timestamp() + _CALM_LIMIT
        while not self._over():
            assert lab.clock.now().timestamp() < end, "it does not come to rest"
            await self._slot()
        self._check_end()

    async def _slot(self) -> None:
        if self.rng.random() < self.plan.fork and not self.quiet:
            self.forks += 1
            self.lab.ledger.fork(self.rng.randint(1, 6), self._lands_again)
        if len(self.lab.processes) == 1 and self.rng.random() < self.plan.twin and not self.quiet:
            self.lab.twin()
        await self.lab.slot()
        self._check_slot()

    def _lands_again(self, landed: Landed) -> bool:
        """A poster sees to it that his transactions land."""
        return landed.wire.fee_payer == self.lab.begin.poster.pubkey() or self.rng.random() < 0.7

    def _open_runs(self) -> list[tuple[str, Run]]:
        state = self.lab.ledger.state(self.lab.ledger.slot)
        found = [
            (str(key), Run.decode(a.data)) for key, a in state.items() if a.data[:8] == Run.DISCRIMINATOR
        ]
        hosts = {key.pubkey() for key in self.lab.begin.hosts}
        return [(key, run) for key, run in found if run.node in hosts]

    def _over(self) -> bool:
        lab = self.lab
        settled = all(
            condition_is_true((body.get("status") or {}).get("conditions"), "Settled")
            for body in lab.nosana_jobs()
        )
        market = lab.ledger.account(lab.begin.market)
        assert market is not None
        waiting = Market.decode(market.data)
        return (
            len(lab.posted) == self.plan.jobs
            and settled
            and not self._open_runs()
            and not (waiting.queue_type == 0 and waiting.queue)
            and self._pinned()
        )

    def _pinned(self) -> bool:
        """The results that stand on chain can be had."""
        on_chain = [
            self.lab.job_account(posted).ipfs_result for posted in self.lab.posted if self._alive(posted)
        ]
        digests = {self.lab.pins.digest_of(cid) for cid in self.lab.pins.pinned}
        return all(result in digests for result in on_chain if any(result))

    def _alive(self, posted: Posted) -> bool:
        return self.lab.ledger.account(posted.job) is not None

    # -- what must hold

    def _check_slot(self) -> None:
        """Never more matches than slots; forks may give runs back that were finished."""
        if self.forks:
            return
        lab = self.lab
        ended = {
            body["spec"]["run"]["run"]
            for body in lab.nosana_jobs()
            if any(
                condition_is_true((body.get("status") or {}).get("conditions"), kind)
                for kind in ("Complete", "Failed")
            )
        }
        serving = [key for key, _ in self._open_runs() if key not in ended]
        account = lab.ledger.account(lab.begin.market)
        assert account is not None
        market = Market.decode(account.data)
        hosts = {key.pubkey() for key in lab.begin.hosts}
        standing = [key for key in market.queue if key in hosts] if market.queue_type == 1 else []
        assert len(serving) + len(standing) <= self.plan.gpus, "more matches than slots"

    def _check_end(self) -> None:
        lab = self.lab
        for run, times in Counter(closed_runs(lab.ledger.history)).items():
            assert times == 1, f"run {run} was closed {times} times"
        lab.check_books()
        if not self.plan.twin:
            assert all(len(one) == 1 for one in lab.told.values()), "a run has one NosanaJob"
        for posted in lab.posted:
            account = lab.job_account(posted)
            if account.state == STATE_DONE and any(account.ipfs_result):
                self._check_result(posted, account.ipfs_result)
            elif account.state == STATE_QUEUED:
                assert self.admin_quits or self.forks, "a job was lost"
            elif account.state == STATE_STOPPED:
                assert self.plan.bad_definitions, "only unusable definitions are given back"
        served: Counter[tuple[str, str]] = Counter()
        for body in lab.seen_jobs.values():
            if lab.jobs.starts[body["metadata"]["uid"]]:
                run = body["spec"]["run"]
                served[(run["run"], run["startedAt"])] += 1
        for which, times in served.items():
            assert times == 1, f"run {which} was served {times} times"

    def _check_result(self, posted: Posted, result: bytes) -> None:
        start = timestamp(datetime.fromtimestamp(self.lab.job_account(posted).time_start, UTC))
        for body in self.lab.nosana_jobs():
            run, cid = body["spec"]["run"], body["status"].get("resultCID")
            # After a fork a job may have had several runs.
            if cid and (run["job"], run["startedAt"]) == (str(posted.job), start):
                assert digest_of(cid) == result, "another result stands on chain"
                (name,) = body["status"]["resultSecrets"]
                secret = self.lab.kube.find("Secret", JOBS, name) or {}
                assert cid_of(read_result([secret])) == cid


async def weather(seeds: range) -> None:
    for seed in seeds:
        storm = Storm(seed)
        try:
            await storm.live()
        except Exception as problem:
            raise AssertionError(
                f"seed {seed}, step {storm.step}, {timestamp(storm.lab.clock.now())}, {storm.plan}: {problem}\n"
                f"{storm.lab.story()}"
            ) from problem


@pytest.mark.parametrize("first", range(0, SEEDS, _BATCH))
async def test_no_payment_is_lost_doubled_or_wrong(first: int) -> None:
    await weather(range(first, min(first + _BATCH, SEEDS)))


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("first", range(SEEDS, SEEDS + SOAK_SEEDS, 250))
async def test_no_payment_is_lost_doubled_or_wrong_at_length(first: int) -> None:
    await weather(range(first, min(first + 250, SEEDS + SOAK_SEEDS)))
