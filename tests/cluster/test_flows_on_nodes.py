"""The flows of `support/flows.py` on real nodes: private jobs, many at once."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from nosana_operator.api import JOB_KIND
from nosana_sandbox.host import SandboxHost
from nosana_sandbox.observer import Seen
from nosana_sandbox.world.sandbox import Sandbox
from support.flows import FLOWS, Flow
from support.scene import JOBS, Scene, op_state, scene_of, started, terminated

pytestmark = pytest.mark.cluster

AT_ONCE = 12
"""Jobs; a node of the sandbox takes many more pods than they make."""
PATIENCE = 150.0
NAMES = {flow: f"flow-{number}" for number, flow in enumerate(FLOWS)}


@dataclass(frozen=True)
class Ended:
    """A job that was seen from its first pod to its result."""

    state: Mapping[str, Any]
    pods: Sequence[Seen]
    """Every version of its pods, in the order in which the API server wrote them."""

    def first(self, pod: str, good: Callable[[Mapping[str, Any]], bool]) -> int:
        """The place in `pods` of the first version that is `good`."""
        return next(
            place
            for place, seen in enumerate(self.pods)
            if seen.body["metadata"]["name"] == pod and good(seen.body)
        )


@pytest.fixture(scope="module")
def ended(sandbox: Sandbox, installed_host: SandboxHost) -> Mapping[str, Ended | BaseException]:
    """All flows at their ends, by name; what became of those that have none."""
    if installed_host.pid() is None:
        installed_host.start()
    return asyncio.run(run_all(sandbox, installed_host))


async def run_all(sandbox: Sandbox, host: SandboxHost) -> Mapping[str, Ended | BaseException]:
    slots = asyncio.Semaphore(AT_ONCE)
    # Those that wait before they run again take longest.
    order = sorted(FLOWS, key=lambda name: -len(" ".join(FLOWS[name].starts)))
    async with scene_of(sandbox.status(), host) as scene:

        async def one(name: str) -> Ended:
            async with slots:
                return await run(scene, NAMES[name], FLOWS[name])

        found = await asyncio.gather(*map(one, order), return_exceptions=True)
    return dict(zip(order, found, strict=True))


async def run(scene: Scene, job: str, flow: Flow) -> Ended:
    spec = copy.deepcopy(dict(flow.spec))
    definition = {"version": "0.1", "type": "container", "ops": real(flow)}
    await scene.private(job, definition, **spec)
    names = set().union(*flow.names(job))
    if flow.stop:

        def all_run() -> bool:
            pods = scene.seen.current("Pod")
            return all(name in pods and started(pods[name]) for name in names)

        await scene.seen.until(all_run, PATIENCE, f"all pods of {job} run")
        await scene.kube.patch(JOB_KIND, JOBS, job, {"spec": {"stop": True}})
    body = await scene.over(job)
    mine = body["metadata"]["uid"]
    history = [
        seen
        for seen in scene.seen.history("Pod")
        if any(owner["uid"] == mine for owner in seen.body["metadata"]["ownerReferences"])
    ]
    return Ended(await scene.stored_result(body), history)


def real(flow: Flow) -> list[dict[str, Any]]:
    """Its ops with commands that do what the table says; those with a command of their own do it already."""
    ops = copy.deepcopy(list(flow.ops))
    for index, op in enumerate(ops):
        if op["type"] != "container/run":
            continue
        args = op["args"]
        args["image"] = "ubuntu"
        ends = f"echo {op['id']}; exit {flow.exits.get(index)}"
        stays = f"trap 'exit 0' TERM; echo {op['id']}; sleep 3600 & wait $!"
        args.setdefault("cmd", ends if index in flow.exits else stays)
    return ops


@pytest.mark.parametrize("flow", FLOWS)
def test_ops_start_in_order(ended: Mapping[str, Ended | BaseException], flow: str) -> None:
    seen, waves = of(ended, flow), FLOWS[flow].names(NAMES[flow])
    assert {each.body["metadata"]["name"] for each in seen.pods} == set().union(*waves)
    for earlier, later in itertools.pairwise(waves):
        run = max(seen.first(pod, started) for pod in earlier)
        made = min(seen.first(pod, lambda _: True) for pod in later)
        assert run < made, f"{later} were made before {earlier} ran"


@pytest.mark.parametrize("flow", FLOWS)
def test_a_stage_starts_when_the_one_before_has_ended(
    ended: Mapping[str, Ended | BaseException], flow: str
) -> None:
    seen = of(ended, flow)
    stages: dict[str, set[str]] = {}
    for index, op in enumerate(FLOWS[flow].ops):
        pods = {f"{NAMES[flow]}-{pod}" for pod in FLOWS[flow].pods(index)}
        stages.setdefault(stage(op), set()).update(pods)
    there = [pods for pods in stages.values() if pods]
    for earlier, later in itertools.pairwise(there):
        over = max(seen.first(pod, terminated) for pod in earlier)
        assert over < min(seen.first(pod, lambda _: True) for pod in later)


@pytest.mark.parametrize("flow", FLOWS)
def test_the_flow_state_tells_how_each_op_ended(
    ended: Mapping[str, Ended | BaseException], flow: str
) -> None:
    wanted, state = FLOWS[flow], of(ended, flow).state
    assert state["status"] == wanted.flow
    assert [each["status"] for each in state["opStates"]] == list(wanted.ends)
    for index, op in enumerate(wanted.ops):
        each = op_state(state, op["id"])
        runs = len(wanted.pods(index))
        lines = [entry["log"].rstrip("\n") for entry in each["logs"] if entry["type"] != "nodeerr"]
        assert lines == list(wanted.says.get(index, [op["id"]] * runs))
        assert each["group"] == stage(op)
        if index in wanted.exits:
            assert each["exitCode"] == wanted.exits[index]
        if runs:
            assert state["startTime"] <= each["startTime"] <= each["endTime"] <= state["endTime"]
        elif op["type"] == "container/run":
            assert (each["exitCode"], each["startTime"]) == (None, None)


def stage(op: Mapping[str, Any]) -> str:
    """Where the op stands: its group, or alone."""
    return str((op.get("execution") or {}).get("group", op["id"]))


def of(ended: Mapping[str, Ended | BaseException], flow: str) -> Ended:
    """What was seen of the flow; raises what kept it from its end."""
    found = ended[flow]
    if isinstance(found, BaseException):
        raise found
    return found
