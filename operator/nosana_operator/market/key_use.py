"""Is a key used by somebody else too? Then two hosts would run, and settle, the same jobs.

What tells is a transaction that the key signed for the Jobs program and that we have no intent for. Only what
is finalized is judged: our own intents stand in the objects from before they are sent until after that, so
neither a crash nor a fork nor a watch that lags makes one of ours look strange. What was there before this
process looked first is taken as it is.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nosana_operator.api import ANNOTATION_KEY_USE
from nosana_operator.errors import NosanaError
from nosana_operator.market.ports import Chain, Clock

log = logging.getLogger(__name__)

SETTLES = 30.0
"""Seconds after a change of the key's balance at which its history is looked at: what changed it is final then."""
LOOK_EVERY = 600.0
"""Seconds between looks when the balance stays: somebody else may have paid the fees."""
_REMEMBERED = 20_000


@dataclass(slots=True)
class _Key:
    """What was judged of one key's history."""

    slot: int
    """Up to here, and `judged` beyond: nothing is judged twice."""
    looked_at: datetime
    lamports: int | None
    changed_at: datetime | None = None
    """When the balance was first seen to be another than at the last look."""
    until: str | None = None
    judged: set[str] = field(default_factory=set)
    foreign: str | None = None


class KeyUse:
    """Looks through the keys' histories."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[tuple[str, str], _Key] = {}
        self._order: deque[str] = deque()
        self._own: set[str] = set()

    def note(self, markets: Iterable[Mapping[str, Any]], jobs: Iterable[Mapping[str, Any]]) -> None:
        """Take in the intents as they stand in the objects."""
        intents = [
            one for market in markets for one in (market.get("status") or {}).get("transactions") or ()
        ]
        for job in jobs:
            intent = ((job.get("status") or {}).get("settlement") or {}).get("transaction")
            intents += [intent] if intent else []
        for intent in intents:
            if intent["signature"] not in self._own:
                self._own.add(intent["signature"])
                self._order.append(intent["signature"])
        while len(self._order) > _REMEMBERED:
            self._own.discard(self._order.popleft())

    async def look(
        self, chain: Chain, network: str, key: str, *, slot: int, lamports: int | None, known: str | None
    ) -> str | None:
        """The signature of the newest transaction of the key that is not ours, or None.

        Args:
            slot: the chain's, as just read: what is finalized by the first look is not judged.
            lamports: what the key has. Each transaction that it pays for changes that, so as long as it stays
                the same nothing is asked.
            known: what the status says of it already.
        """
        now = self._clock.now()
        state = self._keys.get((network, key))
        if state is None:
            state = self._keys[(network, key)] = _Key(slot, now, lamports, foreign=known)
        if lamports != state.lamports and state.changed_at is None:
            state.changed_at = now
        changed = state.changed_at is not None and (now - state.changed_at).total_seconds() >= SETTLES
        if changed or (now - state.looked_at).total_seconds() >= LOOK_EVERY:
            state.looked_at, state.lamports, state.changed_at = now, lamports, None
            try:
                await self._judge(chain, key, state)
            except NosanaError as exc:
                log.warning("history of the key not read: %s", exc, extra={"wallet": key})
                # Not before the next pause, however often this is called.
                state.changed_at = now
        return state.foreign

    async def _judge(self, chain: Chain, key: str, state: _Key) -> None:
        history = await chain.read_history(key, until=state.until)
        for one in reversed(history):
            if one.slot <= state.slot or one.signature in state.judged:
                continue
            if not one.failed and one.signature not in self._own:
                kind = await chain.signed_by(one.signature, key)
                if kind is not None:
                    log.error(
                        "the key is used elsewhere: it signed a %s that is not ours",
                        kind,
                        extra={"wallet": key, "signature": one.signature},
                    )
                    state.foreign = one.signature
            state.judged.add(one.signature)
        if history and history[0].slot > state.slot:
            # What is older than the one from which the next look goes on needs no remembering.
            state.until = history[0].signature
            newest = history[0].slot
            state.slot = newest - 1
            state.judged = {one.signature for one in history if one.slot == newest}


def acknowledged(markets: Iterable[Mapping[str, Any]]) -> Collection[str]:
    """Signatures of which admins have said that they are over with."""
    return {
        signature
        for market in markets
        for signature in str(
            (market["metadata"].get("annotations") or {}).get(ANNOTATION_KEY_USE, "")
        ).split()
    }
