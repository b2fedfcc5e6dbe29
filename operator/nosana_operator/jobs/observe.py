"""Pods of the API server → `PodView`.

A kubelet truncates its timestamps to whole seconds of its node's clock, and reports them about a second later.
For latencies and time limits, an event that this process saw happen gets the moment at which it was seen, and an
earlier event gets the kubelet's timestamp. An op's own times are the timestamps, so that its log lies between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from nosana_operator.api import (
    ANNOTATION_ATTEMPT,
    ANNOTATION_OP_ID,
    ANNOTATION_TRIES,
    FINALIZER_OP,
    LABEL_OP,
    parse_timestamp,
)
from nosana_operator.jobs.decision.ops import OpReason
from nosana_operator.jobs.decision.view import Ended, PodView
from nosana_operator.jobs.fetch_progress import Fetch, fetch_of
from nosana_operator.jobs.waiting import waiting_trouble

_FRESH: Final = timedelta(seconds=3)
"""A younger timestamp was set while this process watched: seconds are truncated, and clocks differ slightly."""
_GRAIN: Final = timedelta(seconds=1)
_FINISHED: Final = ("Succeeded", "Failed")
_PLAIN_ENDS: Final = frozenset({"Completed", "Error", "ContainerStatusUnknown"})

Fact = tuple[str, str]
"""(pod uid, what)."""


@dataclass(slots=True)
class Observer:
    """Remembers when this process first saw each fact about the pods of one job."""

    _seen: dict[Fact, datetime] = field(default_factory=dict)
    _ends: dict[str, Ended] = field(default_factory=dict)
    """The ends of containers by the pod's uid: a kubelet may rewrite the pod's status afterwards."""

    def pods(self, bodies: Iterable[Mapping[str, Any]], now: datetime) -> list[PodView]:
        """The pods of all ops and attempts."""
        return [view for body in bodies if (view := self._pod(body, now)) is not None]

    def _pod(self, body: Mapping[str, Any], now: datetime) -> PodView | None:
        meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
        index = (meta.get("labels") or {}).get(LABEL_OP, "")
        if not index.isdecimal():
            return None
        uid, notes = str(meta["uid"]), meta.get("annotations") or {}
        container: Mapping[str, Any] = next(iter(status.get("containerStatuses") or ()), {})
        state = container.get("state") or {}
        last = (container.get("lastState") or {}).get("terminated")
        running, terminated = state.get("running"), state.get("terminated")
        if spec.get("restartPolicy", "Never") != "Never" and status.get("phase") not in _FINISHED:
            # The kubelet restarts it.
            last, terminated = terminated or last, None
        scheduled = _condition(status, "PodScheduled")
        is_scheduled = bool(spec.get("nodeName"))
        started = _started(running or terminated or last)
        deleting = "deletionTimestamp" in meta
        fetch = fetch_of(status) or Fetch()
        trouble = fetch.trouble or _trouble(
            state.get("waiting"), scheduled, last, has_started=started is not None
        )
        ended = self._ended(uid, body, None if fetch.failure else terminated, last, fetch, now)
        refusal = None if deleting or terminated or fetch.failure else _refusal(uid, status, self._ends)
        disruption = None if ended is not None and ended.exit_code == 0 else _disruption(status)
        return PodView(
            name=str(meta["name"]),
            uid=uid,
            op_index=int(index),
            op_id=notes.get(ANNOTATION_OP_ID, f"op {index}"),
            attempt=_number(notes.get(ANNOTATION_ATTEMPT)),
            tries=_number(notes.get(ANNOTATION_TRIES)),
            restarts=int(container.get("restartCount") or 0),
            node=spec.get("nodeName"),
            address=status.get("podIP"),
            scheduled_at=self._when(uid, "scheduled", (scheduled or {}).get("lastTransitionTime"), now)
            if is_scheduled
            else None,
            pulled_at=self._when(uid, "pulled", started, now)
            if container.get("imageID") or started
            else None,
            fetched_at=self._when(uid, "fetched", fetch.done, now) if fetch.done else None,
            started_at=self._when(uid, "started", started, now) if started else None,
            start_stamp=min(parse_timestamp(started), now) if started else None,
            ended=ended,
            trouble=trouble,
            trouble_since=self._since(uid, trouble, scheduled, now),
            silent_since=parse_timestamp(stamp)
            if (stamp := _silent(container, running, status)) is not None
            else None,
            disrupted=disruption or refusal,
            refused=refusal is not None and disruption is None,
            deleting=deleting,
            stopping=deleting or spec.get("activeDeadlineSeconds") is not None,
            secrets=_secrets(spec),
            claims=tuple(
                volume["persistentVolumeClaim"]["claimName"]
                for volume in spec.get("volumes") or ()
                if "persistentVolumeClaim" in volume
            ),
            held=FINALIZER_OP in (meta.get("finalizers") or ()),
            container_id=_id(container),
            previous_id=_id((container.get("lastState") or {}).get("terminated")),
        )

    def _ended(
        self,
        uid: str,
        body: Mapping[str, Any],
        terminated: Mapping[str, Any] | None,
        last: Mapping[str, Any] | None,
        fetch: Fetch,
        now: datetime,
    ) -> Ended | None:
        meta, status = body["metadata"], body.get("status") or {}
        pod_reason = status.get("reason")
        if uid in self._ends:
            return self._ends[uid]
        if terminated is not None:
            at = self._when(uid, "ended", terminated.get("finishedAt"), now)
            # Evicted, DeadlineExceeded: the pod's reason says more than the container's "Error".
            reason = pod_reason or terminated.get("reason")
            message = status.get("message") or terminated.get("message")
            code = terminated.get("exitCode")
            by = min(at, parse_timestamp(stamp) + _GRAIN) if (stamp := terminated.get("finishedAt")) else at
            disrupted_at = (_condition(status, "DisruptionTarget") or {}).get("lastTransitionTime")
            if code == 0 and not (disrupted_at and _disruption(status) and disrupted_at <= (stamp or "")):
                # Whatever became of the pod afterwards, its container had ended well.
                reason, message = None, None
            elif code == 0:
                code = None
            end = Ended(at, by, code, None if reason in _PLAIN_ENDS else reason, message)
            self._ends[uid] = end
            return end
        finished = status.get("phase") in _FINISHED
        # The API server itself ends a pod without a node; a kubelet confirms the end with a grace period of 0.
        gone = "deletionTimestamp" in meta and (
            not (body.get("spec") or {}).get("nodeName") or meta.get("deletionGracePeriodSeconds") == 0
        )
        if finished and fetch.failure is not None and pod_reason is None:
            sentence, stamp = fetch.failure
            at = self._when(uid, "ended", stamp, now)
            return Ended(at, at, None, OpReason.RESOURCE_FETCH_FAILED, sentence)
        if finished or gone:
            at = self._when(uid, "ended", None, now)
            return Ended(at, at, (last or {}).get("exitCode"), pod_reason, status.get("message"))
        return None

    def _since(
        self,
        uid: str,
        trouble: tuple[str, str] | None,
        scheduled: Mapping[str, Any] | None,
        now: datetime,
    ) -> datetime | None:
        """Since when the pod has this trouble: by the timestamp if there is one, else since this process saw it."""
        for fact in [f for f in self._seen if f[0] == uid and f[1].startswith("trouble ")]:
            if trouble is None or fact[1] != f"trouble {trouble[0]}":
                del self._seen[fact]
        if trouble is None:
            return None
        stamp = (scheduled or {}).get("lastTransitionTime") if trouble[0] == "Unschedulable" else None
        return self._when(uid, f"trouble {trouble[0]}", stamp, now)

    def _when(self, uid: str, what: str, stamp: str | None, now: datetime) -> datetime:
        fact = (uid, what)
        if fact not in self._seen:
            stamped = parse_timestamp(stamp) if stamp else now
            self._seen[fact] = stamped if now - stamped > _FRESH else now
        return self._seen[fact]


def _started(state: Mapping[str, Any] | None) -> str | None:
    """When the container started; Kubernetes reports 1970-01-01 for a container that never started."""
    stamp = (state or {}).get("startedAt")
    return None if stamp is None or stamp.startswith("1970-") else str(stamp)


def _refusal(uid: str, status: Mapping[str, Any], ends: Mapping[str, Ended]) -> str | None:
    """Why the kubelet failed the pod without running its container (admission, a missing device, …)."""
    reason = status.get("reason")
    if status.get("phase") != "Failed" or uid in ends or reason in (None, "DeadlineExceeded"):
        return None
    return ": ".join(filter(None, (reason, status.get("message"))))


def _disruption(status: Mapping[str, Any]) -> str | None:
    target = _condition(status, "DisruptionTarget") or {}
    if target.get("status") != "True":
        return None
    return str(target.get("message") or target.get("reason") or "no reason was given")


def _silent(
    container: Mapping[str, Any], running: Mapping[str, Any] | None, status: Mapping[str, Any]
) -> str | None:
    """Since when the pod's node has not reported: the node controller then sets the pod's `Ready` to False.

    An op's container has no readiness probe, so the kubelet itself reports it ready while it runs.
    """
    ready = _condition(status, "Ready") or {}
    if running and container.get("ready") and ready.get("status") == "False":
        return str(ready["lastTransitionTime"])
    return None


def _secrets(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The Secrets that the pod names; all of them were created for this pod alone."""
    mounted = (volume["secret"]["secretName"] for volume in spec.get("volumes") or () if volume.get("secret"))
    return (*(secret["name"] for secret in spec.get("imagePullSecrets") or ()), *mounted)


def _id(container: Mapping[str, Any] | None) -> str | None:
    """A container's id without the name of its runtime."""
    container_id = (container or {}).get("containerID")
    return str(container_id).partition("://")[2] if container_id else None


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), None)


def _trouble(
    waiting: Mapping[str, Any] | None,
    scheduled: Mapping[str, Any] | None,
    last: Mapping[str, Any] | None,
    *,
    has_started: bool,
) -> tuple[str, str] | None:
    """(reason, message): why the op does not run; the message stays the same while the cause does."""
    if scheduled is not None and scheduled.get("status") == "False":
        return "Unschedulable", str(scheduled.get("message") or "no node can take the pod")
    if (waiting or {}).get("reason") == "CrashLoopBackOff" and has_started:
        return (
            "BackOff",
            f"exit code {(last or {}).get('exitCode')}; the kubelet starts it again after a wait",
        )
    return waiting_trouble(waiting, last)
