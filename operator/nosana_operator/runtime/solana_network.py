"""The market host's Chain over one Solana client: accounts become the market's plain values."""

from __future__ import annotations

import base64
import logging
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from nosana_operator.chain import (
    AccessKeyMissing,
    AccountMalformed,
    ChainClient,
    ChainError,
    Job,
    JobState,
    Market,
    OutcomeState,
    Run,
    SignedTransaction,
    Wallet,
    address_problem,
)
from nosana_operator.chain import Outcome as ChainOutcome
from nosana_operator.errors import Unavailable
from nosana_operator.market.facts import (
    GONE,
    UNKNOWN,
    Fate,
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
from nosana_operator.market.ports import Wallet as MarketWallet

log = logging.getLogger(__name__)


_SEEN_KEPT = timedelta(hours=1)
"""How long the time is kept at which a run was first seen: far longer than until its job is created."""


class SolanaNetwork:
    """`market.ports.Chain` over one `ChainClient`.

    `account_rent`: NOS base units that making a token account is worth.
    """

    def __init__(self, client: ChainClient, *, account_rent: int) -> None:
        self._client = client
        self._account_rent = account_rent
        self._watcher = client.watcher
        self._first_seen: dict[str, datetime] = {}
        self._watcher.on_change(self._note)

    @property
    def client(self) -> ChainClient:
        """The chain client; its watcher has to run."""
        return self._client

    def _note(self, kind: str, address: str) -> None:
        if kind == "run" and address not in self._first_seen:
            now = datetime.now(UTC)
            self._first_seen[address] = now
            for old in [a for a, seen in self._first_seen.items() if now - seen > _SEEN_KEPT]:
                del self._first_seen[old]

    # -- watched ------------------------------------------------------------------------------------------

    def watch(self, *, keys: Collection[str], jobs: Collection[str], markets: Collection[str]) -> None:
        """See `Chain.watch`."""
        self._watcher.watch(keys=keys, jobs=jobs, markets=markets)

    def watched_runs(self, key: str) -> Known[tuple[RunFacts, ...]]:
        """See `Chain.watched_runs`."""
        runs = self._watcher.runs_of(key)
        return UNKNOWN if runs is None else tuple(_run(run) for run in runs)

    def watched_job(self, address: str) -> Known[JobFacts]:
        """See `Chain.watched_job`."""
        seen = self._watcher.jobs.get(address)
        if seen is None:
            return UNKNOWN
        return GONE if seen.value is None else _job(seen.value)

    def watched_market(self, address: str) -> Known[MarketFacts]:
        """See `Chain.watched_market`."""
        seen = self._watcher.markets.get(address)
        if seen is None:
            return UNKNOWN
        return GONE if seen.value is None else _market(seen.value, seen.slot)

    def run_seen_at(self, address: str) -> datetime | None:
        """When this process first saw the run, by our clock; None: before the process began, or not yet."""
        return self._first_seen.get(address)

    async def refresh_runs(self, key: str, *, not_before: int = 0) -> tuple[RunFacts, ...]:
        """See `Chain.refresh_runs`."""
        return tuple(_run(run) for run in await self._watcher.refresh_runs(key, not_before=not_before))

    async def refresh_market(self, address: str, *, not_before: int = 0) -> MarketFacts | None:
        """See `Chain.refresh_market`."""
        await self._watcher.refresh([address], not_before=not_before)
        seen = self._watcher.markets.get(address)
        # The watcher does not keep an account of another kind.
        return None if seen is None or seen.value is None else _market(seen.value, seen.slot)

    # -- read now -----------------------------------------------------------------------------------------

    async def read_run(self, address: str, *, finalized: bool = False) -> RunFacts | None:
        """See `Chain.read_run`."""
        try:
            run = await self._client.fetch_run(address, finalized=finalized)
        except AccountMalformed:
            # Once the run is closed, the holder of the address' key may create another account there.
            return None
        return None if run is None else _run(run)

    async def read_job(self, address: str, *, finalized: bool = False) -> JobFacts | None:
        """See `Chain.read_job`."""
        try:
            job = await self._client.fetch_job(address, finalized=finalized)
        except AccountMalformed:
            return None
        return None if job is None else _job(job)

    async def finalized_time(self) -> float:
        """See `Chain.finalized_time`."""
        return float(await self._client.finalized_time())

    async def read_funds(self, addresses: Collection[str]) -> dict[str, Funds]:
        """See `Chain.read_funds`."""
        states = await self._client.fetch_wallet_states(list(addresses))
        return {
            address: Funds(state.lamports, state.nos_balance, state.nos_account_exists, state.stake_xnos)
            for address, state in states.items()
        }

    async def read_access_keys(self, address: str) -> frozenset[str]:
        """See `Chain.read_access_keys`."""
        return frozenset(await self._client.find_access_keys(address))

    async def read_history(
        self, key: str, *, until: str | None, before: str | None, limit: int
    ) -> list[Past]:
        """See `Chain.read_history`."""
        history = await self._client.fetch_history(key, until=until, before=before, limit=limit)
        return [Past(one.signature, one.slot, one.err is not None) for one in history]

    async def signed_by(self, signature: str, key: str) -> str | None:
        """See `Chain.signed_by`."""
        return await self._client.signed_by(signature, key)

    async def paid_by(self, signature: str) -> tuple[int, int] | None:
        """See `Chain.paid_by`."""
        return await self._client.paid_by(signature)

    def fee_cap(self) -> int:
        """See `Chain.fee_cap`."""
        return self._client.network.fees.cap

    # -- sign and send ------------------------------------------------------------------------------------

    async def sign_work(self, wallet: MarketWallet, market: MarketFacts) -> Signed:
        """See `Chain.sign_work`. Raises AccessKeyMissing when the wallet may not enter the market."""
        access_key = None
        if market.node_access_key is not None:
            access_key = await self._client.find_access_key(wallet.address, market.node_access_key)
            if access_key is None:
                raise AccessKeyMissing(wallet.address, market.node_access_key)
        return _signed(await self._client.sign_work(_key(wallet), market.address, access_key=access_key))

    async def sign_stop(self, wallet: MarketWallet, market: str) -> Signed:
        """See `Chain.sign_stop`."""
        return _signed(await self._client.sign_stop(_key(wallet), market))

    async def payout_problem(self, address: str) -> str | None:
        """See `Chain.payout_problem`."""
        return await self._client.fetch_payout_problem(address)

    async def read_payment(self, job: JobFacts, *, payout: str | None) -> PaymentFacts:
        """See `Chain.read_payment`."""
        state = await self._client.fetch_payment(market=job.market, payer=job.payer, payout=payout)
        return PaymentFacts(
            market=state.market,
            vault=state.vault,
            payer_account=state.payer_account,
            account_rent=self._account_rent,
            payout_problem=state.payout_problem,
        )

    async def sign_finish(
        self,
        wallet: MarketWallet,
        run: RunFacts,
        job: JobFacts,
        result: bytes,
        *,
        payout: str | None,
        make_payer_account: bool,
    ) -> Signed:
        """See `Chain.sign_finish`."""
        return _signed(
            await self._client.sign_finish(
                _key(wallet),
                _as_run(run),
                _as_job(job),
                result,
                payout=payout,
                make_payer_account=make_payer_account,
            )
        )

    async def sign_complete(self, wallet: MarketWallet, job: JobFacts, result: bytes) -> Signed:
        """See `Chain.sign_complete`."""
        return _signed(await self._client.sign_complete(_key(wallet), _as_job(job), result))

    async def sign_quit(self, wallet: MarketWallet, run: RunFacts) -> Signed:
        """See `Chain.sign_quit`."""
        return _signed(await self._client.sign_quit(_key(wallet), _as_run(run)))

    async def send(self, raw: str, *, first: bool) -> None:
        """See `Chain.send`."""
        await self._client.send(base64.b64decode(raw), first=first)

    async def outcome(self, signature: str, last_valid_block_height: int) -> Outcome:
        """See `Chain.outcome`."""
        try:
            return _outcome(await self._client.outcome(signature, last_valid_block_height))
        except ChainError as error:
            log.warning("outcome not known: %s", error, extra={"signature": signature})
            return Outcome(Fate.UNKNOWN, str(error))

    def our_time(self, chain_time: float) -> datetime:
        """See `Chain.our_time`. Before the first reading both clocks are assumed to agree."""
        try:
            return self._client.clock.ours(chain_time)
        except Unavailable:
            return datetime.fromtimestamp(chain_time, UTC)

    def problem_with(self, address: str) -> str | None:
        """See `Chain.problem_with`."""
        return address_problem(address)


def _key(wallet: MarketWallet) -> Wallet:
    if not isinstance(wallet, Wallet):
        raise TypeError("expected a chain.Wallet")
    return wallet


# The market host's values have the accounts' fields under the same names, less those that it does not use.


def _run(run: Run) -> RunFacts:
    return RunFacts(address=run.address, job=run.job, node=run.node, payer=run.payer, time=run.time)


def _as_run(run: RunFacts) -> Run:
    return Run(address=run.address, job=run.job, node=run.node, payer=run.payer, time=run.time)


def _job(job: Job) -> JobFacts:
    return JobFacts(
        address=job.address,
        ipfs_job=job.ipfs_job,
        ipfs_result=job.ipfs_result,
        market=job.market,
        node=job.node,
        payer=job.payer,
        project=job.project,
        price=job.price,
        state=int(job.state),
        time_start=job.time_start,
        time_end=job.time_end,
        timeout=job.timeout,
    )


def _as_job(job: JobFacts) -> Job:
    return Job(
        address=job.address,
        ipfs_job=job.ipfs_job,
        ipfs_result=job.ipfs_result,
        market=job.market,
        node=job.node,
        payer=job.payer,
        project=job.project,
        price=job.price,
        state=JobState(job.state),
        time_start=job.time_start,
        time_end=job.time_end,
        timeout=job.timeout,
    )


def _market(market: Market, slot: int) -> MarketFacts:
    return MarketFacts(
        address=market.address,
        price=market.price,
        node_access_key=market.node_access_key,
        xnos_minimum=market.xnos_minimum,
        queue_type=market.queue_type,
        queue=market.queue,
        slot=slot,
    )


def _signed(transaction: SignedTransaction) -> Signed:
    return Signed(
        kind=transaction.kind,
        key=transaction.key,
        signature=transaction.signature,
        raw=base64.b64encode(transaction.raw).decode(),
        blockhash=transaction.blockhash,
        last_valid_block_height=transaction.last_valid_block_height,
        run=transaction.run,
    )


def _outcome(outcome: ChainOutcome) -> Outcome:
    match outcome.state:
        case OutcomeState.PENDING:
            return Outcome(Fate.PENDING)
        case OutcomeState.CONFIRMED:
            return Outcome(Fate.CONFIRMED, slot=outcome.slot)
        case OutcomeState.FINALIZED:
            return Outcome(Fate.FINALIZED, slot=outcome.slot)
        case OutcomeState.EXPIRED:
            return Outcome(Fate.EXPIRED)
        case OutcomeState.FAILED:
            return Outcome(Fate.FAILED if outcome.finalized else Fate.FAILING, str(outcome.error))
