"""Solana: the one package that imports solana, solders and anchorpy. It knows nothing of Kubernetes or IPFS.

`ChainClient` is the façade; posters and tests also use `JobsProgram` and `Programs`.
"""

from nosana_operator.chain.access import AccessKey
from nosana_operator.chain.accounts import Job, JobState, Market, QueueType, Run, Stake, TokenAccount
from nosana_operator.chain.addresses import (
    DEVNET,
    MAINNET,
    NETWORK_PROGRAMS,
    REWARDS_PROGRAM,
    STAKING_PROGRAM,
    SYSTEM,
    Programs,
    address_problem,
)
from nosana_operator.chain.client import ChainClient, Network, WalletState
from nosana_operator.chain.clock import ChainClock
from nosana_operator.chain.errors import (
    AccessKeyMissing,
    AccountMalformed,
    AccountMissing,
    BlockhashNotFound,
    ChainError,
    ChainUnavailable,
    InvalidAddress,
    InvalidInstruction,
    InvalidWallet,
    MethodRefused,
    RpcError,
    TransactionFailed,
)
from nosana_operator.chain.fees import SIGNATURE_FEE, FeePolicy
from nosana_operator.chain.ledger import LedgerEntry, read_ledger
from nosana_operator.chain.program import JobsProgram
from nosana_operator.chain.rpc.endpoints import Endpoints, EndpointView, Health
from nosana_operator.chain.rpc.methods import Observer, Retry, Rpc
from nosana_operator.chain.sender import Outcome, OutcomeState, Sender, SignedTransaction
from nosana_operator.chain.wallet import Wallet
from nosana_operator.chain.watch.snapshot import Kind, Seen
from nosana_operator.chain.watch.watcher import ChainWatcher, WatchSettings

__all__ = [
    "DEVNET",
    "MAINNET",
    "NETWORK_PROGRAMS",
    "REWARDS_PROGRAM",
    "SIGNATURE_FEE",
    "STAKING_PROGRAM",
    "SYSTEM",
    "AccessKey",
    "AccessKeyMissing",
    "AccountMalformed",
    "AccountMissing",
    "BlockhashNotFound",
    "ChainClient",
    "ChainClock",
    "ChainError",
    "ChainUnavailable",
    "ChainWatcher",
    "EndpointView",
    "Endpoints",
    "FeePolicy",
    "Health",
    "InvalidAddress",
    "InvalidInstruction",
    "InvalidWallet",
    "Job",
    "JobState",
    "JobsProgram",
    "Kind",
    "LedgerEntry",
    "Market",
    "MethodRefused",
    "Network",
    "Observer",
    "Outcome",
    "OutcomeState",
    "Programs",
    "QueueType",
    "Retry",
    "Rpc",
    "RpcError",
    "Run",
    "Seen",
    "Sender",
    "SignedTransaction",
    "Stake",
    "TokenAccount",
    "TransactionFailed",
    "Wallet",
    "WalletState",
    "WatchSettings",
    "address_problem",
    "read_ledger",
]
