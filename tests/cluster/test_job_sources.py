"""Private jobs beside a market: where a definition comes from, and how a person ends a job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from nosana_operator.api import JOB_KIND, JobCondition
from nosana_operator.content import cid_of
from support.scene import (
    JOBS,
    Scene,
    condition,
    definition,
    holds,
    logs_of,
    op,
    op_state,
    phase,
    says,
    sleeps,
    terminated,
)

pytestmark = pytest.mark.cluster


def stored(kind: str, name: str, text: str, key: str = "definition.json") -> dict[str, Any]:
    data = "stringData" if kind == "Secret" else "data"
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": JOBS},
        data: {key: text},
    }


async def test_a_definition_may_be_inline_or_in_a_config_map_or_a_secret_or_on_ipfs(scene: Scene) -> None:
    await scene.make(stored("ConfigMap", "kept", json.dumps(says("from a ConfigMap"))))
    yaml = "version: '0.1'\ntype: container\nops:\n- {type: container/run, id: say, args: {image: ubuntu, cmd: [echo, from a Secret]}}\n"
    await scene.make(stored("Secret", "hidden", yaml, key="job.yaml"))
    cid = await scene.poster.pin(json.dumps(says("from IPFS")).encode())
    jobs = {
        await scene.private("inline", says("from the object")): "from the object",
        await scene.private("mapped", definitionFrom={"configMap": {"name": "kept"}}): "from a ConfigMap",
        await scene.private(
            "secret", definitionFrom={"secret": {"name": "hidden", "key": "job.yaml"}}
        ): "from a Secret",
        await scene.private("pinned", definitionFrom={"ipfs": cid}): "from IPFS",
    }
    for name, text in jobs.items():
        body = await scene.over(name)
        assert (phase(body), condition(body, JobCondition.COMPLETE)[1]) == ("Completed", "Succeeded"), name
        state = await scene.stored_result(body)
        assert (state["status"], logs_of(state, "say")) == ("success", [text])
        assert "settlement" not in body["status"]


async def test_a_definition_that_is_not_there_yet_is_waited_for(scene: Scene) -> None:
    data = json.dumps(says("there at last")).encode()
    await scene.private("early", definitionFrom={"configMap": {"name": "soon"}})
    await scene.private("unpinned", definitionFrom={"ipfs": cid_of(data)})
    lacking = ("DefinitionNotFound", "DefinitionUnreachable")
    for name, word in (("early", "soon"), ("unpinned", cid_of(data))):
        body = await scene.named(name, lambda b: condition(b, JobCondition.ACCEPTED)[1] in lacking, "waits")
        assert condition(body, JobCondition.ACCEPTED)[0] == "Unknown"
        assert word in condition(body, JobCondition.ACCEPTED)[2]
        assert phase(body) == "Pending"
    await scene.make(stored("ConfigMap", "soon", json.dumps(says("there at last"))))
    await scene.poster.pin(data)
    for name in ("early", "unpinned"):
        assert phase(await scene.over(name)) == "Completed"


async def test_what_a_person_has_to_mend_is_said(scene: Scene) -> None:
    lied = json.dumps(says("a lie")).encode()
    cid = await scene.poster.pin(lied)
    await scene.fault(f"corrupt/{cid}", b"{}")
    await scene.private("mistaken", definition(op("a", "true"), op("a", "true")))
    await scene.private("lied", definitionFrom={"ipfs": cid})
    await scene.private("breaks", definition(op("breaks", "exit 7")))
    expected = {"mistaken": "DefinitionInvalid", "lied": "DefinitionContentMismatch", "breaks": "OpFailed"}
    for name, reason in expected.items():
        body = await scene.over(name)
        assert (phase(body), condition(body, JobCondition.FAILED)[1]) == ("Failed", reason)
        assert holds(body, JobCondition.STALLED)
        assert (name == "breaks") == holds(body, JobCondition.ACCEPTED)


async def test_ends_by_stop_by_time_and_by_deletion(scene: Scene) -> None:
    await scene.private("halted", sleeps(600))
    await scene.private("timed", sleeps(600), timeout=2)
    await scene.private("deleted", sleeps(600))
    for name in ("halted", "deleted"):
        await scene.named(name, lambda b: phase(b) == "Running", "runs")
    await scene.kube.patch(JOB_KIND, JOBS, "halted", {"spec": {"stop": True}})
    for name, ended_as, reason, status in (
        ("halted", "Stopped", "Stopped", "stopped"),
        ("timed", "Completed", "Expired", "success"),
    ):
        body = await scene.over(name)
        assert (phase(body), condition(body, JobCondition.COMPLETE)[1]) == (ended_as, reason)
        state = await scene.stored_result(body)
        assert (state["status"], op_state(state, "sleep")["status"]) == (status, status)
        assert logs_of(state, "sleep") == ["sleep", "told to end"]

    body = scene.seen.current(JOB_KIND)["deleted"]
    kubectl = scene.host.kubectl
    await asyncio.to_thread(kubectl.run, "delete", "nj", "deleted", "-n", JOBS, "--timeout=60s")
    (pod,) = scene.pods_ever(body).values()
    assert pod["metadata"].get("deletionTimestamp") or terminated(pod)
    await scene.gone("Pod", JOBS, pod["metadata"]["name"])
    with pytest.raises(Exception, match="not found"):
        await scene.kube.get(JOB_KIND, JOBS, "deleted")


async def test_a_job_is_suspended_and_goes_on(scene: Scene) -> None:
    await scene.private(
        "pauses",
        definition(op("quick", "echo once"), op("long", "trap 'exit 0' TERM; echo up; sleep 600 & wait")),
    )

    def at(name: str, state: str) -> Callable[[Mapping[str, Any]], bool]:
        return lambda b: (
            {o["id"]: o["state"] for o in (b.get("status") or {}).get("ops", ())}.get(name) == state
        )

    await scene.named("pauses", at("long", "Running"), "has come to its second op")
    await scene.kube.patch(JOB_KIND, JOBS, "pauses", {"spec": {"suspend": True}})
    body = await scene.named(
        "pauses", lambda b: condition(b, JobCondition.READY)[1] == "Suspended", "is suspended"
    )
    await scene.named(
        "pauses", lambda b: b["status"]["ops"][1].get("attempt") == 1, "has stopped its op, to be run again"
    )
    assert all(terminated(pod) for pod in scene.pods_ever(body).values())
    await scene.kube.patch(JOB_KIND, JOBS, "pauses", {"spec": {"suspend": False}})
    await scene.named("pauses", at("long", "Running"), "runs its op again")
    await scene.kube.patch(JOB_KIND, JOBS, "pauses", {"spec": {"stop": True}})
    body = await scene.over("pauses")
    assert sorted(pod["metadata"]["name"] for pod in scene.pods_ever(body).values()) == [
        "pauses-0", "pauses-1", "pauses-1-r1",
    ]  # fmt: skip
    state = await scene.stored_result(body)
    assert [each["status"] for each in state["opStates"]] == ["success", "stopped"]
    assert (logs_of(state, "quick"), logs_of(state, "long")) == (["once"], ["up", "up"])
