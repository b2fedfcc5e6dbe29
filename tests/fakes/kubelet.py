"""A scheduler and kubelet for `FakeKube`: pods go from step to step when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fakes.kube import FakeKube


@dataclass
class FakeKubelet:
    """`exits`: op index → exit code of a container that ends by itself; others run until they are stopped."""

    kube: FakeKube
    now: Callable[[], datetime]
    exits: Mapping[int, int] = field(default_factory=dict)
    node: str = "node-1"
    address: str | None = None
    """Of every pod that runs."""
    starts: list[str] = field(default_factory=list)
    """uids of the pods whose container was started, in order."""
    started: list[list[str]] = field(default_factory=list)
    """Their names, of each step."""

    def step(self) -> bool:
        """Take each pod one step on: schedule, start, end. False when nothing was left to do."""
        moved = False
        self.started.append([])
        for pod in list(self.kube.objects("Pod")):
            moved = self._step(pod) or moved
        return moved

    def _step(self, pod: dict[str, Any]) -> bool:
        meta, status = pod["metadata"], pod.get("status") or {}
        phase = status.get("phase", "Pending")
        if phase in ("Succeeded", "Failed"):
            if meta.get("deletionGracePeriodSeconds"):
                self._edit(meta, {"metadata": {"deletionGracePeriodSeconds": 0}})
                return True
            return False
        if not pod["spec"].get("nodeName"):
            if "deletionTimestamp" in meta:
                return False
            self.schedule(meta["name"])
            return True
        if phase == "Pending":
            if "deletionTimestamp" in meta:
                self._edit(meta, {"status": {"phase": "Failed"}})
            else:
                self.start(meta["name"])
            return True
        index = int(meta["labels"]["nosana.io/op-index"])
        if "deletionTimestamp" in meta or pod["spec"].get("activeDeadlineSeconds") is not None:
            reason = "DeadlineExceeded" if "deletionTimestamp" not in meta else None
            self.end(meta["name"], 143, reason=reason)
            return True
        if index in self.exits:
            self.end(meta["name"], self.exits[index])
            return True
        return False

    def schedule(self, name: str) -> None:
        meta = self._meta(name)
        condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": self._stamp()}
        self._edit(
            meta,
            {"spec": {"nodeName": self.node}, "status": {"phase": "Pending", "conditions": [condition]}},
        )

    def start(self, name: str) -> None:
        meta = self._meta(name)
        self.starts.append(meta["uid"])
        if self.started:
            self.started[-1].append(name)
        self._container(meta, "Running", {"running": {"startedAt": self._stamp()}})

    def waiting(self, name: str, reason: str, message: str = "") -> None:
        self._container(self._meta(name), "Pending", {"waiting": {"reason": reason, "message": message}})

    def end(self, name: str, code: int, *, reason: str | None = None) -> None:
        meta = self._meta(name)
        pod = self.kube.find("Pod", meta["namespace"], name)
        assert pod is not None
        running = pod["status"]["containerStatuses"][0]["state"].get("running") or {}
        state = {
            "terminated": {
                "exitCode": code,
                "reason": "Completed" if code == 0 else "Error",
                "startedAt": running.get("startedAt", self._stamp()),
                "finishedAt": self._stamp(),
            }
        }
        self._container(meta, "Succeeded" if code == 0 and not reason else "Failed", state, reason)

    def _container(
        self, meta: Mapping[str, Any], phase: str, state: Mapping[str, Any], reason: str | None = None
    ) -> None:
        container = {
            "name": "op",
            "ready": "running" in state,
            "restartCount": 0,
            "image": "docker.io/library/x",
            "state": state,
            "imageID": "" if "waiting" in state else "sha256:1",
            "containerID": "" if "waiting" in state else f"containerd://{meta['uid']}",
        }
        status = {"phase": phase, "containerStatuses": [container]} | ({"reason": reason} if reason else {})
        if "running" in state and self.address is not None:
            status["podIP"] = self.address
        self._edit(meta, {"status": status})

    def _meta(self, name: str) -> dict[str, Any]:
        found = next(p for p in self.kube.objects("Pod") if p["metadata"]["name"] == name)
        return dict(found["metadata"])

    def _edit(self, meta: Mapping[str, Any], patch: Mapping[str, Any]) -> None:
        self.kube.edit("Pod", meta["namespace"], meta["name"], patch)

    def _stamp(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
