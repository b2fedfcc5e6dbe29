"""Confidential jobs through both rooms: a stub on chain, the definition and the result only for the poster."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from fakes.both_loops import BothRooms
from fakes.jobs import definition, op
from fakes.kube import Request
from fakes.market import MarketLab, Posted
from fakes.market_objects import JOBS
from fakes.trouble import Crash, Silence
from fakes.virtual_time import run_virtually
from nosana_operator.api import JOB_KIND, Delivery, find_condition
from nosana_operator.content import PosterClient, digest_of
from nosana_operator.errors import NotFound, Refused
from nosana_operator.market.runs.blank_result import blank_result
from nosana_sandbox.program.layout import STATE_DONE, STATE_STOPPED

SECRET = "the poster's secret"
REAL = json.dumps(definition(op("work", cmd="echo hi", env={"TOKEN": SECRET}))).encode()
ENDPOINT = "https://poster.example/jobs/%%global.job%%"


def stub(send: Any = None, receive: Any = None) -> bytes:
    api = {"type": "api", "args": {"endpoint": f"{ENDPOINT}/job-definition"}}
    back = {"type": "api", "args": {"endpoint": f"{ENDPOINT}/results"}}
    return json.dumps(
        {**definition(), "logistics": {"send": send or api, "receive": receive or back}}
    ).encode()


async def posted_stub(content: bytes = b"", **options: Any) -> tuple[BothRooms, Posted]:
    both = BothRooms(**options)
    both.market.poster.gives = REAL
    return both, await both.post(content or stub())


def status(both: BothRooms, posted: Posted) -> dict[str, Any]:
    return dict((both.market.job_of(posted) or {}).get("status") or {})


def published(lab: MarketLab, posted: Posted) -> dict[str, Any]:
    body = lab.job_of(posted) or {}
    return dict(json.loads(lab.pins.pinned[body["status"]["resultCID"]]))


async def test_definition_and_result_pass_between_key_and_poster_alone() -> None:
    both, posted = await posted_stub()
    lab, poster = both.market, both.market.poster
    await both.until(lab.settled())
    assert lab.says("Complete", posted) == ("True", "Succeeded")
    assert lab.says("Settled", posted) == ("True", "Finished")

    where = f"https://poster.example/jobs/{posted.job}"
    assert [(verb, url) for verb, url, _ in poster.asked] == [
        ("GET", f"{where}/job-definition"),
        ("POST", f"{where}/results"),
    ]
    (full,) = [json.loads(one) for one in poster.given]
    assert full["status"] == "success"
    assert [one["operationId"] for one in full["opStates"]] == ["work"]

    blank = published(lab, posted)
    assert blank == {
        "status": "success",
        "startTime": full["startTime"],
        "endTime": full["endTime"],
        "secrets": {},
        "opStates": [],
    }
    assert lab.job_account(posted).ipfs_result == digest_of(status(both, posted)["resultCID"])
    assert status(both, posted)["delivery"] == {"definition": "Stored", "result": "Delivered"}
    assert [why for _, why, _ in lab.events.seen if why.startswith(("Definition", "Result"))] == [
        "DefinitionReceived",
        "ResultDelivered",
    ]
    lab.check_books()
    await both.close()


async def test_requests_are_signed_with_the_runs_key() -> None:
    both, posted = await posted_stub()
    lab = both.market
    await both.until(lab.settled())
    node = lab.begin.hosts[0]
    for _, _, header in lab.poster.asked:
        message, signature, moment = header.split(":")
        assert message == str(posted.job)
        assert signature == str(node.sign_message(str(posted.job).encode()))
        assert abs(int(moment) / 1000 - lab.clock.now().timestamp()) < 300
    await both.close()


async def test_the_definition_is_in_a_secret_of_the_job_and_nowhere_else() -> None:
    both, posted = await posted_stub()
    lab = both.market
    await both.until(lambda: bool(lab.kube.objects("Pod")))
    body = lab.job_of(posted)
    assert body is not None
    name = f"{body['metadata']['name']}-definition"
    secret = lab.kube.find("Secret", JOBS, name)
    assert secret is not None
    assert [one["uid"] for one in secret["metadata"]["ownerReferences"]] == [body["metadata"]["uid"]]
    assert secret["type"] == "nosana.io/definition"
    await both.until(lab.settled())
    for shown in (lab.nosana_jobs(), lab.market(), lab.events.seen, list(lab.pins.pinned.values())):
        assert SECRET not in str(shown)
    await both.close()


async def test_a_poster_who_does_not_answer_at_once_is_asked_again() -> None:
    both = BothRooms()
    lab = both.market
    lab.poster.gives = REAL
    lab.poster.get_answers = [Silence("no answer"), NotFound("poster.example answered HTTP 400.")]
    posted = await both.post(stub())
    await both.until(lambda: lab.says("Accepted", posted) == ("Unknown", "WaitingForPoster"))
    await both.until(lab.settled())
    assert [verb for verb, _, _ in lab.poster.asked] == ["GET", "GET", "GET", "POST"]
    assert lab.says("Complete", posted) == ("True", "Succeeded")
    await both.close()


@pytest.mark.parametrize(
    ("policy", "state"), [("Finish", STATE_DONE), ("Quit", STATE_STOPPED)], ids=["finish", "quit"]
)
async def test_a_poster_who_never_answers_is_given_up_after_two_minutes(policy: str, state: int) -> None:
    both = BothRooms(market={"onBadDefinition": policy})
    lab = both.market
    lab.poster.get_answers = [Silence("poster.example did not answer in 10 s")] * 100
    lab.poster.post_answers = [Silence("poster.example did not answer in 30 s")] * 100
    posted = await both.post(stub(), timeout=600)
    began = lab.clock.now()
    await both.until(lab.settled(), 800)
    assert lab.says("Accepted", posted) == ("False", "DefinitionUnreachable")
    assert lab.job_account(posted).state == state
    assert 110 <= (lab.clock.now() - began).total_seconds() <= 240
    if policy == "Finish":
        blank = published(lab, posted)
        assert blank["status"] == "logistics-error"
        told = [error["message"] for error in blank["errors"]]
        assert "did not answer in 10 s" in told[0]
        assert "could not be delivered" in told[1]
    await both.close()


async def test_an_endpoint_that_is_never_asked_ends_the_job_at_once() -> None:
    both = BothRooms()
    lab = both.market
    said = "db.internal is not asked: it has an address that is not on the public internet; use one that is."
    lab.poster.get_answers = [Refused(said)]
    lab.poster.post_answers = [Refused(said)]
    posted = await both.post(stub())
    await both.until(lab.settled())
    assert lab.says("Accepted", posted) == ("False", "DefinitionUnreachable")
    assert len(lab.poster.asked) == 2
    assert all(said in error["message"] for error in published(lab, posted)["errors"])
    assert not lab.kube.objects("Pod")
    await both.close()


async def test_a_posters_words_never_outgrow_the_status() -> None:
    """The API server refuses a longer problem, and then the settlement would wait for ever."""
    both = BothRooms()
    lab = both.market
    lab.poster.get_answers = [Silence("y" * 5000)]
    lab.poster.post_answers = [NotFound("x" * 5000)] * 100
    posted = await both.post(stub())
    problems = set()
    for _ in range(400):
        await both.slot()
        delivery = (((lab.job_of(posted) or {}).get("status") or {}).get("delivery")) or {}
        problems |= {len(delivery.get(field) or "") for field in ("definitionProblem", "resultProblem")}
    assert lab.says("Settled", posted) == ("True", "Finished")
    assert problems == {0, 1024}
    await both.close()


@pytest.mark.parametrize("side", ["send", "receive"])
async def test_what_needs_the_nodes_own_api_is_refused_with_its_path(side: str) -> None:
    both, posted = await posted_stub(stub(**{side: {"type": "api-listen", "args": {}}}))
    lab = both.market
    await both.until(lab.settled())
    assert lab.says("Accepted", posted) == ("False", "DefinitionInvalid")
    assert lab.poster.asked == []
    errors = json.loads(lab.result(posted))["errors"]
    assert f"logistics.{side}.type" in errors[0]["message"]
    assert "api-listen is not served" in errors[0]["message"]
    await both.close()


async def test_a_definition_that_is_invalid_is_told_to_the_poster_alone() -> None:
    both = BothRooms()
    lab = both.market
    lab.poster.gives = json.dumps({**definition(), SECRET: 1}).encode()
    posted = await both.post(stub())
    await both.until(lab.settled())
    (full,) = [json.loads(one) for one in lab.poster.given]
    assert full["status"] == "validation-error"
    assert any(SECRET in error["message"] for error in full["errors"])
    blank = published(lab, posted)
    assert blank["status"] == "validation-error"
    assert SECRET not in json.dumps(blank)
    await both.close()


@pytest.mark.parametrize(
    "invalid",
    [
        {"type": "container/run", "id": "work", "args": {"image": "i", "expose": SECRET}},
        {"type": "container/run", "id": "work", "args": {"image": "i", "env": {SECRET: 5}}},
        {"type": SECRET, "id": "work", "args": {"image": "i"}},
        # Found when it is judged, not when it is read.
        {**op("work"), "execution": {"depends_on": [SECRET]}},
    ],
    ids=["value", "key", "type", "judged"],
)
async def test_what_is_wrong_with_a_definition_quotes_it_to_the_poster_alone(invalid: dict[str, Any]) -> None:
    both = BothRooms()
    lab = both.market
    lab.poster.gives = json.dumps({**definition(), "ops": [invalid]}).encode()
    posted = await both.post(stub())
    await both.until(lab.settled(), 800)
    assert SECRET in lab.poster.given[0].decode()
    failed = find_condition(status(both, posted)["conditions"], "Failed") or {}
    assert failed["reason"] == "DefinitionInvalid"
    assert "only its poster is told" in failed["message"]
    for shown in (lab.nosana_jobs(), lab.market(), lab.events.seen, list(lab.pins.pinned.values())):
        assert SECRET not in str(shown)
    await both.close()


async def test_a_poster_who_does_not_take_the_result_delays_the_pay_by_half_a_minute() -> None:
    both = BothRooms()
    lab = both.market
    lab.poster.gives = REAL
    lab.poster.post_answers = [Silence("poster.example answered HTTP 502")] * 100
    posted = await both.post(stub())
    await both.until(lambda: lab.says("Complete", posted) is not None)
    ended = lab.clock.now()
    await both.until(lambda: lab.run_of(posted) is None)
    assert 25 <= (lab.clock.now() - ended).total_seconds() <= 45
    await both.until(lab.settled())
    assert [verb for verb, _, _ in lab.poster.asked].count("POST") == 4
    assert "HTTP 502" in published(lab, posted)["errors"][0]["message"]
    assert status(both, posted)["delivery"]["result"] == "Undelivered"
    assert ("Warning", "ResultUndelivered") in [event[:2] for event in lab.events.seen]
    lab.check_books()
    await both.close()


@pytest.mark.parametrize("after", [0, 3600], ids=["at once", "after an hour"])
def test_a_poster_whose_endpoint_never_answers_delays_the_pay_by_40_seconds(
    after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request would take 30 s. Whoever comes late, after an outage of the host, asks him once."""

    async def at_once(function: Any, *args: Any) -> Any:
        return function(*args)

    # Virtual time waits for no thread.
    monkeypatch.setattr(asyncio, "to_thread", at_once)
    run_virtually(_silent_endpoint(after))


