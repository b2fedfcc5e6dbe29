"""The accounts one instruction works on, with the privileges it has on them and the log it writes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from nosana_sandbox.program.addresses import SYSTEM_PROGRAM
from nosana_sandbox.program.failure import ProgramFailure, describe
from nosana_sandbox.program.types import Account, AccountMeta, Instruction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from solders.pubkey import Pubkey


class Frame:
    """A working copy of the accounts. Nothing leaves it unless the instruction ends well."""

    def __init__(self, instruction: Instruction, accounts: Mapping[Pubkey, Account]) -> None:
        keys = {meta.pubkey for meta in instruction.accounts}
        self._before = {key: accounts[key] for key in keys if key in accounts}
        self._now = dict(self._before)
        # A key that is passed twice has the privileges of both places, as in a transaction's message.
        self._signers = {meta.pubkey for meta in instruction.accounts if meta.is_signer}
        self._writable = {meta.pubkey for meta in instruction.accounts if meta.is_writable}
        self.log: list[str] = []
        self.calls: list[Instruction] = []
        """What was called in other programs, in order."""

    def account(self, key: Pubkey) -> Account:
        """The account as it is now; one that does not exist is empty and the System program's."""
        return self._now.get(key, _ABSENT)

    def update(
        self,
        key: Pubkey,
        *,
        lamports: int | None = None,
        owner: Pubkey | None = None,
        data: bytes | None = None,
    ) -> None:
        """Change parts of an account."""
        now = self.account(key)
        self._now[key] = replace(
            now,
            lamports=now.lamports if lamports is None else lamports,
            owner=now.owner if owner is None else owner,
            data=now.data if data is None else data,
        )

    def is_signer(self, key: Pubkey) -> bool:
        """Whether the transaction carries this key's signature."""
        return key in self._signers

    def is_writable(self, key: Pubkey) -> bool:
        """Whether the transaction lets this account change."""
        return key in self._writable

    def move_lamports(self, source: Pubkey, target: Pubkey, lamports: int) -> None:
        """Move lamports between two accounts, which may be one and the same."""
        self.update(source, lamports=self.account(source).lamports - lamports)
        self.update(target, lamports=self.account(target).lamports + lamports)

    def close(self, key: Pubkey, target: Pubkey) -> None:
        """Give all lamports to `target` and leave an empty account to the System program."""
        self.move_lamports(key, target, self.account(key).lamports)
        self.update(key, owner=SYSTEM_PROGRAM, data=b"")

    def invoke(
        self, program: Pubkey, metas: Iterable[AccountMeta], data: bytes, signed_by: Pubkey | None = None
    ) -> AbstractContextManager[None]:
        """A call into another program: what it may do is checked first, its log lines are framed.

        `data` is the call's as that program reads it, for the record only. `signed_by` is the derived address
        that the calling program signs for.
        """
        metas = tuple(metas)
        for meta in metas:
            if meta.is_writable and not self.is_writable(meta.pubkey):
                raise ProgramFailure("PrivilegeEscalation", [f"{meta.pubkey}'s writable privilege escalated"])
            if meta.is_signer and not (self.is_signer(meta.pubkey) or meta.pubkey == signed_by):
                raise ProgramFailure("PrivilegeEscalation", [f"{meta.pubkey}'s signer privilege escalated"])
        self.calls.append(Instruction(program, metas, data))
        return self._called(program)

    @contextmanager
    def _called(self, program: Pubkey) -> Iterator[None]:
        self.log.append(f"Program {program} invoke [2]")
        try:
            yield
        except ProgramFailure as failure:
            # A failed call fails the caller with the same error; there is no catching it on chain.
            lines = (*failure.log, f"Program {program} failed: {describe(failure.error)}")
            raise ProgramFailure(failure.error, lines) from failure
        self.log.append(f"Program {program} success")

    def changes(self) -> dict[Pubkey, Account | None]:
        """What differs from before; None is an account that exists no more.

        Raises ProgramFailure if an account changed that the instruction may only read.
        """
        changed: dict[Pubkey, Account | None] = {}
        for key, now in self._now.items():
            before = self._before.get(key, _ABSENT)
            if now == before:
                continue
            if not self.is_writable(key):
                moved = now.lamports != before.lamports
                raise ProgramFailure("ReadonlyLamportChange" if moved else "ReadonlyDataModified")
            gone = now.lamports == 0 and not now.data and now.owner == SYSTEM_PROGRAM
            changed[key] = None if gone else now
        return changed


_ABSENT = Account(lamports=0, owner=SYSTEM_PROGRAM)
