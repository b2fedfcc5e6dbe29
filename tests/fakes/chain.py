"""A Solana chain in memory for the market host's tests, and the RPC node in front of it: no sockets, no waiting.

The Jobs program is the sandbox's stand-in, so payments are the oracle's, not ours. Slots move when the test
says so; transactions may be dropped or land late, a node may lag or be silent, confirmed slots may be forked
away, but never finalized ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal

from solana.rpc.commitment import Commitment, Confirmed, Finalized, Processed
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from nosana_operator.chain import BlockhashNotFound, TransactionFailed
from nosana_operator.chain.accounts import RUN_DISCRIMINATOR, RUN_DISCRIMINATOR_BASE58
from nosana_operator.chain.addresses import CLOCK_SYSVAR
from nosana_operator.chain.errors import NodeBehind
from nosana_operator.chain.rpc.wire import (
    AccountInfo,
    Blockhash,
    EpochInfo,
    HistoryEntry,
    LandedTransaction,
    Memcmp,
    SignatureStatus,
    Slotted,
)
from nosana_sandbox.chain.budget import COMPUTE_BUDGET_PROGRAM
from nosana_sandbox.chain.transaction import WireTransaction
from nosana_sandbox.program import Account, Custom, execute
from nosana_sandbox.program.addresses import ASSOCIATED_TOKEN_PROGRAM, NOS_MINT, SYSTEM_PROGRAM, TOKEN_PROGRAM
from nosana_sandbox.program.layout import TokenAccount, rent_exempt_minimum
from nosana_sandbox.world import genesis
from nosana_sandbox.world.instructions import open_market

State = dict[Pubkey, Account]
FEE: Final = 5_000
FINALITY: Final = 12
"""Slots until a block is finalized: fewer than on a real chain, to save the tests' time."""
WINDOW: Final = 40
"""Blocks for which a blockhash is good, likewise."""
_HEIGHT_BEHIND: Final = 100
"""Slots are ahead of block heights."""


@dataclass(frozen=True, slots=True)
class Landed:
    """A transaction in a block; `error` as an RPC node spells it."""

    wire: WireTransaction
    slot: int
    error: Any
    names: tuple[str, ...]
    """Instructions of the Jobs program, as the log names them."""


@dataclass(slots=True)
class Waiting:
    """A transaction that a node has taken."""

    wire: WireTransaction
    due: int
    """The slot from which on it may land."""


