"""The client of one Solana network: text and numbers in, values out.

Addresses are base58 `str`, amounts `int` base units, signed transactions bytes; callers need no solders type.
(Posters build other instructions with `program` and sign them with `sign`.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
from solana.rpc.commitment import Commitment, Confirmed, Finalized
from solders.instruction import Instruction

from nosana_operator.chain.access import AccessKey, verified_collection
from nosana_operator.chain.accounts import Job, Market, Run, Stake, TokenAccount, decode_clock
from nosana_operator.chain.addresses import CLOCK_SYSVAR, TOKEN, Programs, pubkey
from nosana_operator.chain.clock import ChainClock
from nosana_operator.chain.errors import AccountMalformed, AccountMissing, ChainError
from nosana_operator.chain.fees import FeeMarket, FeePolicy, capped_price, fee_of
from nosana_operator.chain.ledger import paid_by, signed_by
from nosana_operator.chain.payment import PaymentState, read_payment, read_payout_problem
from nosana_operator.chain.program import JobsProgram
from nosana_operator.chain.rpc.endpoints import SLOTS_BEHIND, Endpoints
from nosana_operator.chain.rpc.methods import MAX_HISTORY, Observer, Retry, Rpc
from nosana_operator.chain.rpc.wire import HistoryEntry
from nosana_operator.chain.sender import (
    Outcome,
    OutcomeState,
    Sender,
    SignedTransaction,
    sign_transaction,
)
from nosana_operator.chain.wallet import Wallet
from nosana_operator.chain.watch.newest_slot import NewestSlot
from nosana_operator.chain.watch.watcher import ChainWatcher, WatchSettings

log = logging.getLogger(__name__)

OnTransaction = Callable[[str, str, int], None]
"""Called with a transaction's kind, its outcome (`landed`, `failed`, `expired`) and its fee in lamports."""

_OUTCOMES = {
    OutcomeState.CONFIRMED: "landed",
    OutcomeState.FINALIZED: "landed",
    OutcomeState.FAILED: "failed",
    OutcomeState.EXPIRED: "expired",
}
_MOST_OPEN = 1000
"""How many transactions are remembered until their outcome is known."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network's nodes and the programs deployed there."""

    rpc_urls: tuple[str, ...]
    """In the order of preference."""
    ws_urls: tuple[str, ...]
    """In the order of preference; none: polling only."""
    programs: Programs
    fees: FeePolicy = field(default_factory=FeePolicy)
    requests_per_second: float | None = None
    """What each RPC node allows; None: no limit."""


@dataclass(frozen=True, slots=True)
class WalletState:
    """A wallet's balances and stake, all read at one slot."""

    address: str
    slot: int
    lamports: int
    nos_account: str
    """Its associated token account for NOS."""
    nos_account_exists: bool
    nos_balance: int
    """Base units."""
    stake_xnos: int | None
    """None: there is no stake account, and no market lets the wallet work."""


