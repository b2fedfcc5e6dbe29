"""Instructions of the Nosana Jobs program, built from our own IDL file by anchorpy's coder.

The IDL (`idl/nosana_jobs.json`, the old format that anchorpy reads) holds all nineteen instructions with
their accounts in wire order; the published files have them wrong (docs/protocol/jobs-program.md#published-idls).
This module decides which address goes where: each account of an instruction is given under its IDL name, or is
one of the fixed ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

from anchorpy.coder.instruction import InstructionCoder
from anchorpy_core.idl import Idl, IdlAccount
from construct import ConstructError
from pyheck import snake
from solders.instruction import AccountMeta, Instruction
from spl.token.instructions import create_idempotent_associated_token_account

from nosana_operator.chain.addresses import (
    ASSOCIATED_TOKEN,
    RENT_SYSVAR,
    SYSTEM,
    TOKEN,
    Programs,
    pubkey,
)
from nosana_operator.chain.errors import InvalidInstruction

DIGEST_SIZE: Final = 32

# Measured by Nosana with 20 % margin and an empty queue (docs/protocol/jobs-program.md#compute-units).
_MEASURED_UNITS: Final[Mapping[str, int]] = {
    "open": 37_000,
    "list": 23_000,
    "work": 17_000,
    "complete": 5_000,
    "finish": 17_000,
    "quit": 7_000,
    "stop": 5_000,
    "extend": 17_000,
    "delist": 13_000,
    "end": 16_000,
}
_UNMEASURED_UNITS: Final = 40_000
_FULL_QUEUE_UNITS: Final = 131 * 314
"""Added for an instruction that reads a market: units per entry times the queue's capacity."""
_GROWTH_UNITS: Final = 131 * 32
"""Added to a simulation: units per entry times the entries that a queue may gain before the block."""
_TOKEN_ACCOUNT_UNITS: Final = 40_000
"""Creating an associated token account, the search for its address included."""
_OTHER_UNITS: Final = 10_000
_MARGIN: Final = 2
"""Programs grow, and a higher limit costs only a fraction of the fee."""
_BUDGET_UNITS: Final = 1_000
"""For the instructions that set limit and price."""


@cache
def idl() -> Idl:
    """Our IDL of the Jobs program."""
    return Idl.from_json(resources.files(__package__).joinpath("idl/nosana_jobs.json").read_text("utf-8"))


@cache
def _coder() -> InstructionCoder:
    return InstructionCoder(idl())


@cache
def _account_lists() -> Mapping[str, tuple[IdlAccount, ...]]:
    """Instruction → accounts in wire order."""
    return {
        snake(ix.name): tuple(account for account in ix.accounts if isinstance(account, IdlAccount))
        for ix in idl().instructions
    }


@cache
def run_positions() -> Mapping[bytes, int]:
    """Discriminator → position of the run account, for the instructions that may create one (except `claim`)."""
    return {
        discriminator: [account.name for account in _account_lists()[name]].index("run")
        for discriminator, name in _coder().sighash_to_name.items()
        if name in ("list", "assign", "work")
    }


def read_instruction(data: bytes, accounts: Sequence[str]) -> tuple[str, Mapping[str, str]] | None:
    """Name and accounts (by IDL name in snake case) of an instruction of the Jobs program.

    None: the instruction is unknown, or accounts are missing.
    """
    name = _coder().sighash_to_name.get(data[:8])
    if name is None:
        return None
    expected = _account_lists()[name]
    if len(accounts) < len(expected):
        return None
    # The program ignores additional accounts (docs/protocol/jobs-program.md#instructions).
    return name, {snake(each.name): address for each, address in zip(expected, accounts, strict=False)}


