"""`logs`, `status` and `result` of a NosanaJob."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from fakes.kube import FakeKube
from nosana_operator.api import API_VERSION, JOB_KIND
from nosana_operator.api.result import ResultError, result_secrets
from nosana_operator.cli.cluster import JobNotFoundError, find_job
from nosana_operator.cli.logs import NoSuchOpError, follow_job, show
from nosana_operator.cli.result import fetch_result
from nosana_operator.cli.status import describe
from nosana_operator.errors import NotFound, Unavailable

Body = dict[str, Any]
NOW = datetime(2026, 1, 2, 3, 5, 0, tzinfo=UTC)
OP = {"id": "a", "index": 0, "stage": "a", "state": "Running", "pod": "mine-0"}
DONE = {
    "type": "Complete",
    "status": "True",
    "reason": "Succeeded",
    "message": "all ops have ended well",
    "lastTransitionTime": "2026-01-02T03:04:30Z",
}
FLOW = {
    "status": "success",
    "opStates": [
        {
            "operationId": "a",
            "logs": [{"type": "stdout", "log": "hello\n"}, {"type": "nodeerr", "log": "bye"}],
        },
        {"operationId": "b", "logs": [{"type": "stdout", "log": "other\n"}]},
    ],
}


class Cluster(FakeKube):
    """With logs that are followed: each item is one connection's lines."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: dict[str, list[list[bytes] | Exception]] = {}
        self.since: list[str | None] = []

    async def follow_logs(
        self, namespace: str, pod: str, container: str, *, since: str | None = None
    ) -> AsyncIterator[bytes]:
        self.since.append(since)
        left = self.connections.get(pod) or [NotFound("no such pod")]
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        for line in found:
            yield line


def cluster(job: Body, flow: Body | None = None) -> Cluster:
    kube = Cluster()
    made = kube.add(job)
    if flow is not None:
        for secret in result_secrets(made, [json.dumps(flow).encode()]):
            kube.add(secret)
    return kube


def job(*ops: Body, **status: Any) -> Body:
    return {
        "apiVersion": API_VERSION,
        "kind": JOB_KIND,
        "metadata": {"name": "mine", "namespace": "here"},
        "spec": {"definition": {}},
        "status": {"phase": "Running", "ops": list(ops), **status},
    }


def ended(*ops: Body, **status: Any) -> Body:
    return job(*ops, conditions=[DONE], resultSecrets=["mine-result-0"], phase="Completed", **status)


async def found(kube: Cluster) -> Body:
    return await find_job(kube, "here", "mine")


# -- result


async def test_a_result_is_its_exact_bytes() -> None:
    kube = cluster(ended(OP), FLOW)
    assert await fetch_result(kube, await found(kube)) == json.dumps(FLOW).encode()


async def test_a_result_that_is_not_there_says_why() -> None:
    kube = cluster(job(OP))
    with pytest.raises(ResultError, match="is Running and has no result yet"):
        await fetch_result(kube, await found(kube))
    kube = cluster(ended(OP, resultCID="QmX"))
    with pytest.raises(ResultError, match="it is on IPFS as QmX"):
        await fetch_result(kube, await found(kube))


async def test_a_job_that_is_not_there_says_where_it_was_looked_for() -> None:
    with pytest.raises(JobNotFoundError, match="no NosanaJob mine in namespace here"):
        await found(Cluster())


# -- logs


async def test_logs_of_an_ended_job_are_those_of_its_result() -> None:
    kube, told = cluster(ended(OP, {**OP, "id": "b", "index": 1}), FLOW), []
    await show(kube, await found(kube), lambda op, text: told.append((op, text)))
    assert told == [("a", "hello\n"), ("a", "bye"), ("b", "other\n")]
    told.clear()
    await show(kube, await found(kube), lambda op, text: told.append((op, text)), op="b")
    assert told == [("b", "other\n")]


