"""Transactions that are signed and whose outcome is not known yet: how they are stored, and when they are sent.

(docs/architecture.md#why-it-cannot-pay-twice)

The owner of an object writes an intent into its status, and only then sends it. Sending the same bytes again is
harmless, because the chain takes a signature once; a node may drop them without an answer, so they are sent again
until their outcome is known (docs/protocol/solana-rpc.md#sending-again).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from nosana_operator.api import Transaction, timestamp
from nosana_operator.errors import NosanaError, Refused
from nosana_operator.market.facts import Signed
from nosana_operator.market.ports import Chain

log = logging.getLogger(__name__)

RESEND_AFTER = 2.0
"""Seconds between sends of the same bytes."""
POLL = 0.5
"""Seconds between reconciles while a transaction may still land: a slot takes 0.4."""
RETRY = 1.0
"""Seconds until a read that the chain did not answer is tried again."""


def intent_of(signed: Signed, now: datetime, epoch: int) -> Transaction:
    """The durable form of signed bytes; `epoch` is the term of the leader that signed them."""
    return Transaction(
        kind=signed.kind,
        key=signed.key,
        signature=signed.signature,
        raw=signed.raw,
        blockhash=signed.blockhash,
        last_valid_block_height=signed.last_valid_block_height,
        signed_at=timestamp(now),
        epoch=epoch,
        run=signed.run,
    )


@dataclass(slots=True)
class IntentSender:
    """Sends one object's intents, each at most every `RESEND_AFTER` seconds. Losing it costs only time."""

    _sent_at: dict[str, datetime] = field(default_factory=dict)
    """By signature, as all that follows."""
    _accepted: set[str] = field(default_factory=set)
    """A node has taken them: sent again without preflight."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Those whose last preflight was refused, with the chain's words."""

    async def send(
        self, chain: Chain, intent: Transaction | Signed, now: datetime, log_fields: Mapping[str, str]
    ) -> None:
        """Send durable bytes unless they were sent a moment ago. The accounts tell what came of it.

        Raises Refused with the chain's words when the preflight says no.
        """
        signature = intent.signature
        last = self._sent_at.get(signature)
        if last is not None and (now - last).total_seconds() < RESEND_AFTER:
            return
        self._sent_at[signature] = now
        extra = {**log_fields, "signature": signature}
        try:
            await chain.send(intent.raw, first=signature not in self._accepted)
        except Refused as exc:
            log.warning("preflight of %s refused: %s", intent.kind, exc, extra=extra)
            self.refusals[signature] = str(exc)
            raise
        except NosanaError as exc:
            log.warning("sending %s failed: %s", intent.kind, exc, extra=extra)
            return
        self.refusals.pop(signature, None)
        self._accepted.add(signature)

    def forget_all_but(self, signatures: Collection[str]) -> None:
        """Drop the transactions whose outcome is known."""
        self._sent_at = {one: at for one, at in self._sent_at.items() if one in signatures}
        self.refusals = {one: words for one, words in self.refusals.items() if one in signatures}
        self._accepted.intersection_update(signatures)
