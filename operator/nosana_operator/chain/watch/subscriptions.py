"""Solana's WebSocket subscriptions, renewed whenever the connection is lost.

solana-py's client neither reconnects nor subscribes again, ends silently on a polite close and drops the
connection over one unknown message (docs/protocol/solana-rpc.md#connections), so this is plain JSON over aiohttp.
Correctness does not depend on them: notifications get lost without a sign, so the watcher polls as well.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from solana.rpc.commitment import Confirmed

from nosana_operator.backoff import jitter
from nosana_operator.chain.accounts import RUN_DISCRIMINATOR_BASE58, RUN_NODE_OFFSET
from nosana_operator.chain.errors import ChainError
from nosana_operator.chain.rpc.wire import AccountInfo, field, read_account, read_slotted, read_text

log = logging.getLogger(__name__)

_HEARTBEAT: Final = 15.0
_SILENCE: Final = 15.0
"""Slots arrive several times a second; a connection without any message for this long is dead."""
_ALIVE_SECONDS: Final = 3.0
"""… and one without any message for this long is not relied on."""
_CONFIRM_SECONDS: Final = 3.0
"""A subscription that the node has not confirmed within this time is not relied on either."""
_CONNECT_TIMEOUT: Final = 10.0
_FIRST_WAIT: Final = 0.25
_LONGEST_WAIT: Final = 5.0
"""Seconds between two attempts to reach a node."""
_STEADY_SECONDS: Final = 30.0
"""A connection that ends sooner is unsteady: a node may close it at the first subscription over its limit."""
_LONGEST_WAIT_UNSTEADY: Final = 300.0
"""Seconds between two such connections. Each costs a reading of everything that is watched."""
_MAX_MESSAGE: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class AccountTarget:
    """One account."""

    address: str


@dataclass(frozen=True, slots=True)
class RunsTarget:
    """New and changed runs of a host. The node does not report that a run closed."""

    node: str


@dataclass(frozen=True, slots=True)
class SlotTarget:
    """Slots, the sign of life of a connection."""


Target = AccountTarget | RunsTarget | SlotTarget
OnAccount = Callable[[Target, str, int, AccountInfo | None], None]
"""(target, address, slot, account); account None: it is closed."""
OnSubscribed = Callable[[Target], None]
"""Called when the node has confirmed a subscription: earlier changes have to be read."""

_METHODS: Final[Mapping[type, tuple[str, str]]] = {
    AccountTarget: ("accountSubscribe", "accountUnsubscribe"),
    RunsTarget: ("programSubscribe", "programUnsubscribe"),
    SlotTarget: ("slotSubscribe", "slotUnsubscribe"),
}


class _Closed(Exception):
    """The connection has ended."""


class _Silent(_Closed):
    """No message came for too long."""


class Subscriptions:
    """A set of subscriptions, at one of the network's nodes at a time.

    Args:
        urls: the nodes' WebSocket addresses in the order of preference; may contain API keys, so they are
            never logged. After a node that cannot be reached, or is silent, the next one is tried.
        session: the caller's HTTP session.
        program: the Jobs program.
        on_account: called for each account notification.
        on_subscribed: called when a subscription starts, again after each reconnect.
    """

    def __init__(
        self,
        urls: Sequence[str],
        session: aiohttp.ClientSession,
        program: str,
        on_account: OnAccount,
        on_subscribed: OnSubscribed,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._urls = tuple(urls)
        self._at = 0
        self._clock = clock
        self._heard_at: float | None = None
        self._session = session
        self._program = program
        self._on_account = on_account
        self._on_subscribed = on_subscribed
        self._targets: dict[Target, float] = {SlotTarget(): clock()}
        """Target → since when it has been in the set."""
        self._connection: _Connection | None = None
        self._changed = asyncio.Event()
        self.connected = False
        self._connected_at = 0.0
        self.connections = 0
        """How many connections were made so far."""

    @property
    def alive(self) -> bool:
        """Whether a message came just now: an open connection that is silent is of no use."""
        return (
            self.connected and self._heard_at is not None and self._clock() - self._heard_at < _ALIVE_SECONDS
        )

    @property
    def follows_accounts(self) -> bool:
        """Whether it is alive and subscribed to every account: a node may refuse some, or not answer."""
        if not self.alive or self._connection is None:
            return False
        before = self._clock() - _CONFIRM_SECONDS
        missing = self._targets.keys() - self._connection.active
        return not any(
            isinstance(target, AccountTarget) and self._targets[target] < before for target in missing
        )

    def set_targets(self, targets: frozenset[AccountTarget | RunsTarget]) -> None:
        """Replace the set of subscriptions."""
        all_targets = targets | {SlotTarget()}
        if all_targets != self._targets.keys():
            now = self._clock()
            self._targets = {target: self._targets.get(target, now) for target in all_targets}
            self._changed.set()

    async def run(self) -> None:
        """Keep the subscriptions until cancelled."""
        bound = _FIRST_WAIT
        while True:
            silent, cause = False, "it ended"
            try:
                await self._connect()
            except _Silent as reason:
                silent, cause = True, str(reason)
            except _Closed as reason:
                cause = str(reason)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                cause = type(error).__name__
            was_connected, self.connected = self.connected, False
            # Logged once for each loss, however many attempts follow.
            log.log(logging.INFO if was_connected else logging.DEBUG, "WebSocket lost: %s", cause)
            steady = was_connected and self._clock() - self._connected_at >= _STEADY_SECONDS
            if silent or not steady:
                self._at = (self._at + 1) % len(self._urls)
            longest = _LONGEST_WAIT_UNSTEADY if was_connected else _LONGEST_WAIT
            # It never shrinks after an unreachable node, which may alternate with one that closes connections.
            bound = _FIRST_WAIT if steady else max(bound, min(bound * 2, longest))
            await asyncio.sleep(bound * jitter())

    async def _connect(self) -> None:
        """Hold one connection until it ends; always ends with an exception."""
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            socket = await self._session.ws_connect(
                self._urls[self._at], heartbeat=_HEARTBEAT, max_msg_size=_MAX_MESSAGE, autoping=True
            )
        connection = _Connection(socket, self._program, self._on_account, self._on_subscribed)
        self._connection = connection
        self.connections += 1
        writer = asyncio.create_task(self._keep_subscribed(connection))
        reader = asyncio.create_task(self._read(connection))
        try:
            done, _ = await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (writer, reader):
                task.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)
            await socket.close()

    async def _keep_subscribed(self, connection: _Connection) -> None:
        while True:
            self._changed.clear()
            await connection.adjust(self._targets.keys())
            await self._changed.wait()

    async def _read(self, connection: _Connection) -> None:
        while True:
            await connection.receive()
            self._heard_at = self._clock()
            if not self.connected:
                log.info("WebSocket connected")
                self.connected, self._connected_at = True, self._heard_at
            if connection.has_superfluous(self._targets.keys()):
                self._changed.set()


class _Connection:
    """The subscriptions of one connection: requested, confirmed, refused."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        program: str,
        on_account: OnAccount,
        on_subscribed: OnSubscribed,
    ) -> None:
        self._socket = socket
        self._program = program
        self._on_account = on_account
        self._on_subscribed = on_subscribed
        self._ids = itertools.count(1)
        self._requested: dict[int, Target] = {}
        self._active: dict[Target, int] = {}
        self._targets: dict[int, Target] = {}
        self._refused: set[Target] = set()

    @property
    def active(self) -> Set[Target]:
        """The confirmed subscriptions."""
        return self._active.keys()

    def has_superfluous(self, targets: Set[Target]) -> bool:
        """Whether a subscription is active that left the set (it was confirmed too late)."""
        return not self._active.keys() <= targets

    async def adjust(self, targets: Set[Target]) -> None:
        """Subscribe and unsubscribe until the set is `targets`."""
        for target in targets - self._active.keys() - self._refused - set(self._requested.values()):
            number = next(self._ids)
            self._requested[number] = target
            await self._send(number, _METHODS[type(target)][0], self._params(target))
        for target in self._active.keys() - targets:
            subscription = self._active.pop(target)
            # A node that reuses a number has removed the earlier one already.
            self._targets.pop(subscription, None)
            await self._send(next(self._ids), _METHODS[type(target)][1], [subscription])

    async def receive(self) -> None:
        """Handle one message."""
        try:
            async with asyncio.timeout(_SILENCE):
                message = await self._socket.receive()
        except TimeoutError:
            raise _Silent(f"no message in {_SILENCE:g} s") from None
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise _Closed(f"code {self._socket.close_code}")
        try:
            body = json.loads(message.data)
            if isinstance(body, dict):
                self._take(body)
        except (ValueError, TypeError, RecursionError, ChainError) as error:
            # One malformed message must not cost the others.
            log.warning("WebSocket message ignored: %s", error)

    def _take(self, body: dict[str, Any]) -> None:
        if "params" in body:
            self._notified(body["params"])
            return
        target = self._requested.pop(body.get("id", 0), None)
        if target is None:
            return
        subscription = body.get("result")
        if not isinstance(subscription, int):
            self._refused.add(target)
            log.warning("the node refused %s; polling continues", _METHODS[type(target)][0])
            return
        self._active[target] = subscription
        self._targets[subscription] = target
        self._on_subscribed(target)

    def _notified(self, params: Any) -> None:
        target = self._targets.get(field(params, "subscription"))
        result = field(params, "result")
        if isinstance(target, AccountTarget):
            account = read_slotted(result, _existing)
            self._on_account(target, target.address, account.slot, account.value)
        elif isinstance(target, RunsTarget):
            found = read_slotted(result, lambda v: (read_text(v, "pubkey"), _existing(field(v, "account"))))
            self._on_account(target, found.value[0], found.slot, found.value[1])

    def _params(self, target: Target) -> list[Any]:
        config: dict[str, Any] = {"commitment": Confirmed, "encoding": "base64"}
        if isinstance(target, AccountTarget):
            return [target.address, config]
        if isinstance(target, RunsTarget):
            filters = [
                {"memcmp": {"offset": 0, "bytes": RUN_DISCRIMINATOR_BASE58}},
                {"memcmp": {"offset": RUN_NODE_OFFSET, "bytes": target.node}},
            ]
            return [self._program, config | {"filters": filters}]
        return []

    async def _send(self, number: int, method: str, params: list[Any]) -> None:
        try:
            await self._socket.send_json({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        except ConnectionError as error:
            raise _Closed(type(error).__name__) from error


def _existing(value: Any) -> AccountInfo | None:
    """The account; None for one without lamports, which is how a closed account is reported."""
    account = read_account(value)
    return account if account.lamports else None
