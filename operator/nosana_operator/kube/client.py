"""The Kubernetes API over aiohttp, in plain dicts (measured three to five times cheaper than typed clients).

Why not a client library: docs/decisions/0012-own-kubernetes-client.md. Every failure is one of four outcomes
(`kube/errors.py`). Requests that are safe to repeat are repeated a few times. A create is not: its outcome is
unknown, and the caller reads whether the object exists.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from nosana_operator.backoff import Backoff
from nosana_operator.kube.errors import KubeConflict, KubeError, KubeNotFound, KubeRefused, KubeUnavailable
from nosana_operator.kube.kinds import CORE_KINDS, Resource
from nosana_operator.ports import Bodies, Body, JsonPatch, LogStream

log = logging.getLogger(__name__)

Observer = Callable[[str, str, str, float], None]
"""Called after each request with (verb, kind, HTTP code or "none", seconds)."""


_ATTEMPTS = 3
_BACKOFF = Backoff(first=0.15, longest=1.0)
_LONGEST_RETRY_AFTER = 10.0
_PAGE = 500
_RELISTS = 3
_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30)
# A log of many megabytes from a slow kubelet takes longer than any other request, but never without a byte.
_LOG_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=30, sock_read=30)
_FOLLOW_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30)
_UNTYPED = "failed to create typed patch object"
"""The API server's message, with code 500, for an apply whose fields are not in the schema."""
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All objects of one kind as of one `resource_version` of the API server."""

    items: Bodies
    resource_version: str


class KubeClient:
    """Requests by kind, namespace and name; cluster-scoped kinds take `namespace=None`.

    `session` has the API server as its base URL (`Credentials.open_session`). `kinds` is the table of kinds.
    `observe` is called after every request. `on_reply` gets every object that a single-object request returned,
    before the caller does, so that a cache is never behind our own writes. `guard` is called before each attempt
    to write; an error that it raises ends the request, so that a process that no longer leads changes nothing.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        kinds: Mapping[str, Resource] = CORE_KINDS,
        observe: Observer | None = None,
        on_reply: Callable[[Body], object] | None = None,
        guard: Callable[[], object] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._kinds = dict(kinds)
        self._observe = observe
        self._on_reply = on_reply
        self._guard = guard
        self._sleep = sleep

    def resource(self, kind: str) -> Resource:
        """The table's entry for a kind. Raises KubeRefused when there is none."""
        try:
            return self._kinds[kind]
        except KeyError:
            raise KubeRefused(f"Kind {kind!r} is not in this client's table of kinds.") from None

    async def get(self, kind: str, namespace: str | None, name: str) -> Body:
        """One object. Raises KubeNotFound."""
        resource = self.resource(kind)
        return await self._object("get", resource, "GET", resource.path(namespace, name))

    async def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Bodies:
        """All objects of a kind, in one namespace or in all; fetched in pages."""
        snapshot = await self.snapshot(
            kind, namespace, label_selector=label_selector, field_selector=field_selector
        )
        return snapshot.items

    async def snapshot(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
    ) -> Snapshot:
        """Like `list`, with the resource version of the listing; `metadata_only` requests metadata alone."""
        for _ in range(_RELISTS):
            try:
                return await self._pages(kind, namespace, label_selector, field_selector, metadata_only)
            except KubeRefused as error:
                if error.code != 410:
                    raise
                # The continuation expired between two pages: only a new listing is consistent.
        raise KubeUnavailable(f"Listing {kind} expired {_RELISTS} times between two pages; try again.")

    async def _pages(
        self,
        kind: str,
        namespace: str | None,
        label_selector: str | None,
        field_selector: str | None,
        metadata_only: bool,
    ) -> Snapshot:
        resource = self.resource(kind)
        params = {"limit": str(_PAGE)}
        if label_selector:
            params["labelSelector"] = label_selector
        if field_selector:
            params["fieldSelector"] = field_selector
        headers = {"Accept": _METADATA_ONLY} if metadata_only else None
        items: Bodies = []
        while True:
            page = _parse(
                await self._request(
                    "list", resource, "GET", resource.path(namespace), params=params, headers=headers
                )
            )
            for item in page.get("items") or []:
                # Lists of built-in kinds leave these out of their items.
                item["apiVersion"] = resource.api_version
                item["kind"] = resource.kind
                items.append(item)
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return Snapshot(items=items, resource_version=str(metadata.get("resourceVersion") or ""))
            params["continue"] = metadata["continue"]

    async def create(self, body: Mapping[str, Any], *, manager: str | None = None) -> Body:
        """Create; KubeConflict (reason AlreadyExists) when the name is taken.

        Not repeated after KubeUnavailable: the caller reads whether the object exists.
        """
        resource = self.resource(body["kind"])
        path = resource.path(body["metadata"].get("namespace"))
        return await self._object(
            "create", resource, "POST", path, params=_write_params(manager), body=body, repeatable=False
        )

    async def apply(
        self, body: Mapping[str, Any], *, manager: str, subresource: str | None = None, force: bool = True
    ) -> Body:
        """Server-side apply: `manager` owns exactly the fields in `body`, and gives up those that it leaves out.

        A `metadata.resourceVersion` in `body` makes it a compare-and-swap: KubeConflict when the object has
        changed. `force` takes fields over from other managers.
        """
        resource = self.resource(body["kind"])
        metadata = body["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        params = _write_params(manager) | {"force": "true" if force else "false"}
        return await self._object(
            "apply",
            resource,
            "PATCH",
            path,
            params=params,
            body=body,
            content_type="application/apply-patch+yaml",
        )

    async def patch(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any] | JsonPatch,
        *,
        subresource: str | None = None,
        manager: str | None = None,
    ) -> Body:
        """Send a mapping as merge patch, a list as JSON patch (which is not repeated, because it may append)."""
        resource = self.resource(kind)
        is_json_patch = isinstance(patch, list)
        return await self._object(
            "patch",
            resource,
            "PATCH",
            resource.path(namespace, name, subresource),
            params=_write_params(manager),
            body=patch,
            content_type="application/json-patch+json" if is_json_patch else "application/merge-patch+json",
            repeatable=not is_json_patch,
        )

    async def delete(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Delete, with dependents in the background. An object that is gone, or has another `uid`, is no error."""
        resource = self.resource(kind)
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self._object("delete", resource, "DELETE", resource.path(namespace, name), body=options)
        except KubeNotFound:
            return
        except KubeConflict:
            if uid is None:
                raise

    async def read_logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        previous: bool = False,
        timestamps: bool = True,
        limit_bytes: int | None = None,
        tail_lines: int | None = None,
        stream: LogStream | None = None,
    ) -> bytes:
        """The log of a container as far as the kubelet has it, from its beginning unless `tail_lines` is given.

        `stream` requests one stream alone: since 1.32 behind the feature gate PodLogsQuerySplitStreams,
        KubeRefused without the gate; older API servers return both. Not together with `tail_lines`.
        KubeNotFound when the pod is gone, KubeRefused when the container has not started (or has no
        `previous`), KubeUnavailable when its node does not answer.
        """
        resource = self.resource("Pod")
        params = {"container": container, "timestamps": "true" if timestamps else "false"}
        if previous:
            params["previous"] = "true"
        if limit_bytes is not None:
            params["limitBytes"] = str(limit_bytes)
        if tail_lines is not None:
            params["tailLines"] = str(tail_lines)
        if stream is not None:
            params["stream"] = stream
        return await self._request(
            "logs",
            resource,
            "GET",
            resource.path(namespace, pod, "log"),
            params=params,
            timeout=_LOG_TIMEOUT,
        )

    async def follow_logs(
        self, namespace: str, pod: str, container: str, *, since: str | None = None
    ) -> AsyncIterator[bytes]:
        """Each line of a container's log after its timestamp, until the container ends or the connection breaks.

        `since` (RFC 3339) leaves out older lines, by whole seconds. Raises as `read_logs`. At the end, read the
        pod: a proxy may have cut a connection that was silent for long.
        """
        resource = self.resource("Pod")
        path = resource.path(namespace, pod, "log")
        params = {"container": container, "timestamps": "true", "follow": "true"}
        if since is not None:
            params["sinceTime"] = since
        try:
            async with self._session.get(path, params=params, timeout=_FOLLOW_TIMEOUT) as response:
                if response.status >= 300:
                    raise _failure(f"logs {path}", response, await response.read())
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line + b"\n"
                if rest:
                    yield rest
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = f"The log stream {path} was interrupted: {error or type(error).__name__}"
            raise KubeUnavailable(text) from error

    async def read_path(self, path: str) -> bytes:
        """GET a path outside the table of kinds ("/version", "/readyz", "/apis/GROUP/VERSION")."""
        return await self._request("get", Resource("other", "", "", ""), "GET", path)

    async def _object(self, verb: str, resource: Resource, method: str, path: str, **options: Any) -> Body:
        reply = _parse(await self._request(verb, resource, method, path, **options))
        if self._on_reply is not None and reply.get("kind") == resource.kind:
            self._on_reply(reply)
        return reply

    async def _request(
        self,
        verb: str,
        resource: Resource,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
        timeout: aiohttp.ClientTimeout = _REQUEST_TIMEOUT,
    ) -> bytes:
        all_headers = dict(headers or {})
        data: bytes | None = None
        if body is not None:
            data = json.dumps(body, separators=(",", ":")).encode()
            all_headers["Content-Type"] = content_type
        subject = f"{verb} {path}"
        for attempt in range(1, _ATTEMPTS + 1):
            if method != "GET":
                self._guard()
            started = time.monotonic()
            code = "none"
            wait: float | None = None
            try:
                async with self._session.request(
                    method, path, params=params, data=data, headers=all_headers, timeout=timeout
                ) as response:
                    code = str(response.status)
                    content = await response.read()
                    if response.status < 300:
                        _log_warnings(subject, response)
                        return content
                    failure = _failure(subject, response, content)
                    # A 429 was rejected before it had any effect, so even a create may be repeated.
                    if response.status == 429 or (
                        repeatable and response.status >= 500 and isinstance(failure, KubeUnavailable)
                    ):
                        wait = _retry_after(response)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = KubeUnavailable(
                    f"The Kubernetes API gave no answer to {subject}: {error or type(error).__name__}."
                )
                failure.__cause__ = error
                # Without a connection nothing was sent, so even a create may be repeated.
                if repeatable or isinstance(error, aiohttp.ClientConnectorError):
                    wait = 0.0
            finally:
                if self._observe is not None:
                    self._observe(verb, resource.kind, code, time.monotonic() - started)
            if wait is None or attempt == _ATTEMPTS:
                raise failure
            await self._sleep(max(wait, _BACKOFF.wait(attempt)))
        raise AssertionError("unreachable")


def _write_params(manager: str | None) -> dict[str, str]:
    # Strict: the server refuses a field that its schema does not know. Silently dropped, it could be a
    # payment's intent that we believe to be durable.
    params = {"fieldValidation": "Strict"}
    if manager is not None:
        params["fieldManager"] = manager
    return params


def _parse(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise KubeUnavailable(
            "The Kubernetes API's answer is not JSON; check for a proxy in between."
        ) from error
    if not isinstance(value, dict):
        raise KubeUnavailable(
            "The Kubernetes API's answer is JSON but not an object; check for a proxy in between."
        )
    return value


def _failure(subject: str, response: aiohttp.ClientResponse, content: bytes) -> KubeError:
    message, reason = _status(content)
    code = response.status
    text = f"The Kubernetes API answered {subject} with {code}: {message or response.reason or 'no message'}"
    kind: type[KubeError]
    if code == 404:
        kind = KubeNotFound
    elif code == 409:
        kind = KubeConflict
    elif code == 500 and _UNTYPED in message:
        kind = KubeRefused
    elif code >= 500 or code in (401, 408, 429):
        # A 401 says nothing about the request itself, and ends when credentials rotate.
        kind = KubeUnavailable
    else:
        kind = KubeRefused
    return kind(text, code=code, reason=reason)


def _status(content: bytes) -> tuple[str, str]:
    """(message, reason) of a `Status` reply, or the beginning of the text that came instead."""
    try:
        status = json.loads(content)
    except ValueError:
        return content[:200].decode("utf-8", "replace").strip(), ""
    if not isinstance(status, dict):
        return "", ""
    return str(status.get("message") or ""), str(status.get("reason") or "")


def _retry_after(response: aiohttp.ClientResponse) -> float:
    try:
        seconds = float(response.headers.get("Retry-After", "0"))
    except ValueError:  # an HTTP date, which the API server never sends
        seconds = 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


def _log_warnings(subject: str, response: aiohttp.ClientResponse) -> None:
    for warning in response.headers.getall("Warning", []):
        log.info("The Kubernetes API warns about %s: %s", subject, warning)
