"""A small chain for the Jobs program stand-in: wallets, stakes, a market, and instructions with the right accounts."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from typing import Any

from solders.pubkey import Pubkey

from nosana_sandbox.program import Account, AccountMeta, Instruction, Result, execute
from nosana_sandbox.program import addresses as at
from nosana_sandbox.program.anchor import Kind
from nosana_sandbox.program.instructions import BY_DISCRIMINATOR
from nosana_sandbox.program.layout import Job, Market, Reflection, Run, Stake, TokenAccount

SPECS = {spec.name: spec for spec in BY_DISCRIMINATOR.values()}
START = 1_750_000_000
RICH = 10_000_000_000
_FORMATS = {"u8": "B", "u64": "Q", "i64": "q", "bytes32": "32s", "u128": "16s"}


def key(label: str) -> Pubkey:
    """A key that is the same in every run."""
    return Pubkey(hashlib.sha256(f"world:{label}".encode()).digest())


REFLECTION = key("reflection")
REWARDS_VAULT = key("rewards vault")


def wallet_account(owner: Pubkey) -> Pubkey:
    return at.associated_token_account(owner)


class World:
    """Accounts and a clock; `run` executes one instruction and keeps what it changed."""

    def __init__(self, wallets: tuple[str, ...] = ("admin", "poster", "payer", "node-a", "node-b")) -> None:
        self.clock = START
        self.accounts: dict[Pubkey, Account] = {}
        mint = struct.pack("<I32sQBBI32s", 1, bytes(key("minter")), 10**14, 6, 1, 0, bytes(32))
        self.accounts[at.NOS_MINT] = Account(1_461_600, at.TOKEN_PROGRAM, mint)
        reflection = Reflection.DISCRIMINATOR + bytes(88)
        self.accounts[REFLECTION] = Account(1_559_040, at.REWARDS_PROGRAM, reflection)
        self.token_account(REWARDS_VAULT, REFLECTION, 0)
        for name in wallets:
            self.wallet(key(name))

    def wallet(self, owner: Pubkey, tokens: int = RICH, xnos: int = 1_000) -> None:
        self.accounts[owner] = Account(RICH, at.SYSTEM_PROGRAM)
        self.token_account(wallet_account(owner), owner, tokens)
        stake = Stake.DISCRIMINATOR + struct.pack("<Q32sQq32sB", 1, bytes(owner), 1, 0, bytes(32), 0)
        data = (stake + xnos.to_bytes(16, "little")).ljust(120, b"\0")
        self.accounts[at.stake_account(owner)] = Account(1_726_080, at.STAKING_PROGRAM, data)

    def token_account(self, where: Pubkey, owner: Pubkey, amount: int, mint: Pubkey = at.NOS_MINT) -> None:
        data = TokenAccount(mint=mint, owner=owner, amount=amount).encode()
        self.accounts[where] = Account(2_039_280, at.TOKEN_PROGRAM, data)

    def instruction(self, name: str, *arguments: int | bytes, **roles: Pubkey) -> Instruction:
        """The instruction with the accounts a correct client passes; `roles` name those that matter."""
        spec = SPECS[name]
        data = spec.discriminator
        for kind, value in zip(spec.arguments, arguments, strict=True):
            packed = value.to_bytes(16, "little") if kind == "u128" and isinstance(value, int) else value
            data += struct.pack(f"<{_FORMATS[kind]}", packed)
        metas = []
        for field in spec.fields:
            signs = field.kind is Kind.SIGNER or (
                field.name in ("run", "job", "market")
                and (field.init_by is not None or field.kind is Kind.UNCHECKED)
            )
            writes = field.mut or field.init_by is not None
            # close's authority gets the rent back although the account list does not say so.
            writes |= field.name == "authority" and name in ("close", "close_admin")
            metas.append(AccountMeta(roles.get(field.name) or self._usual(field.name, roles), signs, writes))
        return Instruction(at.JOBS_PROGRAM, tuple(metas), data)

    def _usual(self, role: str, roles: dict[str, Pubkey]) -> Pubkey:
        fixed = {
            "mint": at.NOS_MINT,
            "access_key": at.SYSTEM_PROGRAM,
            "metadata": at.SYSTEM_PROGRAM,
            "rent": at.RENT_SYSVAR,
            "system_program": at.SYSTEM_PROGRAM,
            "token_program": at.TOKEN_PROGRAM,
            "rewards_program": at.REWARDS_PROGRAM,
            "rewards_reflection": REFLECTION,
            "rewards_vault": REWARDS_VAULT,
        }
        if role in fixed:
            return fixed[role]
        if role == "vault":
            return at.market_vault(roles["market"], at.NOS_MINT)[0]
        if role == "stake":
            return at.stake_account(roles["authority"])
        if role in ("payer_run", "payer_job", "payer", "node"):
            return roles["authority"]
        return wallet_account(roles.get("payer") or roles["authority"])  # user, deposit, nft

    def run(self, instruction: Instruction) -> Result:
        """Execute; what it changed stays."""
        result = execute(instruction, self.accounts, self.clock)
        for changed, account in result.changed.items():
            if account is None:
                del self.accounts[changed]
            else:
                self.accounts[changed] = account
        return result

    def must(self, name: str, *arguments: int | bytes, **roles: Pubkey) -> Result:
        result = self.run(self.instruction(name, *arguments, **roles))
        assert result.ok, result.logs
        return result

    def open_market(self, label: str = "market", price: int = 100, job_type: int = 0) -> Pubkey:
        market = key(label)
        self.must("open", 3600, price, 7200, job_type, 0, market=market, authority=key("admin"))
        return market

    def tokens(self, where: Pubkey) -> int:
        return TokenAccount.decode(self.accounts[where].data).amount

    def lamports(self, where: Pubkey) -> int:
        return self.accounts[where].lamports if where in self.accounts else 0

    def market(self, where: Pubkey) -> Market:
        return Market.decode(self.accounts[where].data)

    def job(self, where: Pubkey) -> Job:
        return Job.decode(self.accounts[where].data)

    def run_account(self, where: Pubkey) -> Run:
        return Run.decode(self.accounts[where].data)

    def total_lamports(self) -> int:
        return sum(account.lamports for account in self.accounts.values())

    def total_tokens(self) -> int:
        return sum(
            TokenAccount.decode(account.data).amount
            for account in self.accounts.values()
            if account.owner == at.TOKEN_PROGRAM and len(account.data) == TokenAccount.SPACE
        )


def with_meta(instruction: Instruction, role: str, **changes: Any) -> Instruction:
    """The instruction with one account's key or flags changed."""
    spec = BY_DISCRIMINATOR[instruction.data[:8]]
    position = next(i for i, field in enumerate(spec.fields) if field.name == role)
    metas = list(instruction.accounts)
    metas[position] = replace(metas[position], **changes)
    return replace(instruction, accounts=tuple(metas))
