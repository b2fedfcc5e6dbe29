"""The RPC nodes of one network: the health of each, and which one is asked next.

The order in the settings is the admin's preference. A node that fails, lags, is slow or does not offer a method
moves behind the others until it has recovered. Health follows from the answers to requests, and from a probe that
regularly asks every node for its slot.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp
from solana.rpc.commitment import Confirmed

from nosana_operator.chain.errors import ChainError, ChainUnavailable, MethodRefused, NodeBehind, RpcError
from nosana_operator.chain.rpc.codes import METHOD_REFUSED, METHOD_REFUSED_STATUSES, RATE_LIMITED, TRANSIENT
from nosana_operator.chain.rpc.wire import read_int

T = TypeVar("T")

_MAX_BODY: Final = 64 * 1024 * 1024
_PROBE_SECONDS: Final = 30.0
"""Each probe is one request per node, and counts toward the request budget of 500 running jobs."""
_PROBE_TIMEOUT: Final = 5.0
_SLOW_SECONDS: Final = 1.0
SLOTS_BEHIND: Final = 25
"""Ten seconds of slots: a node further behind the best one is no longer preferred."""
_REST_SECONDS: Final = 5.0
"""Pause for a node that limits our requests without saying for how long."""
_REFUSED_SECONDS: Final = 600.0
"""How long a node is not asked again for a method that it refused."""
_MOST_REFUSED: Final = 3
"""A node that refuses this many methods in a row, and answers none, refuses us altogether."""
_SECRET_LENGTH: Final = 8
"""A part of a URL with at least this many characters may be an API key."""
_LONGEST_MESSAGE: Final = 300
"""Characters of a node's own message that an error keeps."""


class Health(IntEnum):
    """The health of a node; lower is better."""

    GOOD = 0
    SLOW = 1
    LAGGING = 2
    RESTING = 3
    """It limits our requests for now."""
    DOWN = 4
    """Its last answer was missing or malformed."""


@dataclass(frozen=True, slots=True)
class EndpointView:
    """The state of a node. `number` is its position in the settings; its URL may contain an API key."""

    number: int
    health: Health
    latency: float | None
    """Seconds that the last probe took; None: not probed yet."""
    slots_behind: int
    """Behind the best node, at the last probe."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One node, as a candidate for a request."""

    view: EndpointView
    refuses: bool
    """It does not offer the method."""
    free_at: float
    """When its rate limit allows the next request, monotonic seconds."""


def choose(candidates: Sequence[Candidate], now: float) -> tuple[int, float] | None:
    """The number of the node to ask, and the seconds to wait first; None when no node offers the method.

    Among nodes that answer, one that is free at once comes before a healthier one that is not.
    """
    able = [candidate for candidate in candidates if not candidate.refuses]
    if not able:
        return None
    best = min(
        able,
        key=lambda c: (
            c.view.health >= Health.RESTING,
            max(c.free_at, now),
            c.view.health,
            c.view.number,
        ),
    )
    return best.view.number, max(0.0, best.free_at - now)


