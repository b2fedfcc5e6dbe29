"""What the API server says of itself: its version and its clock."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp

from nosana_operator.kube.errors import KubeRefused, KubeUnavailable

_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """Major and minor as numbers, and the whole as the server spells it."""

    major: int
    minor: int
    text: str


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One answer of the API server."""

    version: ServerVersion
    seconds: float
    """How long it took."""
    clock_offset: float | None
    """Seconds by which its clock is ahead of ours, exact to about one; None: it did not tell the time."""


def read_version(body: bytes) -> ServerVersion:
    """The answer of `/version`. Raises KubeUnavailable when it is something else."""
    try:
        said: Any = json.loads(body)
        # Some distributions write the minor as "31+".
        major, minor = (int(re.sub(r"\D.*", "", str(said[part]))) for part in ("major", "minor"))
    except (ValueError, KeyError, TypeError):
        raise KubeUnavailable(
            "The Kubernetes API did not tell its version; is something else answering at its address?"
        ) from None
    return ServerVersion(major, minor, str(said.get("gitVersion") or f"v{major}.{minor}"))


async def ask_server(session: aiohttp.ClientSession) -> ServerFacts:
    """Ask once for the version (`session`: see `Credentials.open_session`).

    Raises:
        KubeUnavailable: no usable answer.
        KubeRefused: it answered that it is not for us.
    """
    began, asked_at = time.monotonic(), time.time()
    try:
        async with asyncio.timeout(_SECONDS), session.get("/version") as response:
            body, status, date = await response.read(), response.status, response.headers.get("Date")
    except TimeoutError:
        raise KubeUnavailable(f"The Kubernetes API gave no answer in {_SECONDS:g} s.") from None
    except (aiohttp.ClientError, OSError) as error:
        raise KubeUnavailable(
            f"The Kubernetes API cannot be reached: {error or type(error).__name__}."
        ) from error
    seconds = time.monotonic() - began
    if status in (401, 403):
        raise KubeRefused(f"The Kubernetes API does not know these credentials (HTTP {status}).", code=status)
    if status != 200:
        raise KubeUnavailable(f"The Kubernetes API answered /version with HTTP {status}.", code=status)
    return ServerFacts(read_version(body), seconds, _offset(date, asked_at + seconds / 2))


def _offset(date: str | None, now: float) -> float | None:
    try:
        told = parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None
    # A Date header has whole seconds: on average half a second has passed since.
    return None if told is None else told + 0.5 - now
