"""How Anchor runs an instruction: accounts are declared, read, created, checked, and written back.

The order is what clients see when two things are wrong at once
(docs/protocol/jobs-program.md#order-of-checks): all accounts are read in wire order, then new ones are created,
then writable duplicates are refused, then each account's checks run in wire order, then the handler, and last
the accounts are written back or closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from nosana_sandbox.program import system, token
from nosana_sandbox.program.addresses import (
    JOBS_PROGRAM,
    RENT_SYSVAR,
    REWARDS_PROGRAM,
    STAKING_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
)
from nosana_sandbox.program.failure import Code, anchor_error, unreadable_account
from nosana_sandbox.program.layout import (
    Job,
    Market,
    Mint,
    Reflection,
    Run,
    Stake,
    TokenAccount,
    UnreadableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from solders.pubkey import Pubkey

    from nosana_sandbox.program.failure import ProgramFailure
    from nosana_sandbox.program.frame import Frame
    from nosana_sandbox.program.types import AccountMeta

    Check = Callable[["Context", str], ProgramFailure | None]
    """Looks at one account, by its name; a failure ends the instruction."""

State = Market | Job | Run | Stake


class Kind(Enum):
    """What an account of an instruction has to be."""

    MARKET = "market"
    JOB = "job"
    RUN = "run"
    STAKE = "stake"
    REFLECTION = "reflection"
    TOKEN = "token"
    MINT = "mint"
    SIGNER = "signer"
    UNCHECKED = "unchecked"
    RENT = "rent"
    SYSTEM_PROGRAM = "system program"
    TOKEN_PROGRAM = "token program"
    REWARDS_PROGRAM = "rewards program"


_PROGRAMS: Final = {
    Kind.SYSTEM_PROGRAM: SYSTEM_PROGRAM,
    Kind.TOKEN_PROGRAM: TOKEN_PROGRAM,
    Kind.REWARDS_PROGRAM: REWARDS_PROGRAM,
}
_STATES: Final[dict[Kind, type[State]]] = {
    Kind.MARKET: Market,
    Kind.JOB: Job,
    Kind.RUN: Run,
    Kind.STAKE: Stake,
}
_ANCHORED: Final[dict[Kind, tuple[Pubkey, type[State | Reflection]]]] = {
    Kind.MARKET: (JOBS_PROGRAM, Market),
    Kind.JOB: (JOBS_PROGRAM, Job),
    Kind.RUN: (JOBS_PROGRAM, Run),
    Kind.STAKE: (STAKING_PROGRAM, Stake),
    Kind.REFLECTION: (REWARDS_PROGRAM, Reflection),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One declared account: its name, what it has to be, and what is checked.

    `init_by` names the account that pays for creating it, `derived` is the address it has then, if it is not
    a fresh key; `close_to` names the one that gets its lamports at the end. `shared` accounts may equal another
    writable one. `checks` stand in the order in which they run.
    """

    name: str
    kind: Kind
    checks: tuple[Check, ...] = ()
    mut: bool = False
    shared: bool = False
    init_by: str | None = None
    derived: Callable[[Context], Pubkey] | None = None
    close_to: str | None = None

    @property
    def written(self) -> bool:
        """Whether Anchor writes it back after the handler."""
        return self.kind in _STATES and self.close_to is None and (self.mut or self.init_by is not None)


class Context:
    """The accounts of one instruction by name, read; what the handler works on."""

    def __init__(self, frame: Frame, clock: int, keys: dict[str, Pubkey]) -> None:
        self.frame = frame
        self.clock = clock
        self._keys = keys
        self._read: dict[str, State | TokenAccount] = {}

    def key(self, name: str) -> Pubkey:
        """The address passed for an account."""
        return self._keys[name]

    def hold(self, name: str, value: State | TokenAccount) -> None:
        """Keep what was read for an account."""
        self._read[name] = value

    def state(self, name: str) -> State:
        """The market, job, run or stake passed under a name."""
        value = self._read[name]
        assert isinstance(value, Market | Job | Run | Stake)
        return value

    @property
    def market(self) -> Market:
        """The instruction's market."""
        value = self._read["market"]
        assert isinstance(value, Market)
        return value

    @property
    def job(self) -> Job:
        """The instruction's job."""
        value = self._read["job"]
        assert isinstance(value, Job)
        return value

    @property
    def run(self) -> Run:
        """The instruction's run."""
        value = self._read["run"]
        assert isinstance(value, Run)
        return value

    @property
    def stake(self) -> Stake:
        """The instruction's stake account."""
        value = self._read["stake"]
        assert isinstance(value, Stake)
        return value

    def token(self, name: str) -> TokenAccount:
        """A token account as it was when the instruction began."""
        value = self._read[name]
        assert isinstance(value, TokenAccount)
        return value


def bind(frame: Frame, clock: int, fields: Sequence[Field], metas: Sequence[AccountMeta]) -> Context:
    """Read, create and check the accounts; raises ProgramFailure at the first thing that is wrong."""
    context = Context(frame, clock, {f.name: meta.pubkey for f, meta in zip(fields, metas, strict=False)})
    for position, declared in enumerate(fields):
        if position >= len(metas):
            raise anchor_error(Code.AccountNotEnoughKeys, account=None if declared.init_by else declared.name)
        if declared.init_by is None:
            _read(context, declared)
    for declared in fields:
        if declared.init_by is not None:
            _init(context, declared, declared.init_by)
    _refuse_duplicates(context, fields)
    for declared in fields:
        if declared.init_by is None:
            _check(context, declared)
    return context


