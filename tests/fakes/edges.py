"""Small stand-ins for the edges of the rooms: a clock, a cache, Events, metrics, IPFS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass
class FakeClock:
    """Time that moves when the test says so."""

    moment: datetime = datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass
class RecordedEvents:
    """Events as (type, reason, note)."""

    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def event(self, regarding: Mapping[str, Any], *, type: str, reason: str, action: str, note: str) -> None:
        self.seen.append((type, reason, note))


@dataclass
class RecordedMetrics:
    """What the job controller measures."""

    run_to_pod_seconds: list[float] = field(default_factory=list)
    start_steps: list[tuple[str, float]] = field(default_factory=list)

    def start_step(self, step: str, seconds: float) -> None:
        self.start_steps.append((step, seconds))

    def run_to_pod(self, seconds: float) -> None:
        self.run_to_pod_seconds.append(seconds)


@dataclass
class FakeIpfs:
    """CID → bytes, or the error that fetching raises."""

    content: dict[str, bytes | Exception] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    async def fetch(self, cid: str) -> bytes:
        self.fetched.append(cid)
        found = self.content[cid]
        if isinstance(found, Exception):
            raise found
        return found


@dataclass
class FakeProber:
    """Ops that answer as told by port: a status, a message, or an error; the last answer stays."""

    answers: dict[int, list[int | str | Exception]] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def _answer(self, address: str, port: int) -> int | str:
        self.asked.append((address, port))
        answers = self.answers.get(port, [200])
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    async def http(
        self,
        address: str,
        port: int,
        *,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float,
    ) -> int:
        return int(self._answer(address, port))

    async def websocket(self, address: str, port: int, *, listen: bool, seconds: float) -> str:
        return str(self._answer(address, port))
