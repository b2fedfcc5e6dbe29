"""The loader of definitions: gateways that give no answer at all, and what a stranger's text costs."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from fakes.edges import FakeClock
from fakes.jobs import CID, NAMESPACE, Lab, definition, market_job, op, private_job
from fakes.kube import FakeKube
from fakes.virtual_time import run_virtually
from nosana_operator.api import JOB_KIND, Exposure, JobReason, NosanaJobSpec, parse_part
from nosana_operator.content import cid_of
from nosana_operator.definition import exposure, parse
from nosana_operator.errors import NotFound
from nosana_operator.jobs import JobSettings, controller, definitions
from nosana_operator.jobs.decision.decide import GIVE_UP_DEFINITION
from nosana_operator.jobs.decision.view import DefinitionState, Loading
from nosana_operator.jobs.definitions import MAX_FETCHES, DefinitionLoader
from nosana_operator.workload import JobContext, build_op_objects


class SilentGateways:
    """No fetch ever ends, but for the CIDs that they know not to exist."""

    def __init__(self, *lacks: str) -> None:
        self.lacks = lacks
        self.asked: list[tuple[str, float]] = []

    async def fetch(self, cid: str) -> bytes:
        self.asked.append((cid, asyncio.get_running_loop().time()))
        if cid not in self.lacks:
            await asyncio.Event().wait()
        raise NotFound("no gateway has it")


def loader(gateways: SilentGateways) -> DefinitionLoader:
    settings = JobSettings("lab", Exposure())
    return DefinitionLoader(FakeKube(now=FakeClock().now), gateways, settings, wake=lambda key: None)


def state(loading: DefinitionLoader, name: str, cid: str) -> DefinitionState:
    job: dict[str, Any] = market_job(FakeClock().now(), name)
    job["metadata"] |= {"uid": name, "generation": 1}
    job["spec"]["definitionFrom"] = {"ipfs": cid}
    return loading.state(job, parse_part(NosanaJobSpec, JOB_KIND, "spec", job["spec"]))


def test_an_attempt_takes_no_longer_than_a_definition_is_looked_for() -> None:
    async def main() -> None:
        loading = loader(SilentGateways())
        assert state(loading, "run-a", CID) == Loading()
        await asyncio.sleep(GIVE_UP_DEFINITION.total_seconds() + 1)
        said = state(loading, "run-a", CID)
        assert isinstance(said, Loading)
        assert (said.problem, said.reason) == ("no answer in 120 s", JobReason.DEFINITION_UNREACHABLE)
        await loading.close()

    run_virtually(main())


def test_attempts_that_hang_keep_nobody_waiting_for_ever() -> None:
    async def main() -> None:
        gateways = SilentGateways(CID)
        loading = loader(gateways)
        for n in range(MAX_FETCHES):
            state(loading, f"run-{n}", cid_of(bytes([n])))
        await asyncio.sleep(1)
        state(loading, "run-a", CID)
        await asyncio.sleep(GIVE_UP_DEFINITION.total_seconds() + 1)
        at = [at for cid, at in gateways.asked if cid == CID]
        assert at[0] == pytest.approx(GIVE_UP_DEFINITION.total_seconds())
        await loading.close()

    run_virtually(main())


# -- what a stranger's text costs ------------------------------------------------------------------------------


class CountedThreads:
    """Notes in which threads functions of a module are called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, *names: str) -> None:
        self.on_loop: list[str] = []
        self.in_thread: list[str] = []
        for name in names:
            monkeypatch.setattr(module, name, self._noted(name, getattr(module, name)))

    def _noted(self, name: str, call: Any) -> Any:
        def noted(*args: Any, **options: Any) -> Any:
            main = threading.current_thread() is threading.main_thread()
            (self.on_loop if main else self.in_thread).append(name)
            return call(*args, **options)

        return noted


@pytest.mark.parametrize("source", ["inline", "configMap", "ipfs"])
async def test_a_large_definition_is_read_planned_and_decided_beside_the_event_loop(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = CountedThreads(monkeypatch, definitions, "parse_inline", "parse", "_planned")
    decisions = CountedThreads(monkeypatch, controller, "decide")
    document = definition(*(op(f"op-{n}", env={f"V{i}": "x" * 20 for i in range(50)}) for n in range(16)))
    lab = Lab(exits=dict.fromkeys(range(16), 0))
    if source == "inline":
        lab.kube.add(private_job({"definition": document}))
    elif source == "configMap":
        lab.kube.add(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "d", "namespace": NAMESPACE},
                "data": {"definition.json": json.dumps(document)},
            }
        )
        lab.kube.add(private_job({"definitionFrom": {"configMap": {"name": "d"}}}))
    else:
        lab.ipfs.content[CID] = json.dumps(document).encode()
        lab.kube.add(private_job({"definitionFrom": {"ipfs": CID}}))
    lab.boot()
    await lab.drive(lab.over())
    assert lab.phase() == "Completed"
    assert loader.on_loop == []
    assert set(loader.in_thread) == {"parse_inline" if source == "inline" else "parse", "_planned"}
    assert decisions.in_thread
    assert len(decisions.on_loop) <= 4, "before the definition is there, and after the end"


async def test_a_changed_spec_is_planned_beside_the_event_loop_too(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = CountedThreads(monkeypatch, definitions, "_planned")
    lab = Lab()
    lab.kube.add(
        private_job({"definition": definition(op("a", env={f"V{i}": "x" * 20 for i in range(500)}))})
    )
    lab.boot()
    await lab.drive(lambda: lab.phase() == "Running")
    lab.kube.edit(JOB_KIND, NAMESPACE, "hello", {"spec": {"timeout": 60}})
    await lab.drive(lab.over())
    assert loader.on_loop == []
    assert len(loader.in_thread) == 2


def test_cached_definitions_are_bounded_in_bytes() -> None:
    cache = definitions._Cache(100)
    parsed = parse(definition(op("a")))
    for cid, size in (("a", 40), ("b", 40), ("a", 50), ("c", 40), ("d", 101)):
        cache.put(cid, parsed, size)
        assert cache._bytes == sum(size for _, size in cache._kept.values()) <= 100
        if cid == "c":
            assert list(cache._kept) == ["a", "c"]
    assert list(cache._kept) == []


def test_the_cost_of_a_start_does_not_grow_with_the_ports_of_other_ops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashed: list[str] = []
    create_hash = exposure.create_hash.__wrapped__

    def counted(text: str, length: int = 44) -> str:
        hashed.append(text)
        return str(create_hash(text, length))

    monkeypatch.setattr(exposure, "create_hash", counted)
    ops = [op(f"op-{n}", expose=list(range(1, 33)), cmd=["%%ops.op-0.host%%"]) for n in range(16)]
    document = parse(definition(*ops))
    context = JobContext("hello", NAMESPACE, "uid", NosanaJobSpec(), document, "lab", Exposure(domain="test"))
    build_op_objects(context, 5)
    assert {text.split(":")[0] for text in hashed} == {"5"}
