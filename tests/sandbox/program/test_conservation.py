"""No sequence of instructions makes or loses lamports or tokens, and a failed one changes nothing."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from nosana_sandbox.program import Instruction
from nosana_sandbox.program import addresses as at
from nosana_sandbox.program.layout import JOB_TYPE_UNKNOWN, QUEUE_EMPTY, Job, Run
from support.program_world import SPECS, World, key, wallet_account, with_meta

STEPS = 400
WALLETS = tuple(key(name) for name in ("admin", "poster", "payer", "node-a", "node-b"))
MARKETS = tuple(key(f"market {n}") for n in range(2))
ARGUMENTS = {
    "bytes32": (b"x" * 32, b"y" * 32, bytes(32)),
    "i64": (0, 60, 1000, 1001, 2000, -1),
    "u64": (0, 1, 100),
    "u8": (0, 4, 9, JOB_TYPE_UNKNOWN),
    "u128": (0, 1_000, 1_001),
}
# Those that end a market or need it to be quiet are drawn less often.
NAMES = [*SPECS, "list", "list", "work", "work", "work", "finish", "finish", "claim", "complete", "extend"]
RARE = {"close", "close_admin", "clean_admin", "quit_admin", "open"}


class Driver:
    """Draws instructions that mostly fit the state of the world, and spoils some of them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World((*(f"extra {n}" for n in range(2)),))
        for owner in (*WALLETS, at.MARKET_ADMIN):
            self.world.wallet(owner)
        self.fresh = 0

    def instruction(self) -> Instruction:
        choice = self.random.choice
        name = choice(NAMES)
        if name in RARE and self.random.random() < 0.8:
            name = "work"
        roles = {"market": choice(MARKETS), "authority": choice(WALLETS), "payer": choice(WALLETS)}
        roles |= {"job": self._new(), "run": self._new(), "node": choice(WALLETS)}
        roles |= self._fitting(name)
        if name in ("open", "update", "close"):
            roles["authority"] = WALLETS[0]
        if name.endswith("_admin"):
            roles["authority"] = at.MARKET_ADMIN
        arguments = [choice(ARGUMENTS[kind]) for kind in SPECS[name].arguments]
        return self._spoil(name, self.world.instruction(name, *arguments, **roles))

    def _new(self) -> Pubkey:
        self.fresh += 1
        return key(f"fresh {self.fresh}")

    def _owned(self, layout: type[Job] | type[Run]) -> list[tuple[Pubkey, Any]]:
        return [
            (where, layout.decode(account.data))
            for where, account in sorted(self.world.accounts.items(), key=lambda item: str(item[0]))
            if account.data.startswith(layout.DISCRIMINATOR)
        ]

    def _fitting(self, name: str) -> dict[str, Pubkey]:
        """An existing job or run and those who belong to it."""
        if name in ("finish", "quit", "end", "quit_admin"):
            return self._fitting_run(name)
        if name in ("open", "list", "assign", "work"):
            return {}
        states = {"complete": 2, "clean": 2, "recover": 3, "claim": 3, "delist": 0, "extend": 0}
        jobs = [found for found in self._owned(Job) if found[1].state == states.get(name, found[1].state)]
        if not jobs:
            return {}
        where, job = self.random.choice(jobs)
        fitting = {"job": where, "market": job.market}
        if name == "complete":
            return fitting | {"authority": job.node}
        if name == "claim":
            return fitting
        return fitting | {"authority": job.project, "payer": job.payer}

    def _fitting_run(self, name: str) -> dict[str, Pubkey]:
        runs = self._owned(Run)
        jobs = dict(self._owned(Job))
        if not runs:
            return {}
        where, run = self.random.choice(runs)
        fitting = {
            "run": where,
            "job": run.job,
            "authority": run.node,
            "payer": run.payer,
            "payer_run": run.payer,
        }
        if (job := jobs.get(run.job)) is not None:
            fitting |= {"market": job.market, "payer_job": job.payer, "deposit": wallet_account(job.payer)}
            fitting |= {"user": wallet_account(run.node)}
            if name == "end":
                fitting["authority"] = job.project
        return fitting

    def _spoil(self, name: str, instruction: Instruction) -> Instruction:
        if self.random.random() < 0.75:
            return instruction
        role = self.random.choice(SPECS[name].fields).name
        what = self.random.choice(("pubkey", "is_signer", "is_writable"))
        other = self.random.choice(sorted(self.world.accounts, key=str))
        return with_meta(instruction, role, **{what: other if what == "pubkey" else False})


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_money_is_conserved_and_failures_change_nothing(seed: int) -> None:
    driver = Driver(seed)
    world = driver.world
    for number, market in enumerate(MARKETS):
        world.must("open", 60, 100 * number, 60, 0, 0, market=market, authority=WALLETS[0])
    lamports, tokens = world.total_lamports(), world.total_tokens()
    for _ in range(STEPS):
        world.clock += driver.random.choice((0, 1, 59, 1000))
        instruction = driver.instruction()
        before = dict(world.accounts)
        result = world.run(instruction)
        if not result.ok:
            assert world.accounts == before
            assert result.changed == {}
            assert result.error is not None
        assert result.changed.keys() <= {meta.pubkey for meta in instruction.accounts if meta.is_writable}
        assert world.total_lamports() == lamports
        assert world.total_tokens() == tokens
        assert min(account.lamports for account in world.accounts.values()) >= 0
        for where in MARKETS:
            if where in world.accounts and world.accounts[where].owner == at.JOBS_PROGRAM:
                held = world.market(where)
                assert (held.queue_type == QUEUE_EMPTY) == (not held.queue)


def test_the_sequences_reach_every_instruction() -> None:
    """A property that is only ever tried on failures would prove nothing."""
    succeeded: Counter[str] = Counter()
    by_discriminator = {spec.discriminator: name for name, spec in SPECS.items()}
    for seed in range(12):
        driver = Driver(seed)
        for number, market in enumerate(MARKETS):
            driver.world.must("open", 60, 100 * number, 60, 0, 0, market=market, authority=WALLETS[0])
        for _ in range(STEPS):
            driver.world.clock += driver.random.choice((0, 1, 59, 1000))
            instruction = driver.instruction()
            if driver.world.run(instruction).ok:
                succeeded[by_discriminator[instruction.data[:8]]] += 1
    assert succeeded.keys() == SPECS.keys()
    assert min(succeeded.values()) >= 2, succeeded
