"""The services that the market host uses, one small Protocol for each edge. `runtime` provides the real ones."""

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
        """An `Authorization` header that proves that this wallet signed `message`.

        (docs/protocol/node.md#authorization-header)
        """


class Chain(Protocol):
    """One network's Solana.

    `watched_*` answer from the watcher at confirmed (cheap, possibly seconds old). `read_*` ask the chain now and
    raise Unavailable when it does not answer.
    """

    def watch(self, *, keys: Collection[str], jobs: Collection[str], markets: Collection[str]) -> None:
        """Replace the set of accounts that are watched."""

    def watched_runs(self, key: str) -> Known[tuple[RunFacts, ...]]:
        """The runs that a wallet holds."""

    def watched_job(self, address: str) -> Known[JobFacts]:
        """A job account."""

    def watched_market(self, address: str) -> Known[MarketFacts]:
        """A market account."""

    def run_seen_at(self, address: str) -> datetime | None:
        """When the watcher first saw the run, by our clock; None: before this process started, or never."""

    async def refresh_runs(self, key: str, *, not_before: int = 0) -> tuple[RunFacts, ...]:
        """Read a watched wallet's runs at confirmed now; the watcher takes them over.

        Raises Unavailable when the node that answers has not reached slot `not_before`: behind one address there
        may be several nodes, and some may lag.
        """

    async def refresh_market(self, address: str, *, not_before: int = 0) -> MarketFacts | None:
        """Read a watched market in the same way. None: there is none."""

    async def read_run(self, address: str, *, finalized: bool = False) -> RunFacts | None:
        """None: there is no run account at that address."""

    async def read_job(self, address: str, *, finalized: bool = False) -> JobFacts | None:
        """None: there is no job account at that address."""

    async def finalized_time(self) -> float:
        """The chain's unix time in its newest finalized slot."""

    async def read_funds(self, addresses: Collection[str]) -> Mapping[str, Funds]:
        """Balances and stakes of all these wallets, read together; not their access keys."""

    async def read_access_keys(self, address: str) -> frozenset[str]:
        """The collections of which a wallet holds a token: access keys of markets."""

    async def read_history(
        self, key: str, *, until: str | None, before: str | None, limit: int
    ) -> list[Past]:
        """Finalized transactions that name the wallet, the newest first, at most `limit`.

        Those after `until`, if the node knows it, and before `before`; none if the node does not know `before`.
        """

    async def signed_by(self, signature: str, key: str) -> str | None:
        """The instruction of the Jobs program that the wallet signed in that transaction; None: none."""

    async def paid_by(self, signature: str) -> tuple[int, int] | None:
        """NOS base units that a finalized `finish` paid to the host and refunded; None: the node does not tell.

        Raises Unavailable.
        """

    def fee_cap(self) -> int:
        """Lamports that one transaction may cost."""

    async def sign_work(self, wallet: Wallet, market: MarketFacts) -> Signed:
        """A `work` transaction; creates the wallet's NOS account first if it is missing."""

    async def sign_stop(self, wallet: Wallet, market: str) -> Signed:
        """A `stop` transaction for the wallet's own entry in the queue."""

    async def payout_problem(self, address: str) -> str | None:
        """Why this address cannot receive the payout; None if it can."""

    async def read_payment(self, job: JobFacts, *, payout: str | None) -> PaymentFacts:
        """The accounts that a `finish` of a run of that job would use. `payout`: `spec.payoutAddress`."""

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
        """A `finish` transaction.

        It first creates the NOS account that is paid, idempotently, and the payer's if `make_payer_account`.
        `result` has 32 bytes; `payout` is a wallet, by default the signer.
        """

    async def sign_complete(self, wallet: Wallet, job: JobFacts, result: bytes) -> Signed:
        """A `complete` transaction."""

    async def sign_quit(self, wallet: Wallet, run: RunFacts) -> Signed:
        """A `quit` transaction."""

    async def send(self, raw: str, *, first: bool) -> None:
        """Send signed bytes (base64), the `first` time with preflight.

        Raises Refused with the chain's words when the preflight fails; that proves nothing about an earlier send
        of the same bytes.
        """

    async def outcome(self, signature: str, last_valid_block_height: int) -> Outcome:
        """The transaction's fate; never raises for silence (Fate.UNKNOWN)."""

    def our_time(self, chain_time: float) -> datetime:
        """Convert a time of the chain's clock to ours, with the measured offset."""

    def problem_with(self, address: str) -> str | None:
        """Why the text is not an address; None if it is."""


class Networks(Protocol):
    """The networks of the operator's settings."""

    def names(self) -> list[str]:
        """The networks in the settings."""

    def chain(self, network: str) -> Chain | None:
        """None: no such network in the settings."""

    def pinner(self, network: str) -> Pinner | None:
        """None: no such network."""

    def posters(self, network: str) -> Posters | None:
        """None: no such network."""


class Pinner(Protocol):
    """Pins results on IPFS."""

    def cid_of(self, data: bytes) -> str:
        """The CIDv0 of these exact bytes."""

    def digest_of(self, cid: str) -> bytes:
        """The 32 bytes that represent a CIDv0 on chain."""

    def cid_from_digest(self, digest: bytes) -> str:
        """Inverse of `digest_of`."""

    async def pin(self, data: bytes, *, name: str) -> None:
        """Pin these exact bytes under their own CID. Raises Unavailable or Refused."""

    async def gives(self, cid: str) -> bool:
        """Whether a gateway returns the bytes of that CID; True if no gateway is configured."""


class Posters(Protocol):
    """Sends requests to endpoints that posters named.

    Both methods raise Refused for an endpoint that is never contacted, NotFound when it answers with a refusal,
    Unavailable when it is not known whether it was reached.
    """

    async def get(self, url: str, *, authorization: str) -> bytes:
        """The body of its answer. Raises Refused also for one that is larger than a definition may be."""

    async def post(self, url: str, body: bytes, *, authorization: str) -> None:
        """Post a JSON document."""


class WalletReader(Protocol):
    """Reads a wallet from the bytes in a Secret."""

    def __call__(self, data: bytes, /) -> Wallet:
        """Raises Refused with a message that never contains the bytes."""


class Metrics(Protocol):
    """Metrics that the market host reports."""

    def matched(self, market: str) -> None:
        """A NosanaJob was created for a run of the market."""

    def funds(self, network: str, key: str, funds: Funds) -> None:
        """What a wallet has, as just read."""

    def finish_sent(self, market: str, seconds: float) -> None:
        """Seconds from the last container's end, as seen, to the settlement that was sent."""

    def settled(
        self, market: str, kind: str, earned: int, refunded: int, seconds: int, *, took: float
    ) -> None:
        """A run is settled at finalized, `took` seconds after its job ended; amounts in NOS base units."""


class Leadership(Protocol):
    """Tells whether this process may act."""

    def check(self, seen: int = 0) -> int:
        """The epoch (term) in which this process leads, which every intent carries.

        Raises an error that ends the process when it no longer leads, or when `seen`, the epoch of an intent that
        it read, is a later one: then another process leads, and nothing may be signed.
        """


@dataclass(frozen=True, slots=True)
class Edges:
    """All services together, as the loops receive them."""

    kube: Kube
    cache: Cache
    networks: Networks
    read_wallet: WalletReader
    events: Events
    metrics: Metrics
    clock: Clock
    leadership: Leadership
