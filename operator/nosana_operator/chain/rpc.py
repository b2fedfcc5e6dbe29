"""Solana's JSON-RPC over aiohttp: plain JSON in, plain values out.

The typed parsers of `solders` panic on error replies without data (`python-solana.md` §6.1), and
solana-py's client hides HTTP statuses and does not retry; neither is used for requests.

Silence is *unknown*, never *no*: everything that says nothing about the chain is `ChainUnavailable`, after
the retries. Every method names its commitment.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from solana.rpc.commitment import Commitment, Confirmed

from nosana_operator.chain.addresses import TOKEN
from nosana_operator.chain.endpoints import Endpoints
from nosana_operator.chain.errors import (
    BlockhashNotFound,
    ChainUnavailable,
    MethodRefused,
    RpcError,
    TransactionFailed,
)
from nosana_operator.chain.wire import (
    AccountInfo,
    Blockhash,
    EpochInfo,
    HistoryEntry,
    LandedTransaction,
    Memcmp,
    SignatureStatus,
    Simulation,
    Slotted,
    field,
    read_account,
    read_base64,
    read_decimal,
    read_history_entry,
    read_int,
    read_landed,
    read_list,
    read_logs,
    read_simulation,
    read_slotted,
    read_status,
    read_text,
)

MAX_ACCOUNTS: Final = 100
"""Accounts in one getMultipleAccounts."""
MAX_SIGNATURES: Final = 256
MAX_HISTORY: Final = 1000
"""Entries in one answer of getSignaturesForAddress."""
_PREFLIGHT_FAILURE: Final = -32002

Observer = Callable[[str, str, float], None]
"""Called for every attempt with method, outcome (`ok`, `unavailable`, `refused`) and seconds."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how long one call tries. Waits are random between nothing and a doubling bound.

    An attempt is a round over the network's nodes.
    """

    attempts: int = 4
    first_wait: float = 0.25
    longest_wait: float = 4.0
    request_timeout: float = 10.0


class Rpc:
    """A network's RPC, whichever of its nodes answers.

    Args:
        endpoints: the nodes.
        retry: bounds.
        observer: metrics hook.
        sleep: how to wait between attempts (tests).
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        retry: Retry | None = None,
        observer: Observer | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._endpoints = endpoints
        self._retry = retry or Retry()
        self._observer = observer or (lambda method, outcome, seconds: None)
        self._sleep = sleep
        self._random = random.Random()  # noqa: S311 - spreads retries, guards nothing

    # accounts

    async def account(self, address: str, commitment: Commitment) -> Slotted[AccountInfo | None]:
        """One account, None when there is none."""
        result = await self.call("getAccountInfo", [address, _config(commitment)])
        return read_slotted(result, lambda value: None if value is None else read_account(value))

    async def accounts(
        self, addresses: Sequence[str], commitment: Commitment
    ) -> Slotted[dict[str, AccountInfo | None]]:
        """Many accounts, a hundred a call; the slot is the oldest of the calls'."""
        batches = [addresses[at : at + MAX_ACCOUNTS] for at in range(0, len(addresses), MAX_ACCOUNTS)]
        found: dict[str, AccountInfo | None] = {}
        slots: list[int] = []
        for batch in batches:
            result = await self.call("getMultipleAccounts", [list(batch), _config(commitment)])
            reply = read_slotted(
                result, lambda value: [None if v is None else read_account(v) for v in read_list(value)]
            )
            if len(reply.value) != len(batch):
                raise ChainUnavailable(
                    "The RPC node answered with another number of accounts than asked for."
                )
            found.update(zip(batch, reply.value, strict=True))
            slots.append(reply.slot)
        return Slotted(min(slots, default=0), found)

    async def program_accounts(
        self, program: str, filters: Iterable[Memcmp], commitment: Commitment
    ) -> Slotted[dict[str, AccountInfo]]:
        """All accounts of a program that match the filters, with the slot of the answer."""
        config = _config(commitment) | {
            "withContext": True,
            "filters": [{"memcmp": {"offset": f.offset, "bytes": f.value}} for f in filters],
        }
        result = await self.call("getProgramAccounts", [program, config])
        return read_slotted(
            result,
            lambda value: {
                read_text(v, "pubkey"): read_account(field(v, "account")) for v in read_list(value)
            },
        )

    async def token_accounts(self, owner: str, commitment: Commitment) -> Slotted[dict[str, AccountInfo]]:
        """All classic SPL token accounts of a wallet."""
        config = _config(commitment)
        result = await self.call("getTokenAccountsByOwner", [owner, {"programId": TOKEN}, config])
        return read_slotted(
            result,
            lambda value: {
                read_text(v, "pubkey"): read_account(field(v, "account")) for v in read_list(value)
            },
        )

    async def balance(self, address: str, commitment: Commitment) -> int:
        """Lamports; zero for an account that does not exist."""
        result = await self.call("getBalance", [address, {"commitment": commitment}])
        return read_slotted(result, read_int).value

    async def token_balance(self, address: str, commitment: Commitment) -> int:
        """Base units on a token account.

        Raises:
            RpcError: there is no such token account.
        """
        result = await self.call("getTokenAccountBalance", [address, {"commitment": commitment}])
        return read_slotted(result, lambda value: read_decimal(field(value, "amount"))).value

    # transactions

    async def latest_blockhash(self, commitment: Commitment) -> Blockhash:
        """A blockhash to sign with."""
        result = await self.call("getLatestBlockhash", [{"commitment": commitment}])
        return read_slotted(
            result,
            lambda value: Blockhash(
                read_text(value, "blockhash"), read_int(field(value, "lastValidBlockHeight"))
            ),
        ).value

    async def signature_statuses(self, signatures: Sequence[str]) -> Slotted[list[SignatureStatus | None]]:
        """Where transactions stand, the node's history included; None: not known to it."""
        if len(signatures) > MAX_SIGNATURES:
            raise ValueError(f"at most {MAX_SIGNATURES} signatures a call")
        result = await self.call(
            "getSignatureStatuses", [list(signatures), {"searchTransactionHistory": True}]
        )
        reply = read_slotted(
            result, lambda value: [None if v is None else read_status(v) for v in read_list(value)]
        )
        if len(reply.value) != len(signatures):
            raise ChainUnavailable("The RPC node answered with another number of statuses than asked for.")
        return reply

    async def signatures_of(
        self,
        address: str,
        commitment: Commitment,
        *,
        until: str | None = None,
        before: str | None = None,
        limit: int = MAX_HISTORY,
    ) -> list[HistoryEntry]:
        """Landed transactions that name an address, newest first, after `until` and before `before`."""
        config: dict[str, Any] = {"commitment": commitment, "limit": limit}
        config |= {k: v for k, v in (("until", until), ("before", before)) if v is not None}
        result = await self.call("getSignaturesForAddress", [address, config])
        return [read_history_entry(entry) for entry in read_list(result)]

    async def transaction(self, signature: str, commitment: Commitment) -> bytes | None:
        """The bytes of a landed transaction; None: the node does not have it (yet, or any more)."""
        config = {"commitment": commitment, "encoding": "base64", "maxSupportedTransactionVersion": 0}
        result = await self.call("getTransaction", [signature, config])
        return None if result is None else read_base64(field(result, "transaction"))

    async def landed(self, signature: str, commitment: Commitment) -> LandedTransaction | None:
        """A landed transaction and what it did; None: the node does not have it (yet, or any more)."""
        config = {"commitment": commitment, "encoding": "base64", "maxSupportedTransactionVersion": 0}
        result = await self.call("getTransaction", [signature, config])
        return None if result is None else read_landed(result)

    async def transaction_logs(self, signature: str, commitment: Commitment) -> tuple[str, ...]:
        """The program log of a landed transaction; empty when the node does not keep it."""
        config = {"commitment": commitment, "encoding": "base64", "maxSupportedTransactionVersion": 0}
        result = await self.call("getTransaction", [signature, config])
        return () if result is None else read_logs(field(field(result, "meta"), "logMessages"))

    async def send(self, raw: bytes, *, preflight: bool) -> str:
        """Send signed bytes; returns the signature. Resending the same bytes is harmless.

        Without preflight it goes to all nodes that answer: one of them may take transactions and lose them.
        "Already processed" counts as sent.

        Raises:
            TransactionFailed: the preflight at confirmed says no; this copy was not sent.
            BlockhashNotFound: the preflight does not know the blockhash.
            ChainUnavailable: unknown whether it was sent.
            RpcError: refused otherwise (signatures, size).
        """
        config = {"encoding": "base64", "skipPreflight": not preflight, "preflightCommitment": Confirmed}
        send = self.call if preflight else self._everywhere
        try:
            return str(await send("sendTransaction", [base64.b64encode(raw).decode(), config]))
        except RpcError as error:
            if error.code != _PREFLIGHT_FAILURE:
                raise
            data = error.data if isinstance(error.data, Mapping) else {}
            err = data.get("err")
            if err == "AlreadyProcessed" or "already been processed" in str(error):
                return ""
            if err == "BlockhashNotFound" or "Blockhash not found" in str(error):
                raise BlockhashNotFound(
                    "The RPC node does not know the transaction's blockhash; its outcome is looked up."
                ) from error
            if err is None:
                raise
            raise TransactionFailed.from_rpc(err, read_logs(data.get("logs"))) from error

    async def simulate(self, raw: bytes, commitment: Commitment) -> Simulation:
        """Run signed bytes without effect."""
        config = {"encoding": "base64", "commitment": commitment}
        result = await self.call("simulateTransaction", [base64.b64encode(raw).decode(), config])
        return read_slotted(result, read_simulation).value

    async def recent_priority_fees(self, writable: Sequence[str]) -> list[int]:
        """Lowest landed price per recent slot for these writable accounts, micro-lamports a compute unit."""
        result = await self.call("getRecentPrioritizationFees", [list(writable)])
        return [read_int(field(entry, "prioritizationFee")) for entry in read_list(result)]

    # time

    async def slot(self, commitment: Commitment) -> int:
        """The node's slot."""
        return read_int(await self.call("getSlot", [{"commitment": commitment}]))

    async def block_height(self, commitment: Commitment) -> int:
        """The node's block height."""
        return read_int(await self.call("getBlockHeight", [{"commitment": commitment}]))

    async def epoch_info(self, commitment: Commitment) -> EpochInfo:
        """Slot and block height from one answer."""
        result = await self.call("getEpochInfo", [{"commitment": commitment}])
        return EpochInfo(read_int(field(result, "absoluteSlot")), read_int(field(result, "blockHeight")))

    async def block_time(self, slot: int) -> int | None:
        """Unix seconds of a slot's block; None when the node does not know."""
        result = await self.call("getBlockTime", [slot])
        return None if result is None else read_int(result)

    # transport

    async def call(self, method: str, params: Sequence[Any]) -> Any:
        """One JSON-RPC call; returns `result`.

        A node that gives no answer is left for the next one at once; when all were asked, the next round
        comes after a wait.

        Raises:
            ChainUnavailable: no usable answer in all rounds.
            MethodRefused: every node has the method switched off.
            RpcError: a node said no.
        """
        bound = self._retry.first_wait
        for attempt in itertools.count(1):
            try:
                return await self._round(method, params)
            except ChainUnavailable as error:
                if attempt >= self._retry.attempts:
                    raise
                wait = self._random.uniform(0, bound)
                if error.retry_after is not None:
                    # A node that asks for more patience than we have is tried at our longest wait.
                    wait = min(max(wait, error.retry_after), self._retry.longest_wait)
                await self._sleep(wait)
                bound = min(bound * 2, self._retry.longest_wait)
        raise AssertionError("unreachable")

    async def _round(self, method: str, params: Sequence[Any]) -> Any:
        """Ask one node after the other until one answers."""
        asked: set[int] = set()
        silent: ChainUnavailable | None = None
        refused: MethodRefused | None = None
        while (number := await self._endpoints.take(method, asked)) is not None:
            asked.add(number)
            try:
                return await self._ask(number, method, params)
            except ChainUnavailable as error:
                silent = error
            except MethodRefused as error:
                refused = error
        # A node that is silent now may well offer what the others refuse.
        raise (
            silent
            or refused
            or MethodRefused(
                f"No RPC node of this network offers {method}; name one that does in the settings.", code=0
            )
        )

    async def _ask(self, number: int, method: str, params: Sequence[Any]) -> Any:
        started = time.monotonic()
        outcome = "unavailable"
        try:
            result = await self._endpoints.ask(number, method, params, self._retry.request_timeout)
            outcome = "ok"
        except RpcError:
            outcome = "refused"
            raise
        finally:
            self._observer(method, outcome, time.monotonic() - started)
        return result

    async def _everywhere(self, method: str, params: Sequence[Any]) -> Any:
        """Ask all nodes that answer at once; the first success, else what the first one said."""
        numbers = self._endpoints.usable()
        if len(numbers) == 1:
            return await self.call(method, params)
        for number in numbers:
            self._endpoints.spend(number)
        said = await asyncio.gather(
            *(self._ask(number, method, params) for number in numbers), return_exceptions=True
        )
        problems = [answer for answer in said if isinstance(answer, BaseException)]
        if len(problems) < len(said):
            return next(answer for answer in said if not isinstance(answer, BaseException))
        raise next((each for each in problems if not isinstance(each, ChainUnavailable)), problems[0])


def _config(commitment: Commitment) -> dict[str, Any]:
    return {"commitment": commitment, "encoding": "base64"}