class Ledger:
    """The chain. `now` gives its unix time."""

    def __init__(self, accounts: State, now: Callable[[], float]) -> None:
        self._now = now
        self.slot = 1_000
        self._states: dict[int, State] = {self.slot - n: accounts for n in range(FINALITY + 1)}
        self._times: dict[int, int] = dict.fromkeys(self._states, int(now()))
        self._hash_height: dict[str, int] = {}
        self._landed: dict[str, Landed] = {}
        self.waiting: list[Waiting] = []
        self._new_hash()

    # -- reading

    def slot_of(self, commitment: Commitment) -> int:
        """The newest slot of that commitment."""
        return self.slot - {Processed: 0, Confirmed: 1, Finalized: FINALITY}[commitment]

    def account(self, key: Pubkey, slot: int | None = None) -> Account | None:
        """An account at the end of a slot; None: the slot under way."""
        return self._states[self.slot if slot is None else slot].get(key)

    def state(self, slot: int) -> State:
        """All accounts at the end of a slot."""
        return self._states[slot]

    def time(self, slot: int) -> int:
        """Unix time of a slot."""
        return self._times[slot]

    def landed(self, signature: str) -> Landed | None:
        """The transaction of that signature."""
        return self._landed.get(signature)

    @property
    def history(self) -> list[Landed]:
        """All landed transactions that no fork took away."""
        return list(self._landed.values())

    def tokens(self, account: Pubkey) -> int:
        """NOS on a token account."""
        found = self.account(account)
        return TokenAccount.decode(found.data).amount if found is not None else 0

    # -- writing

    def place(self, key: Pubkey, account: Account | None) -> None:
        """Write an account as no transaction could."""
        state = dict(self._states[self.slot])
        if account is None:
            state.pop(key, None)
        else:
            state[key] = account
        self._states[self.slot] = state

    def act(self, instructions: Sequence[Instruction], *signers: Keypair) -> Any:
        """Somebody else's transaction, landing in this slot. Returns the chain's error."""
        message = MessageV0.try_compile(
            signers[0].pubkey(), list(instructions), [], Hash.from_string(self.blockhash)
        )
        wire = WireTransaction.decode(bytes(VersionedTransaction(message, list(signers))))
        return self._land(wire).error

    def take(self, wire: WireTransaction, delay: int | None) -> None:
        """A node takes the transaction; it lands `delay` slots later, or never (None)."""
        signature = str(wire.signature)
        if delay is None or any(str(w.wire.signature) == signature for w in self.waiting):
            return
        self.waiting.append(Waiting(wire, self.slot + delay))

    def tick(self) -> None:
        """Complete the slot and open the next; what is due lands in it."""
        self._states[self.slot + 1] = self._states[self.slot]
        self.slot += 1
        self._times[self.slot] = max(int(self._now()), self._times[self.slot - 1])
        for old in (self._states, self._times):
            old.pop(self.slot - 2 * FINALITY - 1, None)
        self._new_hash()
        due = [w for w in self.waiting if w.due <= self.slot]
        self.waiting = [w for w in self.waiting if w.due > self.slot]
        for one in due:
            if str(one.wire.signature) not in self._landed and self.hash_is_good(one.wire):
                self._land(one.wire)

    def fork(self, depth: int, again: Callable[[Landed], bool]) -> None:
        """Another history wins: the newest `depth` slots were as those before them.

        What had landed there lands again in the next slots where `again` says so.
        """
        assert depth < FINALITY, "finalized slots are never taken back"
        base = self.slot - depth
        for slot in range(base + 1, self.slot + 1):
            self._states[slot] = self._states[base]
        for signature, landed in list(self._landed.items()):
            if landed.slot > base:
                del self._landed[signature]
                if again(landed):
                    self.waiting.append(Waiting(landed.wire, self.slot + 1))

    def simulate(self, wire: WireTransaction, slot: int) -> tuple[Any, list[str]]:
        """Error and log of the transaction at a slot."""
        error, logs, _, _ = self._execute(wire, slot)
        return error, logs

    def hash_is_good(self, wire: WireTransaction, slot: int | None = None) -> bool:
        """Whether the transaction's blockhash is known and not too old."""
        height = self._hash_height.get(str(wire.blockhash))
        at = (self.slot if slot is None else slot) - _HEIGHT_BEHIND
        return height is not None and height <= at <= height + WINDOW

    @property
    def blockhash(self) -> str:
        """The newest one."""
        return str(_hash(self.slot))

    def blockhash_at(self, slot: int) -> Blockhash:
        """A slot's hash and the last height at which it is good."""
        return Blockhash(str(_hash(slot)), slot - _HEIGHT_BEHIND + WINDOW)

    def height(self, slot: int) -> int:
        """Block height of a slot."""
        return slot - _HEIGHT_BEHIND

    def _new_hash(self) -> None:
        self._hash_height[str(_hash(self.slot))] = self.slot - _HEIGHT_BEHIND

    def _land(self, wire: WireTransaction) -> Landed:
        error, _, changed, names = self._execute(wire, self.slot)
        state = dict(self._states[self.slot])
        for key, account in changed.items():
            if account is None:
                state.pop(key, None)
            else:
                state[key] = account
        self._states[self.slot] = state
        landed = Landed(wire, self.slot, error, names)
        self._landed[str(wire.signature)] = landed
        return landed

    def _execute(
        self, wire: WireTransaction, slot: int
    ) -> tuple[Any, list[str], dict[Pubkey, Account | None], tuple[str, ...]]:
        state = self._states[slot]
        payer = state.get(wire.fee_payer)
        fee = FEE * len(wire.signatures)
        if payer is None or payer.lamports < fee:
            return "InsufficientFundsForFee", [], {}, ()
        charged = Account(payer.lamports - fee, payer.owner, payer.data)
        work = dict(state)
        work[wire.fee_payer] = charged
        logs: list[str] = []
        names: list[str] = []
        for index, instruction in enumerate(wire.instructions()):
            if instruction.program_id == COMPUTE_BUDGET_PROGRAM:
                continue
            if instruction.program_id == ASSOCIATED_TOKEN_PROGRAM:
                assert instruction.data == b"\x01", "only the idempotent create"
                _create_token_account(work, *(meta.pubkey for meta in instruction.accounts[:3]))
                continue
            result = execute(instruction, work, self._times[slot])
            logs += result.logs
            names += [line.rsplit(": ", 1)[1] for line in result.logs if "log: Instruction:" in line]
            if not result.ok:
                error = {"Custom": result.error.code} if isinstance(result.error, Custom) else result.error
                return {"InstructionError": [index, error]}, logs, {wire.fee_payer: charged}, tuple(names)
            for key, account in result.changed.items():
                if account is None:
                    work.pop(key, None)
                else:
                    work[key] = account
        changed: dict[Pubkey, Account | None] = {
            key: work.get(key) for key in wire.keys if work.get(key) != state.get(key)
        }
        return None, logs, changed, tuple(names)


