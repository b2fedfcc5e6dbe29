"""The loader of definitions by itself: gateways that give no answer at all."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fakes.jobs import CID, definition, market_job, op
from fakes.kube import FakeKube
from fakes.virtual_time import run_virtually
from fakes.world import FakeClock
from nosana_operator.api import JOB_KIND, Exposure, JobReason, NosanaJobSpec, read
from nosana_operator.content import cid_of
from nosana_operator.jobs import JobSettings
from nosana_operator.jobs.decide import GIVE_UP_DEFINITION
from nosana_operator.jobs.definitions import AT_ONCE, DefinitionLoader
from nosana_operator.jobs.view import DefinitionState, Loading

ONE = json.dumps(definition(op("hello"))).encode()


class SilentGateways:
    """No fetch ever ends, but for the CIDs that they have."""

    def __init__(self, *has: str) -> None:
        self.has = has
        self.asked: list[tuple[str, float]] = []

    async def fetch(self, cid: str) -> bytes:
        self.asked.append((cid, asyncio.get_running_loop().time()))
        if cid not in self.has:
            await asyncio.Event().wait()
        return ONE


def loader(gateways: SilentGateways) -> DefinitionLoader:
    settings = JobSettings("lab", Exposure())
    return DefinitionLoader(FakeKube(now=FakeClock().now), gateways, settings, wake=lambda key: None)


def state(loading: DefinitionLoader, name: str, cid: str) -> DefinitionState:
    job: dict[str, Any] = market_job(FakeClock().now(), name)
    job["metadata"] |= {"uid": name, "generation": 1}
    job["spec"]["definitionFrom"] = {"ipfs": cid}
    return loading.state(job, read(NosanaJobSpec, JOB_KIND, "spec", job["spec"]))


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
        for n in range(AT_ONCE):
            state(loading, f"run-{n}", cid_of(bytes([n])))
        await asyncio.sleep(1)
        state(loading, "run-a", CID)
        await asyncio.sleep(GIVE_UP_DEFINITION.total_seconds() + 1)
        assert (CID, GIVE_UP_DEFINITION.total_seconds()) in gateways.asked
        await loading.close()

    run_virtually(main())
