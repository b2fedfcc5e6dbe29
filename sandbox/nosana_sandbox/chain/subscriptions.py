"""WebSocket subscriptions: which client is notified of what, at which commitment.

A notification carries the state as the commitment shows it, slot by slot. As on a real node, a program
subscription says nothing of an account that was closed or passed to another program
(docs/protocol/solana-rpc.md#closed-accounts), an account subscription does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from solders.pubkey import Pubkey
from solders.signature import Signature

from nosana_sandbox.chain.bank import Bank, Commitment, Landed
from nosana_sandbox.chain.encoding import AccountFilter, AccountView, parse_filters
from nosana_sandbox.chain.errors import invalid_params
from nosana_sandbox.chain.params import Config, parse_number, parse_pubkey, parse_signature
from nosana_sandbox.chain.rpc import API_VERSION
from nosana_sandbox.program import Account

Send = Callable[[dict[str, Any]], None]
"""Queues one JSON message for a client; must not block."""

_NOTHING: Final = Account(0, Pubkey.default())


class Subscription(Protocol):
    """One subscription of a client. Each method returns the results to send, in order."""

    method: str
    commitment: Commitment | None
    """None: notified of slots at any commitment."""
    once: bool
    """Ends with its first notification of the outcome."""

    def on_account(self, bank: Bank, key: Pubkey, slot: int) -> Any:
        """An account was written in `slot`; None says nothing."""

    def on_landed(self, landed: Landed) -> Any:
        """A transaction reached the commitment; None says nothing."""


def _context(slot: int, value: Any) -> dict[str, Any]:
    return {"context": {"apiVersion": API_VERSION, "slot": slot}, "value": value}


@dataclass(slots=True, kw_only=True)
class _Quiet:
    """The defaults: most subscriptions ignore these."""

    method: str
    commitment: Commitment | None
    once: bool = False

    def on_account(self, bank: Bank, key: Pubkey, slot: int) -> Any:
        """No results for accounts."""
        return None

    def on_landed(self, landed: Landed) -> Any:
        """No results for transactions."""
        return None


@dataclass(slots=True, kw_only=True)
class _AccountSubscription(_Quiet):
    key: Pubkey
    view: AccountView

    def on_account(self, bank: Bank, key: Pubkey, slot: int) -> Any:
        """The account, an empty one when it was closed."""
        if key != self.key or self.commitment is None:
            return None
        account = bank.account_in(key, slot) or _NOTHING
        return _context(slot, self.view.encode(bank, account, self.commitment))


@dataclass(slots=True, kw_only=True)
class _ProgramSubscription(_Quiet):
    program: Pubkey
    view: AccountView
    filters: tuple[AccountFilter, ...]

    def on_account(self, bank: Bank, key: Pubkey, slot: int) -> Any:
        """An account that belongs to the program now."""
        account = bank.account_in(key, slot)
        if account is None or account.owner != self.program or self.commitment is None:
            return None
        if not all(accepts(account) for accepts in self.filters):
            return None
        return _context(
            slot, {"pubkey": str(key), "account": self.view.encode(bank, account, self.commitment)}
        )


@dataclass(slots=True, kw_only=True)
class _SignatureSubscription(_Quiet):
    signature: Signature

    def on_landed(self, landed: Landed) -> Any:
        """The outcome of the one transaction."""
        if landed.signature != self.signature:
            return None
        return _context(landed.slot, {"err": landed.outcome.error})


@dataclass(slots=True, kw_only=True)
class _LogsSubscription(_Quiet):
    mentions: Pubkey | None

    def on_landed(self, landed: Landed) -> Any:
        """Logs of a transaction that names the address, or of any."""
        if self.mentions is not None and self.mentions not in landed.transaction.keys:
            return None
        return _context(
            landed.slot,
            {
                "signature": str(landed.signature),
                "err": landed.outcome.error,
                "logs": list(landed.outcome.logs),
            },
        )


class Hub:
    """All subscriptions of all clients; observes the bank."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self._ids = itertools.count(1)
        self._active: dict[int, tuple[Subscription, Send]] = {}
        bank.observers.append(self)

    def close(self) -> None:
        """Stop observing."""
        self._bank.observers.remove(self)
        self._active.clear()

    def subscribe(self, method: str, params: Any, send: Send) -> int:
        """Add a subscription; returns its number."""
        subscription = _SUBSCRIBE[method](_positional(params))
        number = next(self._ids)
        self._active[number] = (subscription, send)
        return number

    def announce(self, number: int) -> None:
        """Say what has happened already; call it after the client has the number.

        Only a signature may have got where it is waited for before anybody asked.
        """
        subscription, send = self._active[number]
        if not isinstance(subscription, _SignatureSubscription) or subscription.commitment is None:
            return
        landed = self._bank.landed(subscription.signature)
        if landed is not None and landed.slot <= self._bank.slot_at(subscription.commitment):
            self._notify(number, subscription, send, subscription.on_landed(landed))

    def unsubscribe(self, params: Any, send: Send) -> bool:
        """Forget a subscription; RpcError when this client has no such."""
        number = parse_number(_first(_positional(params)), "the subscription")
        if number not in self._active or self._active[number][1] is not send:
            raise invalid_params("Invalid subscription id.")
        del self._active[number]
        return True

    def drop_client(self, send: Send) -> None:
        """Forget all of a client's subscriptions."""
        for number in [n for n, (_, to) in self._active.items() if to is send]:
            del self._active[number]

    # BankObserver

    def on_landed(self, landed: Landed) -> None:
        """Notify the subscriptions at processed."""
        self._tell_landed(Commitment.PROCESSED, landed)
        for key in landed.changed:
            self._tell_account(Commitment.PROCESSED, key, landed.slot)

    def on_placed(self, key: Pubkey) -> None:
        """Notify the subscriptions at processed."""
        self._tell_account(Commitment.PROCESSED, key, self._bank.slot)

    def on_tick(self, confirmed: int, finalized: int) -> None:
        """Tell of the new slot, and of all that happened in those that moved up."""
        new = self._bank.slot
        for number, (subscription, send) in list(self._active.items()):
            if subscription.method == "slot":
                self._notify(number, subscription, send, {"parent": new - 1, "root": finalized, "slot": new})
            elif subscription.method == "root":
                self._notify(number, subscription, send, finalized)
        self._tell_slot(Commitment.CONFIRMED, confirmed)
        self._tell_slot(Commitment.FINALIZED, finalized)

    def _tell_slot(self, commitment: Commitment, slot: int) -> None:
        if not self._active:
            return
        block = self._bank.block(slot)
        for landed in block.landed if block else ():
            self._tell_landed(commitment, landed)
        for key in self._bank.changed_in(slot):
            self._tell_account(commitment, key, slot)

    def _tell_landed(self, commitment: Commitment, landed: Landed) -> None:
        for number, (subscription, send) in list(self._active.items()):
            if subscription.commitment is commitment:
                self._notify(number, subscription, send, subscription.on_landed(landed))

    def _tell_account(self, commitment: Commitment, key: Pubkey, slot: int) -> None:
        for number, (subscription, send) in list(self._active.items()):
            if subscription.commitment is commitment:
                self._notify(number, subscription, send, subscription.on_account(self._bank, key, slot))

    def _notify(self, number: int, subscription: Subscription, send: Send, result: Any) -> None:
        if result is None:
            return
        send(
            {
                "jsonrpc": "2.0",
                "method": f"{subscription.method}Notification",
                "params": {"result": result, "subscription": number},
            }
        )
        if subscription.once:
            self._active.pop(number, None)


