"""Executes instructions of the real System, Token, associated-token and Memo programs in LiteSVM.

LiteSVM is used as a scratch machine: the accounts of one instruction go in, what changed comes out. The bank
owns the accounts, fees, signatures and block hashes, so that programs executed by a stand-in and those
executed here share one transaction.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from solders.account import Account as SvmAccount
from solders.clock import Clock
from solders.compute_budget import set_compute_unit_limit
from solders.instruction import AccountMeta as SvmAccountMeta
from solders.instruction import Instruction as SvmInstruction
from solders.litesvm import LiteSVM
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from nosana_sandbox.chain.budget import COMPUTE_BUDGET_UNITS
from nosana_sandbox.program import Account, Instruction

# LiteSVM's runtime reports each program failure through Rust's logger; the answer holds it anyway.
logging.getLogger("solana_runtime").setLevel(logging.ERROR)

SYSTEM_PROGRAM: Final = Pubkey.default()
_SYSVARS: Final = Pubkey.from_string("Sysvar1111111111111111111111111111111111111")


@dataclass(frozen=True, slots=True)
class InnerInstruction:
    """An instruction that a program called."""

    program_id: Pubkey
    accounts: tuple[Pubkey, ...]
    data: bytes
    stack_height: int


@dataclass(frozen=True, slots=True)
class Execution:
    """What one instruction did. `error` is in the shape of an RPC answer; `changed` is empty then."""

    error: Any
    logs: tuple[str, ...]
    units: int
    changed: dict[Pubkey, Account | None] = field(default_factory=dict)
    inner: tuple[InnerInstruction, ...] = ()


class ScratchMachine:
    """One LiteSVM without signature, blockhash or duplicate checks; stateless from call to call."""

    def __init__(self) -> None:
        self._svm = LiteSVM().with_sigverify(False).with_blockhash_check(False).with_transaction_history(0)
        # Pays LiteSVM's own fee, so that the bank's accounts keep to what the instruction did.
        self._payer = Pubkey.new_unique()
        self._time = (-1, -1)
        self._builtins: dict[Pubkey, Account] = {}

    def builtin(self, key: Pubkey) -> Account | None:
        """A program or sysvar that LiteSVM brings along; None for any other account."""
        if key not in self._builtins:
            account = _from_svm(self._svm.get_account(key))
            if account is None or not _fixed(account):
                return None
            self._builtins[key] = account
        return self._builtins[key]

    def set_time(self, slot: int, epoch: int, unix_time: int) -> None:
        """Set the Clock sysvar."""
        if self._time != (slot, unix_time):
            self._time = (slot, unix_time)
            self._svm.set_clock(Clock(slot, 0, epoch, epoch + 1, unix_time))

    def execute(self, instruction: Instruction, accounts: Mapping[Pubkey, Account], units: int) -> Execution:
        """Run `instruction` on `accounts` (absent ones do not exist) with at most `units` compute units."""
        named = {meta.pubkey: accounts.get(meta.pubkey) for meta in instruction.accounts}
        touched = {key: account for key, account in named.items() if account is None or not _fixed(account)}
        for key, account in touched.items():
            self._svm.set_account(key, _to_svm(account) if account else SvmAccount(0, b"", SYSTEM_PROGRAM))
        self._svm.set_account(self._payer, SvmAccount(10**12, b"", SYSTEM_PROGRAM))
        message = MessageV0.try_compile(
            self._payer,
            [
                # Costs its own units and takes the first two log lines.
                set_compute_unit_limit(units + COMPUTE_BUDGET_UNITS),
                SvmInstruction(
                    instruction.program_id,
                    instruction.data,
                    [SvmAccountMeta(m.pubkey, m.is_signer, m.is_writable) for m in instruction.accounts],
                ),
            ],
            [],
            self._svm.latest_blockhash(),
        )
        count = message.header.num_required_signatures
        outcome = self._svm.send_transaction(
            VersionedTransaction.populate(message, [Signature.default()] * count)
        )
        body = json.loads(outcome.to_json())
        error = _instruction_error(body.get("err"))
        meta = body.get("meta", body)
        logs = tuple(meta["logs"][2:])
        used = max(0, meta["compute_units_consumed"] - COMPUTE_BUDGET_UNITS)
        if error is not None:
            return Execution(error, logs, used)
        changed: dict[Pubkey, Account | None] = {}
        for key, before in touched.items():
            after = _from_svm(self._svm.get_account(key))
            if after != before:
                changed[key] = after
        inner = meta["inner_instructions"]
        return Execution(
            None,
            logs,
            used,
            changed,
            tuple(_inner(record, message.account_keys) for record in (inner[1] if len(inner) > 1 else ())),
        )


def _instruction_error(error: Any) -> Any:
    if error is None:
        return None
    if isinstance(error, dict) and "InstructionError" in error:
        return error["InstructionError"][1]
    return error


def _inner(record: dict[str, Any], keys: Sequence[Pubkey]) -> InnerInstruction:
    body = record["instruction"]
    # Both arrays are serialised with their length in front, as a list of its own.
    return InnerInstruction(
        keys[body["programIdIndex"]],
        tuple(keys[index] for index in body["accounts"][1:]),
        bytes(body["data"][1:]),
        record["stackHeight"],
    )


def _fixed(account: Account) -> bool:
    """Whether no instruction can change it: a program, or a sysvar that LiteSVM keeps itself."""
    return account.executable or account.owner == _SYSVARS


def _to_svm(account: Account) -> SvmAccount:
    return SvmAccount(account.lamports, account.data, account.owner, account.executable)


def _from_svm(account: SvmAccount | None) -> Account | None:
    if account is None or account.lamports == 0:
        return None
    return Account(account.lamports, account.owner, bytes(account.data), account.executable)
