"""Whole lives of NosanaJobs, through the controller, against the in-memory API."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest

from fakes.jobs import CID, NAMESPACE, Lab, definition, market_job, op, private_job
from fakes.kube import Request
from fakes.trouble import Crash
from nosana_operator.api import (
    FINALIZER_JOB,
    FINALIZER_OP,
    FINALIZER_SETTLEMENT,
    micro_timestamp,
    parse_timestamp,
)
from nosana_operator.errors import Mismatch, NosanaError, NotFound, Refused, Unavailable

ONE = definition(op("hello", cmd="echo hi"))
TWO_STAGES = definition(op("first"), op("second"))


async def market_life(lab: Lab) -> None:
    lab.ipfs.content[CID] = json.dumps(ONE).encode()
    lab.kube.add(market_job(lab.clock.now()))
    lab.boot()
    lab.verify()
    lab.kube.requests.clear()
    await lab.drive(lab.over("run-a"))


async def test_a_market_job_ends_well_within_its_budget() -> None:
    lab = Lab(exits={0: 0})
    lab.kube.logs[NAMESPACE, "run-a-0"] = b"2026-01-02T03:04:05.123456789Z hi\n"
    await market_life(lab)
    assert lab.phase("run-a") == "Completed"
    assert lab.says("Complete", "run-a") == ("True", "Succeeded")
    result = lab.result("run-a")
    assert result["status"] == "success"
    [state] = result["opStates"]
    assert (state["operationId"], state["status"], state["exitCode"]) == ("hello", "success", 0)
    assert state["logs"] == [{"type": "stdout", "log": "hi\n", "timestamp": "2026-01-02T03:04:05.123456789Z"}]
    assert len(lab.metrics.run_to_pod_seconds) == 1
    steps = [step for step, _ in lab.metrics.start_steps]
    assert steps == ["accepted", "scheduled", "pulled", "started", "ready"]
    # Of the 14 requests of a market job's life, 7 are the job controller's (the release of the job itself
    # comes with its deletion).
    assert len(lab.written()) <= 7, [(r.verb, r.kind) for r in lab.written()]


async def test_a_decision_rests_on_our_own_writes_while_the_watch_lags() -> None:
    lab = Lab()
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    lab.kube.unwatch()
    for _ in range(3):
        lab.dirty = {(NAMESPACE, "hello")}
        await lab.work()
    assert [(r.verb, r.kind) for r in lab.written()].count(("create", "Pod")) == 1
    assert lab.failures == 0, "no write was decided from a stale object"
    assert lab.cache.list("Pod") == lab.pods()
    assert lab.cache.list("NosanaJob") == [lab.job()]


async def test_pods_are_let_go_only_after_the_result_is_fixed() -> None:
    lab = Lab(exits={0: 0})
    await market_life(lab)
    [pod] = lab.pods()
    assert FINALIZER_OP not in pod["metadata"].get("finalizers", [])
    order = [(r.verb, r.kind) for r in lab.written("Secret", "Pod")]
    assert order == [("create", "Pod"), ("create", "Secret"), ("patch", "Pod")]


async def test_a_private_job_runs_its_stages_one_after_the_other() -> None:
    lab = Lab(exits={0: 0, 1: 3})
    lab.kube.add(private_job({"definition": TWO_STAGES}))
    lab.boot()
    await lab.drive(lambda: bool(lab.pods()))
    assert [p["metadata"]["name"] for p in lab.pods()] == ["hello-0"]
    assert FINALIZER_JOB in lab.job()["metadata"]["finalizers"]
    await lab.drive(lab.over())
    assert lab.phase() == "Failed"
    assert lab.says("Failed") == ("True", "OpFailed")
    assert lab.says("Stalled") == ("True", "OpFailed")
    result = lab.result()
    assert result["status"] == "failed"
    assert [(s["operationId"], s["status"], s["exitCode"]) for s in result["opStates"]] == [
        ("first", "success", 0),
        ("second", "failed", 3),
    ]


async def test_nothing_is_written_when_nothing_changes() -> None:
    lab = Lab()
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    await lab.drive(lambda: lab.phase() == "Running")
    lab.kube.requests.clear()
    for _ in range(3):
        lab.clock.advance(60)
        lab.dirty.add((NAMESPACE, "hello"))
        await lab.work()
    assert lab.written() == []
    await lab.crash_and_reboot()
    await lab.work()
    assert lab.written() == []


@pytest.mark.parametrize(
    ("problem", "reason", "told"),
    [
        (Unavailable("no gateway answers"), "DefinitionUnreachable", "fetched"),
        (NotFound("no gateway has it"), "DefinitionNotFound", "found"),
    ],
)
async def test_a_definition_that_cannot_be_reached_is_looked_for_two_minutes(
    problem: NosanaError, reason: str, told: str
) -> None:
    lab = Lab()
    lab.ipfs.content[CID] = problem
    lab.kube.add(market_job(lab.clock.now()))
    lab.boot()
    lab.verify()
    begin = lab.clock.now()
    await lab.drive(lambda: lab.says("Accepted", "run-a") == ("Unknown", reason))
    await lab.drive(lab.over("run-a"))
    assert 110 <= (lab.clock.now() - begin).total_seconds() <= 160
    assert lab.says("Accepted", "run-a") == ("False", reason)
    [failed] = [c for c in lab.status("run-a")["conditions"] if c["type"] == "Failed"]
    assert failed["message"] == f"given up after 120 s: {problem}"
    result = lab.result("run-a")
    assert (result["status"], result["opStates"]) == ("init error", [])
    # The result is published, and our gateways are nobody's business.
    [error] = result["errors"]
    assert error["message"].endswith(f"the definition could not be {told} in 120 s")
    assert str(problem) not in json.dumps(result)
    assert not lab.pods()


async def test_a_private_job_goes_on_looking_until_the_definition_is_there() -> None:
    lab = Lab(exits={0: 0})
    lab.ipfs.content[CID] = NotFound("no gateway has it")
    lab.kube.add(private_job({"definitionFrom": {"ipfs": CID}}))
    lab.boot()
    begin = lab.clock.now()
    await lab.drive(lambda: (lab.clock.now() - begin).total_seconds() > 600)
    assert lab.says("Accepted") == ("Unknown", "DefinitionNotFound")
    assert len(lab.ipfs.fetched) < 40
    lab.ipfs.content[CID] = json.dumps(ONE).encode()
    await lab.drive(lab.over())
    assert lab.phase() == "Completed"


@pytest.mark.parametrize(
    ("content", "reason", "flow"),
    [
        (Mismatch("every gateway lies"), "DefinitionContentMismatch", "init error"),
        (Refused("too large"), "DefinitionInvalid", "init error"),
        (b"not json", "DefinitionInvalid", "validation-error"),
        (b'{"version": "0.1"}', "DefinitionInvalid", "validation-error"),
        (
            json.dumps(definition(op("a", expose=80, private=True))).encode(),
            "DefinitionInvalid",
            "init error",
        ),
        (
            json.dumps(definition(op("a", gpu=True, group="g"), op("b", gpu=True, group="g"))).encode(),
            "GpuOpsExceedSlot",
            "init error",
        ),
    ],
)
async def test_an_unusable_definition_ends_the_job_and_tells_why(
    content: bytes | Exception, reason: str, flow: str
) -> None:
    lab = Lab()
    lab.ipfs.content[CID] = content
    lab.kube.add(market_job(lab.clock.now()))
    lab.boot()
    lab.verify()
    await lab.drive(lab.over("run-a"))
    assert lab.says("Accepted", "run-a") == ("False", reason)
    assert lab.says("Failed", "run-a") == ("True", reason)
    assert lab.phase("run-a") == "Failed"
    assert lab.result("run-a")["status"] == flow
    assert lab.result("run-a")["errors"]
    assert not lab.pods()
    assert ("Warning", reason) in [event[:2] for event in lab.events.seen]


async def test_a_definition_that_is_too_large_for_the_object_says_where_it_may_stand() -> None:
    lab = Lab()
    lab.kube.add(private_job({"definition": definition(op("a", cmd=["x" * 1000] * 263))}))
    lab.boot()
    await lab.drive(lab.over())
    assert lab.says("Failed") == ("True", "DefinitionInvalid")
    [error] = lab.result()["errors"]
    assert "at most 262144 bytes" in error["message"]
    assert "spec.definitionFrom" in error["message"]


async def test_a_definition_from_a_config_map_or_secret() -> None:
    text = "version: '0.1'\ntype: container\nops:\n- {type: container/run, id: a, args: {image: x}}\n"
    lab = Lab(exits={0: 0})
    lab.kube.add(private_job({"definitionFrom": {"configMap": {"name": "c", "key": "d.yaml"}}}))
    lab.kube.add(private_job({"definitionFrom": {"secret": {"name": "s", "key": "d.yaml"}}}, "other"))
    lab.boot()
    await lab.drive(lambda: lab.says("Accepted") == ("Unknown", "DefinitionNotFound"))
    lab.kube.add(_object("ConfigMap", "c", {"d.yaml": text}))
    lab.kube.add(_object("Secret", "s", {"d.yaml": base64.b64encode(text.encode()).decode()}))
    await lab.drive(lambda: lab.over()() and lab.over("other")())
    assert (lab.phase(), lab.phase("other")) == ("Completed", "Completed")


def _object(kind: str, name: str, data: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": data,
    }


async def test_an_unverified_market_job_is_never_run() -> None:
    lab = Lab()
    lab.ipfs.content[CID] = json.dumps(ONE).encode()
    lab.kube.add(market_job(lab.clock.now()))
    lab.boot()
    await lab.drive(lambda: lab.says("Ready", "run-a") == ("False", "WaitingForRunVerification"))
    lab.market_says("run-a", "RunVerified", status=False)
    await lab.drive(lambda: lab.says("Stalled", "run-a") == ("True", "Said"))
    lab.clock.advance(3600)
    lab.wake((NAMESPACE, "run-a"))
    await lab.work()
    assert not lab.pods()
    lab.kube.remove("NosanaJob", NAMESPACE, "run-a")
    await lab.work()
    assert lab.job("run-a")["metadata"]["finalizers"] == [FINALIZER_SETTLEMENT]


async def test_the_owner_ends_a_market_job() -> None:
    lab = Lab()
    lab.ipfs.content[CID] = json.dumps(ONE).encode()
    lab.kube.add(market_job(lab.clock.now()))
    lab.boot()
    lab.verify()
    await lab.drive(lambda: lab.phase("run-a") == "Running")
    run = {**lab.status("run-a")["run"], "ended": "OwnerEnded"}
    lab.kube.edit("NosanaJob", NAMESPACE, "run-a", {"status": {"run": run}})
    await lab.drive(lambda: lab.phase("run-a") == "Stopping")
    [pod] = lab.pods()
    assert pod["spec"]["activeDeadlineSeconds"] == 1
    await lab.drive(lab.over("run-a"))
    assert lab.phase("run-a") == "Stopped"
    assert lab.says("Complete", "run-a") == ("True", "OwnerEnded")
    result = lab.result("run-a")
    assert result["status"] == "stopped"
    assert result["opStates"][0]["status"] == "stopped"
    assert result["opStates"][0]["diagnostics"]["reason"]["jobStopped"] is True


async def test_time_is_up_and_an_extension_moves_it() -> None:
    lab = Lab(expires_after=60)
    lab.ipfs.content[CID] = json.dumps(ONE).encode()
    lab.kube.add(market_job(lab.clock.now()))
    lab.boot()
    lab.verify()
    await lab.drive(lambda: lab.phase("run-a") == "Running")
    later = lab.clock.now() + timedelta(seconds=300)
    run = {"timeout": 300, "expiresAt": micro_timestamp(later)}
    lab.kube.edit("NosanaJob", NAMESPACE, "run-a", {"status": {"run": run}})
    await lab.drive(lab.over("run-a"))
    assert later <= lab.clock.now() < later + timedelta(seconds=5)
    assert lab.says("Complete", "run-a") == ("True", "Expired")
    assert lab.phase("run-a") == "Completed"
    result = lab.result("run-a")
    assert (result["status"], result["opStates"][0]["status"]) == ("success", "success")
    assert result["opStates"][0]["diagnostics"]["reason"]["jobExpired"] is True


async def test_a_private_job_counts_from_its_first_start() -> None:
    lab = Lab()
    lab.kube.add(private_job({"definition": ONE, "timeout": 30}))
    lab.boot()
    lab.clock.advance(500)
    await lab.drive(lambda: lab.phase() == "Running")
    started = parse_timestamp(lab.status()["ops"][0]["startedAt"])
    await lab.drive(lab.over())
    ended = parse_timestamp(lab.status()["ops"][0]["endedAt"])
    assert 30 <= (ended - started).total_seconds() < 32
    assert lab.says("Complete") == ("True", "Expired")


async def test_spec_stop_keeps_the_result() -> None:
    lab = Lab()
    lab.kube.add(private_job({"definition": TWO_STAGES}))
    lab.boot()
    await lab.drive(lambda: lab.phase() == "Running")
    lab.kube.edit("NosanaJob", NAMESPACE, "hello", {"spec": {"stop": True}})
    await lab.drive(lab.over())
    assert lab.phase() == "Stopped"
    assert [s["status"] for s in lab.result()["opStates"]] == ["stopped", "stopped"]
    assert [o["reason"] for o in lab.status()["ops"]] == ["Stopped", "NeverStarted"]
    assert lab.result()["opStates"][0]["diagnostics"]["reason"]["hostShutDown"] is False


@pytest.mark.parametrize("when", ["Pending", "Starting", "Running"])
async def test_deleting_a_private_job_ends_its_pods_and_lets_it_go(when: str) -> None:
    lab = Lab()
    lab.kube.add(private_job({"definitionFrom": {"ipfs": CID}}))
    lab.ipfs.content[CID] = Unavailable("no") if when == "Pending" else json.dumps(ONE).encode()
    lab.boot()
    await lab.drive(lambda: lab.phase() == when)
    lab.kube.remove("NosanaJob", NAMESPACE, "hello")
    await lab.drive(lambda: lab.kube.find("NosanaJob", NAMESPACE, "hello") is None)
    await lab.drive(lambda: not lab.pods())
    assert not lab.kube.objects("Secret")


async def test_deleting_a_market_job_stops_it_and_waits_for_its_settlement() -> None:
    lab = Lab(settles=False)
    lab.ipfs.content[CID] = json.dumps(ONE).encode()
    lab.kube.add(market_job(lab.clock.now()))
    lab.boot()
    lab.verify()
    await lab.drive(lambda: lab.phase("run-a") == "Running")
    lab.kube.remove("NosanaJob", NAMESPACE, "run-a")
    await lab.drive(lambda: lab.phase("run-a") == "Settling")
    assert lab.job("run-a")["metadata"]["finalizers"] == [FINALIZER_SETTLEMENT]
    assert lab.result("run-a")["opStates"][0]["diagnostics"]["reason"]["hostShutDown"] is True
    lab.settles = True
    await lab.drive(lambda: lab.kube.find("NosanaJob", NAMESPACE, "run-a") is None)


async def test_a_pod_that_vanishes_is_not_run_again() -> None:
    lab = Lab()
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    await lab.drive(lambda: lab.phase() == "Running")
    lab.kube.remove("Pod", NAMESPACE, "hello-0", force=True)
    lab.kubelet.step()
    lab.kube.remove("Pod", NAMESPACE, "hello-0", force=True)
    await lab.drive(lab.over())
    assert len(lab.kubelet.starts) == 1
    assert lab.status()["ops"][0]["reason"] in ("PodLost", "PodDeleted")
    assert lab.phase() == "Failed"


async def test_a_pod_deleted_by_hand_fails_its_op() -> None:
    lab = Lab()
    lab.kube.logs[NAMESPACE, "hello-0"] = b"2026-01-02T03:04:05Z last words\n"
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    await lab.drive(lambda: lab.phase() == "Running")
    lab.kube.remove("Pod", NAMESPACE, "hello-0")
    await lab.drive(lab.over())
    assert lab.status()["ops"][0]["reason"] == "PodDeleted"
    logs = lab.result()["opStates"][0]["logs"]
    assert [entry["type"] for entry in logs] == ["nodeerr", "stdout"]
    assert len(lab.kubelet.starts) == 1


async def test_a_refused_pod_is_tried_again_for_a_minute() -> None:
    lab = Lab()
    refusals: list[Request] = []

    async def no_service_account(request: Request, when: str) -> None:
        if request.verb == "create" and request.kind == "Pod" and when == "before" and len(refusals) < 3:
            refusals.append(request)
            raise Refused("error looking up service account jobs/default")

    lab.kube.interrupt = no_service_account
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    await lab.drive(lambda: lab.status().get("ops", [{}])[0].get("reason") == "PodRefused")
    await lab.drive(lambda: lab.phase() == "Running")
    assert len(refusals) == 3


async def test_a_pod_that_is_always_refused_fails_its_op() -> None:
    lab = Lab()

    async def forbidden(request: Request, when: str) -> None:
        if request.verb == "create" and request.kind == "Pod":
            raise Refused("pods are forbidden by policy")

    lab.kube.interrupt = forbidden
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    begin = lab.clock.now()
    await lab.drive(lab.over())
    assert lab.status()["ops"][0]["reason"] == "PodRefused"
    assert 55 <= (lab.clock.now() - begin).total_seconds() <= 70
    assert "forbidden by policy" in lab.result()["opStates"][0]["errors"][0]["message"]


async def test_a_name_that_is_taken_is_not_touched() -> None:
    lab, spec = Lab(), {"nodeName": "n", "containers": [{"name": "other", "image": "other"}]}
    stranger = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hello-0", "namespace": NAMESPACE, "labels": {"nosana.io/op-index": "0"}},
        "spec": spec,
        "status": {"phase": "Succeeded"},
    }
    lab.kube.add(stranger)
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    await lab.drive(lab.over())
    assert "belongs to something else" in lab.status()["ops"][0]["message"]
    assert lab.kube.find("Pod", NAMESPACE, "hello-0")["spec"] == spec  # type: ignore[index]


async def test_a_spec_that_cannot_be_read_says_so_and_stops_nothing_else() -> None:
    lab = Lab(exits={0: 0})
    lab.kube.add(private_job({"definition": ONE, "gpu": {"count": "many"}}, "broken"), validated=False)
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    await lab.drive(lab.over())
    assert lab.says("Stalled", "broken") == ("True", "SpecInvalid")
    assert lab.failures == 0
    lab.kube.requests.clear()
    lab.wake((NAMESPACE, "broken"))
    await lab.work()
    assert lab.written() == []


async def test_endpoints_and_their_objects_come_before_the_pod() -> None:
    lab = Lab()
    lab.kube.add(private_job({"definition": definition(op("web", expose=8080))}))
    lab.boot()
    await lab.drive(lambda: lab.phase() == "Running")
    created = [r.kind for r in lab.written() if r.verb == "create"]
    assert created == ["Service", "Ingress", "Pod"]
    [endpoint] = lab.status()["endpoints"]
    assert endpoint["state"] == "Online"
    assert endpoint["url"] == f"http://{endpoint['id'].lower()}.test"
    lab.kube.edit("NosanaJob", NAMESPACE, "hello", {"spec": {"stop": True}})
    await lab.drive(lab.over())
    assert lab.status()["endpoints"][0]["state"] == "Offline"


async def test_a_log_that_cannot_be_read_does_not_hold_the_result_for_ever() -> None:
    lab = Lab(exits={0: 0})
    lab.kube.logs[NAMESPACE, "hello-0"] = Unavailable("the node does not answer")
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    await lab.drive(lab.over())
    [entry] = lab.result()["opStates"][0]["logs"]
    assert entry["type"] == "nodeerr"
    assert "could not be read" in entry["log"]
    assert lab.phase() == "Completed"


async def test_image_trouble_is_told_once() -> None:
    lab = Lab()
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    await lab.drive(lambda: lab.phase() == "Starting")
    lab.kubelet.schedule("hello-0")
    lab.kubelet.waiting("hello-0", "ErrImagePull", "manifest unknown")
    await lab.work()
    lab.kube.requests.clear()
    for reason in ("ImagePullBackOff", "ErrImagePull", "ImagePullBackOff"):
        lab.kubelet.waiting("hello-0", reason)
        await lab.work()
    assert lab.status()["ops"][0]["reason"] == "ImagePull"
    assert lab.written() == []


async def test_a_deleted_job_that_cannot_be_read_ends_its_pods_and_goes() -> None:
    lab = Lab()
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    await lab.drive(lambda: lab.phase() == "Running")
    lab.kube.edit("NosanaJob", NAMESPACE, "hello", {"spec": {"gpu": {"count": "many"}}}, validated=False)
    await lab.drive(lambda: lab.says("Stalled") == ("True", "SpecInvalid"))
    assert lab.pods()[0].get("metadata", {}).get("deletionTimestamp") is None
    lab.kube.remove("NosanaJob", NAMESPACE, "hello")
    await lab.drive(lambda: lab.kube.find("NosanaJob", NAMESPACE, "hello") is None)
    await lab.drive(lambda: not lab.pods())


async def test_a_fetch_that_dies_is_shown_and_begun_again() -> None:
    lab = Lab(exits={0: 0})
    lab.ipfs.content[CID] = ZeroDivisionError("a defect")
    lab.kube.add(private_job({"definitionFrom": {"ipfs": CID}}))
    lab.boot()
    with pytest.raises(ZeroDivisionError):
        await lab.drive(lab.over())
    lab.ipfs.content[CID] = json.dumps(ONE).encode()
    lab.wake((NAMESPACE, "hello"))
    await lab.drive(lab.over())
    assert lab.phase() == "Completed"


async def test_an_admin_who_stops_a_posters_job_is_named() -> None:
    lab = Lab()
    lab.ipfs.content[CID] = json.dumps(ONE).encode()
    lab.kube.add(market_job(lab.clock.now()))
    lab.boot()
    lab.verify()
    await lab.drive(lambda: lab.phase("run-a") == "Running")
    lab.kube.edit("NosanaJob", NAMESPACE, "run-a", {"spec": {"stop": True}})
    await lab.drive(lab.over("run-a"))
    assert lab.result("run-a")["opStates"][0]["diagnostics"]["reason"]["hostShutDown"] is True


async def test_deletion_of_a_job_that_is_over_writes_no_status() -> None:
    lab = Lab(exits={0: 0})
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    await lab.drive(lab.over())
    lab.kube.requests.clear()
    lab.kube.remove("NosanaJob", NAMESPACE, "hello")
    await lab.drive(lambda: lab.kube.find("NosanaJob", NAMESPACE, "hello") is None)
    assert [(r.verb, r.kind) for r in lab.kube.requests] == [("patch", "NosanaJob")]


async def test_pods_are_ended_though_neither_status_nor_definition_tells_of_them() -> None:
    lab = Lab()
    lab.ipfs.content[CID] = json.dumps(ONE).encode()
    lab.kube.add(market_job(lab.clock.now()))
    lab.boot()
    lab.verify()

    async def die_after_the_pod(request: Request, when: str) -> None:
        if request.kind == "Pod" and when == "after":
            raise Crash

    lab.kube.interrupt = die_after_the_pod
    with pytest.raises(Crash):
        await lab.drive(lab.over("run-a"))
    lab.kube.interrupt = None
    lab.ipfs.content[CID] = Unavailable("no gateway answers")
    await lab.crash_and_reboot()
    await lab.drive(lambda: lab.says("Accepted", "run-a") == ("Unknown", "DefinitionUnreachable"))
    while lab.kubelet.step():
        pass
    run = {**lab.status("run-a")["run"], "ended": "OwnerEnded"}
    lab.kube.edit("NosanaJob", NAMESPACE, "run-a", {"status": {"run": run}})
    await lab.drive(lab.over("run-a"))
    assert lab.phase("run-a") == "Stopped"
    assert lab.pods()[0]["status"]["phase"] == "Failed"
    assert [s["operationId"] for s in lab.result("run-a")["opStates"]] == ["hello"]
