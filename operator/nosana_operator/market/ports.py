"""What the market host needs of the world, one small Protocol an edge. `runtime` plugs the real ones in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from nosana_operator.market.facts import (
    Funds,
    JobFacts,
    Known,
    MarketFacts,
    Outcome,
    Past,
    PaymentFacts,
    RunFacts,
    Signed,
)
from nosana_operator.ports import Cache as Cache
from nosana_operator.ports import Clock as Clock
from nosana_operator.ports import Events as Events
from nosana_operator.ports import Kube as Kube


class Wallet(Protocol):
    """A signing key. Its text never shows the secret."""

    @property
    def address(self) -> str:
        """The public key."""

    def authorization(self, message: str, moment: datetime) -> str:
        """A header that proves to its reader that this key said `message`.

        (docs/protocol/node.md#authorization-header)
        """


class Chain(Protocol):
    """One network's Solana.

    `watched_*` answer from the watcher at confirmed (cheap, possibly seconds old); `read_*` ask the chain
    now. Silence raises Unavailable.
    """

    def watch(self, *, keys: Collection[str], jobs: Collection[str], markets: Collection[str]) -> None:
        """Replace the set of accounts that are watched."""

    def watched_runs(self, key: str) -> Known[tuple[RunFacts, ...]]:
        """The runs that a key holds."""

    def watched_job(self, address: str) -> Known[JobFacts]:
        """A job account."""

    def watched_market(self, address: str) -> Known[MarketFacts]:
        """A market account."""

    def run_seen_at(self, address: str) -> datetime | None:
        """When the run was first noticed, by our clock; None: before this process began, or never."""

    async def refresh_runs(self, key: str, *, not_before: int = 0) -> tuple[RunFacts, ...]:
        """Read a watched key's runs at confirmed now, into the watcher too.

        Raises Unavailable when the node that answers has not reached slot `not_before`: behind one address
        there may be nodes of which some lag.
        """

    async def refresh_market(self, address: str, *, not_before: int = 0) -> MarketFacts | None:
        """Read a watched market likewise. None: there is none."""

    async def read_run(self, address: str, *, finalized: bool = False) -> RunFacts | None:
        """None: the chain says that there is no run at that address (an account of another kind is none)."""

    async def read_job(self, address: str, *, finalized: bool = False) -> JobFacts | None:
        """None: the chain says that there is no job at that address (an account of another kind is none)."""

    async def finalized_time(self) -> float:
        """The chain's unix time in its newest finalized slot."""

    async def read_funds(self, addresses: Collection[str]) -> Mapping[str, Funds]:
        """Balances and stakes of all these wallets, read together; not their access keys."""

    async def read_access_keys(self, address: str) -> frozenset[str]:
        """The collections of which a wallet holds a token that opens their markets."""

    async def read_history(
        self, key: str, *, until: str | None, before: str | None, limit: int
    ) -> list[Past]:
        """Finalized transactions that name the key, the newest first, `limit` at most: after `until` where the
        node knows it, and before `before`; none where the node does not know that one.
        """

    async def signed_by(self, signature: str, key: str) -> str | None:
        """Which instruction of the Jobs program the key signed with that transaction; None: none."""

    async def paid_by(self, signature: str) -> tuple[int, int] | None:
        """NOS base units that a finalized `finish` paid the host and gave back; None: the node does not say.

        Raises Unavailable.
        """

    def fee_cap(self) -> int:
        """Lamports that one transaction may cost."""

    async def sign_work(self, wallet: Wallet, market: MarketFacts) -> Signed:
        """A `work` transaction; makes the key's NOS account first when it is missing."""

    async def sign_stop(self, wallet: Wallet, market: str) -> Signed:
        """A `stop` transaction of the key itself."""

    async def payout_problem(self, address: str) -> str | None:
        """Why that address is none to pay to; None: a wallet."""

    async def read_payment(self, job: JobFacts, *, payout: str | None) -> PaymentFacts:
        """What a `finish` of a run of that job finds. `payout`: the NosanaMarket's address to pay to."""

    async def sign_finish(
        self,
        wallet: Wallet,
        run: RunFacts,
        job: JobFacts,
        result: bytes,
        *,
        payout: str | None,
        make_payer_account: bool,
    ) -> Signed:
        """A `finish` transaction; makes the NOS account that is paid on idempotently first, and the payer's
        where that is asked for. `result` has 32 bytes; `payout` is a wallet, by default the key's own.
        """

    async def sign_complete(self, wallet: Wallet, job: JobFacts, result: bytes) -> Signed:
        """A `complete` transaction."""

    async def sign_quit(self, wallet: Wallet, run: RunFacts) -> Signed:
        """A `quit` transaction."""

    async def send(self, raw: str, *, first: bool) -> None:
        """Send signed bytes (base64); the first time with preflight. Raises Refused with the chain's words
        when the preflight says no; that proves nothing about an earlier send of the same bytes.
        """

    async def outcome(self, signature: str, last_valid_block_height: int) -> Outcome:
        """The transaction's fate; never raises for silence (Fate.UNKNOWN)."""

    def our_time(self, chain_time: float) -> datetime:
        """A moment of the chain's clock by ours (the measured offset applied)."""

    def problem_with(self, address: str) -> str | None:
        """Why the text is no address, or None."""


class Networks(Protocol):
    """The operator's settings, as far as networks go."""

    def names(self) -> list[str]:
        """The networks that are set up."""

    def chain(self, network: str) -> Chain | None:
        """None: no such network in the settings."""

    def pinner(self, network: str) -> Pinner | None:
        """None: no such network."""

    def posters(self, network: str) -> Posters | None:
        """None: no such network."""


class Pinner(Protocol):
    """Puts results on IPFS."""

    def cid_of(self, data: bytes) -> str:
        """The CIDv0 that these exact bytes get."""

    def digest_of(self, cid: str) -> bytes:
        """The 32 bytes that stand on chain for a CIDv0."""

    def cid_from_digest(self, digest: bytes) -> str:
        """Inverse of `digest_of`."""

    async def pin(self, data: bytes, *, name: str) -> None:
        """Pin these exact bytes under their own CID. Raises Unavailable or Refused."""

    async def gives(self, cid: str) -> bool:
        """Whether a gateway gives the bytes of that CID; True where there is no gateway to ask."""


class Posters(Protocol):
    """Asks endpoints that posters named. Both raise Refused for one that is never asked, NotFound when it
    answers no, Unavailable when nobody knows whether it was reached.
    """

    async def get(self, url: str, *, authorization: str) -> bytes:
        """What it gives. Refused also for more than a definition may have."""

    async def post(self, url: str, body: bytes, *, authorization: str) -> None:
        """Give it a JSON document."""


class WalletReader(Protocol):
    """Makes a wallet of a Secret's bytes."""

    def __call__(self, data: bytes, /) -> Wallet:
        """Raises Refused with a sentence that never holds the bytes."""


class Metrics(Protocol):
    """Figures the market host gives away."""

    def matched(self, market: str) -> None:
        """A job was made for a run of the market."""

    def funds(self, network: str, key: str, funds: Funds) -> None:
        """What a key has, as just read."""

    def finish_sent(self, market: str, seconds: float) -> None:
        """Last container seen terminated → settlement sent."""

    def settled(
        self, market: str, kind: str, earned: int, refunded: int, seconds: int, *, took: float
    ) -> None:
        """A run is settled at finalized, `took` seconds after its job ended; amounts in NOS base units."""


class Leadership(Protocol):
    """Whether this process is the one that may act."""

    def check(self, seen: int = 0) -> int:
        """The epoch (term) in which this process leads: it stands in every intent.

        Raises an error that ends the process when it leads no more, or when `seen`, the epoch of an intent
        that it found, is a later one: then another leads, and nothing may be signed.
        """


@dataclass(frozen=True, slots=True)
class Edges:
    """All of them together, as the loops get them."""

    kube: Kube
    cache: Cache
    networks: Networks
    read_wallet: WalletReader
    events: Events
    metrics: Metrics
    clock: Clock
    leadership: Leadership