async def _silent_endpoint(after: float) -> None:
    both = BothRooms()
    lab, loop = both.market, asyncio.get_running_loop()
    lab.poster.gives = REAL
    tries: list[float] = []

    async def post(url: str, body: bytes, *, authorization: str) -> None:
        begun = loop.time()
        try:
            await asyncio.sleep(30)
        finally:
            tries.append(loop.time() - begun)
            lab.clock.advance(tries[-1])
        raise Silence("poster.example did not answer in 30 s")

    lab.poster.post = post  # type: ignore[method-assign]
    posted = await both.post(stub(), timeout=7200)
    await both.until(lambda: lab.says("Complete", posted) is not None, 4000)
    lab.clock.advance(after)
    began = lab.clock.now()
    await both.until(lambda: lab.run_of(posted) is None)
    took = (lab.clock.now() - began).total_seconds()
    assert took <= 45
    assert tries == ([10.0] if after else [30.0, pytest.approx(10, abs=1)])
    assert status(both, posted)["delivery"]["result"] == "Undelivered"
    assert "within 40 s" in published(lab, posted)["errors"][0]["message"]
    await both.close()


async def test_a_restart_publishes_what_was_decided_before_it() -> None:
    """Whether the poster got the result stands in the status before its blank has a CID."""
    both, posted = await posted_stub()
    lab = both.market
    lab.pins.down = lambda: True
    await both.until(lambda: status(both, posted).get("delivery", {}).get("result") == "Delivered")
    lab.boot()
    lab.pins.down = lambda: False
    await both.until(lab.settled())
    assert [verb for verb, _, _ in lab.poster.asked].count("POST") == 1
    assert published(lab, posted)["opStates"] == []
    await both.close()


