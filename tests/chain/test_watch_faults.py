"""The watcher over nodes that refuse listings, lag, or answer nonsense. Time is simulated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from solders.keypair import Keypair

from nosana_operator.chain import DEVNET, JobsProgram, JobState
from nosana_sandbox.chain import Bank, DirectSession
from nosana_sandbox.program.layout import STATE_DONE, Job
from support.watched_chain import Scene, account, simulate

PROGRAM = JobsProgram(DEVNET)
LISTING = "getProgramAccounts"
Fault = tuple[str, str, Mapping[str, Any]]
"""Kind, method pattern and fields of `Faults.add`."""


class Nodes(DirectSession):
    """A node of its own for each URL, over one chain."""

    def __init__(self, bank: Bank, faults: Mapping[str, tuple[Fault, ...]]) -> None:
        super().__init__(bank)
        self.nodes = {url: faulty(bank, *its) for url, its in faults.items()}

    def post(self, url: str, **request: Any) -> Any:
        self.requests += 1
        return self.nodes[url].post(url, **request)


def faulty(bank: Bank, *faults: Fault) -> DirectSession:
    session = DirectSession(bank, seconds=0.05)
    for kind, method, fields in faults:
        session.faults.add(kind, method, **fields)
    return session


class Spoiled(DirectSession):
    """Keeps the methods that were asked for; while `spoil` is set, it changes the results of `method`."""

    spoil: Callable[[Any], None] | None = None
    method = ""

    def __init__(self, bank: Bank, *, seconds: float) -> None:
        super().__init__(bank, seconds=seconds)
        self.asked: set[str] = set()

    async def answer(self, body: Any, time_limit: float | None) -> Any:
        self.asked.add(body["method"])
        answer = await super().answer(body, time_limit)
        if self.spoil is not None and body["method"] == self.method:
            reply = json.loads(b"".join([piece async for piece in answer.content.iter_any()]))
            self.spoil(reply["result"])
            answer._body = json.dumps(reply).encode()
        return answer


def refused(code: int) -> Fault:
    return "error", LISTING, {"code": code, "message": "RPC call or parameters have been disabled."}


def match(scene: Scene) -> str:
    """A run of the founded host, made by transactions; its address."""
    founded, first, job, run = scene.founded, Keypair(), Keypair(), Keypair()
    host, poster, market = str(founded.host.pubkey()), str(founded.poster.pubkey()), str(founded.market)
    founded.submit(
        [
            PROGRAM.create_nos_account(payer=host, owner=host),
            PROGRAM.work(run=str(first.pubkey()), market=market, node=host),
        ],
        founded.host,
        first,
    )
    listing = PROGRAM.list(
        job=str(job.pubkey()),
        run=str(run.pubkey()),
        market=market,
        payer=poster,
        project=poster,
        ipfs_job=bytes(range(32)),
        timeout=600,
    )
    founded.submit([listing], founded.poster, job, run)
    founded.bank.tick(2)
    return str(run.pubkey())


def test_without_any_run_hosts_are_known_where_listings_are_refused() -> None:
    async def program(scene: Scene) -> float:
        watcher = scene.watcher
        await asyncio.sleep(30)
        host = str(scene.hosts[0])
        assert watcher.runs_of(host) == ()
        assert await watcher.refresh_runs(host, not_before=watcher.slot) == ()
        before = scene.session.requests
        await asyncio.sleep(900)
        return (scene.session.requests - before) / 900

    session = partial(Nodes, faults={"http://node": (("refused", LISTING, {}),)})
    assert simulate(program, hosts=8, session=session) < 0.25


@pytest.mark.parametrize(
    ("faults", "known_within"),
    [
        ({"http://a": (("refused", LISTING, {}),)}, 2),
        ({"http://a": (("server-error", LISTING, {"status": 403}),)}, 2),
        *(({"http://a": (refused(code),)}, 2) for code in (-32600, -32000, -32011, -32012, 400, 0)),
        ({"http://a": (("refused", LISTING, {}),), "http://b": (("cut", "*", {}),)}, 10),
        # Nothing says no: it is waited for a minute.
        ({"http://a": (("server-error", LISTING, {"status": 500}),)}, 70),
        ({"http://a": (("silent", LISTING, {"seconds": 60.0}),)}, 80),
    ],
    ids=[
        "refused",
        "HTTP 403",
        *("code -32600", "code -32000", "code -32011", "code -32012", "code 400", "code 0"),
        "one refuses and one is away",
        "HTTP 500",
        "silent",
    ],
)
def test_runs_are_found_where_no_node_lists_them(
    faults: dict[str, tuple[Fault, ...]], known_within: float
) -> None:
    async def program(scene: Scene) -> tuple[float, float, float | None]:
        known = asyncio.get_running_loop().time()
        scene.hosts = [scene.founded.host.pubkey()]
        scene.watch()
        await asyncio.sleep(10)
        scene.watcher.expect(str(scene.hosts[0]))
        run = match(scene)
        late = await scene.until(lambda: getattr(scene.watcher.runs.get(run), "value", None))
        return known, late, scene.watcher.staleness

    known, late, stale = simulate(program, session=partial(Nodes, faults=faults), urls=list(faults))
    assert known <= known_within
    assert late <= 11
    assert stale is not None
    assert stale < 10


def test_a_hiccup_of_the_listing_reads_no_history() -> None:
    async def program(scene: Scene) -> None:
        session = scene.session
        assert isinstance(session, Spoiled)
        session.faults.add("server-error", LISTING, times=5)
        await asyncio.sleep(240)
        assert "getSignaturesForAddress" not in session.asked
        assert scene.watcher.staleness is not None
        assert scene.watcher.staleness < 10

    simulate(program, session=partial(Spoiled, seconds=0.05))


@pytest.mark.parametrize("method", [LISTING, "getMultipleAccounts"])
def test_staleness_tells_of_what_is_not_read_while_other_things_are(method: str) -> None:
    async def program(scene: Scene) -> float | None:
        scene.session.faults.add("server-error", method)
        scene.session.faults.add("server-error", "getSignaturesForAddress")
        await asyncio.sleep(3600)
        return scene.watcher.staleness

    stale = simulate(program, jobs=1)
    assert stale is not None
    assert stale > 3400


@pytest.mark.parametrize("method", ["getMultipleAccounts", LISTING])
def test_one_false_slot_blinds_nobody_for_long(method: str) -> None:
    def spoil(result: Any) -> None:
        result["context"]["slot"] = 10**12

    async def program(scene: Scene) -> float:
        session, watcher, bank = scene.session, scene.watcher, scene.founded.bank
        assert isinstance(session, Spoiled)
        await asyncio.sleep(20)
        session.method, session.spoil = method, spoil
        await scene.until(lambda: watcher.slot == 10**12)
        session.spoil = None
        run, job = next((address, run.job) for address, run in scene.runs.items())
        held = bank.account(job)
        assert held is not None
        bank.place(job, account(replace(Job.decode(held.data), state=STATE_DONE)))
        bank.place(run, None)

        def seen() -> bool:
            value = watcher.jobs[str(job)].value
            ended = value is not None and value.state is JobState.DONE
            return ended and watcher.runs_of(str(scene.hosts[0])) == ()

        late = await scene.until(seen, 300)
        await asyncio.sleep(60)
        assert watcher.staleness is not None
        assert watcher.staleness < 10
        return late

    assert simulate(program, jobs=1, session=partial(Spoiled, seconds=0.05)) < 170


def test_a_node_that_lags_shows_neither_the_time_nor_the_newest_slot() -> None:
    async def program(scene: Scene) -> None:
        session, watcher, clock = scene.session, scene.watcher, scene.client.clock
        assert isinstance(session, Nodes)
        await asyncio.sleep(300)
        slot, offset = watcher.slot, clock.offset
        session.nodes["http://a"].faults.add("cut")
        await asyncio.sleep(90)
        assert (watcher.slot, clock.offset) == (slot, offset)
        assert watcher.staleness is not None
        assert watcher.staleness > 80
        await asyncio.sleep(30)
        assert watcher.slot > slot, "it has come as far"

    faults: dict[str, tuple[Fault, ...]] = {"http://a": (), "http://b": (("lag", "*", {"slots": 250}),)}
    simulate(program, session=partial(Nodes, faults=faults), urls=list(faults))
