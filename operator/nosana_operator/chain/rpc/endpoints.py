"""The RPC nodes of one network: what each is good for now, and which one is asked next.

The order in the settings is the admin's preference; a node that fails, lags, is slow or has a method switched
off moves behind the others until it is well again. Health is found out by use, and by asking every node for
its slot now and then.
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
"""Each probe is a request to each node, and counts toward what 500 running jobs may cost."""
_PROBE_TIMEOUT: Final = 5.0
_SLOW_SECONDS: Final = 1.0
SLOTS_BEHIND: Final = 25
"""Ten seconds of slots behind the best node: one that far back is not preferred any more."""
_REST_SECONDS: Final = 5.0
"""For a node that limits us without saying how long."""
_REFUSED_SECONDS: Final = 600.0
"""How long a method that a node has switched off is not asked of it again."""
_MOST_REFUSED: Final = 3
"""A node that refuses so many methods in a row, and answers none, refuses us."""
_SECRET_LENGTH: Final = 8
"""Characters of a part of a URL from which on it may be an API key."""
_MOST_SAID: Final = 300
"""Characters of a node's own words that are told on."""


class Health(IntEnum):
    """How fit a node is; the lower, the better."""

    GOOD = 0
    SLOW = 1
    LAGGING = 2
    RESTING = 3
    """It limits us, and said for how long."""
    DOWN = 4
    """Its last answer was none, or made no sense."""


@dataclass(frozen=True, slots=True)
class EndpointView:
    """What is known of a node. `number` is its place in the settings: its URL may hold a key."""

    number: int
    health: Health
    latency: float | None
    """Seconds that the last probe took."""
    slots_behind: int
    """Behind the best node, at the last probe."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One node as the choice sees it."""

    view: EndpointView
    refuses: bool
    """It has the method switched off."""
    free_at: float
    """When its rate limit lets the next request through, monotonic seconds."""


def choose(candidates: Sequence[Candidate], now: float) -> tuple[int, float] | None:
    """Number of the node to ask and the seconds to wait before; None when there is none.

    Among nodes that answer, one that is free at once comes before a better one that is not.
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
    """One RPC node: its transport and what is known of it."""

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
        """What is known of it."""
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
        """It, for the choice."""
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
        """It answered."""
        self._down = False
        self._refused_in_a_row.clear()

    def failed(self, error: ChainUnavailable, now: float) -> None:
        """It gave no usable answer."""
        if error.limited:
            self._rest_until = now + (_REST_SECONDS if error.retry_after is None else error.retry_after)
        else:
            self._down = True

    def refused(self, method: str, now: float) -> bool:
        """It has the method switched off. True: it refuses us altogether, for a wrong API key say."""
        self._down = False
        self._refused[method] = now + _REFUSED_SECONDS
        self._refused_in_a_row.add(method)
        if len(self._refused_in_a_row) >= _MOST_REFUSED:
            # Not a matter of methods: each is asked again, as of a node that does not answer.
            self._refused.clear()
            self._down = True
        return self._down

    def lagged(self, slots: int) -> None:
        """It answered, but of a slot that long ago."""
        self.succeeded()
        self._behind = slots

    def probed(self, seconds: float, behind: int) -> None:
        """It told its slot."""
        self._latency, self._behind = seconds, behind

    async def ask(self, method: str, params: Sequence[Any], seconds: float) -> Any:
        """One request, one answer: its `result`.

        Raises:
            ChainUnavailable: no usable answer.
            MethodRefused: the method is switched off here.
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
                f"The RPC node gave {method} no answer in {seconds:g} s; asked again."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            # aiohttp's texts name host and port, not the path that may hold a key.
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
            said = self._without_secrets(str(refusal.get("message", "no reason")))[:_MOST_SAID]
            raise _refusal(method, status, refusal, said, retry_after)
        return reply["result"]

    def _without_secrets(self, said: str) -> str:
        """A node's words, which go to logs and conditions, less the key that they may repeat."""
        for secret in self._secrets:
            said = said.replace(secret, "…")
        return said


class Endpoints:
    """All nodes of a network. Shared by everything that reads or sends there.

    Args:
        urls: HTTP addresses in the order of preference; may hold API keys, so they never appear in an error.
        session: the caller's HTTP session; not closed here.
        requests_per_second: how many requests each node may get, None for as many as there are.
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
        """What is known of each, in the order of the settings."""
        now = self._clock()
        return tuple(endpoint.view(now) for endpoint in self._all)

    def usable(self) -> list[int]:
        """Numbers of the nodes that answer; all when none does."""
        now = self._clock()
        fit = [e.number for e in self._all if e.view(now).health < Health.RESTING]
        return fit or [e.number for e in self._all]

    def refuses(self, method: str) -> bool:
        """Whether one of the nodes has the method switched off."""
        now = self._clock()
        return any(endpoint.candidate(method, now).refuses for endpoint in self._all)

    async def take(self, method: str, avoid: Collection[int] = ()) -> int | None:
        """The node to ask next, once its rate limit allows; None: all are avoided or refuse the method."""
        while True:
            now = self._clock()
            among = [e.candidate(method, now) for e in self._all if e.number not in avoid]
            chosen = choose(among, now)
            if chosen is None:
                return None
            number, wait = chosen
            if wait <= 0:
                self._all[number].spend(now)
                return number
            await self._sleep(wait)

    def spend(self, number: int) -> None:
        """Count a request that no limit may hold up."""
        self._all[number].spend(self._clock())

    async def ask(
        self, number: int, method: str, params: Sequence[Any], seconds: float, read: Callable[[Any], T]
    ) -> T:
        """One request to one node, its `result` as read; what it says of the node's health is kept.

        Raises as `Endpoint.ask`, and as `read`: an answer that cannot be used is none.
        """
        endpoint = self._all[number]
        try:
            result = read(await endpoint.ask(method, params, seconds))
        except NodeBehind as error:
            if len(self._all) > 1:
                # With a single one there is nothing to prefer, and no probe that says otherwise later.
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
        """Compare the nodes until cancelled; with a single one there is nothing to compare."""
        while len(self._all) > 1:
            await self.probe()
            await asyncio.sleep(_PROBE_SECONDS)

    async def probe(self) -> None:
        """Ask every node for its slot, all at the same time."""

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

        told = await asyncio.gather(*(one(endpoint.number) for endpoint in self._all))
        newest = max((slot for _, slot in filter(None, told)), default=0)
        for endpoint, answer in zip(self._all, told, strict=True):
            if answer is not None:
                endpoint.probed(answer[0], newest - answer[1])


def _refusal(
    method: str, status: int, error: Mapping[str, Any], said: str, retry_after: float | None
) -> ChainUnavailable | RpcError:
    """What a JSON-RPC error means; `said` are its words."""
    code = error.get("code")
    code = code if isinstance(code, int) else 0
    limited = status == 429 or code in RATE_LIMITED
    if limited or status >= 500 or code in TRANSIENT:
        return ChainUnavailable(
            f"The RPC node cannot answer {method} now: {said} ({code}); it is asked again.",
            retry_after=retry_after,
            limited=limited,
        )
    kind = MethodRefused if code in METHOD_REFUSED or status in METHOD_REFUSED_STATUSES else RpcError
    return kind(f"The RPC node refused {method}: {said} ({code}).", code=code, data=error.get("data"))


def _secrets(url: str) -> tuple[str, ...]:
    """The parts of a URL that may be an API key, as they stand, decoded, and in the header; the longest first."""
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
    """Seconds of a Retry-After header; the date form is not used by RPC providers."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None
