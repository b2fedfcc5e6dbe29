"""HTTP requests over pooled connections, and the meaning of response statuses."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3

from nosana_operator.fetching.errors import FetchError, Interrupted, Missing
from nosana_operator.fetching.listing import Request

_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 30.0
_MAX_DOCUMENT: Final = 32 << 20
_MAX_REDIRECTS: Final = 5
_USER_AGENT: Final = "nosana-fetch"


class Web:
    """Sends GET requests over pooled connections. Redirects are followed; credentials do not go to another host."""

    def __init__(self, concurrency: int = 8) -> None:
        """`concurrency`: requests to one host at the same time."""
        self._options: dict[str, Any] = {
            "maxsize": concurrency,
            # The transfer retries by itself, because it resumes.
            "retries": urllib3.Retry(
                total=_MAX_REDIRECTS, connect=0, read=0, status=0, other=0, respect_retry_after_header=False
            ),
            "timeout": urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
        }
        self._pools: dict[str | None, urllib3.PoolManager] = {}

    @contextmanager
    def get(
        self, request: Request, *, start: int = 0, if_range: str | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The response with any status, its body not read yet. `start`: the offset of the first byte to request.

        Raises Interrupted when there is no response, or when the connection breaks.
        """
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **request.headers}
        if start:
            headers["Range"] = f"bytes={start}-"
            if if_range:
                headers["If-Range"] = if_range
        try:
            response = self._pool(request.url).request(
                "GET",
                request.url,
                headers=headers,
                preload_content=False,
                decode_content=False,
                redirect=True,
            )
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise Interrupted(f"{_host(request)} cannot be reached ({_reason(error)})") from None
        finished = False
        try:
            yield response
            finished = True
        except (urllib3.exceptions.HTTPError, TimeoutError, ConnectionError) as error:
            raise Interrupted(f"{_host(request)} closed the connection ({_reason(error)})") from None
        finally:
            if finished:
                response.release_conn()
            else:
                response.close()

    def document(self, request: Request, what: str, remedy: str) -> tuple[bytes, Mapping[str, str]]:
        """A small document and its headers. `what` names it in errors. Raises FetchError or Interrupted."""
        with self.get(request) as response:
            check_status(response, what, remedy)
            data = response.read(_MAX_DOCUMENT + 1, decode_content=False)
            if len(data) > _MAX_DOCUMENT:
                raise FetchError(f"{what} is larger than {_MAX_DOCUMENT >> 20} MiB; {remedy}")
            response.drain_conn()
            return data, response.headers

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


def check_status(response: urllib3.BaseHTTPResponse, what: str, remedy: str) -> None:
    """Raise an error unless the status is 2xx: Missing or FetchError when a retry would not help, else Interrupted."""
    status = response.status
    if 200 <= status < 300:
        return
    if status in (401, 403):
        raise FetchError(f"the server refuses {what} (HTTP {status}); {remedy}")
    if status in (404, 410):
        raise Missing(f"there is no {what} (HTTP {status}); {remedy}")
    if status == 451:
        raise FetchError(f"the server may not serve {what} for legal reasons (HTTP 451)")
    if status in (408, 425, 429) or status >= 500:
        raise Interrupted(f"the server is busy or broken (HTTP {status} for {what})", retry_after(response))
    raise FetchError(f"the server responds with HTTP {status} for {what}; {remedy}")


def retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds from the Retry-After header, at most one minute; None without one."""
    seconds = response.headers.get("Retry-After", "")
    return min(float(seconds), 60.0) if seconds.isdecimal() else None


def _host(request: Request) -> str:
    return urlsplit(request.url).hostname or "the server"


def _reason(error: Exception) -> str:
    """The error in a few words. Its own text contains the URL with the signature."""
    inner = error
    while isinstance(inner, urllib3.exceptions.MaxRetryError) and inner.reason is not None:
        inner = inner.reason
    match inner:
        case urllib3.exceptions.NameResolutionError():
            return "its name does not resolve"
        case urllib3.exceptions.SSLError():
            return "its certificate is not trusted"
        case urllib3.exceptions.TimeoutError() | TimeoutError():
            return "no response in time"
        case urllib3.exceptions.NewConnectionError():
            return "no connection"
        case OSError(errno=int(number)):
            return os.strerror(number)
    return type(inner).__name__
