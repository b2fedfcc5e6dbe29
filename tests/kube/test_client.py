"""The client on the wire: requests as Kubernetes wants them, failures as one of four outcomes, repeats."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from nosana_operator.errors import Conflict, NosanaError, NotFound, Refused, Unavailable
from nosana_operator.kube import CORE_KINDS, KubeClient, KubeConflict, KubeRefused, KubeUnavailable, Resource
from support.scripted_api import Answer, ScriptedApi, scripted, status_answer

KINDS = {**CORE_KINDS, "NosanaJob": Resource("NosanaJob", "nosana.io", "v1alpha1", "nosanajobs")}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "1"},
}
JOB = {"apiVersion": "nosana.io/v1alpha1", "kind": "NosanaJob", "metadata": {"name": "j", "namespace": "ns"}}


class Bench:
    """A client, what it was answered from, and what it told about."""

    def __init__(self, client: KubeClient, api: ScriptedApi) -> None:
        self.client = client
        self.api = api
        self.waits: list[float] = []
        self.observed: list[tuple[str, str, str]] = []
        self.replies: list[dict[str, Any]] = []


@asynccontextmanager
async def bench(*answers: Answer) -> AsyncIterator[Bench]:
    async with scripted(*answers) as api, aiohttp.ClientSession(base_url=api.url) as session:
        made: Bench

        async def sleep(seconds: float) -> None:
            made.waits.append(seconds)

        client = KubeClient(
            session,
            kinds=KINDS,
            observe=lambda verb, kind, code, seconds: made.observed.append((verb, kind, code)),
            on_reply=lambda body: made.replies.append(body),
            sleep=sleep,
        )
        made = Bench(client, api)
        yield made


async def test_get_asks_for_the_object_and_passes_the_reply_on() -> None:
    async with bench(Answer(body=POD)) as b:
        assert await b.client.get("Pod", "ns", "p") == POD
        assert b.api.asked[0].path == "/api/v1/namespaces/ns/pods/p"
        assert b.replies == [POD]
        assert b.observed == [("get", "Pod", "200")]


async def test_names_cannot_leave_their_place_in_the_path() -> None:
    async with bench(Answer(body=POD)) as b:
        await b.client.get("Node", None, "../pods?x")
        assert b.api.asked[0].path == "/api/v1/nodes/..%2Fpods%3Fx"


async def test_list_goes_through_all_pages_and_completes_the_items() -> None:
    first = {"metadata": {"continue": "more", "resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}}]}
    second = {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "b"}}]}
    async with bench(Answer(body=first), Answer(body=second)) as b:
        items = await b.client.list("NosanaJob", label_selector="a=b", field_selector="c=d")
        assert [item["metadata"]["name"] for item in items] == ["a", "b"]
        assert {(item["apiVersion"], item["kind"]) for item in items} == {("nosana.io/v1alpha1", "NosanaJob")}
        assert b.api.asked[0].path == "/apis/nosana.io/v1alpha1/nosanajobs"
        assert b.api.asked[0].query == {"limit": "500", "labelSelector": "a=b", "fieldSelector": "c=d"}
        assert b.api.asked[1].query["continue"] == "more"


async def test_a_listing_that_expires_between_pages_starts_anew() -> None:
    first = Answer(body={"metadata": {"continue": "more", "resourceVersion": "7"}, "items": [POD]})
    whole = Answer(body={"metadata": {"resourceVersion": "9"}, "items": [POD, POD]})
    async with bench(first, status_answer(410, "Expired"), whole) as b:
        snapshot = await b.client.snapshot("Pod", "ns")
        assert snapshot.resource_version == "9"
        assert len(snapshot.items) == 2


async def test_metadata_only_asks_for_metadata_only() -> None:
    async with bench(Answer(body={"metadata": {"resourceVersion": "1"}})) as b:
        assert (await b.client.snapshot("Pod", metadata_only=True)).items == []
        assert "as=PartialObjectMetadataList" in b.api.asked[0].headers["Accept"]


async def test_apply_is_server_side_apply() -> None:
    async with bench(Answer(body=JOB)) as b:
        await b.client.apply(JOB, manager="me", subresource="status")
        asked = b.api.asked[0]
        assert (asked.method, asked.path) == (
            "PATCH",
            "/apis/nosana.io/v1alpha1/namespaces/ns/nosanajobs/j/status",
        )
        assert asked.query == {"fieldManager": "me", "force": "true", "fieldValidation": "Strict"}
        assert asked.headers["Content-Type"] == "application/apply-patch+yaml"
        assert asked.body == JOB


@pytest.mark.parametrize(
    ("patch", "content_type"),
    [
        ({"spec": {"stop": True}}, "application/merge-patch+json"),
        ([{"op": "remove", "path": "/metadata/finalizers/0"}], "application/json-patch+json"),
    ],
)
async def test_a_patch_is_sent_as_what_it_is(patch: Any, content_type: str) -> None:
    async with bench(Answer(body=JOB)) as b:
        await b.client.patch("NosanaJob", "ns", "j", patch, manager="me")
        assert b.api.asked[0].headers["Content-Type"] == content_type
        assert b.api.asked[0].query["fieldManager"] == "me"
        assert b.api.asked[0].body == patch


async def test_delete_says_which_object_and_how() -> None:
    async with bench(Answer(body={"kind": "Status", "status": "Success"})) as b:
        await b.client.delete("Pod", "ns", "p", uid="u", grace_seconds=5)
        assert b.api.asked[0].body == {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": "u"},
            "gracePeriodSeconds": 5,
        }
        assert b.replies == []


@pytest.mark.parametrize("code", [404, 409])
async def test_deleting_what_is_gone_or_another_by_now_is_fine(code: int) -> None:
    async with bench(status_answer(code)) as b:
        await b.client.delete("Pod", "ns", "p", uid="u")


async def test_a_followed_log_comes_line_by_line() -> None:
    async with bench(Answer(body=b"t1 one\nt2 two\nt3 half")) as b:
        got = [line async for line in b.client.follow_logs("ns", "p", "op", since="2026-01-02T03:04:05.6Z")]
    assert got == [b"t1 one\n", b"t2 two\n", b"t3 half"]
    assert b.api.asked[0].path == "/api/v1/namespaces/ns/pods/p/log"
    assert b.api.asked[0].query == {
        "container": "op",
        "timestamps": "true",
        "follow": "true",
        "sinceTime": "2026-01-02T03:04:05.6Z",
    }


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(status_answer(404), NotFound), (status_answer(400), Refused), (Answer(cut=True), Unavailable)],
)
async def test_a_log_that_cannot_be_followed_is_an_outcome(
    answer: Answer, outcome: type[NosanaError]
) -> None:
    async with bench(answer) as b:
        with pytest.raises(outcome):
            await anext(b.client.follow_logs("ns", "p", "op"))


async def test_logs_come_as_bytes_with_the_options_asked_for() -> None:
    async with bench(Answer(body=b"line\n\xff\n")) as b:
        got = await b.client.read_logs("ns", "p", "op", previous=True, limit_bytes=10, tail_lines=3)
        assert got == b"line\n\xff\n"
        assert b.api.asked[0].path == "/api/v1/namespaces/ns/pods/p/log"
        assert b.api.asked[0].query == {
            "container": "op",
            "timestamps": "true",
            "previous": "true",
            "limitBytes": "10",
            "tailLines": "3",
        }


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (400, Refused),
        (401, Unavailable),
        (403, Refused),
        (404, NotFound),
        (405, Refused),
        (408, Unavailable),
        (409, Conflict),
        (413, Refused),
        (422, Refused),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
async def test_each_answer_is_one_of_four_outcomes(code: int, outcome: type[Exception]) -> None:
    async with bench(status_answer(code, "Because", "the server's own words")) as b:
        with pytest.raises(outcome, match="the server's own words") as caught:
            await b.client.get("Pod", "ns", "p")
        assert caught.value.code == code  # type: ignore[attr-defined]
        assert caught.value.reason == "Because"  # type: ignore[attr-defined]


async def test_an_apply_of_unknown_fields_is_refused_although_the_server_says_500() -> None:
    answer = status_answer(500, message="failed to create typed patch object (ns/j): .status.x: not declared")
    async with bench(answer) as b:
        with pytest.raises(Refused):
            await b.client.apply(JOB, manager="me")
        assert b.waits == []


CALLS: dict[str, tuple[Callable[[KubeClient], Awaitable[Any]], bool]] = {
    "get": (lambda c: c.get("Pod", "ns", "p"), True),
    "list": (lambda c: c.list("Pod"), True),
    "apply": (lambda c: c.apply(POD, manager="me"), True),
    "merge patch": (lambda c: c.patch("Pod", "ns", "p", {}), True),
    "delete": (lambda c: c.delete("Pod", "ns", "p"), True),
    "create": (lambda c: c.create(POD), False),
    "json patch": (lambda c: c.patch("Pod", "ns", "p", []), False),
}


@pytest.mark.parametrize("failure", [status_answer(503), status_answer(500), Answer(cut=True)])
@pytest.mark.parametrize("call", CALLS)
async def test_what_may_be_repeated_is_repeated_thrice(call: str, failure: Answer) -> None:
    do, repeatable = CALLS[call]
    async with bench(failure) as b:
        with pytest.raises(KubeUnavailable):
            await do(b.client)
        # aiohttp itself repeats a GET or DELETE once when a kept connection turned out to be closed.
        assert len(b.observed) == (3 if repeatable else 1)
        assert len(b.waits) == (2 if repeatable else 0)


@pytest.mark.parametrize("call", CALLS)
async def test_too_many_requests_waits_as_long_as_asked_even_for_a_create(call: str) -> None:
    do, _ = CALLS[call]
    async with bench(status_answer(429, **{"Retry-After": "3"}), Answer(body=POD)) as b:
        await do(b.client)
        assert b.waits == [3]


async def test_a_server_cannot_make_us_wait_for_ever() -> None:
    async with bench(status_answer(429, **{"Retry-After": "86400"}), Answer(body=POD)) as b:
        await b.client.get("Pod", "ns", "p")
        assert b.waits == [10]


async def test_a_connection_that_was_never_made_is_tried_again_even_for_a_create() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with aiohttp.ClientSession(base_url="http://127.0.0.1:1/") as session:
        with pytest.raises(KubeUnavailable, match="gave no answer to create"):
            await KubeClient(session, sleep=sleep).create(POD)
    assert len(waits) == 2


async def test_create_of_a_taken_name_says_so() -> None:
    async with bench(status_answer(409, "AlreadyExists")) as b:
        with pytest.raises(KubeConflict) as caught:
            await b.client.create(POD)
        assert caught.value.reason == "AlreadyExists"


@pytest.mark.parametrize("content", [b"<html>", b"[]", b""])
async def test_an_answer_that_is_no_object_is_no_answer(content: bytes) -> None:
    async with bench(Answer(body=content)) as b:
        with pytest.raises(KubeUnavailable):
            await b.client.get("Pod", "ns", "p")


async def test_a_kind_outside_the_table_is_refused() -> None:
    async with bench(Answer()) as b:
        with pytest.raises(KubeRefused, match="'Frob'"):
            await b.client.get("Frob", "ns", "p")
        assert b.api.asked == []