def _positional(params: Any) -> list[Any]:
    if params is not None and not isinstance(params, list):
        raise invalid_params("`params` should be an array")
    return params or []


def _config(params: list[Any]) -> Config:
    return Config.of(params[1] if len(params) > 1 else None)


def _first(params: list[Any]) -> Any:
    if not params:
        raise invalid_params("Invalid params: the first one is missing.")
    return params[0]


def _account(params: list[Any]) -> Subscription:
    config = _config(params)
    return _AccountSubscription(
        method="account",
        commitment=config.commitment(),
        key=parse_pubkey(_first(params)),
        view=AccountView.of(config),
    )


def _program(params: list[Any]) -> Subscription:
    config = _config(params)
    return _ProgramSubscription(
        method="program",
        commitment=config.commitment(),
        program=parse_pubkey(_first(params)),
        view=AccountView.of(config),
        filters=parse_filters(config.raw("filters")),
    )


def _signature(params: list[Any]) -> Subscription:
    config = _config(params)
    return _SignatureSubscription(
        method="signature",
        commitment=config.commitment(),
        once=True,
        signature=parse_signature(_first(params)),
    )


def _logs(params: list[Any]) -> Subscription:
    which = _first(params)
    mentions: Pubkey | None = None
    if isinstance(which, dict):
        named = which.get("mentions")
        if not isinstance(named, list) or len(named) != 1:
            raise invalid_params("Invalid Request: Only 1 address supported")
        mentions = parse_pubkey(named[0])
    elif which not in ("all", "allWithVotes"):
        raise invalid_params("Invalid params: expected `all`, `allWithVotes` or mentions.")
    return _LogsSubscription(method="logs", commitment=_config(params).commitment(), mentions=mentions)


_SUBSCRIBE: Final[Mapping[str, Callable[[list[Any]], Subscription]]] = {
    "accountSubscribe": _account,
    "programSubscribe": _program,
    "signatureSubscribe": _signature,
    "logsSubscribe": _logs,
    "slotSubscribe": lambda params: _Quiet(method="slot", commitment=None),
    "rootSubscribe": lambda params: _Quiet(method="root", commitment=None),
}

SUBSCRIBE_METHODS: Final = frozenset(_SUBSCRIBE)
UNSUBSCRIBE_METHODS: Final = frozenset(name.replace("Subscribe", "Unsubscribe") for name in _SUBSCRIBE)