class Endpoint:
    """One RPC node: its transport and its state."""

    def __init__(
        self, number: int, url: str, session: aiohttp.ClientSession, requests_per_second: float | None
    ) -> None:
        self.number = number
        self._url = url
        self._secrets = _secrets(url)
        self._session = session
        self._rate = requests_per_second
        self._tokens = self._burst
        self._filled = 0.0
        self._ids = itertools.count(1)
        self._down = False
        self._rest_until = 0.0
        self._latency: float | None = None
        self._behind = 0
        self._refused: dict[str, float] = {}
        self._refused_in_a_row: set[str] = set()
        """Methods refused since it last answered anything."""

    @property
    def _burst(self) -> float:
        return max(1.0, self._rate or 1.0)

    def view(self, now: float) -> EndpointView:
        """Its state."""
        if self._down:
            health = Health.DOWN
        elif now < self._rest_until:
            health = Health.RESTING
        elif self._behind > SLOTS_BEHIND:
            health = Health.LAGGING
        elif self._latency is not None and self._latency > _SLOW_SECONDS:
            health = Health.SLOW
        else:
            health = Health.GOOD
        return EndpointView(self.number, health, self._latency, self._behind)

    def candidate(self, method: str, now: float) -> Candidate:
        """It as a candidate for a request of that method."""
        return Candidate(self.view(now), self._refused.get(method, 0.0) > now, self._free_at(now))

    def spend(self, now: float) -> None:
        """Count one request against the rate limit."""
        if self._rate is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate) - 1.0
            self._filled = now

    def _free_at(self, now: float) -> float:
        if self._rate is None:
            return now
        tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        return now if tokens >= 1.0 else now + (1.0 - tokens) / self._rate

    def succeeded(self) -> None:
        """Record that it answered."""
        self._down = False
        self._refused_in_a_row.clear()

    def failed(self, error: ChainUnavailable, now: float) -> None:
        """Record that it gave no usable answer."""
        if error.limited:
            self._rest_until = now + (_REST_SECONDS if error.retry_after is None else error.retry_after)
        else:
            self._down = True

    def refused(self, method: str, now: float) -> bool:
        """Record that it refused the method. True: it refuses all methods, because of a wrong API key for example."""
        self._down = False
        self._refused[method] = now + _REFUSED_SECONDS
        self._refused_in_a_row.add(method)
        if len(self._refused_in_a_row) >= _MOST_REFUSED:
            # The methods are not the cause: treat it as a node that does not answer, so that each is asked again.
            self._refused.clear()
            self._down = True
        return self._down

    def lagged(self, slots: int) -> None:
        """Record that it answered, but is this many slots behind."""
        self.succeeded()
        self._behind = slots

    def probed(self, seconds: float, behind: int) -> None:
        """Record the result of a probe."""
        self._latency, self._behind = seconds, behind

    async def ask(self, method: str, params: Sequence[Any], seconds: float) -> Any:
        """One request, one answer: its `result`.

        Raises:
            ChainUnavailable: no usable answer.
            MethodRefused: the node does not offer the method.
            RpcError: the node said no.
        """
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        try:
            async with self._session.post(
                self._url, json=request, timeout=aiohttp.ClientTimeout(total=seconds), allow_redirects=False
            ) as response:
                status, retry_after = response.status, _retry_after(response.headers.get("Retry-After"))
                body = await _read(response)
        except TimeoutError:
            raise ChainUnavailable(
                f"The RPC node gave no answer to {method} in {seconds:g} s; it is asked again."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            # aiohttp's messages may contain the URL, whose path may contain an API key.
            raise ChainUnavailable(
                f"The RPC node cannot be reached ({type(error).__name__}); it is asked again."
            ) from None
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, Mapping) or not (
            "result" in reply or isinstance(reply.get("error"), Mapping)
        ):
            if status in METHOD_REFUSED_STATUSES:
                raise MethodRefused(f"The RPC node refused {method} with HTTP {status}.", code=status)
            raise ChainUnavailable(
                f"The RPC node answered {method} with HTTP {status} and no JSON-RPC; it is asked again.",
                retry_after=retry_after,
                limited=status == 429,
            )
        refusal = reply.get("error")
        if isinstance(refusal, Mapping):
            message = self._without_secrets(str(refusal.get("message", "no reason")))[:_LONGEST_MESSAGE]
            raise _refusal(method, status, refusal, message, retry_after)
        return reply["result"]

    def _without_secrets(self, message: str) -> str:
        """A node's message, which goes to logs and conditions, without the API key that it may repeat."""
        for secret in self._secrets:
            message = message.replace(secret, "…")
        return message


