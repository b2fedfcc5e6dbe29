"""A chain that has begun, and the operator's client of it: what the chain's contract tests share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from solana.rpc.commitment import Confirmed, Finalized

from nosana_operator.backoff import Backoff
from nosana_operator.chain import (
    DEVNET,
    ChainClient,
    FeePolicy,
    Job,
    Network,
    Retry,
    Run,
    SignedTransaction,
    Wallet,
    WatchSettings,
)
from nosana_sandbox.chain import ChainClock as SandboxClock
from nosana_sandbox.chain import RunningChain, running_chain
from nosana_sandbox.world.genesis import Founded, found
from support.sending import send_and_confirm

SLOT = 0.02
OFTEN = WatchSettings(markets=0.1, jobs=0.2, jobs_followed=0.2, runs=0.3)
DEFINITION = bytes(range(32))
RESULT = bytes(range(1, 33))


@dataclass
class World:
    founded: Founded
    chain: RunningChain
    client: ChainClient
    session: aiohttp.ClientSession
    nodes: tuple[RunningChain, ...]
    """The chain's endpoints, `chain` first."""

    @property
    def host(self) -> Wallet:
        return Wallet(self.founded.host)

    @property
    def poster(self) -> Wallet:
        return Wallet(self.founded.poster)

    @property
    def market(self) -> str:
        return str(self.founded.market)

    def advance(self, seconds: float) -> None:
        """Move the chain's clock; programs see it from the next block on."""
        self.founded.bank.clock.advance(seconds)
        self.founded.bank.tick(2)

    async def confirm(self, signed: SignedTransaction, finalized: bool = False) -> SignedTransaction:
        level = Finalized if finalized else Confirmed
        await send_and_confirm(self.client.rpc, self.client.sender, signed, level)
        return signed

    async def post(self, timeout: int = 600) -> tuple[str, str]:
        """List a job; addresses of job and (if a host stood) run."""
        job, run, poster = Wallet.generate(), Wallet.generate(), self.poster
        listing = self.client.program.list(
            job=job.address,
            run=run.address,
            market=self.market,
            payer=poster.address,
            project=poster.address,
            ipfs_job=DEFINITION,
            timeout=timeout,
        )
        await self.confirm(await self.client.sign("list", [listing], poster, (job, run)))
        return job.address, run.address

    async def match(self) -> tuple[Run, Job]:
        await self.confirm(await self.client.sign_work(self.host, self.market))
        job, run = await self.post()
        matched, posted = await self.client.fetch_run(run), await self.client.fetch_job(job)
        assert matched is not None
        assert posted is not None
        return matched, posted

    async def end(self, run: Run, job: Job) -> None:
        ended = self.client.program.end(
            job=job.address,
            market=job.market,
            run=run.address,
            node=run.node,
            job_payer=job.payer,
            run_payer=run.payer,
            project=job.project,
        )
        await self.confirm(await self.client.sign("end", [ended], self.poster))


@contextlib.asynccontextmanager
async def running_world(
    *, endpoints: int = 1, fees: FeePolicy | None = None, retry: Retry | None = None
) -> AsyncIterator[World]:
    """A world whose chain answers at so many endpoints; the client prefers the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("support.sending.POLL", SLOT)
        founded = found(price=10, finality=4, clock=SandboxClock())
        async with contextlib.AsyncExitStack() as stack:
            chain = await stack.enter_async_context(running_chain(founded.bank, slot_seconds=SLOT))
            others = [
                await stack.enter_async_context(running_chain(founded.bank, slot_seconds=None))
                for _ in range(endpoints - 1)
            ]
            session = await stack.enter_async_context(aiohttp.ClientSession())
            nodes = (chain, *others)
            network = Network(
                tuple(node.url for node in nodes),
                tuple(node.ws_url for node in nodes),
                DEVNET,
                fees=fees or FeePolicy(),
            )
            client = ChainClient(
                network, session, retry=retry or Retry(backoff=Backoff(0.01, 1)), watch=OFTEN
            )
            yield World(founded, chain, client, session, nodes)


async def eventually(look: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true value that `look` gives."""
    async with asyncio.timeout(seconds):
        while True:
            found = look()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


class Watching:
    """A running watcher and everything that it told."""

    def __init__(self, client: ChainClient) -> None:
        self.watcher = client.watcher
        self.told: list[tuple[str, str]] = []
        self.watcher.on_change(lambda kind, address: self.told.append((kind, address)))
        self._task = asyncio.create_task(client.run())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
