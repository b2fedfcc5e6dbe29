"""What is asked of an op when, and what follows: rounds of health checks as tables, and whole lives."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from fakes.edges import FakeClock, FakeProber
from fakes.jobs import NAMESPACE, Lab, definition, op, private_job
from nosana_operator.definition import HealthCheck, HttpHealthCheck, Port, WebSocketHealthCheck
from nosana_operator.errors import Refused, Unavailable
from nosana_operator.jobs.decision.health import (
    Answer,
    Round,
    after_round,
    judge_http,
    judge_websocket,
    listens,
    next_round,
    request_body,
)
from nosana_operator.jobs.decision.view import PortHealth
from nosana_operator.jobs.monitor import HealthMonitor, Target

Body = dict[str, Any]
OUT_OF_REACH = Unavailable("no connection to port 80 within 2 s")
NOBODY = Refused("nothing listens on port 80 yet")


def http(**more: Any) -> HttpHealthCheck:
    return HttpHealthCheck.model_validate(
        {"type": "http", "path": "/", "method": "GET", "expected_status": 200, "continuous": True, **more}
    )


ONCE, OFTEN, RESTARTS = http(continuous=False), http(), http(restart_on_failure=True, max_restarts=2)
SOCKET = WebSocketHealthCheck.model_validate(
    {"type": "websocket", "expected_response": "ready", "continuous": False}
)
NEW, UP = PortHealth(), PortHealth(True, "Online")


@pytest.mark.parametrize(
    ("health", "checks", "expected"),
    [
        (NEW, (ONCE, OFTEN), Round((ONCE, OFTEN), 60, 5)),
        (PortHealth(False, "Offline", "no"), (ONCE,), Round((ONCE,), 60, 5)),
        (UP, (ONCE, OFTEN, SOCKET), Round((OFTEN,), 20, 30)),
        (PortHealth(True, "Offline", "no"), (OFTEN,), Round((OFTEN,), 20, 30)),
        (UP, (ONCE, SOCKET), None),
    ],
)
def test_all_is_asked_until_it_passes_and_then_what_is_continuous(
    health: PortHealth, checks: tuple[HealthCheck, ...], expected: Round | None
) -> None:
    assert next_round(health, checks) == expected


@pytest.mark.parametrize(
    ("before", "answer", "after"),
    [
        (NEW, Answer(True), UP),
        (NEW, Answer(False, "no", OFTEN), PortHealth(False, "Offline", "no")),
        (NEW, Answer(None, "far", OFTEN), PortHealth(False, "Unknown", "far")),
        # Whoever was well once stays ready; nobody knows is not ill.
        (UP, Answer(None, "far", RESTARTS), PortHealth(True, "Unknown", "far")),
        (UP, Answer(False, "no", OFTEN), PortHealth(True, "Offline", "no")),
        (UP, Answer(False, "no", RESTARTS), PortHealth(True, "Offline", "no", 2)),
        (UP, Answer(False, "no", http(restart_on_failure=True)), PortHealth(True, "Offline", "no", math.inf)),
        # A start that takes long is no reason to start anew.
        (NEW, Answer(False, "no", RESTARTS), PortHealth(False, "Offline", "no")),
        (PortHealth(True, "Offline", "no", 2), Answer(True), UP),
    ],
)
def test_what_is_known_after_a_round(before: PortHealth, answer: Answer, after: PortHealth) -> None:
    assert after_round(before, answer) == after


def test_an_answer_has_to_be_the_expected_one_exactly() -> None:
    assert judge_http(http(expected_status=204), 80, 204) == Answer(True)
    check = http(path="/a?token=secret", method="POST", expected_status=204)
    answer = judge_http(check, 80, 200)
    assert answer.passed is False
    assert answer.problem == "POST /a on port 80 returned 200; expected 204"


@pytest.mark.parametrize(
    ("expected", "message", "passed"),
    [("101", "", True), ("", "", True), ("ready", "ready\n", True), ("ready", "no", False)],
)
def test_a_websocket_says_what_is_expected(expected: str, message: str, passed: bool) -> None:
    check = SOCKET.model_copy(update={"expected_response": expected})
    assert listens(check) is (expected == "ready")
    assert judge_websocket(check, 80, message).passed is passed


@pytest.mark.parametrize(
    ("check", "headers", "body"),
    [
        (http(body="x"), {}, None),
        (http(method="DELETE", body="x", headers={"A": "b"}), {"A": "b"}, None),
        (http(method="PUT"), {}, None),
        (http(method="POST", body="a=b"), {"Content-Type": "application/x-www-form-urlencoded"}, b"a=b"),
        (http(method="POST", body={"a": 1}), {"Content-Type": "application/json"}, b'{"a": 1}'),
        (http(method="PUT", body=[], headers={"content-type": "x/y"}), {"content-type": "x/y"}, b"[]"),
    ],
)
def test_post_and_put_have_a_body(
    check: HttpHealthCheck, headers: dict[str, str], body: bytes | None
) -> None:
    assert request_body(check) == (headers, body)


# -- whole lives


def server(name: str = "a", *checks: Body, **more: Any) -> Body:
    found = [check.model_dump(exclude_none=True) for check in (OFTEN,)] if not checks else list(checks)
    return op(name, expose=[{"port": 80, "health_checks": found}], **more)


def lab_with(*ops: Body, answers: list[int | str | Exception]) -> Lab:
    lab = Lab()
    lab.kube.add(private_job({"definition": definition(*ops)}))
    lab.kubelet.address = "10.0.0.1"
    lab.prober.answers[80] = answers
    return lab


def endpoint(lab: Lab) -> str | None:
    return next((e["state"] for e in lab.status().get("endpoints", ())), None)


def op_of(lab: Lab, index: int = 0) -> Body:
    ops = lab.status().get("ops") or []
    return dict(ops[index]) if ops else {}


async def test_an_op_is_ready_when_its_checks_have_passed_and_then_its_dependents_start() -> None:
    lab = lab_with(
        server(group="g"),
        op("b", group="g", depends_on=["a"]),
        answers=[NOBODY, 503, OUT_OF_REACH, 200],
    )
    await lab.drive(lambda: "nothing listens" in str(lab.status().get("conditions")))
    assert endpoint(lab) == "Offline"
    assert lab.says("Ready") == ("False", "Starting")
    assert len(lab.pods()) == 1
    await lab.drive(lambda: endpoint(lab) == "Unknown")
    assert len(lab.pods()) == 1
    await lab.drive(lambda: endpoint(lab) == "Online" and len(lab.pods()) == 2)
    assert op_of(lab)["readyAt"]
    assert lab.prober.asked == [("10.0.0.1", 80)] * 4
    await lab.drive(lambda: lab.says("Ready") == ("True", "Running"))
    assert lab.status()["timing"]["ready"] >= op_of(lab)["readyAt"]
    await lab.controller.close()


async def test_an_op_that_ends_before_it_was_ready_releases_nobody() -> None:
    lab = lab_with(server(group="g"), op("b", group="g", depends_on=["a"]), answers=[NOBODY])
    await lab.drive(lambda: endpoint(lab) == "Offline")
    lab.exits[0] = 0
    await lab.drive(lab.over())
    assert [each["state"] for each in lab.status()["ops"]] == ["Succeeded", "Failed"]
    assert len(lab.pods()) <= 1
    await lab.controller.close()


async def test_an_operator_outside_the_pods_network_knows_nothing_and_harms_nobody() -> None:
    lab = lab_with(server(timeout=100), answers=[OUT_OF_REACH])
    await lab.drive(lab.over())
    assert lab.prober.asked.count(("10.0.0.1", 80)) >= 19, "every 5 s until its time is up"
    assert op_of(lab)["state"] == "Succeeded"
    assert lab.phase() == "Completed"
    assert endpoint(lab) == "Offline"
    await lab.controller.close()


async def test_a_server_that_fell_ill_is_told_and_recovers() -> None:
    lab = lab_with(server(), answers=[200, 500, 500, 200])
    await lab.drive(lambda: endpoint(lab) == "Online")
    before = lab.clock.now()
    await lab.drive(lambda: lab.says("Ready") == ("False", "Unhealthy"))
    assert endpoint(lab) == "Offline"
    assert (lab.clock.now() - before).total_seconds() == pytest.approx(30, abs=1)
    assert lab.phase() == "Running"
    await lab.drive(lambda: lab.says("Ready") == ("True", "Running"))
    assert endpoint(lab) == "Online"
    assert len(lab.pods()) == 1
    await lab.controller.close()


async def test_what_does_not_change_is_not_written_again() -> None:
    lab = lab_with(server(), answers=[200])
    await lab.drive(lambda: endpoint(lab) == "Online")
    await lab.work()
    before = len(lab.written())
    await lab.drive(lambda: len(lab.prober.asked) >= 5)
    assert len(lab.written()) == before
    await lab.controller.close()


async def test_a_new_process_asks_again_and_says_nothing_else_meanwhile() -> None:
    lab = lab_with(server(), answers=[200])
    await lab.drive(lambda: lab.says("Ready") == ("True", "Running"))
    await lab.work()
    before = len(lab.written())
    asked = len(lab.prober.asked)
    await lab.crash_and_reboot()
    await lab.drive(lambda: len(lab.prober.asked) > asked)
    await lab.work()
    assert endpoint(lab) == "Online"
    assert len(lab.written()) == before
    await lab.controller.close()


async def test_an_ill_server_is_started_again_as_often_as_it_may() -> None:
    check = {**OFTEN.model_dump(exclude_none=True), "restart_on_failure": True, "max_restarts": 2}
    lab = lab_with(server("a", check), answers=[200, 500])
    await lab.drive(lambda: op_of(lab).get("healthRestarts") == 1)
    assert op_of(lab)["state"] in ("Starting", "Running")
    lab.prober.answers[80] = [NOBODY, 200, 500]
    await lab.drive(lambda: op_of(lab).get("healthRestarts") == 2)
    lab.prober.answers[80] = [200, 500]
    await lab.drive(lambda: lab.says("Ready") == ("False", "Unhealthy"))
    assert op_of(lab)["state"] == "Running"
    pods = [body["metadata"]["name"] for body in lab.pods()]
    assert pods == ["hello-0", "hello-0-r1", "hello-0-r2"]
    lab.kube.edit("NosanaJob", NAMESPACE, "hello", {"spec": {"stop": True}})
    await lab.drive(lab.over())
    assert lab.phase() == "Stopped"
    await lab.controller.close()


async def test_a_job_that_is_stopped_while_its_server_is_started_again_ends() -> None:
    check = {**OFTEN.model_dump(exclude_none=True), "restart_on_failure": True}
    lab = lab_with(server("a", check), answers=[200, 500])
    await lab.drive(lambda: op_of(lab).get("state") == "Stopping")
    assert op_of(lab)["reason"] == "Unhealthy"
    lab.kube.edit("NosanaJob", NAMESPACE, "hello", {"spec": {"stop": True}})
    await lab.drive(lab.over())
    assert lab.phase() == "Stopped"
    assert len(lab.pods()) <= 1
    await lab.controller.close()


# -- beside the work queue


async def test_ops_that_answer_slowly_keep_only_their_own_job_waiting() -> None:
    slow, woken = asyncio.Event(), asyncio.Event()

    class Prober(FakeProber):
        async def http(self, address: str, port: int, **more: Any) -> int:
            self.asked.append((address, port))
            if address == "slow":
                await slow.wait()
            return 200

    prober = Prober()
    monitor = HealthMonitor(prober, FakeClock(), lambda key: woken.set(), asyncio.sleep)
    ports = tuple(Port(number, (ONCE,)) for number in range(1, 101))
    monitor.health("a", ("jobs", "a"), {0: Target("a/0", "slow", ports)})
    await asyncio.sleep(0)
    monitor.health("b", ("jobs", "b"), {0: Target("b/0", "quick", ports[:1])})
    await asyncio.wait_for(woken.wait(), 5)
    assert monitor.health("b", ("jobs", "b"), {0: Target("b/0", "quick", ports[:1])})[0].ready
    assert sum(address == "slow" for address, _ in prober.asked) < 50
    await monitor.close()


async def test_another_container_is_asked_from_the_start() -> None:
    prober = FakeProber({80: [200]})
    monitor = HealthMonitor(prober, FakeClock(), lambda key: None, asyncio.sleep)
    port = Port(80, (ONCE,))
    for container in ("a/0", "a/1"):
        target = {0: Target(container, "10.0.0.1", (port,))}
        assert not monitor.health("a", ("jobs", "a"), target)[0].ready
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert monitor.health("a", ("jobs", "a"), target)[0].ready
    assert monitor.health("a", ("jobs", "a"), {}) == {}
    assert len(prober.asked) == 2
    await monitor.close()


async def test_a_check_that_dies_of_a_defect_is_not_silent() -> None:
    monitor = HealthMonitor(
        FakeProber({80: [TypeError("ours")]}), FakeClock(), lambda key: None, asyncio.sleep
    )
    target = {0: Target("a/0", "10.0.0.1", (Port(80, (ONCE,)),))}
    monitor.health("a", ("jobs", "a"), target)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(TypeError, match="ours"):
        monitor.health("a", ("jobs", "a"), target)
    assert not monitor.health("a", ("jobs", "a"), target)[0].ready
    await monitor.close()
