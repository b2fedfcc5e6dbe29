from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed

from nosana_sandbox.chain import ChainClock, RunningChain, running_chain
from nosana_sandbox.world.genesis import Founded, found

START = 1_750_000_000


@pytest.fixture
def founded() -> Founded:
    """A chain whose slots and time move only when the test moves them."""
    clock = ChainClock()
    clock.freeze()
    clock.set(START)
    return found(finality=3, clock=clock)


@pytest.fixture
async def chain(founded: Founded) -> AsyncIterator[RunningChain]:
    async with running_chain(founded.bank, slot_seconds=None) as running:
        yield running


@pytest.fixture
async def client(chain: RunningChain) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(chain.url, commitment=Confirmed) as connected:
        yield connected
