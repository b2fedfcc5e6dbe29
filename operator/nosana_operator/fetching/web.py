"""HTTP: one pool of connections, and what an answer means."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3

from nosana_operator.fetching.errors import FetchError, Interrupted
from nosana_operator.fetching.listing import Request

_CONNECT_SECONDS: Final = 10.0
_SILENCE_SECONDS: Final = 30.0
_LONGEST_DOCUMENT: Final = 32 << 20
_REDIRECTS: Final = 5
_USER_AGENT: Final = "nosana-fetch"


class Web:
    """GET requests over kept connections; follows redirects without taking credentials to another host."""

    def __init__(self, at_once: int = 8) -> None:
        """`at_once`: requests under way to one host."""
        self._options: dict[str, Any] = {
            "maxsize": at_once,
            # Attempts are the transfer's business: it goes on where it was.
            "retries": urllib3.Retry(
                total=_REDIRECTS, connect=0, read=0, status=0, other=0, respect_retry_after_header=False
            ),
            "timeout": urllib3.Timeout(connect=_CONNECT_SECONDS, read=_SILENCE_SECONDS),
        }
        self._pools: dict[str | None, urllib3.PoolManager] = {}

    @contextmanager
    def get(
        self, request: Request, *, start: int = 0, if_range: str | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer, whatever its status, its body not read yet. `start`: the first byte wanted.

        Raises Interrupted when there is none.
        """
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **request.headers}
        if start:
            headers["Range"] = f"bytes={start}-"
            if if_range:
                headers["If-Range"] = if_range
        try:
            answer = self._pool(request.url).request(
                "GET",
                request.url,
                headers=headers,
                preload_content=False,
                decode_content=False,
                redirect=True,
            )
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise Interrupted(f"{_host(request)} cannot be reached ({_kind(error)})") from None
        finished = False
        try:
            yield answer
            finished = True
        except (urllib3.exceptions.HTTPError, TimeoutError, ConnectionError) as error:
            raise Interrupted(f"{_host(request)} broke off ({_kind(error)})") from None
        finally:
            if finished:
                answer.release_conn()
            else:
                answer.close()

    def document(self, request: Request, what: str, remedy: str) -> tuple[bytes, Mapping[str, str]]:
        """A small document and its headers. Raises FetchError or Interrupted; `what` is told."""
        with self.get(request) as answer:
            check(answer, what, remedy)
            data = answer.read(_LONGEST_DOCUMENT + 1, decode_content=False)
            if len(data) > _LONGEST_DOCUMENT:
                raise FetchError(f"{what} is larger than any real one; {remedy}")
            answer.drain_conn()
            return data, answer.headers

    def _pool(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = urllib.request.getproxies().get(parts.scheme)
        if proxy and parts.hostname and urllib.request.proxy_bypass(parts.hostname):
            proxy = None
        if proxy not in self._pools:
            self._pools[proxy] = (
                urllib3.ProxyManager(proxy, **self._options)
                if proxy
                else urllib3.PoolManager(**self._options)
            )
        return self._pools[proxy]


def check(answer: urllib3.BaseHTTPResponse, what: str, remedy: str) -> None:
    """Raise what a status other than 2xx means: FetchError when it is final, else Interrupted."""
    status = answer.status
    if 200 <= status < 300:
        return
    if status in (401, 403):
        raise FetchError(f"the server refuses {what} (HTTP {status}); {remedy}")
    if status in (404, 410):
        raise FetchError(f"there is no {what} (HTTP {status}); {remedy}")
    if status == 451:
        raise FetchError(f"the server may not give {what} (HTTP 451: legal reasons)")
    if status in (408, 425, 429) or status >= 500:
        raise Interrupted(f"the server is busy or broken (HTTP {status} for {what})", retry_after(answer))
    raise FetchError(f"the server answers HTTP {status} for {what}; {remedy}")


def retry_after(answer: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds that the server asks to wait, one minute at most."""
    said = answer.headers.get("Retry-After", "")
    return min(float(said), 60.0) if said.isdecimal() else None


def _host(request: Request) -> str:
    return urlsplit(request.url).hostname or "the server"


def _kind(error: Exception) -> str:
    """What went wrong, in a few words; the error's own text holds the URL with its signature."""
    inner = error
    while isinstance(inner, urllib3.exceptions.MaxRetryError) and inner.reason is not None:
        inner = inner.reason
    match inner:
        case urllib3.exceptions.NameResolutionError():
            return "its name is not known"
        case urllib3.exceptions.SSLError():
            return "its certificate is not trusted"
        case urllib3.exceptions.TimeoutError() | TimeoutError():
            return "no answer in time"
        case urllib3.exceptions.NewConnectionError():
            return "no connection"
        case OSError(errno=int(number)):
            return os.strerror(number)
    return type(inner).__name__