async def test_logs_of_a_running_job_are_those_of_its_pods() -> None:
    kube = cluster(job(OP, {"id": "b", "index": 1, "stage": "b", "state": "Waiting"}))
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine-0", "namespace": "here"}}
    kube.add({**pod, "spec": {"containers": [{"name": "op", "image": "x"}]}})
    kube.logs["here", "mine-0"] = b"one\ntwo\n"
    told: list[str] = []
    await show(kube, await found(kube), lambda op, text: told.append(f"{op} {text}"))
    assert told == ["a one\n", "a two\n"]


async def test_an_op_that_is_not_there_names_those_that_are() -> None:
    kube = cluster(job(OP))
    with pytest.raises(NoSuchOpError, match="no op 'x'; its ops are: a"):
        await show(kube, await found(kube), lambda op, text: None, op="x")


async def test_following_goes_over_a_cut_connection_and_repeats_no_line() -> None:
    kube = cluster(job(OP), FLOW)
    kube.connections["mine-0"] = [
        NotFound("not started"),
        [b"2026-01-02T03:04:05.1Z one\n", b"2026-01-02T03:04:05.2Z two\n"],
        [b"2026-01-02T03:04:05.2Z two\n", b"2026-01-02T03:04:05.3Z three\n"],
    ]
    told: list[str] = []
    looks = 0

    async def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if looks == 6:
            kube.edit(JOB_KIND, "here", "mine", {"status": ended(OP)["status"]})

    await follow_job(kube, await found(kube), lambda op, text: told.append(text), sleep=sleep)
    assert told == ["one\n", "two\n", "three\n"]
    assert kube.since[:3] == [None, None, "2026-01-02T03:04:05.2Z"]


async def test_an_op_that_came_and_went_between_two_looks_is_told_from_the_result() -> None:
    kube = cluster(job(), FLOW)
    told: list[tuple[str, str]] = []

    async def sleep(_: float) -> None:
        kube.edit(JOB_KIND, "here", "mine", {"status": ended(OP)["status"]})

    await follow_job(kube, await found(kube), lambda op, text: told.append((op, text)), sleep=sleep)
    assert told == [("a", "hello\n"), ("a", "bye")]


async def test_silence_of_the_api_ends_no_following(capsys: pytest.CaptureFixture[str]) -> None:
    kube = cluster(job(), FLOW)
    first, answers = await found(kube), [Unavailable("no answer")]

    async def get(kind: str, namespace: str | None, name: str) -> Body:
        if kind == JOB_KIND and answers:
            raise answers.pop()
        return await FakeKube.get(kube, kind, namespace, name)

    kube.get = get  # type: ignore[method-assign]

    async def sleep(_: float) -> None:
        if not answers:
            kube.edit(JOB_KIND, "here", "mine", {"status": ended(OP)["status"]})

    told: list[str] = []
    await follow_job(kube, first, lambda op, text: told.append(text), sleep=sleep)
    assert told == ["hello\n", "bye"]
    assert "waiting for the Kubernetes API: no answer" in capsys.readouterr().err


async def test_following_a_job_that_is_deleted_tells_its_last_lines_and_that_it_is_gone() -> None:
    kube = cluster(job(OP))
    told: list[str] = []
    gone = asyncio.Event()

    async def last_lines() -> AsyncIterator[bytes]:
        yield b"2026-01-02T03:04:05Z one\n"
        await gone.wait()
        yield b"2026-01-02T03:04:06Z told to end\n"

    kube.follow_logs = lambda *_, **__: last_lines()  # type: ignore[method-assign]

    async def sleep(_: float) -> None:
        await asyncio.sleep(0)
        await kube.delete(JOB_KIND, "here", "mine")
        gone.set()

    with pytest.raises(JobNotFoundError, match="there is no NosanaJob mine"):
        await follow_job(kube, await found(kube), lambda op, text: told.append(text), sleep=sleep)
    assert told == ["one\n", "told to end\n"]


# -- status


def lines(body: Body) -> list[str]:
    return list(describe(body, NOW))