class Endpoints:
    """All nodes of a network, shared by everything that reads or sends there.

    Args:
        urls: HTTP addresses in the order of preference; they may contain API keys, so no error contains them.
        session: the caller's HTTP session; not closed here.
        requests_per_second: the rate limit of each node; None: no limit.
        clock: monotonic seconds.
        sleep: how to wait for the rate limit.
    """

    def __init__(
        self,
        urls: Sequence[str],
        session: aiohttp.ClientSession,
        *,
        requests_per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not urls:
            raise ValueError("a network needs at least one RPC node")
        self._all = [Endpoint(n, url, session, requests_per_second) for n, url in enumerate(urls)]
        self._clock = clock
        self._sleep = sleep

    def __len__(self) -> int:
        return len(self._all)

    @property
    def views(self) -> tuple[EndpointView, ...]:
        """The state of each node, in the order of the settings."""
        now = self._clock()
        return tuple(endpoint.view(now) for endpoint in self._all)

    def usable(self) -> list[int]:
        """The numbers of the healthy nodes; all when none is healthy."""
        now = self._clock()
        fit = [e.number for e in self._all if e.view(now).health < Health.RESTING]
        return fit or [e.number for e in self._all]

    def refuses(self, method: str) -> bool:
        """Whether one of the nodes does not offer the method."""
        now = self._clock()
        return any(endpoint.candidate(method, now).refuses for endpoint in self._all)

    async def take(self, method: str, avoid: Collection[int] = ()) -> int | None:
        """The number of the node to ask next, once its rate limit allows a request.

        None: all nodes are in `avoid` or refuse the method.
        """
        while True:
            now = self._clock()
            candidates = [e.candidate(method, now) for e in self._all if e.number not in avoid]
            chosen = choose(candidates, now)
            if chosen is None:
                return None
            number, wait = chosen
            if wait <= 0:
                self._all[number].spend(now)
                return number
            await self._sleep(wait)

    def spend(self, number: int) -> None:
        """Count a request that does not wait for the rate limit."""
        self._all[number].spend(self._clock())

    async def ask(
        self, number: int, method: str, params: Sequence[Any], seconds: float, read: Callable[[Any], T]
    ) -> T:
        """One request to one node, returning `read(result)`; records what it shows of the node's health.

        Raises as `Endpoint.ask` and `read`: a malformed answer counts as no answer.
        """
        endpoint = self._all[number]
        try:
            result = read(await endpoint.ask(method, params, seconds))
        except NodeBehind as error:
            if len(self._all) > 1:
                # A single node has no alternative, and no probe would clear the mark later.
                endpoint.lagged(error.slots)
            raise
        except ChainUnavailable as error:
            endpoint.failed(error, self._clock())
            raise
        except MethodRefused as error:
            if endpoint.refused(method, self._clock()):
                raise ChainUnavailable(
                    f"{error} It refuses all methods; check its URL and API key."
                ) from None
            raise
        except RpcError:
            endpoint.succeeded()
            raise
        endpoint.succeeded()
        return result

    async def run(self) -> None:
        """Probe the nodes until cancelled; a single node is not probed."""
        while len(self._all) > 1:
            await self.probe()
            await asyncio.sleep(_PROBE_SECONDS)

    async def probe(self) -> None:
        """Ask every node for its slot, all concurrently."""

        async def one(number: int) -> tuple[float, int] | None:
            started = self._clock()
            self._all[number].spend(started)
            try:
                slot = await self.ask(
                    number, "getSlot", [{"commitment": Confirmed}], _PROBE_TIMEOUT, read_int
                )
            except ChainError:
                return None
            return self._clock() - started, slot

        probes = await asyncio.gather(*(one(endpoint.number) for endpoint in self._all))
        newest = max((slot for _, slot in filter(None, probes)), default=0)
        for endpoint, answer in zip(self._all, probes, strict=True):
            if answer is not None:
                endpoint.probed(answer[0], newest - answer[1])


def _refusal(
    method: str, status: int, error: Mapping[str, Any], message: str, retry_after: float | None
) -> ChainUnavailable | RpcError:
    """The error that a JSON-RPC error means; `message` is the node's own."""
    code = error.get("code")
    code = code if isinstance(code, int) else 0
    limited = status == 429 or code in RATE_LIMITED
    if limited or status >= 500 or code in TRANSIENT:
        return ChainUnavailable(
            f"The RPC node cannot answer {method} now: {message} ({code}); it is asked again.",
            retry_after=retry_after,
            limited=limited,
        )
    kind = MethodRefused if code in METHOD_REFUSED or status in METHOD_REFUSED_STATUSES else RpcError
    return kind(f"The RPC node refused {method}: {message} ({code}).", code=code, data=error.get("data"))


def _secrets(url: str) -> tuple[str, ...]:
    """The parts of a URL that may be an API key: as written, decoded, and as a header; longest first."""
    parts = urlsplit(url)
    found = [*parts.path.split("/"), *(value for _, value in parse_qsl(parts.query))]
    found += [parts.username or "", parts.password or ""]
    found += [part.partition("=")[2] for part in parts.query.split("&")]
    found += [unquote(part) for part in found]
    if parts.username or parts.password:
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        found.append(base64.b64encode(login.encode()).decode())
    return tuple(sorted({part for part in found if len(part) >= _SECRET_LENGTH}, key=len, reverse=True))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > _MAX_BODY:
            raise aiohttp.ClientPayloadError("answer too large")
    return bytes(data)


def _retry_after(header: str | None) -> float | None:
    """The seconds of a Retry-After header; RPC providers do not use the date form."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None