class JobsProgram:
    """Builds instructions for one cluster's Jobs program.

    All addresses are base58 text; a malformed one raises InvalidAddress. Amounts are NOS base units, times
    seconds. `job`, `run` and `market` are fresh keys that sign their own creation.
    """

    def __init__(self, programs: Programs) -> None:
        self.programs = programs

    def open(
        self,
        *,
        market: str,
        authority: str,
        price: int,
        job_timeout: int = 7200,
        job_expiration: int = 86_400,
        job_type: int = 0,
        xnos_minimum: int = 0,
        access_key: str = SYSTEM,
    ) -> Instruction:
        """Open a market at the fresh key `market`, which signs."""
        return self._build(
            "open",
            {
                "mint": self.programs.nos_mint,
                "market": market,
                "vault": self.programs.market_vault(market),
                "authority": authority,
                "access_key": access_key,
            },
            job_expiration=job_expiration,
            job_price=price,
            job_timeout=job_timeout,
            job_type=job_type,
            node_xnos_minimum=xnos_minimum,
        )

    def update(
        self,
        *,
        market: str,
        authority: str,
        price: int,
        job_timeout: int,
        job_expiration: int,
        job_type: int,
        xnos_minimum: int,
        access_key: str,
    ) -> Instruction:
        """Replace a market's terms; hosts and jobs in its queue stay."""
        return self._build(
            "update",
            {"market": market, "access_key": access_key, "authority": authority},
            job_expiration=job_expiration,
            job_price=price,
            job_type=job_type,
            node_stake_minimum=xnos_minimum,
            job_timeout=job_timeout,
        )

    def list(
        self, *, job: str, run: str, market: str, payer: str, project: str, ipfs_job: bytes, timeout: int
    ) -> Instruction:
        """Post a job at the fresh key `job`; `run`, also fresh, is used if a host waits. All four sign."""
        return self._build(
            "list",
            {
                "job": job,
                "market": market,
                "run": run,
                "user": self.programs.nos_account(payer),
                "vault": self.programs.market_vault(market),
                "payer": payer,
                "authority": project,
                **self._rewards(),
            },
            ipfs_job=_digest(ipfs_job, "ipfs_job"),
            timeout=timeout,
        )

    def delist(self, *, job: str, market: str, payer: str, project: str) -> Instruction:
        """Take a queued job back; the project signs, the payer gets rent and deposit."""
        return self._build(
            "delist",
            {
                "job": job,
                "market": market,
                "deposit": self.programs.nos_account(payer),
                "payer": payer,
                "vault": self.programs.market_vault(market),
                "authority": project,
            },
        )

    def extend(self, *, job: str, market: str, payer: str, project: str, timeout: int) -> Instruction:
        """Set a longer `timeout` (absolute); project and payer sign."""
        return self._build(
            "extend",
            {
                "job": job,
                "market": market,
                "user": self.programs.nos_account(payer),
                "vault": self.programs.market_vault(market),
                "authority": project,
                "payer": payer,
                **self._rewards(),
            },
            timeout=timeout,
        )

    def end(
        self, *, job: str, market: str, run: str, node: str, job_payer: str, run_payer: str, project: str
    ) -> Instruction:
        """Stop a running job; the project signs. The pay goes to the host's own NOS account, which must exist."""
        return self._build(
            "end",
            {
                "job": job,
                "market": market,
                "run": run,
                "deposit": self.programs.nos_account(job_payer),
                "user": self.programs.nos_account(node),
                "vault": self.programs.market_vault(market),
                "payer": run_payer,
                "authority": project,
            },
        )

    def work(
        self, *, run: str, market: str, node: str, nft: str | None = None, metadata: str | None = None
    ) -> Instruction:
        """Join a market's queue, or take its first job at the fresh key `run`, which signs.

        In an open market `nft` is any token account (default: the host's own for NOS) and `metadata` is not needed.
        """
        return self._build(
            "work",
            {
                "run": run,
                "market": market,
                "payer": node,
                "stake": self.programs.stake(node),
                "nft": nft or self.programs.nos_account(node),
                "metadata": metadata or SYSTEM,
                "authority": node,
            },
        )

    def stop(self, *, market: str, node: str, authority: str | None = None) -> Instruction:
        """Leave a market's queue; signed by the host, or by the market's `authority`."""
        return self._build("stop", {"market": market, "node": node, "authority": authority or node})

    def complete(self, *, job: str, node: str, ipfs_result: bytes) -> Instruction:
        """Write the result of a job that its project ended."""
        return self._build(
            "complete", {"job": job, "authority": node}, ipfs_result=_digest(ipfs_result, "ipfs_result")
        )

    def finish(
        self,
        *,
        job: str,
        run: str,
        market: str,
        node: str,
        run_payer: str,
        job_payer: str,
        ipfs_result: bytes,
        payout: str,
        free: bool,
    ) -> Instruction:
        """End a run with its result; the pay goes to the NOS account `payout`.

        A free job refunds nothing, and the program accepts any token account as the payer's: we give ours, which
        exists.
        """
        return self._build(
            "finish",
            {
                "job": job,
                "run": run,
                "market": market,
                "vault": self.programs.market_vault(market),
                "deposit": payout if free else self.programs.nos_account(job_payer),
                "user": payout,
                "payer_run": run_payer,
                "payer_job": job_payer,
                "authority": node,
            },
            ipfs_result=_digest(ipfs_result, "ipfs_result"),
        )

    def quit(self, *, job: str, run: str, run_payer: str, node: str) -> Instruction:
        """Give up a run: nothing is published or paid, and the job is not queued again."""
        return self._build("quit", {"job": job, "run": run, "payer": run_payer, "authority": node})

    def create_nos_account(self, *, payer: str, owner: str) -> Instruction:
        """Create the owner's NOS account if it is missing; `payer` pays its rent."""
        return create_idempotent_associated_token_account(
            pubkey(payer), pubkey(owner), pubkey(self.programs.nos_mint)
        )

    def compute_unit_limit(self, instructions: Sequence[Instruction]) -> int:
        """A limit that is enough for a transaction with these instructions, whatever the queue's length.

        The priority fee is the price times this limit, so the runtime's default (200,000 an instruction)
        would be paid several times over.
        """
        return _BUDGET_UNITS + sum(self._units(instruction) for instruction in instructions)

    def growth_units(self, instructions: Sequence[Instruction]) -> int:
        """What these instructions may use beyond a simulation, because the queue may grow before they run."""
        return _GROWTH_UNITS * sum(self._reads_market(instruction) for instruction in instructions)

    def _units(self, instruction: Instruction) -> int:
        if str(instruction.program_id) == ASSOCIATED_TOKEN:
            return _TOKEN_ACCOUNT_UNITS
        name = self._name(instruction)
        if name is None:
            return _OTHER_UNITS
        queue = _FULL_QUEUE_UNITS if self._reads_market(instruction) else 0
        return _MARGIN * _MEASURED_UNITS.get(name, _UNMEASURED_UNITS) + queue

    def _reads_market(self, instruction: Instruction) -> bool:
        name = self._name(instruction)
        return name is not None and any(account.name == "market" for account in _account_lists()[name])

    def _name(self, instruction: Instruction) -> str | None:
        """The instruction's name; None: not of the Jobs program."""
        if str(instruction.program_id) != self.programs.jobs:
            return None
        name: str | None = _coder().sighash_to_name.get(bytes(instruction.data[:8]))
        return name

    def _rewards(self) -> dict[str, str]:
        return {
            "rewards_reflection": self.programs.rewards_reflection(),
            "rewards_vault": self.programs.rewards_vault(),
            "rewards_program": self.programs.rewards,
        }

    def _build(self, name: str, accounts: Mapping[str, str], **args: Any) -> Instruction:
        try:
            data = _coder().encode(name, args)
        except ConstructError as error:
            raise InvalidInstruction(f"{name} cannot be encoded: {error}; check its arguments.") from error
        named = {"system_program": SYSTEM, "token_program": TOKEN, "rent": RENT_SYSVAR, **accounts}
        metas = [
            AccountMeta(pubkey(named[snake(account.name)]), account.is_signer, account.is_mut)
            for account in _account_lists()[name]
        ]
        return Instruction(pubkey(self.programs.jobs), data, metas)


def _digest(digest: bytes, name: str) -> list[int]:
    if len(digest) != DIGEST_SIZE or not any(digest):
        raise InvalidInstruction(f"{name} must be the {DIGEST_SIZE} bytes of a CIDv0, not all zero.")
    return [*digest]