def test_a_job_nobody_looked_at() -> None:
    body = job()
    del body["status"]
    assert lines(body) == [
        "here/mine: Pending",
        "  why        the operator has not seen the job yet; does it run, and does it watch this namespace?",
    ]


def test_a_running_job() -> None:
    body = job(
        {**OP, "stage": "g", "state": "Succeeded", "exitCode": 0, "node": "n", "startedAt": "2026-01-02T03:04:00Z",
         "endedAt": "2026-01-02T03:04:02.500000Z"},
        {**OP, "id": "long", "stage": "g", "pod": "mine-1", "restarts": 2, "startedAt": "2026-01-02T03:03:00Z"},
        {"id": "c", "index": 2, "stage": "c", "state": "Waiting"},
        conditions=[
            {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "fine"},
            {"type": "Ready", "status": "False", "reason": "Starting", "message": "its pods are starting"},
        ],
        endpoints=[
            {"op": "a", "port": 80, "id": "x", "url": "https://x.test", "state": "Online"},
            {"op": "a", "port": 81, "id": "y", "service": "mine-0.here:81", "state": "Offline"},
        ],
        timing={"created": "2026-01-02T03:03:00Z", "accepted": "2026-01-02T03:03:00.250000Z"},
    )  # fmt: skip
    assert lines(body) == [
        "here/mine: Running",
        "  why        its pods are starting (Starting)",
        "  stage      1 of 2: g",
        "    a     Succeeded  2.5 s, exit code 0, pod mine-0 on n",
        "    long  Running    2 min 0 s, 2 restarts, pod mine-1",
        "  stage      2 of 2: c",
        "    c  Waiting    for stage 'g' to end",
        "  endpoint   a:80  Online   https://x.test",
        "  endpoint   a:81  Offline  mine-0.here:81",
        "  times      created 2026-01-02 03:03:00 UTC, accepted +0.25 s",
    ]


def test_a_stage_is_shown_once_wherever_its_ops_stand() -> None:
    body = job(
        {**OP, "stage": "g"},
        {"id": "b", "index": 1, "stage": "h", "state": "Waiting"},
        {**OP, "id": "c", "index": 2, "stage": "g", "pod": "mine-2"},
    )
    assert [line.strip() for line in lines(body)[2:]] == [
        "stage      1 of 2: g",
        "a  Running    pod mine-0",
        "c  Running    pod mine-2",
        "stage      2 of 2: h",
        "b  Waiting    for stage 'g' to end",
    ]


def test_a_markets_job_that_ended() -> None:
    body = ended(
        {**OP, "state": "Failed", "reason": "ExitCode", "message": "exit code 3", "exitCode": 3},
        resultCID="QmX",
        run={"expiresAt": "2026-01-02T03:00:00Z"},
        settlement={"kind": "finish", "earned": 1_500_000},
    )
    body["spec"]["run"] = {"market": "M", "job": "J", "price": 1000}
    body["status"]["conditions"].append(
        {"type": "Settled", "status": "True", "reason": "Finished", "message": "paid"}
    )
    assert lines(body) == [
        "here/mine: Completed",
        "  why        all ops have ended well (Succeeded)",
        "  market     M, job J, 0.001 NOS/s",
        "  settled    True: paid (Finished); earned 1.5 NOS",
        "  stage      1 of 1: a",
        "    a  Failed     pod mine-0, exit code 3 (ExitCode)",
        "  result     QmX on IPFS; nosana-operator result mine -n here",
    ]


@pytest.mark.parametrize(
    ("moment", "said"), [("2026-01-02T04:06:00Z", "in 1 h 1 min"), ("2026-01-02T03:04:00Z", "1 min 0 s ago")]
)
def test_when_a_markets_job_expires(moment: str, said: str) -> None:
    body = job(OP, run={"expiresAt": moment})
    body["spec"]["run"] = {"market": "M", "job": "J", "price": 1000}
    assert f"  expires    {said}" in lines(body)
