"""Records Kubernetes Events (events.k8s.io/v1), which `kubectl events` shows.

Recording never waits and never fails. An Event that repeats within six minutes becomes a series instead of many
Events.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from nosana_operator.errors import NosanaError, NotFound

log = logging.getLogger(__name__)

_SERIES_WINDOW = 360.0
"""Seconds after the last repeat within which another one joins the series."""
_SERIES_INTERVAL = 10.0
"""Seconds between two writes of one series, so that a reconcile that fails in a loop costs one write each."""
_NOTE_BYTES = 1024
_MAX_SERIES = 2000
_MAX_WAITING = 1000

_Identity = tuple[str, str, str, str, str]


class EventApi(Protocol):
    """The part of the client that events need (`KubeClient`)."""

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object."""

    async def patch(
        self, kind: str, namespace: str | None, name: str, patch: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Merge-patch an object."""


@dataclass(slots=True)
class _Series:
    body: dict[str, Any]
    last_seen: float
    last_seen_at: datetime.datetime
    count: int = 1
    last_sent: float | None = None
    waiting: bool = True
    created: bool = False


class EventRecorder:
    """Records Events under `controller` (say "nosana.io/operator") as `instance` (this pod's name).

    `run()` sends them until cancelled; `flush()` sends the rest at the end.
    """

    def __init__(
        self,
        api: EventApi,
        *,
        controller: str,
        instance: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._api = api
        self._controller = controller
        self._instance = instance
        self._clock = clock
        self._now = now
        self._series: dict[_Identity, _Series] = {}
        self._queue: asyncio.Queue[_Identity] = asyncio.Queue(_MAX_WAITING)
        self._serial = 0
        self.dropped = 0
        """Events lost because too many were waiting, or because the API server did not accept them."""

    def event(
        self,
        regarding: Mapping[str, Any],
        *,
        type: Literal["Normal", "Warning"],
        reason: str,
        action: str,
        note: str,
    ) -> None:
        """Record an Event about `regarding` (a body with apiVersion, kind, metadata).

        `reason` (why) and `action` (what was done) are CamelCase words, `note` is a sentence.
        """
        note = note.encode()[:_NOTE_BYTES].decode("utf-8", "ignore")
        identity = (str(regarding["metadata"].get("uid", "")), type, reason, action, note)
        now = self._clock()
        series = self._series.get(identity)
        if series is not None and now - series.last_seen <= _SERIES_WINDOW:
            series.count += 1
            series.last_seen = now
            series.last_seen_at = self._now()
            if not series.waiting:
                series.waiting = True
                due = (series.last_sent or now) + _SERIES_INTERVAL
                asyncio.get_running_loop().call_later(max(0.0, due - now), self._enqueue, identity)
            return
        self._drop_ended(now)
        body = self._body(regarding, type, reason, action, note)
        self._series[identity] = _Series(body, last_seen=now, last_seen_at=self._now())
        self._enqueue(identity)

    async def run(self) -> None:
        """Send Events until cancelled."""
        while True:
            await self._send(await self._queue.get())

    async def flush(self, timeout: float) -> None:
        """Send the waiting Events for at most `timeout` seconds, at shutdown after `run` was cancelled."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._queue.empty():
                    await self._send(self._queue.get_nowait())

    def _enqueue(self, identity: _Identity) -> None:
        try:
            self._queue.put_nowait(identity)
        except asyncio.QueueFull:
            self.dropped += 1
            self._series.pop(identity, None)

    def _drop_ended(self, now: float) -> None:
        if len(self._series) < _MAX_SERIES:
            return
        over = [key for key, series in self._series.items() if now - series.last_seen > _SERIES_WINDOW]
        # No series has ended: drop the oldest; a repeat of it starts a new Event.
        for key in over or [next(iter(self._series))]:
            del self._series[key]

    async def _send(self, identity: _Identity) -> None:
        series = self._series.get(identity)
        if series is None:
            return
        series.waiting = False
        series.last_sent = self._clock()
        metadata = series.body["metadata"]
        try:
            if not series.created:
                if series.count > 1:
                    series.body["series"] = _series_field(series)
                await self._api.create(series.body)
                series.created = True
            else:
                patch = {"series": _series_field(series)}
                await self._api.patch("Event", metadata["namespace"], metadata["name"], patch)
        except NotFound:
            # The Event expired on the server (after an hour by default), or the namespace is gone: start again.
            self._series.pop(identity, None)
            self.dropped += 1
        except NosanaError as error:
            self._series.pop(identity, None)
            self.dropped += 1
            log.debug("an Event could not be recorded: %s", error)

    def _body(
        self, regarding: Mapping[str, Any], type_: str, reason: str, action: str, note: str
    ) -> dict[str, Any]:
        metadata = regarding["metadata"]
        now = self._now()
        self._serial += 1
        # Named as other Events are: the object's name, then a unique suffix.
        unique = f"{int(now.timestamp() * 1e6):x}{self._serial & 0xFFF:03x}"
        reference = {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": metadata["name"],
        }
        for field in ("namespace", "uid", "resourceVersion"):
            if metadata.get(field):
                reference[field] = metadata[field]
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name'][:200]}.{unique}",
                # Events about cluster-scoped objects live in "default" by convention.
                "namespace": metadata.get("namespace") or "default",
            },
            "eventTime": _micro_time(now),
            "reportingController": self._controller,
            "reportingInstance": self._instance[:128],
            "type": type_,
            "reason": reason,
            "action": action,
            "note": note,
            "regarding": reference,
        }


def _series_field(series: _Series) -> dict[str, Any]:
    return {"count": series.count, "lastObservedTime": _micro_time(series.last_seen_at)}


def _micro_time(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