def _create_token_account(work: State, payer: Pubkey, account: Pubkey, owner: Pubkey) -> None:
    if account in work:
        return
    rent = rent_exempt_minimum(TokenAccount.SPACE)
    held = work[payer]
    work[payer] = Account(held.lamports - rent, held.owner, held.data)
    work[account] = Account(rent, TOKEN_PROGRAM, TokenAccount(mint=NOS_MINT, owner=owner).encode())


@lru_cache(maxsize=65536)
def _hash(slot: int) -> Hash:
    return Hash(slot.to_bytes(8, "little") * 4)


Gate = Callable[[str, Literal["before", "after"]], Awaitable[None]]
"""(method, when): may raise; after, the call has had its effect and only the answer is lost."""


async def _open(method: str, when: str) -> None:
    """A node that always answers."""


@dataclass(slots=True)
class FakeRpc:
    """`nosana_operator.chain.rpc.methods.Rpc` over the ledger, as far as the market host uses it."""

    ledger: Ledger
    gate: Gate = _open
    lag: Callable[[], int] = lambda: 0
    """Slots by which the node that answers is behind."""
    delay: Callable[[], int | None] = lambda: 1
    """Slots until a transaction lands; None: it is dropped."""
    before_send: Callable[[bytes], None] = lambda raw: None
    sent: list[str] = field(default_factory=list)
    """Signatures, in the order of sending."""

    def _at(self, commitment: Commitment) -> int:
        return self.ledger.slot_of(commitment) - self.lag()

    def _reached(self, commitment: Commitment, not_before: int) -> int:
        slot = self._at(commitment)
        if slot < not_before:
            raise NodeBehind(not_before - slot)
        return slot

    def _info(self, address: str, slot: int) -> AccountInfo | None:
        if address == CLOCK_SYSVAR:
            values = (slot, 0, 0, 0, self.ledger.time(slot))
            data = b"".join(value.to_bytes(8, "little", signed=True) for value in values)
            return AccountInfo(1, "Sysvar1111111111111111111111111111111111111", data)
        found = self.ledger.account(Pubkey.from_string(address), slot)
        return None if found is None else AccountInfo(found.lamports, str(found.owner), found.data)

    async def account(
        self, address: str, commitment: Commitment, *, not_before: int = 0
    ) -> Slotted[AccountInfo | None]:
        await self.gate("getAccountInfo", "before")
        slot = self._reached(commitment, not_before)
        return Slotted(slot, self._info(address, slot))

    async def accounts(
        self, addresses: Sequence[str], commitment: Commitment, *, not_before: int = 0
    ) -> Slotted[dict[str, AccountInfo | None]]:
        await self.gate("getMultipleAccounts", "before")
        slot = self._reached(commitment, not_before)
        return Slotted(slot, {address: self._info(address, slot) for address in addresses})

    async def program_accounts(
        self, program: str, filters: Iterable[Memcmp], commitment: Commitment, *, not_before: int = 0
    ) -> Slotted[dict[str, AccountInfo]]:
        await self.gate("getProgramAccounts", "before")
        slot, wanted = self._reached(commitment, not_before), []
        for one in filters:
            disc = one.value == RUN_DISCRIMINATOR_BASE58
            wanted.append((one.offset, RUN_DISCRIMINATOR if disc else bytes(Pubkey.from_string(one.value))))
        found = {
            str(key): AccountInfo(account.lamports, str(account.owner), account.data)
            for key, account in self.ledger.state(slot).items()
            if str(account.owner) == program
            and all(account.data[at : at + len(value)] == value for at, value in wanted)
        }
        return Slotted(slot, found)

    async def latest_blockhash(self, commitment: Commitment) -> Blockhash:
        await self.gate("getLatestBlockhash", "before")
        return self.ledger.blockhash_at(self._at(commitment))

    async def signature_statuses(self, signatures: Sequence[str]) -> Slotted[list[SignatureStatus | None]]:
        await self.gate("getSignatureStatuses", "before")
        here = self._at(Processed)
        out: list[SignatureStatus | None] = []
        for signature in signatures:
            landed = self.ledger.landed(signature)
            if landed is None or landed.slot > here:
                out.append(None)
                continue
            age = here - landed.slot
            level = Finalized if age >= FINALITY else Confirmed if age >= 1 else Processed
            out.append(SignatureStatus(landed.slot, landed.error, level))
        return Slotted(here, out)

    async def transaction_logs(self, signature: str, commitment: Commitment) -> tuple[str, ...]:
        await self.gate("getTransaction", "before")
        return ()

    async def signatures_of(
        self,
        address: str,
        commitment: Commitment,
        *,
        until: str | None = None,
        before: str | None = None,
        limit: int = 1000,
    ) -> list[HistoryEntry]:
        await self.gate("getSignaturesForAddress", "before")
        slot, key = self._at(commitment), Pubkey.from_string(address)
        found = [one for one in self.ledger.history if key in one.wire.keys and one.slot <= slot]
        found.sort(key=lambda one: one.slot, reverse=True)
        entries = [HistoryEntry(str(one.wire.signature), one.slot, one.error) for one in found]
        names = [entry.signature for entry in entries]
        start = names.index(before) + 1 if before in names else 0
        end = names.index(until) if until in names else len(names)
        return entries[start:end][:limit]

    async def landed(self, signature: str, commitment: Commitment) -> LandedTransaction | None:
        await self.gate("getTransaction", "before")
        found = self.ledger.landed(signature)
        if found is None or found.slot > self._at(commitment):
            return None
        return LandedTransaction(found.wire.raw, found.slot, None, FEE, found.error, (), {})

    async def epoch_info(self, commitment: Commitment) -> EpochInfo:
        await self.gate("getEpochInfo", "before")
        slot = self._at(commitment)
        return EpochInfo(slot, self.ledger.height(slot))

    async def send(self, raw: bytes, *, preflight: bool) -> str:
        self.before_send(raw)
        await self.gate("sendTransaction", "before")
        wire = WireTransaction.decode(raw)
        assert wire.signatures_verify()
        if preflight and self.ledger.landed(str(wire.signature)) is None:
            slot = self._at(Confirmed)
            if not self.ledger.hash_is_good(wire, slot):
                raise BlockhashNotFound("the node does not know the blockhash")
            error, logs = self.ledger.simulate(wire, slot)
            if error is not None:
                raise TransactionFailed.from_rpc(error, logs)
        self.sent.append(str(wire.signature))
        self.ledger.take(wire, self.delay())
        await self.gate("sendTransaction", "after")
        return str(wire.signature)


