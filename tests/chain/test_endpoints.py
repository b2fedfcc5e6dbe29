"""Which node is asked next, and what is known of each."""

from __future__ import annotations

from typing import Any, cast

import aiohttp
import pytest

from nosana_operator.chain import ChainUnavailable, Endpoints, EndpointView, Health, MethodRefused, RpcError
from nosana_operator.chain.rpc.endpoints import Candidate, choose
from nosana_operator.chain.rpc.wire import read_int

NOW = 100.0


def candidate(
    number: int, health: Health = Health.GOOD, *, refuses: bool = False, free_in: float = 0.0
) -> Candidate:
    return Candidate(EndpointView(number, health, None, 0), refuses, NOW + free_in)


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([], None),
        ([candidate(0), candidate(1)], (0, 0.0)),
        ([candidate(0, Health.SLOW), candidate(1)], (1, 0.0)),
        ([candidate(0, Health.LAGGING), candidate(1, Health.SLOW)], (1, 0.0)),
        ([candidate(0, Health.DOWN), candidate(1, Health.LAGGING)], (1, 0.0)),
        ([candidate(0, Health.DOWN), candidate(1, Health.RESTING)], (1, 0.0)),
        ([candidate(0, Health.DOWN), candidate(1, Health.DOWN)], (0, 0.0)),
        ([candidate(0, refuses=True), candidate(1, Health.DOWN)], (1, 0.0)),
        ([candidate(0, refuses=True)], None),
        # A moment's wait is worse than a lagging node, but better than a dead one.
        ([candidate(0, free_in=0.5), candidate(1, Health.LAGGING)], (1, 0.0)),
        ([candidate(0, free_in=0.5), candidate(1, Health.DOWN)], (0, 0.5)),
        ([candidate(0, free_in=0.5), candidate(1, free_in=0.2)], (1, 0.2)),
    ],
)
def test_choice(candidates: list[Candidate], chosen: tuple[int, float] | None) -> None:
    assert choose(candidates, NOW) == (None if chosen is None else (chosen[0], pytest.approx(chosen[1])))  # type: ignore[comparison-overlap]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Scripted(Endpoints):
    """Nodes whose answers are given: a result, or the error to raise."""

    def __init__(self, answers: list[Any], clock: Clock, rate: float | None = None) -> None:
        urls = [f"http://node-{n}" for n in range(len(answers))]
        session = cast(aiohttp.ClientSession, None)
        super().__init__(urls, session, requests_per_second=rate, clock=clock, sleep=clock.sleep)
        self.answers = answers
        for endpoint in self._all:
            cast(Any, endpoint).ask = self._answer(endpoint.number)

    def _answer(self, number: int) -> Any:
        async def ask(method: str, params: Any, seconds: float) -> Any:
            answer = self.answers[number]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask

    def healths(self) -> list[Health]:
        return [view.health for view in self.views]


async def ask(nodes: Endpoints, number: int, method: str) -> Any:
    return await nodes.ask(number, method, [], 1, read_int)


async def test_failure_and_recovery() -> None:
    clock = Clock()
    nodes = Scripted([ChainUnavailable("away"), 7], clock)
    with pytest.raises(ChainUnavailable):
        await ask(nodes, 0, "getSlot")
    assert nodes.healths() == [Health.DOWN, Health.GOOD]
    assert await nodes.take("getSlot") == 1
    assert await nodes.take("getSlot", avoid={1}) == 0
    assert nodes.usable() == [1]
    nodes.answers[0] = 7
    await nodes.probe()
    assert nodes.healths() == [Health.GOOD, Health.GOOD]


async def test_a_limit_is_kept_for_as_long_as_it_was_asked() -> None:
    clock = Clock()
    nodes = Scripted([ChainUnavailable("slowly", retry_after=30, limited=True), 7], clock)
    with pytest.raises(ChainUnavailable):
        await ask(nodes, 0, "getSlot")
    assert nodes.healths() == [Health.RESTING, Health.GOOD]
    clock.now += 29
    assert await nodes.take("getSlot") == 1
    clock.now += 1
    assert await nodes.take("getSlot") == 0
    nodes.answers[0] = ChainUnavailable("slowly", limited=True)
    with pytest.raises(ChainUnavailable):
        await ask(nodes, 0, "getSlot")
    clock.now += 5
    assert nodes.healths() == [Health.GOOD, Health.GOOD]


async def test_a_refused_method_is_asked_again_much_later() -> None:
    clock = Clock()
    nodes = Scripted([MethodRefused("off", code=410)], clock)
    with pytest.raises(MethodRefused):
        await ask(nodes, 0, "getProgramAccounts")
    assert nodes.healths() == [Health.GOOD]
    assert await nodes.take("getProgramAccounts") is None
    assert await nodes.take("getSlot") == 0
    clock.now += 600
    assert await nodes.take("getProgramAccounts") == 0


async def test_an_error_of_the_request_is_no_fault_of_the_node() -> None:
    nodes = Scripted([RpcError("invalid", code=-32602)], Clock())
    with pytest.raises(RpcError):
        await ask(nodes, 0, "getBalance")
    assert nodes.healths() == [Health.GOOD]


async def test_the_rate_limit_is_a_bucket_for_each_node() -> None:
    clock = Clock()
    nodes = Scripted([1, 1], clock, rate=2)
    assert [await nodes.take("x") for _ in range(4)] == [0, 0, 1, 1]
    assert clock.now == NOW
    assert await nodes.take("x") in (0, 1)
    assert clock.now == pytest.approx(NOW + 0.5)
    clock.now += 10
    assert [await nodes.take("x") for _ in range(4)] == [0, 0, 1, 1], "no more than a second's worth is saved"


async def test_probing_finds_the_slow_and_the_lagging() -> None:
    clock = Clock()
    nodes = Scripted([1000, 1100, 1090, "nonsense"], clock)
    await nodes.probe()
    assert nodes.healths() == [Health.LAGGING, Health.GOOD, Health.GOOD, Health.DOWN]
    assert [view.slots_behind for view in nodes.views] == [100, 0, 10, 0]
    nodes._all[1].probed(1.5, 0)
    assert nodes.healths()[1] is Health.SLOW


async def test_a_single_node_is_not_compared() -> None:
    nodes = Scripted([ChainUnavailable("away")], Clock())
    await nodes.run()
    assert nodes.healths() == [Health.GOOD]


def test_a_network_without_nodes_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Endpoints([], cast(aiohttp.ClientSession, None))
