"""Leader election over a Lease: of the operator's processes, its holder acts (docs/decisions/0009-one-writer.md).

Each process measures time by its own clock only. The times in the Lease are for people; to other processes a
renewal shows only *that* the holder is alive. A leader counts from before it sent its last renewal, a candidate from
when it saw that renewal, and the leader's deadline is shorter, so a leader ends before a candidate begins:

    leader      renews ├───────── deadline 10 s ─────────┤ ends
    candidate     sees it ├──────────────── duration 15 s ────────────────┤ takes the Lease
                       └─ t0, sent                                        └─ not before t0 + 15 s
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, Self

from pydantic import Field, model_validator

from nosana_operator.errors import Conflict, NosanaError, NotFound, Refused
from nosana_operator.kube.errors import KubeNotFound, KubeRefused, LeadershipLost
from nosana_operator.settings_group import DnsLabel, SettingsGroup

log = logging.getLogger(__name__)

_KIND = "Lease"
_SOMEBODY = "somebody (the Lease was deleted)"
"""The holder of a Lease that a candidate restored: whichever process held the deleted one, if it lives."""


class LeaseApi(Protocol):
    """The part of the client that election needs (`KubeClient`). Errors are the outcomes of `errors.py`."""

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any]:
        """Raises NotFound."""

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises Conflict when it exists."""

    async def patch(
        self, kind: str, namespace: str | None, name: str, patch: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Merge patch; with a `metadata.resourceVersion` a compare-and-swap (Conflict)."""


class ElectionSettings(SettingsGroup):
    """Of all processes that name the same Lease one works; the others stand by (docs/decisions/0009)."""

    enabled: bool = True
    """false: the process works without an election. This is safe only where there is never a second one."""
    namespace: DnsLabel | None = None
    """The Lease's namespace. Unset: the pod's own; outside a cluster, that of the kubeconfig's context."""
    name: DnsLabel = "nosana-operator"
    """The Lease's name."""
    lease_seconds: int = 15
    """Another process takes a Lease that was not renewed for this long. Longer than `renewSeconds`."""
    renew_seconds: int = 10
    """A process that could not renew its Lease for this long ends. At least twice `retrySeconds`, so that there is
    time for another try."""
    retry_seconds: int = Field(default=2, ge=1)
    """Seconds between two renewals."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.renew_seconds < 2 * self.retry_seconds:
            raise ValueError("renewSeconds has to be at least twice retrySeconds")
        if self.lease_seconds <= self.renew_seconds:
            raise ValueError("leaseSeconds has to be longer than renewSeconds, or two processes work at once")
        return self


class Term(Protocol):
    """A process' leadership: acquired, held, released."""

    @property
    def leading(self) -> bool:
        """Whether this process may act now."""

    def check(self, seen: int = 0) -> int:
        """The epoch in which this process leads. Raises LeadershipLost when it may not act.

        `seen` is the epoch of an intent; an epoch later than ours belongs to another leader.
        """

    async def acquire(self) -> None:
        """Wait until this process leads."""

    async def hold(self) -> None:
        """Stay leader; ends with LeadershipLost only."""

    async def release(self) -> None:
        """Give up leadership, so that another process need not wait."""


class AlwaysLeading:
    """The `Term` of a single process: no Lease, and epoch 0 in every intent."""

    leading = True

    def check(self, seen: int = 0) -> int:
        """Never raises."""
        return 0

    async def acquire(self) -> None:
        """Returns at once."""

    async def hold(self) -> None:
        """Never returns."""
        await asyncio.get_running_loop().create_future()

    async def release(self) -> None:
        """Does nothing."""


def awake_clock() -> float:
    """Monotonic seconds, including the time that the machine slept (where the system counts it)."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Election:
    """One process' part in the election: `acquire()`, then `hold()` until it raises, then `release()`.

    `identity` is unique among living processes; a process that restarts under its own identity takes its Lease over
    at once. `floor` returns the latest epoch known from intents: a Lease that was deleted is created again with a
    later one.
    """

    def __init__(
        self,
        api: LeaseApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: ElectionSettings | None = None,
        floor: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = awake_clock,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = lambda: random.uniform(0.8, 1.2),  # noqa: S311
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._where = f"{namespace}/{name}"
        self._identity = identity
        self._times = times or ElectionSettings()
        self._attempt_timeout = self._times.renew_seconds / 2
        """Seconds for one attempt, so that a connection that hangs leaves time for another attempt."""
        self._floor = floor
        self._clock = clock
        self._now = now
        self._jitter = jitter
        self._lease: dict[str, Any] | None = None
        """As last read; None: it did not exist."""
        self._since: float | None = None
        """When this version of it was first read."""
        self._latest = 0
        """The latest epoch that was read in a Lease."""
        self._epoch: int | None = None
        """The epoch of this process while it leads."""
        self._acquired_at = ""
        self._renewed_at = 0.0
        """When the last successful renewal was sent."""
        self._lost: str | None = None
        self._logged: str | None = None

    @property
    def leading(self) -> bool:
        """Whether this process may act now."""
        return self._problem() is None

    def check(self, seen: int = 0) -> int:
        """The epoch of this process. Raises LeadershipLost when it may not act; then `hold()` ends too.

        `seen` is the epoch of an intent; an epoch later than ours belongs to another leader.
        """
        if self._epoch is not None and seen > self._epoch:
            self._lost = f"an intent of epoch {seen} was found, and this process leads in epoch {self._epoch}"
        problem = self._problem()
        if problem is not None or self._epoch is None:
            raise LeadershipLost(f"This process does not lead: {problem}; it ends, and writes nothing.")
        return self._epoch

    async def acquire(self) -> None:
        """Wait until this process leads. Raises KubeRefused when it lacks the rights for the Lease."""
        while not await self._attempt():  # noqa: ASYNC110 - it polls the API server
            # Twice as often as a leader renews, so that a released Lease is taken soon.
            await asyncio.sleep(self._times.retry_seconds / 2 * self._jitter())
        log.info("This process leads, in epoch %d, by Lease %s", self._epoch, self._where)

    async def hold(self) -> None:
        """Renew until leadership is lost; raises LeadershipLost then."""
        while True:
            await asyncio.sleep(self._times.retry_seconds)
            self.check()
            left = self._renewed_at + self._times.renew_seconds - self._clock()
            try:
                async with asyncio.timeout(min(self._attempt_timeout, left)):
                    await self._renew()
            except LeadershipLost:
                raise
            except (NosanaError, TimeoutError) as error:
                log.warning(
                    "The Lease %s was not renewed: %s", self._where, str(error) or "no answer in time"
                )
            self.check()

    async def release(self) -> None:
        """Release the Lease, so that another process need not wait; from now on this process may not act.

        Does nothing when it does not lead, and never fails: the Lease expires by itself.
        """
        if not self.leading or self._lease is None:
            return
        epoch, self._epoch = self._epoch, None
        spec = {"holderIdentity": None, "leaseDurationSeconds": 1, "renewTime": self._timestamp()}
        try:
            async with asyncio.timeout(self._attempt_timeout):
                await self._patch({**spec, "leaseTransitions": epoch})
        except (NosanaError, TimeoutError) as error:
            log.warning("The Lease %s was not released: %s", self._where, str(error) or "no answer in time")
        else:
            log.info("The Lease %s was released", self._where)

    # -- acquiring ----------------------------------------------------------------------------------------

    async def _attempt(self) -> bool:
        try:
            async with asyncio.timeout(self._attempt_timeout):
                return await self._try()
        except Conflict:
            return False  # Another process was faster; the next attempt shows which.
        except Refused as error:
            raise KubeRefused(
                f"The Lease {self._where} cannot be held: {error}. Allow the operator to get, "
                "create and patch leases there, or set election.enabled: false where one process runs."
            ) from error
        except (NosanaError, TimeoutError) as error:
            self._log_once(
                f"The Lease {self._where} cannot be read: {str(error) or 'no answer in time'}",
                logging.WARNING,
            )
            return False

    async def _try(self) -> bool:
        begun = self._clock()
        try:
            lease = await self._api.get(_KIND, self._namespace, self._name)
        except NotFound:
            latest = max(self._latest, self._floor())
            self._acquired_at = self._timestamp()
            if latest:
                # The Lease was deleted. Its holder may still lead, so wait for it as for any other holder.
                self._observe(await self._make({**self._spec(latest), "holderIdentity": _SOMEBODY}))
                return False
            self._lead(await self._make(self._spec(1)), 1, begun)
            return True
        self._observe(lease)
        if not self._is_free(lease):
            return False
        epoch = max(self._latest, self._floor()) + 1
        self._acquired_at = self._timestamp()
        self._lead(await self._patch(self._spec(epoch)), epoch, begun)
        return True

    def _observe(self, lease: dict[str, Any]) -> None:
        """Remember a Lease, and since when this version of it has been known."""
        # By its version, not by `renewTime`, which is by the holder's clock and may stand still.
        if self._since is None or self._lease is None or _version(self._lease) != _version(lease):
            self._since = self._clock()
        self._lease = lease
        self._latest = max(self._latest, _epoch(lease))

    def _is_free(self, lease: Mapping[str, Any]) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._identity):
            return True
        # A holder with other settings, as during an upgrade, gets the duration that it relies on.
        duration = max(self._times.lease_seconds, float(spec.get("leaseDurationSeconds") or 0))
        self._log_once(f"Standing by: {holder} leads, in epoch {_epoch(lease)}")
        return self._since is not None and self._clock() - self._since >= duration

    def _log_once(self, text: str, level: int = logging.INFO) -> None:
        """Log a text once, however often it is true."""
        if text != self._logged:
            self._logged = text
            log.log(level, "%s", text)

    # -- leading ------------------------------------------------------------------------------------------

    def _lead(self, lease: dict[str, Any], epoch: int, begun: float) -> None:
        self._lease, self._epoch, self._renewed_at = lease, epoch, begun
        self._latest = max(self._latest, epoch)

    async def _renew(self) -> None:
        begun = self._clock()
        epoch = self.check()
        try:
            lease = await self._patch(self._spec(epoch))
        except NotFound:
            lease = await self._make(self._spec(epoch))
        except Conflict:
            lease = await self._api.get(_KIND, self._namespace, self._name)
            holder = (lease.get("spec") or {}).get("holderIdentity")
            if holder != _SOMEBODY and (holder, _epoch(lease)) != (self._identity, epoch):
                self._lost = f"{holder or 'nobody'} holds the Lease, in epoch {_epoch(lease)}"
                self.check()
            # A candidate restored a deleted Lease, a person edited it, or our own renewal succeeded
            # although its answer was lost.
            self._lease = lease
            lease = await self._patch(self._spec(epoch))
        self._lead(lease, epoch, begun)

    def _problem(self) -> str | None:
        if self._lost is not None:
            return self._lost
        if self._epoch is None:
            return "it holds no Lease"
        silent = self._clock() - self._renewed_at
        if silent > self._times.renew_seconds:
            return f"its Lease was not renewed for {silent:.0f} s"
        return None

    def _spec(self, epoch: int) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._times.lease_seconds,
            "acquireTime": self._acquired_at,
            "renewTime": self._timestamp(),
            "leaseTransitions": epoch,
        }

    async def _make(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        return await self._api.create(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": _KIND,
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": dict(spec),
            }
        )

    async def _patch(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Compare-and-swap on the Lease as last read."""
        if self._lease is None:
            raise KubeNotFound(f"The Lease {self._where} is gone.")
        patch = {"metadata": {"resourceVersion": _version(self._lease)}, "spec": dict(spec)}
        return await self._api.patch(_KIND, self._namespace, self._name, patch)

    def _timestamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _epoch(lease: Mapping[str, Any]) -> int:
    return int((lease.get("spec") or {}).get("leaseTransitions") or 0)


def _version(lease: Mapping[str, Any]) -> str:
    """The resource version: no two writes share one, whichever object they change."""
    return str(lease["metadata"]["resourceVersion"])
