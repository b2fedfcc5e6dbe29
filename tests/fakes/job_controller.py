"""A stand-in for the job controller: what the market host sees of it, without pods."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from fakes.edges import FakeClock
from fakes.kube import Body, FakeKube
from nosana_operator.api import (
    FINALIZER_JOB,
    JOB_KIND,
    condition,
    condition_is_true,
    micro_timestamp,
    parse_timestamp,
)
from nosana_operator.api.result import result_secrets


class StandInJobs:
    """Does to NosanaJobs what the job controller does, as far as the market host sees it."""

    def __init__(self, kube: FakeKube, clock: FakeClock, seconds: Callable[[], float]) -> None:
        self._kube = kube
        self._clock = clock
        self._seconds = seconds
        self._until: dict[str, datetime] = {}
        self.starts: Counter[str] = Counter()
        """uid of the NosanaJob → how often its pods were started."""
        self.bad_definitions = False

    def step(self) -> bool:
        """One look at every NosanaJob; True when something was done."""
        done = [self._look(body) for body in self._kube.objects(JOB_KIND)]
        return any(done)

    def _look(self, body: Body) -> bool:
        meta, status = body["metadata"], body.get("status") or {}
        conditions, now = status.get("conditions"), self._clock.now()
        over = condition_is_true(conditions, "Complete") or condition_is_true(conditions, "Failed")
        deleting = "deletionTimestamp" in meta
        verified = condition_is_true(conditions, "RunVerified")
        if deleting and (over or not verified) and FINALIZER_JOB in meta.get("finalizers", []):
            left = [f for f in meta["finalizers"] if f != FINALIZER_JOB]
            self._kube.edit(JOB_KIND, meta["namespace"], meta["name"], {"metadata": {"finalizers": left}})
            return True
        if over or not verified or "run" not in body["spec"]:
            return False
        if self.bad_definitions:
            accepted = ("Accepted", False, "DefinitionInvalid")
            return self._end(body, "Failed", "DefinitionInvalid", accepted)
        if meta["uid"] not in self._until:
            self._until[meta["uid"]] = now + timedelta(seconds=self._seconds())
            self.starts[meta["uid"]] += 1
        run = status.get("run") or {}
        if run.get("ended"):
            return self._end(body, "Complete", run["ended"])
        if deleting:
            return self._end(body, "Complete", "Deleted")
        if run.get("expiresAt") and now >= parse_timestamp(run["expiresAt"]):
            return self._end(body, "Complete", "Expired")
        if now >= self._until[meta["uid"]]:
            return self._end(body, "Complete", "Succeeded")
        return False

    def _end(self, body: Body, kind: str, reason: str, *more: tuple[str, bool, str]) -> bool:
        meta, now = body["metadata"], self._clock.now()
        raw = json.dumps({"run": body["spec"]["run"]["run"], "uid": meta["uid"], "said": reason}).encode()
        names = []
        for secret in result_secrets(body, [raw]):
            names.append(secret["metadata"]["name"])
            if self._kube.find("Secret", meta["namespace"], names[-1]) is None:
                self._kube.add(secret)
        status = body.get("status") or {}
        said = [(kind, True, reason), *more]
        new = [
            condition(status.get("conditions"), one, value, why, "by the lab", generation=1, now=now)
            for one, value, why in said
        ]
        others = [c for c in status.get("conditions") or () if c["type"] not in {c["type"] for c in new}]
        patch = {
            "conditions": [*others, *new],
            "resultSecrets": names,
            "timing": {**status.get("timing", {}), "ended": micro_timestamp(now)},
        }
        self._kube.edit(JOB_KIND, meta["namespace"], meta["name"], {"status": patch})
        return True
