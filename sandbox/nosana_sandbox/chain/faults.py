"""Scripted faults between a client and a node.

One `Faults` belongs to one endpoint, so two endpoints of one chain can fail differently. A rule names what it
does, to which method or notification, how often and how likely; chance comes from a seed, so that a run can
be repeated. Nothing here changes the chain: forks do, and are the bank's.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Final

from solders.pubkey import Pubkey

from nosana_sandbox.chain.bank import Bank, Landed
from nosana_sandbox.chain.errors import INVALID_PARAMS, RpcError, TransactionRejected
from nosana_sandbox.chain.transaction import WireTransaction

CONNECT: Final = "connect"
"""The name under which rules meet a WebSocket's opening."""


class Kind(StrEnum):
    """The effect of a rule."""

    RATE_LIMITED = "rate-limited"
    """HTTP 429, with Retry-After when `retry_after` is given."""
    SERVER_ERROR = "server-error"
    """HTTP `status` with a text."""
    HTML = "html"
    """HTTP 200 with a page instead of JSON."""
    SILENT = "silent"
    """No answer for `seconds`, then the connection is cut."""
    CUT = "cut"
    """The connection is cut: instead of an answer, or of a notification."""
    ERROR = "error"
    """A JSON-RPC error `code` with `message` and without `data`."""
    REFUSED = "refused"
    """The method is switched off, as public nodes do with getProgramAccounts."""
    LAG = "lag"
    """The node answers as it would have answered `slots` ago."""
    VANISH = "vanish"
    """A transaction is accepted and lost."""
    LATE = "late"
    """A transaction lands `slots` later."""
    LOST = "lost"
    """A notification is not sent."""
    DOUBLED = "doubled"
    """A notification is sent twice."""
    DELAYED = "delayed"
    """A notification is sent `seconds` later."""
    MUTE = "mute"
    """Nothing at all is sent on a WebSocket that stays open."""
    CLOSED = "closed"
    """The WebSocket is closed politely instead of a notification."""


TRANSPORT: Final = frozenset({Kind.RATE_LIMITED, Kind.SERVER_ERROR, Kind.HTML, Kind.SILENT, Kind.CUT})
ANSWER: Final = frozenset({Kind.ERROR, Kind.REFUSED, Kind.LAG})
TRANSACTION: Final = frozenset({Kind.VANISH, Kind.LATE})
NOTIFICATION: Final = frozenset({Kind.LOST, Kind.DOUBLED, Kind.DELAYED, Kind.CUT, Kind.CLOSED})
MUTING: Final = frozenset({Kind.MUTE})

_USUAL_METHOD: Final = {
    Kind.REFUSED: "getProgramAccounts",
    Kind.VANISH: "sendTransaction",
    Kind.LATE: "sendTransaction",
    Kind.LOST: "*Notification",
    Kind.DOUBLED: "*Notification",
    Kind.DELAYED: "*Notification",
    Kind.CLOSED: "*Notification",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One rule. What a kind does not use is left as it is.

    `method` is a pattern over RPC methods, notifications (`accountNotification`) and `connect`. The first
    `skip` matches pass, the next `times` (None: all) are hit, each with `chance`.
    """

    kind: Kind
    method: str = "*"
    times: int | None = None
    skip: int = 0
    chance: float = 1.0
    retry_after: float | None = None
    status: int = 503
    code: int = -32005
    message: str = "Node is unhealthy"
    seconds: float = 30.0
    slots: int = 1

    @classmethod
    def of(cls, kind: str, method: str | None = None, **rest: Any) -> Fault:
        """A rule with the usual method of its kind; RpcError for a name or value that does not fit."""
        try:
            known = Kind(kind)
        except ValueError:
            raise _misfit(f"unknown kind {kind!r}; there are {', '.join(Kind)}") from None
        for name, value in rest.items():
            wanted = _TYPES.get(name)
            if wanted is None:
                raise _misfit(f"unknown field {name!r}; there are {', '.join(_TYPES)}")
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise _misfit(f"{name} has another type")
        return cls(kind=known, method=method or _USUAL_METHOD.get(known, "*"), **rest)

    def to_json(self) -> dict[str, Any]:
        """The rule as `sandbox_faults` shows it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


_Types = tuple[type, ...]
_NUMBER: Final[_Types] = (int, float)
_TYPES: Final[dict[str, _Types]] = {
    "times": (int, type(None)),
    "skip": (int,),
    "chance": _NUMBER,
    "retry_after": (*_NUMBER, type(None)),
    "status": (int,),
    "code": (int,),
    "message": (str,),
    "seconds": _NUMBER,
    "slots": (int,),
}


class Faults:
    """The rules of one endpoint, and how often they applied."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.injected: Counter[tuple[Kind, str]] = Counter()
        """How often each kind applied to each name."""
        self._random = random.Random(seed)
        self._rules: list[_Rule] = []

    @property
    def rules(self) -> tuple[Fault, ...]:
        """The rules that can still hit."""
        return tuple(rule.fault for rule in self._rules if not rule.spent)

    def add(self, kind: str, method: str | None = None, **rest: Any) -> Fault:
        """Add a rule (`faults.add("rate-limited", "getSlot", times=3)`); fields as in `Fault`."""
        fault = Fault.of(kind, method, **rest)
        self._rules.append(_Rule(fault))
        return fault

    def clear(self) -> None:
        """Remove all rules; the counts stay."""
        self._rules.clear()

    def reseed(self, seed: int) -> None:
        """Restart the random sequence."""
        self.seed = seed
        self._random.seed(seed)

    def pick(self, name: str, kinds: Collection[Kind]) -> Fault | None:
        """The rule that hits this one occasion, if any; it is counted."""
        for rule in self._rules:
            if rule.fault.kind in kinds and fnmatchcase(name, rule.fault.method) and rule.hits(self._random):
                self.injected[rule.fault.kind, name] += 1
                return rule.fault
        return None

    def count(self, kind: str, method: str = "*") -> int:
        """How often a kind hit names of this pattern."""
        return sum(n for (k, name), n in self.injected.items() if k == kind and fnmatchcase(name, method))


class _Rule:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._passed = 0
        self._hit = 0

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self._hit >= self.fault.times

    def hits(self, chance: random.Random) -> bool:
        if self.spent:
            return False
        if self._passed < self.fault.skip:
            self._passed += 1
            return False
        if self.fault.chance < 1 and chance.random() >= self.fault.chance:
            return False
        self._hit += 1
        return True


class LateTransactions:
    """Transactions that wait for their slot; observes the bank."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self._waiting: list[tuple[int, WireTransaction]] = []
        bank.observers.append(self)

    def close(self) -> None:
        """Stop observing; what waits never lands."""
        self._bank.observers.remove(self)

    def hold(self, transaction: WireTransaction, slots: int) -> None:
        """Have it land so many slots from now, if it still can."""
        self._waiting.append((self._bank.slot + slots, transaction))

    def on_landed(self, landed: Landed) -> None:
        """Nothing to do."""

    def on_placed(self, key: Pubkey) -> None:
        """Nothing to do."""

    def on_tick(self, confirmed: int, finalized: int) -> None:
        """Hand in those whose slot it is."""
        due = [each for slot, each in self._waiting if slot <= self._bank.slot]
        self._waiting = [(slot, each) for slot, each in self._waiting if slot > self._bank.slot]
        for transaction in due:
            try:
                self._bank.submit(transaction)
            except TransactionRejected:
                continue


def _misfit(reason: str) -> RpcError:
    return RpcError(INVALID_PARAMS, f"sandbox_faults: {reason}.")