async def test_a_job_restarted_with_its_definition_stored_asks_nobody_again() -> None:
    both, posted = await posted_stub()
    lab = both.market
    await both.until(lambda: status(both, posted).get("delivery", {}).get("definition") == "Stored")
    await both.reboot()
    await both.until(lab.settled())
    assert [verb for verb, _, _ in lab.poster.asked].count("GET") == 1
    assert lab.says("Complete", posted) == ("True", "Succeeded")
    await both.close()


CORPUS = Path(os.environ.get("NOSANA_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus")


def of_the_corpus(name: str) -> bytes:
    file = CORPUS / "examples" / f"{name}.json"
    if not file.exists() and os.environ.get("CI") != "true":
        pytest.skip(f"no corpus at {CORPUS}; set NOSANA_CORPUS")
    return file.read_bytes()


async def test_the_corpus_example_with_endpoints_on_localhost_asks_nobody() -> None:
    """By http, to an address that is not public: the poster is told both ways that it is never asked."""
    both = BothRooms()
    lab = both.market
    real = PosterClient(tuple)
    lab.poster.get, lab.poster.post = real.get, real.post  # type: ignore[method-assign]
    posted = await both.post(of_the_corpus("confidential-tests--api-invalid"))
    await both.until(lab.settled())
    assert lab.says("Accepted", posted) == ("False", "DefinitionUnreachable")
    blank = published(lab, posted)
    assert blank["status"] == "logistics-error"
    assert len(blank["errors"]) == 2
    assert all("https://" in error["message"] for error in blank["errors"])
    await both.close()


async def test_the_corpus_example_that_listens_is_served_once_it_is_given_an_endpoint() -> None:
    """Its definition may come by api; its result is to be fetched from the node's own API, which is none here."""
    as_it_is = of_the_corpus("confidential")
    both, posted = await posted_stub(as_it_is)
    await both.until(both.market.settled())
    assert both.market.says("Accepted", posted) == ("False", "DefinitionInvalid")
    await both.close()

    document = json.loads(as_it_is)
    document["logistics"]["receive"] = {"type": "api", "args": {"endpoint": f"{ENDPOINT}/results"}}
    both, posted = await posted_stub(json.dumps(document).encode())
    await both.until(both.market.settled())
    assert both.market.says("Complete", posted) == ("True", "Succeeded")
    assert both.market.poster.asked[0][1] == document["logistics"]["send"]["args"]["endpoint"]
    await both.close()


@pytest.mark.parametrize("nth", range(10))
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_crash_at_any_request_loses_neither_definition_nor_result(nth: int, moment: str) -> None:
    """What is on chain is the digest of a blank that can be had, and the poster was given the result."""
    both, posted = await posted_stub()
    lab = both.market
    requests = 0

    async def die(request: Request, when: str) -> None:
        nonlocal requests
        of_a_run = request.kind == JOB_KIND or request.name.endswith(("-definition", "-result-0"))
        if not both.market_at_work or not of_a_run or when != moment:
            return
        requests += 1
        if requests == nth + 1:
            raise Crash

    lab.kube.interrupt = die
    await both.until(lab.settled())
    assert requests >= 6
    cid = status(both, posted)["resultCID"]
    assert lab.job_account(posted).ipfs_result == digest_of(cid)
    assert json.loads(lab.pins.pinned[cid])["opStates"] == []
    assert lab.poster.given
    assert len({bytes(one) for one in lab.poster.given}) == 1
    assert lab.count("Finish") == 1
    lab.check_books()
    await both.close()


def test_the_blank_is_the_same_bytes_for_the_same_delivery() -> None:
    full = json.dumps(
        {
            "status": "failed",
            "startTime": 1,
            "endTime": 2,
            "errors": [
                {"event": "init-error", "message": SECRET},
                {"event": "result-lost", "message": "gone"},
            ],
            "opStates": [{"operationId": "a"}],
        }
    ).encode()
    undelivered = Delivery(definition="Stored", result="Undelivered", result_problem="HTTP 500")
    assert blank_result(full, undelivered) == blank_result(full, undelivered)
    assert json.loads(blank_result(full, undelivered)) == {
        "status": "failed",
        "startTime": 1,
        "endTime": 2,
        "secrets": {},
        "errors": [
            {"event": "init-error", "message": "told to the poster alone"},
            {"event": "result-lost", "message": "gone"},
            {"event": "logistics-error", "message": "the result could not be delivered: HTTP 500"},
        ],
        "opStates": [],
    }
