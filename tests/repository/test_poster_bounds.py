"""docs/markets.md says what a poster can do wrong. Each row is shown here: what is within the bound, what is beyond.

A row is shown by code that meets the bound, with the figure that the page has. Rows that state a behavior and no
figure, and limits that have a table of their own, name the test that shows them.
"""

from __future__ import annotations

import importlib.util
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import aiohttp
import multiformats
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from fakes.jobs import CID, Lab, market_job
from nosana_operator.api import Gpu
from nosana_operator.api.result import MAX_COMPRESSED, RESULT_KEY
from nosana_operator.content import IpfsGateways
from nosana_operator.content.errors import ContentTooLarge
from nosana_operator.content.fetch import DEFAULT_SIZE_LIMIT
from nosana_operator.definition import LIMITS, LogEntry
from nosana_operator.definition.flowstate import MAX_LOG_BYTES, MAX_LOG_ENTRIES, LogTail
from nosana_operator.errors import NotFound
from nosana_operator.jobs.decision.decide import GIVE_UP_DEFINITION
from nosana_operator.jobs.decision.start_limits import CREATE_LIMIT, PULL_LIMIT
from nosana_operator.jobs.result import Log, RunLog, result_parts
from nosana_operator.market.runs.decide import DELIVERY_LIMIT, POSTER_GRACE, RESULT_TRIES, decide
from nosana_operator.market.runs.poster import MAX_DEFINITION
from nosana_operator.market.runs.run_status import expires_at
from nosana_operator.regex import RegexRunner
from nosana_operator.regex.runner import Limits
from nosana_operator.workload import gpu_demand, unsupported
from nosana_tools.reference.bounds import BOUNDS, with_bounds
from support.workload import context, op

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "markets.md").read_text()


def module(path: str) -> ModuleType:
    """A test module, for what it builds its views with."""
    spec = importlib.util.spec_from_file_location(f"shown_{Path(path).stem}", TESTS / path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def block_cid(data: bytes) -> str:
    """The CID of content that is a single block."""
    return str(multiformats.CID("base32", 1, "raw", multiformats.multihash.digest(data, "sha2-256")))


def clock(chain_time: float) -> datetime:
    return datetime.fromtimestamp(chain_time, UTC)


# -- what shows a bound


async def definition_that_nobody_has() -> None:
    lab = Lab()
    lab.ipfs.content[CID] = NotFound("no gateway has it")
    lab.kube.add(market_job(lab.clock.now()))
    lab.boot()
    lab.verify()
    begin = lab.clock.now()
    await lab.drive(lab.over("run-a"))
    taken = lab.clock.now() - begin
    assert GIVE_UP_DEFINITION - timedelta(seconds=10) <= taken <= GIVE_UP_DEFINITION + timedelta(seconds=40)


async def definition_of_a_size() -> None:
    content: dict[str, bytes] = {}

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=content["is"])

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    try:
        async with aiohttp.ClientSession() as session:
            gateways = IpfsGateways([str(server.make_url("/"))], session)
            content["is"] = b"x" * DEFAULT_SIZE_LIMIT
            assert await gateways.fetch(block_cid(content["is"])) == content["is"]
            content["is"] += b"x"
            with pytest.raises(ContentTooLarge):
                await gateways.fetch(block_cid(content["is"]))
    finally:
        await server.close()


async def gpus_of_a_stage() -> None:
    for beside, exceeds in ((1, False), (2, True)):
        ops = [op(f"op-{n}", gpu=True, group="s") for n in range(beside)]
        demand = gpu_demand(context(*ops, gpu=Gpu(count=4)))
        assert demand is not None
        assert demand.exceeds is exceeds


async def volumes_of_a_job() -> None:
    """Four of 10Gi are the 40Gi of the default settings."""
    for count, paths in ((4, []), (5, ["ops"])):
        created = [
            {"type": "container/create-volume", "id": f"v{n}", "args": {"name": f"v{n}"}}
            for n in range(count)
        ]
        assert [problem.path for problem in unsupported(context(op(), *created))] == paths