def write_back(context: Context, fields: Sequence[Field]) -> None:
    """Store what the handler changed and close what is to be closed."""
    for declared in fields:
        key = context.key(declared.name)
        if declared.close_to is not None:
            context.frame.close(key, context.key(declared.close_to))
        elif declared.written:
            _store(context.frame, key, context.state(declared.name), declared.name)


def store_new(frame: Frame, key: Pubkey, state: State) -> None:
    """Write an account that the handler made itself."""
    _store(frame, key, state, None)


def _store(frame: Frame, key: Pubkey, state: State, name: str | None) -> None:
    held = frame.account(key).data
    body = state.encode()
    if len(body) > len(held):
        raise anchor_error(Code.AccountDidNotSerialize, account=name)
    # Bytes behind a queue that became shorter stay in the account, as on chain.
    frame.update(key, data=body + held[len(body) :])


def _read(context: Context, declared: Field) -> None:
    name, kind, key = declared.name, declared.kind, context.key(declared.name)
    if kind is Kind.SIGNER:
        if not context.frame.is_signer(key):
            raise anchor_error(Code.AccountNotSigner, account=name)
    elif kind in _PROGRAMS:
        if key != _PROGRAMS[kind]:
            raise anchor_error(Code.InvalidProgramId, account=name, compared=(key, _PROGRAMS[kind]))
    elif kind is Kind.RENT:
        if key != RENT_SYSVAR:
            raise anchor_error(Code.AccountSysvarMismatch, account=name)
    elif kind in _ANCHORED:
        _read_anchored(context, declared)
    elif kind in (Kind.TOKEN, Kind.MINT):
        _read_token_program(context, declared)


def _require_owner(context: Context, declared: Field, owner: Pubkey) -> None:
    account = context.frame.account(context.key(declared.name))
    if account.owner == SYSTEM_PROGRAM and account.lamports == 0:
        raise anchor_error(Code.AccountNotInitialized, account=declared.name)
    if account.owner != owner:
        raise anchor_error(
            Code.AccountOwnedByWrongProgram, account=declared.name, compared=(account.owner, owner)
        )


def _read_anchored(context: Context, declared: Field) -> None:
    owner, layout = _ANCHORED[declared.kind]
    _require_owner(context, declared, owner)
    data = context.frame.account(context.key(declared.name)).data
    if len(data) < len(layout.DISCRIMINATOR):
        raise anchor_error(Code.AccountDiscriminatorNotFound, account=declared.name)
    if not data.startswith(layout.DISCRIMINATOR):
        raise anchor_error(Code.AccountDiscriminatorMismatch, account=declared.name)
    try:
        value = layout.decode(data)
    except UnreadableError as error:
        raise anchor_error(Code.AccountDidNotDeserialize, account=declared.name) from error
    if not isinstance(value, Reflection):
        context.hold(declared.name, value)


def _read_token_program(context: Context, declared: Field) -> None:
    _require_owner(context, declared, TOKEN_PROGRAM)
    data = context.frame.account(context.key(declared.name)).data
    value: Mint | TokenAccount
    try:
        value = Mint.decode(data) if declared.kind is Kind.MINT else TokenAccount.decode(data)
    except UnreadableError as error:
        raise unreadable_account("InvalidAccountData", declared.name) from error
    if not value.initialized:
        raise unreadable_account("UninitializedAccount", declared.name)
    if isinstance(value, TokenAccount):
        context.hold(declared.name, value)


def _init(context: Context, declared: Field, payer_name: str) -> None:
    frame, key, payer = context.frame, context.key(declared.name), context.key(payer_name)
    if declared.derived is not None and key != (derived := declared.derived(context)):
        raise anchor_error(Code.ConstraintSeeds, account=declared.name, compared=(key, derived))
    signed_by = key if declared.derived is not None else None
    if declared.kind is Kind.TOKEN:
        # The token accounts that the programs make are vaults: derived addresses that own themselves.
        system.init_account(frame, payer, key, TokenAccount.SPACE, TOKEN_PROGRAM, signed_by=signed_by)
        token.initialize_account(frame, key, context.key("mint"), owner=key)
        return
    owner, layout = _ANCHORED[declared.kind][0], _STATES[declared.kind]
    system.init_account(frame, payer, key, layout.SPACE, owner, signed_by=signed_by)
    context.hold(declared.name, layout())


def _refuse_duplicates(context: Context, fields: Sequence[Field]) -> None:
    seen: set[Pubkey] = set()
    for declared in fields:
        if not declared.mut or declared.shared or declared.init_by is not None:
            continue
        if declared.kind in (Kind.SIGNER, Kind.UNCHECKED):
            continue
        key = context.key(declared.name)
        if key in seen:
            raise anchor_error(Code.ConstraintDuplicateMutableAccount, account=declared.name)
        seen.add(key)


def _check(context: Context, declared: Field) -> None:
    if declared.mut and not context.frame.is_writable(context.key(declared.name)):
        raise anchor_error(Code.ConstraintMut, account=declared.name)
    for check in declared.checks:
        failure = check(context, declared.name)
        if failure is not None:
            raise failure
    if declared.close_to is not None and context.key(declared.name) == context.key(declared.close_to):
        raise anchor_error(Code.ConstraintClose, account=declared.name)
