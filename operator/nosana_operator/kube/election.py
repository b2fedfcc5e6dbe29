"""Which of the operator's processes acts: the one that holds a Lease (docs/decisions/0009-one-writer.md).

Every moment that counts is by this process' own clock: what stands in a Lease tells people when it was renewed,
and others only *that* it was. A leader counts from before it asked for a renewal, and leaves off sooner than
a candidate begins, which counts from when it saw the last one.
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
"""Who holds a Lease that a candidate put back: whoever held the deleted one, if he lives."""


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
    """A process' leadership, from standing for it to giving it back."""

    @property
    def leading(self) -> bool:
        """Whether this process may act now."""

    def check(self, seen: int = 0) -> int:
        """The epoch in which this process leads. Raises LeadershipLost when it may not act.

        `seen` is the epoch of an intent; a later one than ours is another leader's.
        """

    async def acquire(self) -> None:
        """Wait until this process leads."""

    async def hold(self) -> None:
        """Stay leader; ends with LeadershipLost only."""

    async def release(self) -> None:
        """Lead no more, so that another need not wait."""


class AlwaysLeading:
    """The `Term` of the only process there is: no Lease, and epoch 0 in every intent."""

    leading = True

    def check(self, seen: int = 0) -> int:
        """Never raises."""
        return 0

    async def acquire(self) -> None:
        """At once."""

    async def hold(self) -> None:
        """For ever."""
        await asyncio.get_running_loop().create_future()

    async def release(self) -> None:
        """Nobody waits."""


def awake_clock() -> float:
    """Seconds that only go on, those in which the machine slept included (where the system counts them)."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Election:
    """One process' part in the election: `acquire()`, then `hold()` until it raises, then `release()`.

    `identity` is no other living process'; one that ended and was started again under its own name takes its
    Lease over at once. `floor` gives the latest epoch known from intents: a Lease that somebody deleted is
    made anew with a later one.
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
        self._patience = self._times.renew_seconds / 2
        """Seconds for one attempt: a connection that hangs leaves time for another one."""
        self._floor = floor
        self._clock = clock
        self._now = now
        self._jitter = jitter
        self._lease: dict[str, Any] | None = None
        """As last seen; None when there was none."""
        self._since: float | None = None
        """When it was first seen so."""
        self._latest = 0
        """The latest epoch that was seen in a Lease."""
        self._epoch: int | None = None
        """Of this process while it leads."""
        self._acquired_at = ""
        self._renewed_at = 0.0
        """When the last renewal that succeeded was begun."""
        self._lost: str | None = None
        self._told: str | None = None

    @property
    def leading(self) -> bool:
        """Whether this process may act now."""
        return self._problem() is None

    def check(self, seen: int = 0) -> int:
        """The epoch of this process. Raises LeadershipLost when it may not act, and `hold()` ends then too.

        `seen` is the epoch of an intent; a later one than ours is another leader's.
        """
        if self._epoch is not None and seen > self._epoch:
            self._lost = f"an intent of epoch {seen} was found, and this process leads in epoch {self._epoch}"
        problem = self._problem()
        if problem is not None or self._epoch is None:
            raise LeadershipLost(f"This process does not lead: {problem}; it ends, and writes nothing.")
        return self._epoch

    async def acquire(self) -> None:
        """Wait until this process leads. Raises KubeRefused when it has no right to stand."""
        while not await self._attempt():  # noqa: ASYNC110 - it is the API server that is asked
            # Twice as often as a leader renews: what was released is to be taken soon.
            await asyncio.sleep(self._times.retry_seconds / 2 * self._jitter())
        log.info("This process leads, in epoch %d, by Lease %s", self._epoch, self._where)

    async def hold(self) -> None:
        """Renew until leadership is lost, which raises LeadershipLost."""
        while True:
            await asyncio.sleep(self._times.retry_seconds)
            self.check()
            left = self._renewed_at + self._times.renew_seconds - self._clock()
            try:
                async with asyncio.timeout(min(self._patience, left)):
                    await self._renew()
            except LeadershipLost:
                raise
            except (NosanaError, TimeoutError) as error:
                log.warning(
                    "The Lease %s was not renewed: %s", self._where, str(error) or "no answer in time"
                )
            self.check()

    async def release(self) -> None:
        """Give the Lease back, so that another need not wait; from now on this process may not act.

        Does nothing when it does not lead, and never fails: the Lease runs out by itself.
        """
        if not self.leading or self._lease is None:
            return
        epoch, self._epoch = self._epoch, None
        spec = {"holderIdentity": None, "leaseDurationSeconds": 1, "renewTime": self._timestamp()}
        try:
            async with asyncio.timeout(self._patience):
                await self._patch({**spec, "leaseTransitions": epoch})
        except (NosanaError, TimeoutError) as error:
            log.warning("The Lease %s was not given back: %s", self._where, str(error) or "no answer in time")
        else:
            log.info("The Lease %s was given back", self._where)

    # -- standing -----------------------------------------------------------------------------------------

    async def _attempt(self) -> bool:
        try:
            async with asyncio.timeout(self._patience):
                return await self._try()
        except Conflict:
            return False  # Another was quicker; the next look shows who.
        except Refused as error:
            raise KubeRefused(
                f"The Lease {self._where} cannot be held: {error}. Allow the operator to get, "
                "create and patch leases there, or set election.enabled: false where one process runs."
            ) from error
        except (NosanaError, TimeoutError) as error:
            self._tell(
                f"The Lease {self._where} cannot be asked for: {str(error) or 'no answer in time'}",
                logging.WARNING,
            )
            return False

    async def _try(self) -> bool:
        begun = self._clock()
        try:
            lease = await self._api.get(_KIND, self._namespace, self._name)
        except NotFound:
            known = max(self._latest, self._floor())
            self._acquired_at = self._timestamp()
            if known:
                # Somebody deleted it. Its holder may lead for a while yet: it is waited for as for any other.
                self._observe(await self._make({**self._spec(known), "holderIdentity": _SOMEBODY}))
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
        """Remember a Lease and since when it is as it is."""
        # By its version and not by `renewTime`, which is the holder's clock: that may stand still.
        if self._since is None or self._lease is None or _version(self._lease) != _version(lease):
            self._since = self._clock()
        self._lease = lease
        self._latest = max(self._latest, _epoch(lease))

    def _is_free(self, lease: Mapping[str, Any]) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._identity):
            return True
        # A holder with other settings, as during an upgrade, is left the time that it counts on.
        duration = max(self._times.lease_seconds, float(spec.get("leaseDurationSeconds") or 0))
        self._tell(f"Standing by: {holder} leads, in epoch {_epoch(lease)}")
        return self._since is not None and self._clock() - self._since >= duration

    def _tell(self, text: str, level: int = logging.INFO) -> None:
        """Once: it is true for as long as another leads."""
        if text != self._told:
            self._told = text
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
            # A candidate put a deleted one back, a person wrote into it, or our own renewal came through
            # although no answer did.
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
        """Compare-and-swap on the Lease as last seen."""
        if self._lease is None:
            raise KubeNotFound(f"The Lease {self._where} is gone.")
        patch = {"metadata": {"resourceVersion": _version(self._lease)}, "spec": dict(spec)}
        return await self._api.patch(_KIND, self._namespace, self._name, patch)

    def _timestamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _epoch(lease: Mapping[str, Any]) -> int:
    return int((lease.get("spec") or {}).get("leaseTransitions") or 0)


def _version(lease: Mapping[str, Any]) -> str:
    """No two writes share one, whatever object they are of."""
    return str(lease["metadata"]["resourceVersion"])
