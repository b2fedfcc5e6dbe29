"""With the WebSocket dead or mute: how late things are seen, and what it costs. Time is simulated."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from functools import partial

import pytest
from solders.pubkey import Pubkey

from nosana_operator.chain import JobState
from nosana_sandbox.chain import DirectSession
from nosana_sandbox.program.layout import STATE_DONE, Job
from support.watched_chain import Scene, account, simulate


def test_an_hour_without_a_websocket_keeps_the_bounds() -> None:
    async def program(scene: Scene) -> dict[str, list[float]]:
        chance, bank, watcher = random.Random(5), scene.founded.bank, scene.watcher
        late: dict[str, list[float]] = {"run": [], "extension": [], "end": []}
        host = scene.hosts[0]
        for _ in range(50):
            scene.stands(host, True)
            await asyncio.sleep(chance.uniform(20, 60))
            # Matched: it stands no more, and a run exists.
            scene.stands(host, False)
            job, run = scene.job(host)
            late["run"].append(
                await scene.until(lambda run=run: getattr(watcher.runs.get(str(run)), "value", None))
            )
            scene.watch()
            await asyncio.sleep(chance.uniform(5, 20))
            for event, change in (
                ("extension", {"timeout": 7200}),
                ("end", {"timeout": 7200, "state": STATE_DONE}),
            ):
                held = bank.account(job)
                assert held is not None
                bank.place(job, account(replace(Job.decode(held.data), **change)))  # type: ignore[arg-type]
                if event == "end":
                    bank.place(run, None)

                def seen(event: str = event, job: Pubkey = job) -> bool:
                    value = watcher.jobs[str(job)].value
                    assert value is not None
                    return value.timeout == 7200 if event == "extension" else value.state is JobState.DONE

                late[event].append(await scene.until(seen))
                await asyncio.sleep(chance.uniform(0, 10))
            del scene.runs[run]
            scene.watch()
        assert asyncio.get_running_loop().time() > 3600
        return late

    late = simulate(program)
    assert max(late["run"]) <= 10
    assert max(late["end"]) <= 10
    assert max(late["extension"]) <= 30


def test_a_run_is_seen_though_we_were_never_seen_standing() -> None:
    """`work` and the match fall between two looks at the market."""

    async def program(scene: Scene) -> float:
        await asyncio.sleep(30.2)
        scene.watcher.expect(str(scene.hosts[0]))
        await asyncio.sleep(0.5)
        scene.job(scene.hosts[0])
        return await scene.until(lambda: scene.watcher.runs_of(str(scene.hosts[0])))

    assert simulate(program) <= 10


def test_standing_ends_the_expectation() -> None:
    async def program(scene: Scene) -> int:
        scene.watcher.expect(str(scene.hosts[0]))
        scene.stands(scene.hosts[0], True)
        await asyncio.sleep(12)
        before = scene.session.requests
        await asyncio.sleep(40)
        return scene.session.requests - before

    assert simulate(program) <= 40 / 6 + 2


def test_a_closed_run_is_missed_within_a_minute_and_a_half() -> None:
    """An admin's quit touches the run only."""

    async def program(scene: Scene) -> float:
        _, run = scene.job(scene.hosts[0])
        await scene.until(lambda: scene.watcher.runs_of(str(scene.hosts[0])))
        scene.founded.bank.place(run, None)
        return await scene.until(lambda: scene.watcher.runs_of(str(scene.hosts[0])) == ())

    assert simulate(program) <= 91


@pytest.mark.parametrize(("followed", "most"), [(False, 0.86), (True, 0.48)])
def test_500_running_jobs_leave_room_below_one_request_a_second(followed: bool, most: float) -> None:
    """For what the market room reads: keys' funds and history, payout addresses."""

    async def program(scene: Scene) -> float:
        before = scene.session.requests
        await asyncio.sleep(900)
        return (scene.session.requests - before) / 900

    assert simulate(program, hosts=8, jobs=500, followed=followed) <= most


def test_a_slow_node_hides_no_end_for_long() -> None:
    async def program(scene: Scene) -> float:
        chance, bank, late = random.Random(1), scene.founded.bank, 0.0
        for run in [*scene.runs.values()][:25]:
            await asyncio.sleep(chance.uniform(0, 9))
            held = bank.account(run.job)
            assert held is not None
            bank.place(run.job, account(replace(Job.decode(held.data), state=STATE_DONE)))

            def seen(job: str = str(run.job)) -> bool:
                value = scene.watcher.jobs[job].value
                return value is not None and value.state is JobState.DONE

            late = max(late, await scene.until(seen))
        return late

    assert simulate(program, hosts=8, jobs=500, session=partial(DirectSession, seconds=1.0)) <= 10


def test_after_two_hours_away_everything_is_read_within_seconds() -> None:
    async def program(scene: Scene) -> float:
        watcher = scene.watcher
        scene.session.faults.add("cut")
        await asyncio.sleep(7200)
        assert watcher.staleness is not None
        assert watcher.staleness > 7000
        assert len(watcher.runs_of(str(scene.hosts[0])) or ()) == 50, "what was known stays"
        job, run = next((run.job, address) for address, run in scene.runs.items())
        scene.founded.bank.place(job, account(Job(market=scene.founded.market, state=STATE_DONE)))
        scene.founded.bank.place(run, None)
        scene.founded.bank.tick(2)
        scene.session.faults.clear()

        def seen() -> bool:
            value = watcher.jobs[str(job)].value
            return value is not None and value.state is JobState.DONE

        late = await scene.until(seen)
        return late + await scene.until(lambda: len(watcher.runs_of(str(scene.hosts[0])) or ()) == 49)

    assert simulate(program, jobs=50) <= 10
