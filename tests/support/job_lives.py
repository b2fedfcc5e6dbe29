"""Whole lives of a NosanaJob in the lab, with what must come of them; the process may die at any request."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fakes.jobs import CID, NAMESPACE, Lab, definition, market_job, op, private_job
from fakes.kube import Request
from fakes.trouble import Crash

ONE = definition(op("hello", cmd="echo hi"))
DIAMOND = definition(
    op("a", group="g"),
    op("b", group="g", depends_on=["a"]),
    op("c", group="g", depends_on=["a"], expose=8080),
    op("last"),
)
EVERYTHING = definition(
    {"type": "container/create-volume", "id": "make", "args": {"name": "data"}},
    op(
        "fill",
        volumes=[{"name": "data", "dest": "/data"}],
        authentication={"docker": {"username": "me", "password": "open"}},
        restart_policy={"policy": "on-failure", "restart_tries": 1},
    )
    | {"results": {"n": r"n=(\d+)"}},
    op("use", group="g", aliases="used", cmd=["run", "%%ops.fill.results.n%%"]),
    op("peer", group="g", depends_on=["use"], volumes=[{"name": "data", "dest": "/in"}]),
)
Scenario = Callable[[Lab], None]


def market_success(lab: Lab) -> None:
    lab.exits |= {0: 0}
    lab.kube.logs[NAMESPACE, "run-a-0"] = b"2026-01-02T03:04:05.123456789Z hi\n"
    lab.ipfs.content[CID] = json.dumps(ONE).encode()
    lab.kube.add(market_job(lab.clock.now()))
    lab.verify()


def market_expires(lab: Lab) -> None:
    lab.expires_after = 30
    lab.ipfs.content[CID] = json.dumps(DIAMOND).encode()
    lab.kube.add(market_job(lab.clock.now()))
    lab.verify()


def market_owner_ends(lab: Lab) -> None:
    market_expires(lab)
    patch = {"run": {**lab.status("run-a")["run"], "ended": "OwnerEnded"}}
    lab.later = lambda: (
        [o["state"] for o in lab.status("run-a").get("ops", [])] == ["Running"] * 3 + ["Waiting"]
        and "ended" not in lab.status("run-a")["run"]
        and bool(lab.kube.edit("NosanaJob", NAMESPACE, "run-a", {"status": patch}))
    )


def market_bad_definition(lab: Lab) -> None:
    lab.ipfs.content[CID] = b"{}"
    lab.kube.add(market_job(lab.clock.now()))
    lab.verify()


def private_stages(lab: Lab) -> None:
    lab.exits |= {0: 0, 1: 0, 2: 0, 3: 7}
    lab.kube.add(private_job({"definition": DIAMOND}, "run-a"))


def private_times_out(lab: Lab) -> None:
    lab.exits |= {0: 0}
    lab.kube.add(private_job({"definition": DIAMOND, "timeout": 20}, "run-a"))


def private_with_everything(lab: Lab) -> None:
    lab.exits |= {1: 3, 2: 0, 3: 0}
    lab.kube.logs[NAMESPACE, "run-a-1-r1"] = b"2026-01-02T03:04:05.123456789Z n=7\n"
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    lab.kube.add(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "provisioner": "example.com/disks",
            "metadata": {"name": "standard", "annotations": default},
        }
    )
    lab.kube.add(private_job({"definition": EVERYTHING}, "run-a"))


SCENARIOS: list[Scenario] = [
    market_success,
    market_expires,
    market_owner_ends,
    market_bad_definition,
    private_stages,
    private_times_out,
    private_with_everything,
]


def outcome(lab: Lab) -> dict[str, Any]:
    """What must not depend on crashes: everything but moments."""
    status = lab.status("run-a")
    result = lab.result("run-a")
    return {
        "phase": status["phase"],
        "conditions": sorted((c["type"], c["status"], c["reason"]) for c in status["conditions"]),
        "ops": [
            {k: o.get(k) for k in ("id", "state", "pod", "exitCode", "reason")} for o in status.get("ops", [])
        ],
        "endpoints": [{k: e[k] for k in ("id", "state")} for e in status.get("endpoints", [])],
        "timing": sorted(status["timing"]),
        "resultSecrets": status["resultSecrets"],
        "flow": result["status"],
        "states": [
            {k: s[k] for k in ("operationId", "status", "exitCode", "logs")} for s in result["opStates"]
        ],
        "pods": sorted(p["metadata"]["name"] for p in lab.pods()),
        "held": [p["metadata"]["name"] for p in lab.pods() if p["metadata"].get("finalizers")],
        "starts": len(lab.kubelet.starts),
        "services": sorted(s["metadata"]["name"] for s in lab.kube.objects("Service")),
        "claims": sorted(s["metadata"]["name"] for s in lab.kube.objects("PersistentVolumeClaim")),
        "names": sorted(s["metadata"]["name"] for s in lab.kube.objects("EndpointSlice")),
        "secrets": sorted(s["metadata"]["name"] for s in lab.kube.objects("Secret")),
    }


async def live(scenario: Scenario, crash_points: frozenset[int] = frozenset()) -> tuple[dict[str, Any], int]:
    """One life; the process dies at those chances (one before and one after each request)."""
    lab = Lab()
    scenario(lab)
    lab.boot()
    chances = 0

    async def interrupt(request: Request, when: Literal["before", "after"]) -> None:
        nonlocal chances
        chances += 1
        if chances in crash_points:
            raise Crash

    lab.kube.interrupt = interrupt
    await survive(lab, lambda: lab.drive(lab.over("run-a")))
    # Whatever is left to do after the last word.
    for _ in range(3):
        lab.wake((NAMESPACE, "run-a"))
        await survive(lab, lab.work)
    await lab.controller.close()
    return outcome(lab), chances


async def survive(lab: Lab, go: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await go()
        except Crash:
            await lab.crash_and_reboot()
