"""The chain itself: accounts, slots, block hashes and the execution of transactions. No I/O.

A transaction runs instruction by instruction on an overlay of the accounts, the Jobs program by its stand-in
and every other program by LiteSVM; at the end the overlay is written or, when an instruction failed, only the
fee. Slots move by `tick`. What is written in the slot under way is *processed*; a tick makes it *confirmed*,
`finality` ticks make it *finalized*.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from nosana_sandbox.chain.accounts import AccountStore
from nosana_sandbox.chain.budget import (
    COMPUTE_BUDGET_PROGRAM,
    COMPUTE_BUDGET_UNITS,
    Budget,
    budget_of,
)
from nosana_sandbox.chain.clock import ChainClock
from nosana_sandbox.chain.errors import TransactionError, TransactionRejected
from nosana_sandbox.chain.svm import SYSTEM_PROGRAM, Execution, InnerInstruction, ScratchMachine
from nosana_sandbox.chain.tokens import TokenBalance, parse_mint, parse_token_account
from nosana_sandbox.chain.transaction import WireTransaction
from nosana_sandbox.chain.units import units_of
from nosana_sandbox.program import PROGRAM_ID, Account, Custom, Instruction, Result, execute_staking
from nosana_sandbox.program import execute as execute_jobs
from nosana_sandbox.program.addresses import REWARDS_PROGRAM, STAKING_PROGRAM
from nosana_sandbox.program.layout import rent_exempt_minimum

MAX_PROCESSING_AGE: Final = 150
"""Blocks after its own for which a block hash is accepted."""
SLOTS_PER_EPOCH: Final = 432_000
DEFAULT_FINALITY: Final = 32
LAMPORTS_PER_SOL: Final = 1_000_000_000

# Slots are ahead of block heights on every real chain, because some slots stay empty: a client that confuses
# them has to fail here too.
_FIRST_SLOT: Final = 5_000
_SLOTS_WITHOUT_BLOCK: Final = 1_234
_UPGRADEABLE_LOADER: Final = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
_CLOCK_SYSVAR: Final = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
_MAX_ACCOUNT_LOCKS: Final = 64
_RETAINED_BLOCKS: Final = 10_000
_RETAINED_STATES: Final = 300
"""Slots behind finalized whose accounts a node that lags can still show."""
_CALLED_HEIGHT: Final = 2
"""Height in the stack of what a transaction's instruction calls."""

NativeProgram = Callable[[Instruction, Mapping[Pubkey, Account], int], Result]
"""A stand-in: one instruction, its accounts and the unix time → what changed."""
_PROGRAMS: Final[Mapping[Pubkey, NativeProgram]] = {
    PROGRAM_ID: execute_jobs,
    STAKING_PROGRAM: execute_staking,
}


class Commitment(StrEnum):
    """The commitment of a state that a client reads."""

    PROCESSED = "processed"
    CONFIRMED = "confirmed"
    FINALIZED = "finalized"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a transaction; `fee` in lamports, `units` in compute units."""

    error: TransactionError | None
    logs: tuple[str, ...]
    units: int
    fee: int
    inner: tuple[tuple[int, tuple[InnerInstruction, ...]], ...]
    """Inner instructions by the index of their outer one."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """An outcome and the accounts it would write: only the fee payer's when it failed."""

    outcome: Outcome
    changed: Mapping[Pubkey, Account | None]


@dataclass(frozen=True, slots=True)
class Balances:
    """What the accounts of a transaction held, in the order of its keys."""

    lamports: tuple[int, ...]
    tokens: tuple[TokenBalance, ...]


@dataclass(frozen=True, slots=True)
class Landed:
    """A transaction in a block, successful or not."""

    transaction: WireTransaction
    slot: int
    block_time: int
    outcome: Outcome
    budget: Budget
    changed: tuple[Pubkey, ...]
    """The accounts it wrote."""
    before: Balances
    after: Balances

    @property
    def signature(self) -> Signature:
        """The signature that names it."""
        return self.transaction.signature


@dataclass(slots=True)
class Block:
    """One slot's block."""

    slot: int
    height: int
    blockhash: Hash
    time: int
    landed: list[Landed] = field(default_factory=list)


class BankObserver(Protocol):
    """Notified of every change, in order, within the call that makes it."""

    def on_landed(self, landed: Landed) -> None:
        """A transaction was written in the slot under way."""

    def on_placed(self, key: Pubkey) -> None:
        """An account was written directly in the slot under way."""

    def on_tick(self, confirmed: int, finalized: int) -> None:
        """A new slot is under way; these two have just reached their commitment."""


