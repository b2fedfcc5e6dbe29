"""The chain's nodes away for hours, the Kubernetes API for minutes: nothing ends by it, all comes right after."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from fakes.kube import Request
from fakes.market import MarketLab, Posted
from fakes.market_objects import JOBS
from fakes.trouble import Silence
from nosana_operator.api import JOB_KIND, condition_is_true, find_condition
from nosana_operator.chain import RpcError
from nosana_sandbox.program.layout import STATE_DONE, STATE_QUEUED

_JOBS = 50
_HOUR = 3600.0
_LEAP = 9.6
"""Seconds that pass between two slots of an outage: there is little to see in it."""


class Durations:
    """How long each job's pods run, in the order of their starts."""

    def __init__(self, *seconds: float) -> None:
        self._left = list(seconds)

    def __call__(self) -> float:
        return self._left.pop(0)


async def fifty(durations: Durations, timeout: int) -> tuple[MarketLab, list[Posted]]:
    """Fifty jobs that run on fifty GPUs."""
    lab = MarketLab(gpus=_JOBS, hosts=10, seconds=durations)
    await lab.until(lab.standing)
    jobs = [lab.post(timeout=timeout, content=n.to_bytes(2, "little")) for n in range(_JOBS)]
    await lab.until(lambda: all(lab.says("RunVerified", one) == ("True", "Verified") for one in jobs))
    # One slot more: the other controller has started them all.
    await lab.slot()
    return lab, jobs


async def leap(lab: MarketLab, seconds: float) -> None:
    """Let time pass in long steps."""
    end = lab.clock.now().timestamp() + seconds
    while lab.clock.now().timestamp() < end:
        lab.clock.advance(_LEAP)
        await lab.slot()


def over(lab: MarketLab, job: Posted) -> str | None:
    """Why the pods of a job ended; None while they run."""
    conditions = ((lab.job_of(job) or {}).get("status") or {}).get("conditions")
    for kind in ("Complete", "Failed"):
        if condition_is_true(conditions, kind):
            return str((find_condition(conditions, kind) or {})["reason"])
    return None


async def test_the_chain_away_for_two_hours_while_fifty_jobs_run() -> None:
    # Every other job is done after an hour; the rest would go on for ever, and have three hours.
    lab, jobs = await fifty(Durations(*([_HOUR, 10 * _HOUR] * (_JOBS // 2))), timeout=3 * 3600)

    async def away(method: str, when: Literal["before", "after"]) -> None:
        raise Silence("no RPC node answers")

    lab.rpc.gate = away
    await leap(lab, 2 * _HOUR)
    ended = [job for job in jobs if over(lab, job)]
    running = [job for job in jobs if not over(lab, job)]
    assert Counter(over(lab, job) for job in ended) == {"Succeeded": _JOBS // 2}, "only what was done ended"
    assert len(running) == _JOBS // 2
    assert not any(is_settled(lab, job) for job in jobs), "unknown is not settled"
    assert all(lab.run_of(job) for job in jobs), "no run was given up"

    lab.rpc.gate = _answers
    back = lab.clock.now()
    await lab.until(lab.settled(*ended), 30)
    took = (lab.clock.now() - back).total_seconds()
    assert took <= 30
    for job in ended:
        account = lab.job_account(job)
        assert account.state == STATE_DONE
        assert account.time_end - account.time_start >= 2 * _HOUR, "the chain counts until finish"
    assert [over(lab, job) for job in running] == [None] * len(running)
    assert all(lab.job_account(job).state == STATE_QUEUED and lab.run_of(job) for job in running)

    await leap(lab, 1.05 * _HOUR)
    await lab.until(lab.settled(*jobs))
    assert {over(lab, job) for job in running} == {"Expired"}
    assert [lab.says("Settled", job) for job in jobs] == [("True", "Finished")] * _JOBS
    assert set(lab.jobs.starts.values()) == {1}, "no job was started twice"
    lab.check_books()


async def test_jobs_that_expire_while_the_chain_is_away_end_in_time() -> None:
    """The time that was paid for is known; a pod that ran on would run for nothing."""
    lab, jobs = await fifty(Durations(*[10 * _HOUR] * _JOBS), timeout=1800)

    async def away(method: str, when: Literal["before", "after"]) -> None:
        raise Silence("no RPC node answers")

    lab.rpc.gate = away
    await leap(lab, 2 * _HOUR)
    assert {over(lab, job) for job in jobs} == {"Expired"}
    lab.rpc.gate = _answers
    await lab.until(lab.settled(*jobs), 30)
    assert {lab.job_account(job).timeout for job in jobs} == {1800}
    lab.check_books()


async def test_the_kubernetes_api_away_for_ten_minutes() -> None:
    lab, jobs = await fifty(Durations(*([60.0, _HOUR] * (_JOBS // 2))), timeout=2 * 3600)
    before = {body["metadata"]["uid"] for body in lab.kube.objects(JOB_KIND, JOBS)}

    async def away(request: Request, when: Literal["before", "after"]) -> None:
        raise Silence("the API server does not answer")

    lab.kube.interrupt = away
    await leap(lab, 600)
    assert not any(is_settled(lab, job) for job in jobs)
    assert all(lab.run_of(job) for job in jobs), "nothing is ended without a durable intent"
    # Whoever is restarted meanwhile comes up with nothing but what the API will tell.
    lab.kube.interrupt = None
    lab.boot()
    ended = [job for job in jobs if over(lab, job)]
    assert len(ended) == _JOBS // 2
    await lab.until(lab.settled(*ended), 30)
    assert {body["metadata"]["uid"] for body in lab.kube.objects(JOB_KIND, JOBS)} == before
    await leap(lab, 1.1 * _HOUR)
    await lab.until(lab.settled(*jobs))
    assert set(lab.jobs.starts.values()) == {1}
    lab.check_books()


def is_settled(lab: MarketLab, job: Posted) -> bool:
    return (lab.says("Settled", job) or ("", ""))[0] == "True"


async def _answers(method: str, when: Literal["before", "after"]) -> None:
    """A node that answers."""


async def test_a_run_is_settled_though_no_node_keeps_a_history_of_transactions() -> None:
    """What became of the `finish` is read from the accounts: nobody tells it of the signature."""
    lab = MarketLab(gpus=1)
    await lab.until(lab.standing)
    posted = lab.post()

    async def without_history(method: str, when: str) -> None:
        if method == "getSignatureStatuses" and lab.count("Finish"):
            raise RpcError("Transaction history is not available from this node", code=-32011)

    lab.rpc.gate = without_history
    await lab.until(lambda: lab.count("Finish") == 1, 60)
    await lab.until(lab.settled(posted), 60)
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()