# -- how a chain begins


def keypair(label: str) -> Keypair:
    """The same key for the same label."""
    return Keypair.from_seed(label.encode().ljust(32, b"\0")[:32])


@dataclass(frozen=True, slots=True)
class Beginning:
    """The accounts of a chain with a market, its poster, and hosts with stake and SOL."""

    accounts: State
    market: Pubkey
    poster: Keypair
    hosts: tuple[Keypair, ...]


@lru_cache(maxsize=8)
def beginning(price: int = 10, hosts: int = 2, xnos_minimum: int = 0) -> Beginning:
    """One market of that price per second."""
    market, authority, poster = keypair("market"), keypair("authority"), keypair("poster")
    keys = tuple(keypair(f"host-{n}") for n in range(hosts))
    accounts: State = {
        **genesis.token_accounts(),
        authority.pubkey(): Account(10**10, SYSTEM_PROGRAM),
        **genesis.wallet_accounts(poster.pubkey(), sol=100, nos=10**9),
    }
    for key in keys:
        accounts |= genesis.wallet_accounts(key.pubkey(), sol=10, nos=None)
        accounts |= genesis.stake_accounts(key.pubkey(), amount=1_000)
    ledger = Ledger(accounts, lambda: 0.0)
    opened = open_market(
        market.pubkey(), authority.pubkey(), price=price, job_timeout=7200, job_expiration=86_400, xnos_minimum=xnos_minimum
    )  # fmt: skip
    assert ledger.act([opened], authority, market) is None
    return Beginning(ledger.state(ledger.slot), market.pubkey(), poster, keys)