class Bank:
    """A chain of one node. Not thread-safe: one event loop, or one thread, owns it."""

    def __init__(
        self,
        *,
        genesis: Mapping[Pubkey, Account] | None = None,
        clock: ChainClock | None = None,
        finality: int = DEFAULT_FINALITY,
        programs: Mapping[Pubkey, NativeProgram] | None = None,
    ) -> None:
        if finality < 1:
            raise ValueError("finality is a number of slots, 1 or more")
        self.clock: Final = clock or ChainClock()
        self.finality: Final = finality
        self.identity: Final = Keypair()
        self.faucet: Final = Keypair()
        self.observers: Final[list[BankObserver]] = []
        self._programs = dict(_PROGRAMS if programs is None else programs)
        self._machine = ScratchMachine()
        self._store = AccountStore()
        self._blocks: dict[int, Block] = {}
        self._slot_by_hash: dict[Hash, int] = {}
        self._landed: dict[Signature, Landed] = {}
        self._by_address: dict[Pubkey, list[Landed]] = {}
        self._airdrops = 0
        self._forks = 0
        self._late = 0
        self._seed = bytes(self.identity.pubkey())
        self._epoch_start = int(self.clock.now())
        self._write_genesis(genesis or {})
        for slot in range(_FIRST_SLOT, _FIRST_SLOT + finality + 1):
            self._open_block(slot)

    def _write_genesis(self, accounts: Mapping[Pubkey, Account]) -> None:
        program = Account(1_141_440, _UPGRADEABLE_LOADER, bytes(36), executable=True)
        written = dict.fromkeys((*self._programs, REWARDS_PROGRAM, STAKING_PROGRAM), program)
        written[self.faucet.pubkey()] = Account(1_000_000_000 * LAMPORTS_PER_SOL, SYSTEM_PROGRAM)
        written.update(accounts)
        for key, account in written.items():
            self._store.put(key, account, 0)
        self._store.prune(0)

    # Slots and block hashes

    @property
    def slot(self) -> int:
        """The slot under way."""
        return self._slot

    @property
    def unix_time(self) -> int:
        """The chain's time in the slot under way, as programs read it."""
        return self._blocks[self._slot].time

    def slot_at(self, commitment: Commitment) -> int:
        """The newest slot of this commitment."""
        match commitment:
            case Commitment.PROCESSED:
                newest = self._slot
            case Commitment.CONFIRMED:
                newest = self._slot - 1
            case Commitment.FINALIZED:
                newest = self._slot - self.finality
        return max(_FIRST_SLOT, newest - self._late)

    @contextlib.contextmanager
    def seen_late(self, slots: int) -> Iterator[None]:
        """Inside the context, everything reads as on a node that is so many slots behind."""
        before, self._late = self._late, min(slots, _RETAINED_STATES)
        try:
            yield
        finally:
            self._late = before

    def commitment_of(self, slot: int) -> Commitment:
        """The highest commitment that `slot` has reached."""
        if slot <= self.slot_at(Commitment.FINALIZED):
            return Commitment.FINALIZED
        return Commitment.CONFIRMED if slot <= self.slot_at(Commitment.CONFIRMED) else Commitment.PROCESSED

    def height_at(self, commitment: Commitment) -> int:
        """Block height of the newest slot of this commitment."""
        return self._blocks[self.slot_at(commitment)].height

    def block(self, slot: int) -> Block | None:
        """The block of `slot`; None when there is none (yet)."""
        return self._blocks.get(slot)

    @property
    def genesis_hash(self) -> Hash:
        """The chain's genesis hash; every chain has another one."""
        return Hash(hashlib.sha256(self._seed).digest())

    def blockhash_at(self, commitment: Commitment) -> tuple[Hash, int]:
        """The newest complete block's hash at this commitment, and the last block height it is valid for."""
        newest = min(self.slot_at(commitment), self._slot - 1)
        block = self._blocks[newest]
        return block.blockhash, block.height + MAX_PROCESSING_AGE

    def blockhash_valid(self, blockhash: Hash, commitment: Commitment) -> bool:
        """Whether a bank at this commitment accepts a transaction with this block hash."""
        slot = self._slot_by_hash.get(blockhash)
        if slot is None:
            return False
        reader = self._blocks[self.slot_at(commitment)]
        newest_known = reader.slot if commitment is not Commitment.PROCESSED else reader.slot - 1
        return slot <= newest_known and reader.height <= self._blocks[slot].height + MAX_PROCESSING_AGE

    def tick(self, slots: int = 1) -> None:
        """Complete the slot under way and open the next, `slots` times."""
        for _ in range(slots):
            self._open_block(self._slot + 1)
            confirmed, finalized = self._slot - 1, self._slot - self.finality
            for observer in self.observers:
                observer.on_tick(confirmed, finalized)
            self._store.prune(finalized - _RETAINED_STATES)

    def fork(self, slots: int) -> tuple[Signature, ...]:
        """Replace the newest `slots` slots, the one under way included, by empty ones of another fork.

        What they held never happened, though it may have been confirmed; nobody is notified. Returns the
        signatures that are in no block any more: such a transaction can land again while its block hash
        lives. Finalized slots cannot be replaced.
        """
        kept = self._slot - slots
        if slots < 1 or kept < self._slot - self.finality:
            raise ValueError(f"1 to {self.finality} slots can be replaced, the others are finalized")
        self._forks += 1
        lost: list[Signature] = []
        for slot in range(kept + 1, self._slot + 1):
            block = self._blocks[slot]
            for landed in block.landed:
                lost.append(landed.signature)
                del self._landed[landed.signature]
                for key in dict.fromkeys(landed.transaction.keys):
                    self._by_address[key].remove(landed)
            del self._slot_by_hash[block.blockhash]
            block.landed.clear()
            block.blockhash = self._hash(slot)
            self._slot_by_hash[block.blockhash] = slot
        self._store.roll_back(kept)
        return tuple(lost)

    def _open_block(self, slot: int) -> None:
        self._slot = slot
        blockhash = self._hash(slot)
        self._blocks[slot] = Block(slot, slot - _SLOTS_WITHOUT_BLOCK, blockhash, int(self.clock.now()))
        self._slot_by_hash[blockhash] = slot
        old = self._blocks.pop(slot - self.finality - _RETAINED_BLOCKS, None)
        if old is not None:
            del self._slot_by_hash[old.blockhash]

    def _hash(self, slot: int) -> Hash:
        named = slot.to_bytes(8, "little") + self._forks.to_bytes(4, "little")
        return Hash(hashlib.sha256(self._seed + named).digest())

    # Accounts

    def account(self, key: Pubkey, commitment: Commitment = Commitment.PROCESSED) -> Account | None:
        """An account at this commitment; None when it does not exist."""
        return self._read(key, self.slot_at(commitment))

    def accounts_of(
        self, owner: Pubkey, commitment: Commitment = Commitment.PROCESSED
    ) -> Iterable[tuple[Pubkey, Account]]:
        """Every account of a program at this commitment, in the order of the keys."""
        return self._store.owned_by(owner, self.slot_at(commitment))

    def account_in(self, key: Pubkey, slot: int) -> Account | None:
        """An account as the end of `slot` showed it; `slot` must not be older than finalized."""
        return self._read(key, slot)

    def changed_in(self, slot: int) -> tuple[Pubkey, ...]:
        """The accounts written in `slot`, which must not be older than finalized."""
        return self._store.changed_in(slot)

    def place(self, key: Pubkey, account: Account | None) -> None:
        """Write an account directly, as no transaction could; it gets its commitments slot by slot."""
        self._store.put(key, account, self._slot)
        for observer in self.observers:
            observer.on_placed(key)

    def _read(self, key: Pubkey, slot: int) -> Account | None:
        if key == _CLOCK_SYSVAR:
            return self._clock_account(slot)
        return self._store.get(key, slot) or self._machine.builtin(key)

    def _clock_account(self, slot: int) -> Account:
        block = self._blocks[slot]
        epoch = slot // SLOTS_PER_EPOCH
        data = b"".join(
            value.to_bytes(8, "little", signed=True)
            for value in (slot, self._epoch_start, epoch, epoch + 1, block.time)
        )
        return Account(
            rent_exempt_minimum(len(data)),
            Pubkey.from_string("Sysvar1111111111111111111111111111111111111"),
            data,
        )

    def decimals_of(self, mint: Pubkey, commitment: Commitment) -> int:
        """Decimals of a token; 0 when `mint` is no mint."""
        parsed = parse_mint(self.account(mint, commitment))
        return parsed.decimals if parsed else 0

    # Transactions

    def submit(self, transaction: WireTransaction) -> Landed:
        """Execute a transaction in the slot under way and write what it did, or only its fee.

        Raises TransactionRejected when it cannot land at all: bad signature, unknown or expired block hash,
        already processed, no money for the fee.
        """
        if not transaction.signatures_verify():
            raise TransactionRejected("SignatureFailure")
        slot = self._slot
        # Executed by the leader, however far the node behind the request is.
        with self.seen_late(0):
            return self._write(transaction, slot)

    def _write(self, transaction: WireTransaction, slot: int) -> Landed:
        budget = self._admit(transaction, Commitment.PROCESSED)
        before = self._balances(transaction)
        simulation = self._execute(transaction, budget, slot)
        for key, account in simulation.changed.items():
            self._store.put(key, account, slot)
        block = self._blocks[slot]
        landed = Landed(
            transaction=transaction,
            slot=slot,
            block_time=block.time,
            outcome=simulation.outcome,
            budget=budget,
            changed=tuple(simulation.changed),
            before=before,
            after=self._balances(transaction),
        )
        block.landed.append(landed)
        self._landed[landed.signature] = landed
        for key in dict.fromkeys(transaction.keys):
            self._by_address.setdefault(key, []).append(landed)
        for observer in self.observers:
            observer.on_landed(landed)
        return landed

    def simulate(
        self, transaction: WireTransaction, commitment: Commitment, *, check_blockhash: bool = True
    ) -> Simulation:
        """What the transaction would do at this commitment; nothing is written.

        Raises TransactionRejected as `submit` does, but does not look at signatures.
        """
        budget = self._admit(transaction, commitment, check_blockhash=check_blockhash)
        return self._execute(transaction, budget, self.slot_at(commitment))

    def fee_of(self, transaction: WireTransaction) -> int:
        """Lamports the transaction's fee payer would pay."""
        return budget_of(transaction.instructions()).fee(len(transaction.signatures))

    def airdrop(self, key: Pubkey, lamports: int) -> Landed:
        """Send lamports from the faucet to `key`."""
        self._airdrops += 1
        message = MessageV0.try_compile(
            self.faucet.pubkey(),
            [
                # Two airdrops in one slot must differ somewhere or they would be one.
                set_compute_unit_limit(1_000 + self._airdrops % 1_000_000),
                transfer(TransferParams(from_pubkey=self.faucet.pubkey(), to_pubkey=key, lamports=lamports)),
            ],
            [],
            self.blockhash_at(Commitment.PROCESSED)[0],
        )
        return self.submit(WireTransaction.decode(bytes(VersionedTransaction(message, [self.faucet]))))

    def _admit(
        self, transaction: WireTransaction, commitment: Commitment, *, check_blockhash: bool = True
    ) -> Budget:
        """Everything that has to hold before a transaction may run and be charged."""
        if len(set(transaction.keys)) != len(transaction.keys):
            raise TransactionRejected("AccountLoadedTwice")
        if len(transaction.keys) > _MAX_ACCOUNT_LOCKS:
            raise TransactionRejected("TooManyAccountLocks")
        budget = budget_of(transaction.instructions())
        if check_blockhash and not self.blockhash_valid(transaction.blockhash, commitment):
            raise TransactionRejected("BlockhashNotFound")
        slot = self.slot_at(commitment)
        known = self._landed.get(transaction.signature)
        if known is not None and known.slot <= slot:
            raise TransactionRejected("AlreadyProcessed")
        self._check_fee_payer(transaction, budget, slot)
        return budget

    def _check_fee_payer(self, transaction: WireTransaction, budget: Budget, slot: int) -> None:
        payer = self._read(transaction.fee_payer, slot)
        if payer is None:
            raise TransactionRejected("AccountNotFound")
        if payer.owner != SYSTEM_PROGRAM or payer.data:
            raise TransactionRejected("InvalidAccountForFee")
        fee = budget.fee(len(transaction.signatures))
        if payer.lamports < fee:
            raise TransactionRejected("InsufficientFundsForFee")
        charged = Account(payer.lamports - fee, payer.owner)
        if not _rent_state_allowed(payer, charged):
            raise TransactionRejected({"InsufficientFundsForRent": {"account_index": 0}})

    def _execute(self, transaction: WireTransaction, budget: Budget, slot: int) -> Simulation:
        fee = budget.fee(len(transaction.signatures))
        payer = self._read(transaction.fee_payer, slot)
        assert payer is not None
        charged = Account(payer.lamports - fee, payer.owner) if payer.lamports > fee else None
        fee_only: dict[Pubkey, Account | None] = {transaction.fee_payer: charged}
        state: dict[Pubkey, Account] = {}
        for key in transaction.keys:
            account = charged if key == transaction.fee_payer else self._read(key, slot)
            if account is not None:
                state[key] = account
        start = dict(state)
        logs: list[str] = []
        inner: list[tuple[int, tuple[InnerInstruction, ...]]] = []
        used = 0
        error = self._missing_program(transaction, state)
        if error is None:
            self._machine.set_time(slot, slot // SLOTS_PER_EPOCH, self._blocks[slot].time)
            for index, instruction in enumerate(transaction.instructions()):
                done = self._execute_one(instruction, state, budget.units - used, slot)
                used += done.units
                logs.extend(done.logs)
                if done.error is not None:
                    error = {"InstructionError": [index, done.error]}
                    break
                for key, account in done.changed.items():
                    if account is None:
                        state.pop(key, None)
                    else:
                        state[key] = account
                if done.inner:
                    inner.append((index, done.inner))
        if error is None:
            error = _rent_violation(transaction, start, state)
        if error is not None:
            return Simulation(Outcome(error, tuple(logs), used, fee, tuple(inner)), fee_only)
        changed = dict(fee_only)
        for key in transaction.keys:
            if start.get(key) != state.get(key):
                changed[key] = state.get(key)
        return Simulation(Outcome(None, tuple(logs), used, fee, tuple(inner)), changed)

    def _balances(self, transaction: WireTransaction) -> Balances:
        accounts = [self._read(key, self._slot) for key in transaction.keys]
        return Balances(
            lamports=tuple(account.lamports if account else 0 for account in accounts),
            tokens=tuple(
                TokenBalance(index, held, self.decimals_of(held.mint, Commitment.PROCESSED))
                for index, account in enumerate(accounts)
                if (held := parse_token_account(account)) is not None
            ),
        )

    def _missing_program(
        self, transaction: WireTransaction, state: Mapping[Pubkey, Account]
    ) -> TransactionError | None:
        for compiled in transaction.compiled:
            program = state.get(transaction.keys[compiled.program_index])
            if program is None:
                return "ProgramAccountNotFound"
            if not program.executable:
                return "InvalidProgramForExecution"
        return None

    def _execute_one(
        self, instruction: Instruction, state: Mapping[Pubkey, Account], units: int, slot: int
    ) -> Execution:
        program = str(instruction.program_id)
        if instruction.program_id == COMPUTE_BUDGET_PROGRAM:
            return Execution(
                None, (f"Program {program} invoke [1]", f"Program {program} success"), COMPUTE_BUDGET_UNITS
            )
        native = self._programs.get(instruction.program_id)
        if native is None:
            return self._machine.execute(instruction, state, units)
        needed = units_of(instruction, state)
        consumed = f"Program {program} consumed {min(needed, units)} of {units} compute units"
        if needed > units:
            logs = (
                f"Program {program} invoke [1]",
                consumed,
                f"Program {program} failed: exceeded CUs meter at BPF instruction",
            )
            return Execution("ProgramFailedToComplete", logs, units)
        result = native(instruction, state, self._blocks[slot].time)
        error = {"Custom": result.error.code} if isinstance(result.error, Custom) else result.error
        # The stand-in's last line is its outcome; a node logs the consumed units before it.
        *said, ending = result.logs
        return Execution(
            None if result.ok else error,
            (*said, consumed, ending),
            needed,
            dict(result.changed),
            tuple(
                InnerInstruction(
                    call.program_id,
                    tuple(meta.pubkey for meta in call.accounts),
                    call.data,
                    _CALLED_HEIGHT,
                )
                for call in result.calls
            ),
        )

    # History

    def landed(self, signature: Signature) -> Landed | None:
        """The landed transaction with this signature."""
        return self._landed.get(signature)

    def history_of(self, address: Pubkey) -> list[Landed]:
        """Every landed transaction that names `address`, oldest first."""
        return self._by_address.get(address, [])

    @property
    def transaction_count(self) -> int:
        """Landed transactions so far."""
        return len(self._landed)


def _rent_state_allowed(before: Account | None, after: Account | None) -> bool:
    """Whether the new state of an account is allowed: closed, rent-exempt, or no worse than before."""
    if after is None or after.lamports == 0 or after.lamports >= rent_exempt_minimum(len(after.data)):
        return True
    if before is None or before.lamports >= rent_exempt_minimum(len(before.data)):
        return False
    return len(before.data) == len(after.data) and after.lamports <= before.lamports


def _rent_violation(
    transaction: WireTransaction, before: Mapping[Pubkey, Account], after: Mapping[Pubkey, Account]
) -> TransactionError | None:
    for index, key in enumerate(transaction.keys):
        if transaction.is_writable(index) and not _rent_state_allowed(before.get(key), after.get(key)):
            return {"InsufficientFundsForRent": {"account_index": index}}
    return None
