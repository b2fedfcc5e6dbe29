"""`nosana-operator leave`: asks, waits, and never says "left" of what nobody knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nosana_operator.api import ANNOTATION_LEAVE_UNTIL, MARKET_KIND, leaves_until, parse_timestamp, timestamp
from nosana_operator.cli.leave import STAYS_OUT, StillStandingError, leave_queues, still_standing
from nosana_operator.errors import NotFound, Unavailable

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def condition(kind: str, status: str = "True", reason: str = "Standing") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": "as it is"}


def market(name: str = "m", namespace: str = "a", **status: Any) -> dict[str, Any]:
    known = {"conditions": [condition("MarketFound"), condition("Ready")]} if status else {}
    return {
        "kind": MARKET_KIND,
        "metadata": {"name": name, "namespace": namespace},
        "status": {**known, **status},
    }


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, None),
        ({"slots": {"standing": 0, "running": 3}}, None),
        ({"slots": {"standing": 1}}, "1 key stands (Standing: as it is)"),
        ({"slots": {"standing": 2}}, "2 keys stand (Standing: as it is)"),
        ({"slots": {"standing": 0}, "transactions": [{"kind": "work"}]}, "work not final yet"),
        # The stop has landed, but a fork may yet undo it.
        ({"slots": {"standing": 0}, "transactions": [{"kind": "stop"}]}, "stop not final yet"),
        # The chain has not answered: that nobody is seen to stand says nothing.
        (
            {
                "slots": {"standing": 0},
                "conditions": [condition("MarketFound", "Unknown", "ChainUnavailable")],
            },
            "not known whether a key stands",
        ),
        (
            {"slots": {"standing": 0}, "wallets": [{"secret": "s", "state": "Unknown"}]},
            "not known whether a key stands",
        ),
        # A key that the operator has lost still stands: who can do something about it is in its row.
        (
            {
                "slots": {"standing": 1},
                "wallets": [
                    {
                        "secret": "s",
                        "state": "Blocked",
                        "standing": True,
                        "reason": "SecretMissing",
                        "message": "create it",
                    },
                    {
                        "secret": "t",
                        "state": "Standing",
                        "standing": True,
                        "reason": "Standing",
                        "message": "stands",
                    },
                ],
            },
            "1 key stands (Standing: as it is; SecretMissing: create it)",
        ),
        # There is no such market: nothing stands in it.
        (
            {"slots": {"standing": 0}, "conditions": [condition("MarketFound", "False", "MarketNotFound")]},
            None,
        ),
    ],
)
def test_what_still_stands(status: dict[str, Any], words: str | None) -> None:
    said = still_standing(market(**status))
    assert (said is None) if words is None else (said is not None and words in said)


class Cluster:
    """A Kubernetes API with NosanaMarkets, and an operator that acts each time somebody waits."""

    def __init__(self, *markets: dict[str, Any], acts: Callable[[Cluster], None] = lambda _: None) -> None:
        self.markets = {(m["metadata"]["namespace"], m["metadata"]["name"]): m for m in markets}
        self.acts = acts
        self.now = NOW
        self.silent = False

    async def list(self, kind: str, namespace: str | None = None) -> list[dict[str, Any]]:
        return [m for key, m in self.markets.items() if namespace in (None, key[0])]

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any]:
        if self.silent:
            raise Unavailable("no answer")
        if (namespace or "", name) not in self.markets:
            raise NotFound("no such thing")
        return deepcopy(self.markets[(namespace or "", name)])

    async def patch(
        self, kind: str, namespace: str | None, name: str, patch: Mapping[str, Any]
    ) -> dict[str, Any]:
        found = self.markets[(namespace or "", name)]
        found["metadata"] |= patch["metadata"]
        return deepcopy(found)

    async def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.acts(self)

    async def leave(self, *namespaces: str) -> list[str]:  # type: ignore[valid-type]
        return await leave_queues(self, namespaces, MINUTE, now=lambda: self.now, sleep=self.sleep)  # type: ignore[arg-type]


def obeys(cluster: Cluster) -> None:
    for body in cluster.markets.values():
        if leaves_until(body["metadata"].get("annotations"), cluster.now):
            body["status"]["slots"]["standing"] = 0


async def test_it_asks_with_an_end_and_waits_until_nobody_stands() -> None:
    cluster = Cluster(market(slots={"standing": 2, "running": 1}), acts=obeys)
    assert await cluster.leave() == ["a/m: out of the queue; 1 running job continues"]
    said = cluster.markets[("a", "m")]["metadata"]["annotations"][ANNOTATION_LEAVE_UNTIL]
    assert parse_timestamp(said) == NOW + MINUTE + STAYS_OUT


async def test_only_the_namespaces_that_are_named() -> None:
    cluster = Cluster(market(slots={"standing": 1}), market(namespace="b", slots={"standing": 1}), acts=obeys)
    assert await cluster.leave("b") == ["b/m: out of the queue"]
    assert "annotations" not in cluster.markets[("a", "m")]["metadata"]


async def test_one_that_goes_meanwhile_is_left() -> None:
    def deleted(cluster: Cluster) -> None:
        cluster.markets.clear()

    assert await Cluster(market(slots={"standing": 1}), acts=deleted).leave() == [
        "there is no NosanaMarket to leave"
    ]


async def test_silence_is_no_answer() -> None:
    def falls_silent(cluster: Cluster) -> None:
        cluster.markets[("a", "m")]["status"]["slots"]["standing"] = 0
        cluster.silent = True

    with pytest.raises(StillStandingError, match="a/m: 1 key stands"):
        await Cluster(market(slots={"standing": 1}), acts=falls_silent).leave()


async def test_who_stands_to_the_end_is_named_with_the_remedy() -> None:
    cluster = Cluster(market("gone", slots={"standing": 1}), market("stays", slots={"standing": 1}))

    def one_obeys(cluster: Cluster) -> None:
        cluster.markets[("a", "gone")]["status"]["slots"]["standing"] = 0

    cluster.acts = one_obeys
    with pytest.raises(
        StillStandingError, match=r"a/stays: 1 key stands.*Check that the operator runs"
    ) as told:
        await cluster.leave()
    assert "a/gone" not in str(told.value)
    assert cluster.now - NOW == MINUTE


@pytest.mark.parametrize(
    ("value", "leaves"),
    [
        (None, False),
        (timestamp(NOW + MINUTE), True),
        (timestamp(NOW), False),
        ("2026-01-02T03:05:00", True),
        # Out of the queue costs less than a run that nobody serves.
        ("as long as you like", True),
    ],
)
def test_until_when(value: str | None, leaves: bool) -> None:
    annotations = {} if value is None else {ANNOTATION_LEAVE_UNTIL: value}
    assert (leaves_until(annotations, NOW) is not None) is leaves