async def pattern_without_end() -> None:
    """With shorter limits than the page's, so that it does not take so long."""
    patterns = [(r"(a+)+$", None), ("b", None)]
    line = ("stdout", "a" * 40 + "b\n")
    each = await RegexRunner(replace(Limits(), cpu=1, total=120)).match(patterns, [line], 1_000_000)
    assert "took longer than 1 s" in str(each[0])
    assert each[1] == ["b"]
    together = await RegexRunner(replace(Limits(), total=1)).match([patterns[0]] * 3, [line], 1_000_000)
    assert all("longer than 1 s together" in str(value) for value in together)


async def log_of_any_length() -> None:
    many, long = LogTail(), LogTail()
    many.extend(LogEntry("stdout", "x\n") for _ in range(MAX_LOG_ENTRIES))
    assert many.dropped == 0
    many.extend([LogEntry("stdout", "last\n")])
    assert len(many.entries()) == MAX_LOG_ENTRIES
    assert many.entries()[-1].log == "last\n"
    line = "x" * (1024 * 1024)
    long.extend(LogEntry("stdout", line) for _ in range(MAX_LOG_BYTES // len(line)))
    assert long.dropped == 0
    long.extend([LogEntry("stdout", line)])
    assert sum(len(entry.log) for entry in long.lines) == MAX_LOG_BYTES


async def result_of_any_size() -> None:
    results = module("jobs/test_job_result.py")
    noise = random.Random(1)
    lines = "\n".join(f"2026-01-02T03:04:05Z {n} {noise.randbytes(400).hex()}" for n in range(24_000))
    secrets = result_parts(
        results.JOB, results.plan(results.op_status()), {0: Log((RunLog(lines.encode()),))}
    )
    assert sum(len(one["data"][RESULT_KEY]) * 3 // 4 for one in secrets) <= MAX_COMPRESSED


def waiting(reason: str, limit: timedelta) -> Callable[[], Awaitable[None]]:
    """A container that the kubelet cannot start."""

    async def show() -> None:
        starts = module("jobs/test_start_limits.py")
        lab = starts.private()
        name = await starts.with_pod(lab)
        lab.kubelet.schedule(name)
        lab.kubelet.waiting(name, reason, "no such thing")
        await starts.pass_minutes(lab, "hello", limit / timedelta(minutes=1) - 0.5)
        assert lab.phase() == "Starting"
        await starts.pass_minutes(lab, "hello", 1)
        await lab.drive(lab.over())
        assert lab.says("Failed") == ("True", "OpFailed")

    return show


async def time_out_that_is_none() -> None:
    for timeout in (0, -5, -(2**63)):
        assert expires_at(100, timeout, clock) == clock(100)


async def time_out_of_years() -> None:
    for timeout in (31, 2**40, 2**63 - 1):
        assert expires_at(100, timeout, clock, max_timeout=30) == clock(130)
    assert expires_at(100, 29, clock, max_timeout=30) == clock(129)


async def poster_without_a_nos_account() -> None:
    runs = module("market/test_run_decide.py")
    payment = runs.Payment(runs.NO_PAYER, 60)
    grace = POSTER_GRACE.total_seconds()
    waits, gives_back = (decide(runs.signing(payment, ended=ended)) for ended in (grace - 1, grace))
    assert runs.says(waits) == "SettlementImpossible"
    assert gives_back.effect == runs.Sign("quit")


async def endpoint_inside() -> None:
    posters = module("content/test_poster.py")
    for address in ("10.0.0.1", "127.0.0.1", "169.254.169.254", "203.0.113.7"):
        await posters.test_a_name_with_one_address_inside_is_not_asked((address,))
        await posters.test_a_name_with_one_address_inside_is_not_asked(("1.1.1.1", address))


async def definition_from_a_poster() -> None:
    confidential = module("market/test_confidential.py")
    for size, outcome in ((MAX_DEFINITION, "Stored"), (MAX_DEFINITION + 1, "Refused")):
        both = confidential.BothRooms()
        both.market.poster.gives = both.market.poster.gives.ljust(size)
        posted = await both.post(confidential.stub())
        await both.until(
            lambda both=both, posted=posted, outcome=outcome: (
                confidential.status(both, posted).get("delivery", {}).get("definition") == outcome
            )
        )
        await both.close()


async def endpoint_that_is_away() -> None:
    runs = module("market/test_run_decide.py")
    away = runs.PosterReply(runs.NOW, "down")
    limit = DELIVERY_LIMIT.total_seconds()
    for posts, ended, result in (
        (RESULT_TRIES - 1, 5, "Posting"),
        (RESULT_TRIES, 5, "Undelivered"),
        (1, limit - 11, "Posting"),
        (1, limit - 10, "Undelivered"),
    ):
        attempts = runs.Attempts(posts=posts)
        decision = decide(runs.confidential("Posting", reply=away, ended=ended, attempts=attempts))
        assert decision.record.delivery is not None
        assert decision.record.delivery.result == result


Row = tuple[str, str]
"""A row's field, and how its second cell begins."""

SHOWN: dict[Row, Callable[[], Awaitable[None]]] = {
    ("definition: place", "not put it"): definition_that_nobody_has,
    ("definition: size", "more than 1 MiB"): definition_of_a_size,
    ("`ops`: GPUs", "more at once"): gpus_of_a_stage,
    ("`container/create-volume`: size", "more volumes"): volumes_of_a_job,
    ("`results`", "a pattern"): pattern_without_end,
    ("log", "any amount"): log_of_any_length,
    ("result", "any amount"): result_of_any_size,
    ("image", "one that cannot"): waiting("ErrImagePull", PULL_LIMIT),
    ("container", "one that cannot"): waiting("CreateContainerError", CREATE_LIMIT),
    ("time-out", "negative"): time_out_that_is_none,
    ("time-out", "years"): time_out_of_years,
    ("extension", "again"): time_out_of_years,
    ("NOS account", "closed"): poster_without_a_nos_account,
    ("`logistics`", "an endpoint inside"): endpoint_inside,
    ("`logistics`", "a definition of more than 900 KiB"): definition_from_a_poster,
    ("`logistics`", "an endpoint that is slow"): endpoint_that_is_away,
}
NAMED: dict[Row, str] = {
    **{(limit.subject, "more than"): "definition/test_limits.py::test_a_limit_holds_exactly" for limit in LIMITS},
    ("definition: content", "other bytes"): "content/test_fetch_and_pin.py::test_all_lying_is_final",
    ("definition: form", "anything"): "definition/test_reading.py::test_any_bytes_are_refused_with_an_error_of_ours",
    ("`resources`, disk", "more than the slot"): "fetching/test_fetching_trouble.py::test_a_disk_that_is_too_small_is_said_at_once",
    ("price", "0"): "market/test_payment.py::test_a_free_job_without_end_is_finished_at_the_hosts_bound",
    ("`end`", "at any moment"): "market/test_lives.py::test_a_run_that_was_over_before_it_could_be_verified",
    ("run's key", "used again"): "market/test_lives.py::test_a_poster_who_uses_a_runs_key_again",
}  # fmt: skip


def rows() -> list[tuple[str, ...]]:
    section = PAGE.split("## What a poster can do wrong")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def test_the_page_has_a_row_for_each_bound_of_the_code() -> None:
    assert with_bounds(PAGE) == PAGE, "run `make docs`"
    assert len(rows()) == len(BOUNDS)
    assert {limit.subject for limit in LIMITS} <= {row[0] for row in rows()}


def test_every_row_is_shown() -> None:
    keys = [*SHOWN, *NAMED]
    for row in rows():
        assert [key for key in keys if row[0] == key[0] and row[1].startswith(key[1])], row
    for field, begin in keys:
        assert [row for row in rows() if row[0] == field and row[1].startswith(begin)], (field, begin)


@pytest.mark.parametrize("row", SHOWN, ids=" ".join)
async def test_the_bound_holds(row: Row) -> None:
    await SHOWN[row]()


@pytest.mark.parametrize("named", sorted(set(NAMED.values())))
def test_the_test_is_there(named: str) -> None:
    file, _, name = named.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE), named
