"""A Solana chain of one node in this process: JSON-RPC and WebSocket, and the Jobs program as a stand-in.

async with running_chain() as chain:
    client = AsyncClient(chain.url)
"""

from nosana_sandbox.chain.bank import DEFAULT_FINALITY, LAMPORTS_PER_SOL, Bank, Commitment
from nosana_sandbox.chain.clock import ChainClock
from nosana_sandbox.chain.direct import DirectSession
from nosana_sandbox.chain.faults import Fault, Faults, Kind
from nosana_sandbox.chain.server import SLOT_SECONDS, RunningChain, chain_app, loopback_pair, running_chain

__all__ = [
    "DEFAULT_FINALITY",
    "LAMPORTS_PER_SOL",
    "SLOT_SECONDS",
    "Bank",
    "ChainClock",
    "Commitment",
    "DirectSession",
    "Fault",
    "Faults",
    "Kind",
    "RunningChain",
    "chain_app",
    "loopback_pair",
    "running_chain",
]
