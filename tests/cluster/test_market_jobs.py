"""Jobs of a market, all the way: posted, matched, run in pods, settled, paid."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from nosana_operator.api import JOB_KIND, JobCondition, parse_timestamp
from nosana_operator.content import cid_of
from support.scene import (
    JOBS,
    Scene,
    assert_paid_once,
    condition,
    definition,
    eventually,
    finishes,
    holds,
    job_name,
    logs_of,
    op,
    op_state,
    phase,
    says,
    sleeps,
    started,
    terminated,
)

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).parents[2] / "examples"
JUPYTER = json.loads((EXAMPLES / "jupyter-gpu.json").read_bytes())


async def test_a_job_is_run_paid_and_its_result_published(scene: Scene) -> None:
    await scene.idle()
    posted = await scene.post(says("all the way"))
    assert posted.run is not None, "the host stood in the queue, so the job is matched at once"
    body = await scene.settled(posted)
    view = await scene.poster.job(posted.job)
    host = scene.running.world.host.address
    assert_paid_once(view, body, host)

    # The whole chain of transactions: one that listed (and matched), one that finished.
    assert [payment.instructions for payment in view.payments] == [("List",), ("Finish",)]
    first, last = view.payments[0], view.payments[-1]
    assert view.seconds == last.time - first.time, "paid from the match to the finish, by the chain's clock"
    (pod,) = scene.pods_ever(body).values()
    (container,) = pod["status"]["containerStatuses"]
    ran = container["state"]["terminated"]
    assert view.time_start <= parse_timestamp(ran["startedAt"]).timestamp() + 1
    assert parse_timestamp(ran["finishedAt"]).timestamp() <= view.time_end + 1

    state = await scene.result(posted)
    assert (state["status"], [each["operationId"] for each in state["opStates"]]) == ("success", ["say"])
    assert (op_state(state, "say")["status"], op_state(state, "say")["exitCode"]) == ("success", 0)
    assert logs_of(state, "say") == ["all the way"]
    assert state == await scene.stored_result(body), "what is published is what was stored"
    assert cid_of(await scene.poster.fetch(str(view.result_cid))) == view.result_cid

    assert (phase(body), condition(body, JobCondition.COMPLETE)[:2]) == ("Settling", ("True", "Succeeded"))
    body = await scene.job_that(posted, lambda b: phase(b) == "Completed", "says so to people")
    assert condition(body, JobCondition.SETTLED)[:2] == ("True", "Finished")
    steps = ("matched", "created", "accepted", "scheduled", "started", "ended", "settled")
    # Some are the kubelet's stamps, which have whole seconds.
    moments = [int(parse_timestamp(body["status"]["timing"][step]).timestamp()) for step in steps]
    assert moments == sorted(moments), dict(zip(steps, moments, strict=True))


async def test_stages_run_one_after_the_other(scene: Scene) -> None:
    stages = [
        op(name, f"echo {name}; sleep 1", group=group)
        for name, group in (("a", "one"), ("b", "one"), ("c", "two"))
    ]
    posted = await scene.post(definition(*stages))
    body = await scene.settled(posted)
    assert_paid_once(await scene.poster.job(posted.job), body, scene.running.world.host.address)
    state = await scene.result(posted)
    assert [(each["operationId"], each["status"]) for each in state["opStates"]] == [
        ("a", "success"), ("b", "success"), ("c", "success"),
    ]  # fmt: skip
    a, b, c = (op_state(state, name) for name in "abc")
    assert c["startTime"] >= max(a["endTime"], b["endTime"])
    assert max(a["startTime"], b["startTime"]) < min(a["endTime"], b["endTime"]), (
        "ops of a stage run together"
    )
    assert len(scene.pods_ever(body)) == 3


async def test_a_server_with_a_gpu_answers_until_its_time_is_up(scene: Scene) -> None:
    posted = await scene.post(JUPYTER, timeout=20)
    body = await scene.job_that(posted, lambda b: holds(b, JobCondition.READY), "serves")
    (endpoint,) = body["status"]["endpoints"]
    name = urlsplit(endpoint["url"]).hostname

    async def page() -> str | None:
        async with scene.http.get(scene.running.world.gateway, headers={"Host": name}) as answer:
            return await answer.text() if answer.status == 200 else None

    assert "nosana/tensorflow-jupyter" in await eventually(page, f"{name} answers through the gateway")
    (pod,) = scene.pods_ever(body).values()
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"

    body = await scene.settled(posted)
    view = await scene.poster.job(posted.job)
    assert_paid_once(view, body, scene.running.world.host.address)
    assert condition(body, JobCondition.COMPLETE)[:2] == ("True", "Expired")
    assert view.seconds == view.timeout == 20, "a server uses all it has, and is never paid for more"
    state = await scene.result(posted)
    assert state["status"] == op_state(state, "notebook")["status"] == "success"
    assert op_state(state, "notebook")["diagnostics"]["reason"]["jobExpired"] is True
    assert "told to end" in logs_of(state, "notebook")


async def test_a_job_that_was_there_first_is_taken_when_the_host_comes(scene: Scene) -> None:
    await scene.idle()
    await scene.set_market(paused=True)
    await scene.market_that(lambda s: s["slots"]["standing"] == 0, "has left the queue")
    posted = await scene.post(says("waited in the queue"))
    assert posted.run is None
    assert (await scene.poster.job(posted.job)).state == "Queued"
    await scene.set_market(paused=False)
    body = await scene.settled(posted)
    view = await scene.poster.job(posted.job)
    assert_paid_once(view, body, scene.running.world.host.address)
    # It was not `list` that matched it: the run was made by the host's own `work`.
    assert await scene.instructions(body["spec"]["run"]["run"]) == [("Work",), ("Finish",)]
    assert logs_of(await scene.result(posted), "say") == ["waited in the queue"]


async def test_the_owner_ends_a_job(scene: Scene) -> None:
    posted = await scene.post(sleeps(600), timeout=600)
    await scene.running_job(posted)
    await scene.poster.end(posted.job)
    body = await scene.settled(posted)
    view = await scene.poster.job(posted.job)
    assert [payment.instructions for payment in view.payments] == [("List",), ("End",), ("Complete",)]
    assert view.totals.earned == view.price * view.seconds
    assert 0 < view.seconds < 60
    assert view.totals.earned + view.totals.refunded == view.totals.deposited
    assert condition(body, JobCondition.COMPLETE)[:2] == ("True", "OwnerEnded")
    assert body["status"]["settlement"]["kind"] == "complete"
    state = await scene.result(posted)
    assert (state["status"], op_state(state, "sleep")["status"]) == ("stopped", "stopped")
    assert op_state(state, "sleep")["diagnostics"]["reason"]["jobStopped"] is True
    assert logs_of(state, "sleep") == ["sleep", "told to end"], "it was asked to end, not killed"


async def test_an_extension_moves_the_end(scene: Scene) -> None:
    posted = await scene.post(sleeps(600), timeout=10)
    body = await scene.running_job(posted)
    before = parse_timestamp(body["status"]["run"]["expiresAt"])
    await scene.poster.extend(posted.job, 6)
    body = await scene.job_that(
        posted, lambda b: b["status"]["run"]["timeout"] == 16, "knows of the extension"
    )
    assert abs((parse_timestamp(body["status"]["run"]["expiresAt"]) - before).total_seconds() - 6) <= 1
    body = await scene.settled(posted)
    view = await scene.poster.job(posted.job)
    assert_paid_once(view, body, scene.running.world.host.address)
    assert view.seconds == view.timeout == 16
    assert (await scene.result(posted))["status"] == "success"


async def test_two_slots_take_two_jobs_and_a_third_waits(scene: Scene) -> None:
    await scene.idle()
    jobs = [await scene.post(sleeps(5, f"sleep-{number}", gpu=True)) for number in range(3)]
    bodies = [await scene.settled(posted) for posted in jobs]
    names = {body["metadata"]["name"] for body in bodies}
    at_once, most = set[str](), 0
    for seen in scene.seen.history("Pod"):
        name = seen.body["metadata"]["name"]
        if job_name(seen.body) in names:
            live = started(seen.body) and not terminated(seen.body) and seen.type != "DELETED"
            at_once = at_once | {name} if live else at_once - {name}
            most = max(most, len(at_once))
    assert most == 2
    for posted, body in zip(jobs, bodies, strict=True):
        assert_paid_once(await scene.poster.job(posted.job), body, scene.running.world.host.address)
    # The third was matched only after a slot had become free, and its poster paid for nothing before.
    views = [await scene.poster.job(posted.job) for posted in jobs]
    assert max(view.time_start for view in views) >= min(view.time_end for view in views)


async def test_definitions_that_cannot_be_used_are_told_and_paid(scene: Scene) -> None:
    wrong = definition(op("oops", ["echo"], image=""), {"type": "container/fly", "id": "up", "args": {}})
    lied = json.dumps(says("not what was pinned")).encode()
    cid = await scene.poster.pin(lied)
    await scene.fault(f"corrupt/{cid}", b'{"version": "0.1"}')
    jobs = {
        "DefinitionInvalid, no JSON": await scene.post(b"version: 0.1, ops: none"),
        "DefinitionInvalid": await scene.post(wrong),
        "DefinitionContentMismatch": await scene.post(lied),
    }
    expected = {
        "DefinitionInvalid, no JSON": ("validation-error", "JSON"),
        "DefinitionInvalid": ("validation-error", "ops[1].type"),
        "DefinitionContentMismatch": ("init error", cid),
    }
    for case, posted in jobs.items():
        body = await scene.settled(posted)
        reason = case.partition(",")[0]
        status, word = expected[case]
        assert condition(body, JobCondition.ACCEPTED)[:2] == ("False", reason), case
        assert condition(body, JobCondition.FAILED)[:2] == ("True", reason)
        assert word in condition(body, JobCondition.ACCEPTED)[2]
        state = await scene.result(posted)
        assert (state["status"], state["opStates"]) == (status, [])
        assert any(word in error["message"] for error in state["errors"]), state["errors"]
        assert_paid_once(await scene.poster.job(posted.job), body, scene.running.world.host.address)
        assert scene.pods_ever(body) == {}
    await goes_on(scene)


async def test_a_bad_definition_can_be_given_back_unpaid(scene: Scene) -> None:
    await scene.set_market(onBadDefinition="Quit")
    await scene.market_that(lambda s: True, "has seen it")
    posted = await scene.post(b"[]")
    body = await scene.settled(posted)
    view = await scene.poster.job(posted.job)
    assert [payment.instructions for payment in view.payments][-1] == ("Quit",)
    # The deposit lies in the market's vault until its poster takes it back by `recover`.
    assert (view.state, view.totals.earned, view.totals.refunded) == ("Stopped", 0, 0)
    assert view.result_cid is None
    assert condition(body, JobCondition.SETTLED)[:2] == ("True", "Quit")
    assert body["status"]["settlement"]["kind"] == "quit"
    await goes_on(scene)


async def test_a_definition_that_comes_late_is_still_run(scene: Scene) -> None:
    data = json.dumps(says("better late")).encode()
    posted = await scene.list_cid(cid_of(data))
    lacking = ("DefinitionNotFound", "DefinitionUnreachable")
    body = await scene.job_that(
        posted, lambda b: condition(b, JobCondition.ACCEPTED)[1] in lacking, "says so"
    )
    status, _, message = condition(body, JobCondition.ACCEPTED)
    assert status == "Unknown"
    assert cid_of(data) in message
    await scene.poster.pin(data)
    body = await scene.settled(posted)
    assert logs_of(await scene.result(posted), "say") == ["better late"]
    assert_paid_once(await scene.poster.job(posted.job), body, scene.running.world.host.address)


@pytest.mark.soak
async def test_a_definition_that_nobody_has_is_given_up_after_two_minutes(scene: Scene) -> None:
    posted = await scene.list_cid(cid_of(b"nobody has this"), timeout=600)
    for _ in range(2):  # Each waits as long as a step may take.
        try:
            body = await scene.settled(posted)
            break
        except TimeoutError:
            continue
    body = await scene.settled(posted)
    assert condition(body, JobCondition.ACCEPTED)[0] == "False"
    assert "given up after 120 s" in condition(body, JobCondition.FAILED)[2]
    assert (await scene.result(posted))["status"] == "init error"
    view = await scene.poster.job(posted.job)
    assert_paid_once(view, body, scene.running.world.host.address)
    # Moments of conditions, and the chain's clock, have whole seconds.
    assert 118 <= view.seconds < 150


async def test_an_op_that_fails_fails_the_job_and_is_paid(scene: Scene) -> None:
    stages = [op("breaks", "echo no; exit 3", group="one"), op("after", "echo yes", group="two")]
    posted = await scene.post(definition(*stages))
    body = await scene.settled(posted)
    assert condition(body, JobCondition.FAILED)[:2] == ("True", "OpFailed")
    assert "breaks" in condition(body, JobCondition.FAILED)[2]
    state = await scene.result(posted)
    assert state["status"] == "failed"
    assert (op_state(state, "breaks")["status"], op_state(state, "breaks")["exitCode"]) == ("failed", 3)
    # An op that fails does not keep later stages from running (docs/protocol/job-definition.md#stages).
    assert (op_state(state, "after")["status"], logs_of(state, "after")) == ("success", ["yes"])
    assert_paid_once(await scene.poster.job(posted.job), body, scene.running.world.host.address)


async def test_deleting_a_market_job_stops_it_settles_it_and_lets_it_go(scene: Scene) -> None:
    posted = await scene.post(sleeps(600))
    body = await scene.running_job(posted)
    name = body["metadata"]["name"]
    await asyncio.to_thread(scene.host.kubectl.run, "delete", "nj", name, "-n", JOBS, "--wait=false")
    await scene.gone(JOB_KIND, JOBS, name)
    view = await scene.on_chain(posted, "Done")
    assert finishes(view)
    assert view.totals.earned == view.price * view.seconds
    state = await scene.result(posted)
    assert (state["status"], logs_of(state, "sleep")) == ("stopped", ["sleep", "told to end"])
    pods = [pod for pod in scene.seen.current("Pod").values() if job_name(pod) == name]
    assert all(pod["metadata"].get("deletionTimestamp") for pod in pods)


async def test_a_job_that_says_it_is_a_run_is_never_run(scene: Scene) -> None:
    real = await scene.post(says("the real one"))
    run: Mapping[str, Any] = (await scene.settled(real))["spec"]["run"]
    forged = {
        "no such run on chain": {**run, "run": run["job"]},
        "a run that is over": dict(run),
        "no such market": {**run, "marketRef": {"namespace": "nobody", "name": "nothing"}},
    }
    names = [f"forged-{number}" for number in range(len(forged))]
    for name, claim in zip(names, forged.values(), strict=True):
        await scene.private(name, says("for free"), run=claim)
    for name, case in zip(names, forged, strict=True):
        body = await scene.named(name, lambda b: condition(b, JobCondition.RUN_VERIFIED)[0] == "False", case)
        assert condition(body, JobCondition.RUN_VERIFIED)[1] in ("RunNotFound", "RunMismatch")
        await scene.named(
            name, lambda b: holds(b, JobCondition.STALLED), f"({case}) says that it will not run"
        )
    # The operator has gone on to other work, and these were left alone.
    await goes_on(scene)
    for name in names:
        body = scene.seen.current(JOB_KIND)[name]
        assert scene.pods_ever(body) == {}
        assert "settlement" not in body["status"]
    assert len(finishes(await scene.poster.job(real.job))) == 1


async def goes_on(scene: Scene) -> None:
    """The next good job is served as ever."""
    posted = await scene.post(says("goes on"))
    body = await scene.settled(posted)
    assert_paid_once(await scene.poster.job(posted.job), body, scene.running.world.host.address)
