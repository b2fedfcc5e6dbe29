"""One network's Solana as the market room needs it: text and numbers in, values out.

Addresses cross as base58 `str`, amounts as `int` base units, signed transactions as bytes; no solders type
is needed to use it. (Posters, who build other instructions, take them from `program` to `sign`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
from solana.rpc.commitment import Confirmed, Finalized
from solders.instruction import Instruction

from nosana_operator.chain.accounts import Job, Market, Run, Stake, TokenAccount, decode_clock
from nosana_operator.chain.addresses import CLOCK_SYSVAR, TOKEN, Programs, pubkey
from nosana_operator.chain.clock import ChainClock
from nosana_operator.chain.errors import AccountMissing
from nosana_operator.chain.program import JobsProgram
from nosana_operator.chain.rpc import Observer, Retry, Rpc
from nosana_operator.chain.sender import Outcome, Sender, SignedTransaction
from nosana_operator.chain.wallet import Wallet
from nosana_operator.chain.watch import ChainWatcher, WatchSettings


@dataclass(frozen=True, slots=True)
class Network:
    """Where a network is and what is deployed there."""

    rpc_url: str
    ws_url: str | None
    """None: polling only."""
    programs: Programs
    priority_fee: int = 0
    """Micro-lamports a compute unit."""


@dataclass(frozen=True, slots=True)
class WalletState:
    """What a wallet has, all read at one slot."""

    address: str
    slot: int
    lamports: int
    nos_account: str
    """Its associated token account for NOS."""
    nos_account_exists: bool
    nos_balance: int
    """Base units."""
    stake_xnos: int | None
    """None: there is no stake account, so no market lets it work."""


class ChainClient:
    """One network: reading at confirmed and finalized, signing, sending, watching.

    `watcher.run()` has to run as a task for snapshots and clock to be kept. Silence of the node is
    `ChainUnavailable` everywhere: unknown.
    """

    def __init__(
        self,
        network: Network,
        session: aiohttp.ClientSession,
        *,
        observer: Observer | None = None,
        retry: Retry | None = None,
        watch: WatchSettings | None = None,
    ) -> None:
        self.network = network
        self.program = JobsProgram(network.programs)
        self.rpc = Rpc(network.rpc_url, session, retry=retry, observer=observer)
        self.sender = Sender(self.rpc, priority_fee=network.priority_fee)
        self.clock = ChainClock()
        # The next poll is the watcher's retry; waiting long for one answer would cost its bound.
        impatient = Rpc(
            network.rpc_url, session, retry=Retry(attempts=1, request_timeout=4.0), observer=observer
        )
        self.watcher = ChainWatcher(
            impatient, network.ws_url, session, network.programs.jobs, self.clock, settings=watch
        )

    # reading

    async def fetch_market(self, address: str, *, finalized: bool = False) -> Market:
        """A market.

        Raises:
            AccountMissing: there is none.
            AccountMalformed: the account is no market.
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
        nos, stake = self.program.programs.nos_account(address), self.program.programs.stake(address)
        found = await self.rpc.accounts([address, nos, stake], Confirmed)
        wallet, token, staked = found.value[address], found.value[nos], found.value[stake]
        account = TokenAccount.decode(nos, token.data) if token and token.owner == TOKEN else None
        has_stake = staked is not None and staked.owner == self.program.programs.staking
        return WalletState(
            address=address,
            slot=found.slot,
            lamports=wallet.lamports if wallet else 0,
            nos_account=nos,
            nos_account_exists=account is not None,
            nos_balance=account.amount if account else 0,
            stake_xnos=Stake.decode(stake, staked.data).xnos if staked and has_stake else None,
        )

    async def measure_clock(self) -> float:
        """Read the chain's clock now; returns its time, unix seconds. The watcher does so with each poll."""
        found = await self.rpc.account(CLOCK_SYSVAR, Confirmed)
        if found.value is None:
            raise AccountMissing("Clock sysvar", CLOCK_SYSVAR)
        self.clock.observe(decode_clock(found.value.data)[1])
        return self.clock.now()

    async def finalized_time(self) -> int:
        """The chain's time in the newest finalized slot, unix seconds."""
        found = await self.rpc.account(CLOCK_SYSVAR, Finalized)
        if found.value is None:
            raise AccountMissing("Clock sysvar", CLOCK_SYSVAR)
        return decode_clock(found.value.data)[1]

    def chain_time(self) -> float:
        """The chain's time by the last measurement, unix seconds. Raises ChainUnavailable before one."""
        return self.clock.now()

    async def _data(self, address: str, finalized: bool) -> bytes | None:
        """The data of an account of the Jobs program; None when there is no such account."""
        pubkey(address)
        found = await self.rpc.account(address, Finalized if finalized else Confirmed)
        info = found.value
        # A closed account that got lamports again belongs to the System program.
        return info.data if info is not None and info.owner == self.program.programs.jobs else None

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
        """Sign any instructions of `self.program`, with a compute limit that fits them.

        Raises:
            ChainUnavailable: no blockhash to be had.
            InvalidInstruction: a signer is missing, or it is too large.
        """
        limit = self.program.compute_unit_limit(instructions)
        return await self.sender.sign(
            kind, instructions, wallet, extra_signers, compute_unit_limit=limit, run=run
        )

    async def sign_work(
        self, wallet: Wallet, market: str, *, nft: str | None = None, metadata: str | None = None
    ) -> SignedTransaction:
        """Stand in the market, or take its first job; `.run` is the run account when a job waits.

        Makes the wallet's NOS account when missing: the program wants one, and `end` pays into it.
        """
        run = Wallet.generate()
        node = wallet.address
        instructions = [
            self.program.create_nos_account(payer=node, owner=node),
            self.program.work(run=run.address, market=market, node=node, nft=nft, metadata=metadata),
        ]
        return await self.sign("work", instructions, wallet, (run,), run=run.address)

    async def sign_stop(self, wallet: Wallet, market: str) -> SignedTransaction:
        """Leave the market's queue."""
        return await self.sign("stop", [self.program.stop(market=market, node=wallet.address)], wallet)

    async def sign_finish(
        self, wallet: Wallet, run: Run, job: Job, ipfs_result: bytes, *, payout: str | None = None
    ) -> SignedTransaction:
        """End a run with its result; paid to the NOS account of the wallet `payout` (default: the host's).

        NOS accounts that are missing are made: ours, and of a priced job the payer's, who may have closed it.
        """
        owner = payout or wallet.address
        instructions = [self.program.create_nos_account(payer=wallet.address, owner=owner)]
        if job.price and job.payer != owner:
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
        return await self.sender.outcome(signature, last_valid_block_height)
