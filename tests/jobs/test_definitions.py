"""The loader of definitions by itself: gateways that give no answer at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fakes.edges import FakeClock
from fakes.jobs import CID, market_job
from fakes.kube import FakeKube
from fakes.virtual_time import run_virtually
from nosana_operator.api import JOB_KIND, Exposure, JobReason, NosanaJobSpec, parse_part
from nosana_operator.content import cid_of
from nosana_operator.errors import NotFound
from nosana_operator.jobs import JobSettings
from nosana_operator.jobs.decision.decide import GIVE_UP_DEFINITION
from nosana_operator.jobs.decision.view import DefinitionState, Loading
from nosana_operator.jobs.definitions import MAX_FETCHES, DefinitionLoader


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
