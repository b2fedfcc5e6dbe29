"""Sending an intent: at intervals, with a preflight until a node has taken it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nosana_operator.errors import Refused, Unavailable
from nosana_operator.market.facts import Signed
from nosana_operator.market.intents import RESEND_AFTER, IntentSender, intent_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIGNED = Signed("work", "4" * 32, "sig", "AA==", "8" * 32, 7, run="9" * 32)


class Away(Unavailable):
    """No answer."""


class Preflight(Refused):
    """The preflight failed."""


@dataclass
class Node:
    """Takes transactions, or answers with an error."""

    answers: list[Exception | None] = field(default_factory=list)
    sent: list[bool] = field(default_factory=list)
    """`first` of each send."""

    async def send(self, raw: str, *, first: bool) -> None:
        assert raw == SIGNED.raw
        self.sent.append(first)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer


async def send(sender: IntentSender, node: Any, after: float = 0.0) -> None:
    await sender.send(node, SIGNED, NOW + timedelta(seconds=after), {"wallet": SIGNED.key})


def test_the_intent_has_all_that_another_leader_needs() -> None:
    intent = intent_of(SIGNED, NOW, 3)
    assert (intent.raw, intent.signature, intent.run, intent.epoch) == (SIGNED.raw, "sig", SIGNED.run, 3)
    assert (intent.last_valid_block_height, intent.signed_at) == (7, "2026-01-01T00:00:00Z")


async def test_the_same_bytes_are_sent_again_only_after_the_interval() -> None:
    node, sender = Node(), IntentSender()
    await send(sender, node)
    await send(sender, node, RESEND_AFTER - 0.1)
    assert len(node.sent) == 1
    await send(sender, node, RESEND_AFTER)
    assert len(node.sent) == 2
    assert RESEND_AFTER == 2.0, "docs/protocol/solana-rpc.md#sending-again"


async def test_the_preflight_goes_with_each_send_until_a_node_has_taken_it() -> None:
    node, sender = Node([Away("away"), None]), IntentSender()
    for number in range(4):
        await send(sender, node, number * RESEND_AFTER)
    assert node.sent == [True, True, False, False]


async def test_a_refused_preflight_is_raised_and_remembered_until_a_node_takes_it() -> None:
    node, sender = Node([Preflight("no stake")]), IntentSender()
    with pytest.raises(Refused, match="no stake"):
        await send(sender, node)
    assert sender.refusals == {"sig": "no stake"}
    await send(sender, node, RESEND_AFTER)
    assert (sender.refusals, node.sent) == ({}, [True, True])


async def test_what_is_over_is_forgotten() -> None:
    node, sender = Node(), IntentSender()
    await send(sender, node)
    sender.forget_all_but({"sig"})
    await send(sender, node)
    assert node.sent == [True], "still remembered"
    sender.forget_all_but(set())
    await send(sender, node)
    assert node.sent == [True, True]