class ChainClient:
    """Reads one network at confirmed and finalized, signs, sends and watches.

    Snapshots, the clock and the ranking of the nodes are kept only while `run` runs as a task. Where no node
    answers, every method raises `ChainUnavailable`: unknown.
    """

    def __init__(
        self,
        network: Network,
        session: aiohttp.ClientSession,
        *,
        observer: Observer | None = None,
        retry: Retry | None = None,
        watch: WatchSettings | None = None,
        on_transaction: OnTransaction | None = None,
    ) -> None:
        self.network = network
        self.program = JobsProgram(network.programs)
        self.endpoints = Endpoints(network.rpc_urls, session, requests_per_second=network.requests_per_second)
        self.rpc = Rpc(self.endpoints, retry=retry, observer=observer)
        self.sender = Sender(self.rpc)
        self.clock = ChainClock()
        self._fees = FeeMarket(self.rpc, network.fees)
        self._on_transaction = on_transaction or (lambda kind, outcome, fee: None)
        self._finalized = NewestSlot()
        self._open: dict[str, tuple[str, int]] = {}
        """Kind and fee of each transaction that was signed here and whose outcome is not known yet, by signature."""
        # The watcher's retry is its next poll; waiting longer for one answer would break its bounds.
        single_attempt = Rpc(self.endpoints, retry=Retry(attempts=1, request_timeout=4.0), observer=observer)
        self.watcher = ChainWatcher(
            single_attempt, network.ws_urls, session, network.programs.jobs, self.clock, settings=watch
        )

    async def run(self) -> None:
        """Watch the chain and compare the nodes, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.watcher.run())
            tasks.create_task(self.endpoints.run())

    # reading

    async def fetch_market(self, address: str, *, finalized: bool = False) -> Market:
        """A market.

        Raises:
            AccountMissing: there is no such account.
            AccountMalformed: the account is not a market.
        """
        data = await self._data(address, finalized)
        if data is None:
            raise AccountMissing("market", address)
        return Market.decode(address, data)

    async def fetch_job(self, address: str, *, finalized: bool = False) -> Job | None:
        """A job; None: the chain says that there is none. Raises AccountMalformed for something else."""
        data = await self._data(address, finalized)
        return None if data is None else Job.decode(address, data)

    async def fetch_run(self, address: str, *, finalized: bool = False) -> Run | None:
        """A run; None: the chain says that there is none. Raises AccountMalformed for something else."""
        data = await self._data(address, finalized)
        return None if data is None else Run.decode(address, data)

    async def fetch_wallet_state(self, address: str) -> WalletState:
        """Balances and stake of a wallet at confirmed, in one request."""
        return (await self.fetch_wallet_states([address]))[address]

    async def fetch_wallet_states(self, addresses: Sequence[str]) -> dict[str, WalletState]:
        """Balances and stakes of several wallets at confirmed; 33 wallets fit into one request."""
        programs = self.program.programs
        places = {address: (programs.nos_account(address), programs.stake(address)) for address in addresses}
        requested = [one for address, (nos, stake) in places.items() for one in (address, nos, stake)]
        accounts = await self.rpc.accounts(requested, Confirmed)
        out = {}
        for address, (nos, stake) in places.items():
            wallet, token, staked = accounts.value[address], accounts.value[nos], accounts.value[stake]
            account = TokenAccount.decode(nos, token.data) if token and token.owner == TOKEN else None
            has_stake = staked is not None and staked.owner == programs.staking
            out[address] = WalletState(
                address=address,
                slot=accounts.slot,
                lamports=wallet.lamports if wallet else 0,
                nos_account=nos,
                nos_account_exists=account is not None,
                nos_balance=account.amount if account else 0,
                stake_xnos=Stake.decode(stake, staked.data).xnos if staked and has_stake else None,
            )
        return out

    async def fetch_payout_problem(self, address: str) -> str | None:
        """Why this address cannot receive the payout; None if it can."""
        return await read_payout_problem(self.rpc, address)

    async def fetch_payment(self, *, market: str, payer: str, payout: str | None) -> PaymentState:
        """What a `finish` depends on besides run and job, at confirmed, in one request."""
        return await read_payment(
            self.rpc,
            self.program.programs,
            market=market,
            payer=payer,
            payout=payout,
            not_before=self.watcher.slot - SLOTS_BEHIND,
        )

    async def find_access_key(self, wallet: str, collection: str) -> AccessKey | None:
        """The wallet's token of that verified collection at confirmed; None: it holds none."""
        return (await self.find_access_keys(wallet)).get(collection)

    async def find_access_keys(self, wallet: str) -> dict[str, AccessKey]:
        """The wallet's tokens of verified collections at confirmed, by collection."""
        programs = self.program.programs
        held = await self.rpc.token_accounts(wallet, Confirmed)
        by_metadata: dict[str, TokenAccount] = {}
        for address, info in held.value.items():
            try:
                token = TokenAccount.decode(address, info.data)
            except AccountMalformed:
                continue
            if token.amount >= 1 and token.mint != programs.nos_mint:
                by_metadata[programs.metadata(token.mint)] = token
        described = await self.rpc.accounts(sorted(by_metadata), Confirmed)
        found: dict[str, AccessKey] = {}
        for metadata, account in described.value.items():
            if account is None or account.owner != programs.metaplex:
                continue
            collection = verified_collection(account.data)
            if collection is not None:
                token = by_metadata[metadata]
                found[collection] = AccessKey(token.address, token.mint, metadata)
        return found

    async def measure_clock(self) -> float:
        """Read the chain's clock now; its time in unix seconds. The watcher reads it with each poll."""
        found = await self.rpc.account(CLOCK_SYSVAR, Confirmed)
        if found.value is None:
            raise AccountMissing("Clock sysvar", CLOCK_SYSVAR)
        self.clock.observe(decode_clock(found.value.data)[1], found.slot)
        return self.clock.now()

    async def fetch_history(
        self, key: str, *, until: str | None, before: str | None = None, limit: int = MAX_HISTORY
    ) -> list[HistoryEntry]:
        """Transactions that name the key, at finalized, newest first: those after `until`, at most `limit`.

        Without `until`, or when the node does not know it, the list may end anywhere. With `before` it begins
        with the transaction preceding that one; it is empty when the node does not know `before`.
        """
        return await self.rpc.signatures_of(key, Finalized, until=until, before=before, limit=limit)

    async def signed_by(self, signature: str, key: str) -> str | None:
        """The instruction that the key signed in that transaction: see `ledger.signed_by`."""
        return await signed_by(self.rpc, self.program.programs, signature, key)

    async def paid_by(self, signature: str) -> tuple[int, int] | None:
        """What a `finish` paid the host and refunded to the payer: see `ledger.paid_by`."""
        return await paid_by(self.rpc, self.program.programs, signature)

    async def finalized_time(self) -> int:
        """The chain's time in the newest finalized slot, unix seconds.

        A later reading at finalized is at most ten seconds of slots older.
        """
        found = await self.rpc.account(CLOCK_SYSVAR, Finalized)
        if found.value is None:
            raise AccountMissing("Clock sysvar", CLOCK_SYSVAR)
        self._finalized.saw(found.slot)
        return decode_clock(found.value.data)[1]

    def chain_time(self) -> float:
        """The chain's time, unix seconds. Raises ChainUnavailable while it has not been measured."""
        return self.clock.now()

    async def _data(self, address: str, finalized: bool) -> bytes | None:
        """The data of an account of the Jobs program; None when there is no such account."""
        pubkey(address)
        commitment = Finalized if finalized else Confirmed
        found = await self.rpc.account(address, commitment, not_before=self._not_before(address, commitment))
        info = found.value
        # A closed account that receives lamports again belongs to the System program.
        return info.data if info is not None and info.owner == self.program.programs.jobs else None

    def _not_before(self, address: str, commitment: Commitment) -> int:
        """The oldest slot at which a reading of an account is useful: a node that lags still shows closed accounts
        and does not show new ones. Healthy nodes differ by some slots; a reading is never older than the last one
        of the same account.
        """
        if commitment == Finalized:
            return self._finalized.slot - SLOTS_BEHIND
        watcher = self.watcher
        seen = watcher.runs.get(address) or watcher.jobs.get(address) or watcher.markets.get(address)
        return max(watcher.slot - SLOTS_BEHIND, seen.slot if seen is not None else 0)

    # signing: nothing is sent

    async def sign(
        self,
        kind: str,
        instructions: Sequence[Instruction],
        wallet: Wallet,
        extra_signers: Sequence[Wallet] = (),
        *,
        run: str | None = None,
    ) -> SignedTransaction:
        """Sign instructions built by `self.program`; compute limit and price follow the network's fee policy.

        Raises:
            ChainUnavailable: no node gave a blockhash.
            InvalidInstruction: a signer is missing, or the transaction is too large.
        """
        limit = self.program.compute_unit_limit(instructions)
        signers = {wallet.address, *(signer.address for signer in extra_signers)}
        writable = {str(meta.pubkey) for each in instructions for meta in each.accounts if meta.is_writable}
        price = await self._fees.price(sorted(writable - signers))
        blockhash = await self.rpc.latest_blockhash(Confirmed)

        def signed(limit: int, price: int) -> SignedTransaction:
            return sign_transaction(
                kind,
                instructions,
                wallet,
                extra_signers,
                blockhash,
                compute_unit_limit=limit,
                priority_fee=price,
                run=run,
            )

        if price:
            # The price is paid for the whole limit, so a tight one is worth a request.
            limit = await self._tight_limit(signed(limit, 0), instructions, limit)
            cap = self.network.fees.cap
            price = capped_price(price, limit=limit, signatures=len(signers), cap=cap)
        made = signed(limit, price)
        self._remember(made, fee_of(price, limit=limit, signatures=len(signers)))
        return made

    async def _tight_limit(
        self, trial: SignedTransaction, instructions: Sequence[Instruction], fallback: int
    ) -> int:
        """The compute units of a simulation plus a margin; `fallback` when the simulation gives none."""
        try:
            simulated = await self.rpc.simulate(trial.raw, Confirmed)
        except ChainError as error:
            log.info("no simulation of %s: %s", trial.kind, error)
            return fallback
        if simulated.err is not None or not simulated.units_consumed:
            # The preflight reports the error to whoever sends the transaction.
            return fallback
        margin = simulated.units_consumed * self.network.fees.compute_margin // 100
        return simulated.units_consumed + margin + self.program.growth_units(instructions)

    async def sign_work(
        self, wallet: Wallet, market: str, *, access_key: AccessKey | None = None
    ) -> SignedTransaction:
        """Join the market's queue, or take its first job; `.run` is the address of the run account in that case.

        Creates the wallet's NOS account if it is missing: the program requires one, and `end` pays into it. A
        market that is not open requires an `access_key` (see `find_access_key`).
        """
        run = Wallet.generate()
        node = wallet.address
        instructions = [
            self.program.create_nos_account(payer=node, owner=node),
            self.program.work(
                run=run.address,
                market=market,
                node=node,
                nft=access_key.token_account if access_key else None,
                metadata=access_key.metadata if access_key else None,
            ),
        ]
        signed = await self.sign("work", instructions, wallet, (run,), run=run.address)
        self.watcher.expect(node)
        return signed

    async def sign_stop(self, wallet: Wallet, market: str) -> SignedTransaction:
        """Leave the market's queue."""
        return await self.sign("stop", [self.program.stop(market=market, node=wallet.address)], wallet)

    async def sign_finish(
        self,
        wallet: Wallet,
        run: Run,
        job: Job,
        ipfs_result: bytes,
        *,
        payout: str | None = None,
        make_payer_account: bool = True,
    ) -> SignedTransaction:
        """End a run with its result; the pay goes to the NOS account of the wallet `payout` (default: the host's).

        Creates missing NOS accounts: the one that receives the pay, and with `make_payer_account` that of the
        payer of a priced job, who may have closed it.
        """
        owner = payout or wallet.address
        instructions = [self.program.create_nos_account(payer=wallet.address, owner=owner)]
        if make_payer_account and job.price and job.payer != owner:
            instructions.append(self.program.create_nos_account(payer=wallet.address, owner=job.payer))
        instructions.append(
            self.program.finish(
                job=job.address,
                run=run.address,
                market=job.market,
                node=wallet.address,
                run_payer=run.payer,
                job_payer=job.payer,
                ipfs_result=ipfs_result,
                payout=self.program.programs.nos_account(owner),
                free=not job.price,
            )
        )
        return await self.sign("finish", instructions, wallet)

    async def sign_complete(self, wallet: Wallet, job: Job, ipfs_result: bytes) -> SignedTransaction:
        """Write the result of a job that its project ended."""
        complete = self.program.complete(job=job.address, node=wallet.address, ipfs_result=ipfs_result)
        return await self.sign("complete", [complete], wallet)

    async def sign_quit(self, wallet: Wallet, run: Run) -> SignedTransaction:
        """Give a run up, unpaid."""
        given_up = self.program.quit(job=run.job, run=run.address, run_payer=run.payer, node=wallet.address)
        return await self.sign("quit", [given_up], wallet)

    # sending

    async def send(self, raw: bytes, *, first: bool) -> None:
        """See `Sender.send`."""
        await self.sender.send(raw, first=first)

    async def outcome(self, signature: str, last_valid_block_height: int) -> Outcome:
        """See `Sender.outcome`."""
        outcome = await self.sender.outcome(signature, last_valid_block_height)
        if outcome.state in _OUTCOMES and (sent := self._open.pop(signature, None)) is not None:
            kind, fee = sent
            paid = 0 if outcome.state is OutcomeState.EXPIRED else fee
            self._on_transaction(kind, _OUTCOMES[outcome.state], paid)
        return outcome

    def _remember(self, signed: SignedTransaction, fee: int) -> None:
        """Keep kind and fee until the outcome is known; a transaction that is never sent is dropped in the end."""
        self._open[signed.signature] = signed.kind, fee
        while len(self._open) > _MOST_OPEN:
            del self._open[next(iter(self._open))]
