"""Solana's JSON-RPC over aiohttp: plain JSON in, plain values out.

The typed parsers of `solders` panic on error replies without data, and solana-py's client hides HTTP statuses
and does not retry (docs/protocol/solana-rpc.md#replies); neither is used for requests.

No answer is *unknown*, never *no*: whatever says nothing about the chain raises `ChainUnavailable` after the
retries. Every method names its commitment.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from solana.rpc.commitment import Commitment, Confirmed

from nosana_operator.backoff import Backoff
from nosana_operator.chain.addresses import TOKEN
from nosana_operator.chain.concurrency import gather_limited
from nosana_operator.chain.errors import (
    BlockhashNotFound,
    ChainUnavailable,
    MethodRefused,
    NodeBehind,
    RpcError,
    TransactionFailed,
)
from nosana_operator.chain.rpc.codes import PREFLIGHT_FAILURE, REQUEST_AT_FAULT
from nosana_operator.chain.rpc.endpoints import Endpoints
from nosana_operator.chain.rpc.wire import (
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
    read_blockhash,
    read_epoch_info,
    read_history_entry,
    read_int,
    read_landed,
    read_list,
    read_logs,
    read_simulation,
    read_slotted,
    read_status,
    read_string,
    read_text,
)

T = TypeVar("T")

MAX_ACCOUNTS: Final = 100
"""Accounts in one getMultipleAccounts."""
MAX_SIGNATURES: Final = 256
MAX_HISTORY: Final = 1000
"""Entries in one answer of getSignaturesForAddress."""
_BACKOFF: Final = Backoff(first=0.25, longest=4.0)

Observer = Callable[[str, str, float], None]
"""Called for every attempt with method, outcome (`ok`, `unavailable`, `refused`) and seconds."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and for how long one call tries. An attempt asks each of the network's nodes once."""

    attempts: int = 4
    backoff: Backoff = _BACKOFF
    request_timeout: float = 10.0


class Rpc:
    """A network's RPC, answered by whichever of its nodes is fit.

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

    # accounts

    async def account(
        self, address: str, commitment: Commitment, *, not_before: int = 0
    ) -> Slotted[AccountInfo | None]:
        """One account at slot `not_before` or later; None when it does not exist."""
        return await self.call(
            "getAccountInfo", [address, _config(commitment)], partial(_at, not_before, _read_optional_account)
        )

    async def accounts(
        self, addresses: Sequence[str], commitment: Commitment, *, not_before: int = 0
    ) -> Slotted[dict[str, AccountInfo | None]]:
        """Many accounts at slot `not_before` or later, a hundred per call; the slot is the oldest of the calls."""
        found: dict[str, AccountInfo | None] = {}
        slots: list[int] = []

        async def read(batch: Sequence[str]) -> None:
            reply = await self.call(
                "getMultipleAccounts",
                [list(batch), _config(commitment)],
                partial(_at, not_before, partial(_read_all, _read_optional_account, len(batch))),
            )
            found.update(zip(batch, reply.value, strict=True))
            slots.append(reply.slot)

        # Concurrently: one after the other, a slow node would give the last of many jobs too late.
        await gather_limited(
            read(addresses[at : at + MAX_ACCOUNTS]) for at in range(0, len(addresses), MAX_ACCOUNTS)
        )
        return Slotted(min(slots, default=0), found)

    async def program_accounts(
        self, program: str, filters: Iterable[Memcmp], commitment: Commitment, *, not_before: int = 0
    ) -> Slotted[dict[str, AccountInfo]]:
        """All accounts of a program that match the filters, at slot `not_before` or later."""
        config = _config(commitment) | {
            "withContext": True,
            "filters": [{"memcmp": {"offset": f.offset, "bytes": f.value}} for f in filters],
        }
        return await self.call("getProgramAccounts", [program, config], partial(_at, not_before, _read_keyed))

    async def token_accounts(self, owner: str, commitment: Commitment) -> Slotted[dict[str, AccountInfo]]:
        """All classic SPL token accounts of a wallet."""
        config = _config(commitment)
        params = [owner, {"programId": TOKEN}, config]
        return await self.call("getTokenAccountsByOwner", params, partial(read_slotted, read=_read_keyed))

    # transactions

    async def latest_blockhash(self, commitment: Commitment) -> Blockhash:
        """A blockhash to sign with."""
        params = [{"commitment": commitment}]
        return (
            await self.call("getLatestBlockhash", params, partial(read_slotted, read=read_blockhash))
        ).value

    async def signature_statuses(self, signatures: Sequence[str]) -> Slotted[list[SignatureStatus | None]]:
        """The statuses of transactions, the node's history included; None: the node does not know the transaction."""
        if len(signatures) > MAX_SIGNATURES:
            raise ValueError(f"at most {MAX_SIGNATURES} signatures per call")
        params = [list(signatures), {"searchTransactionHistory": True}]
        read = partial(_read_all, _read_optional_status, len(signatures))
        return await self.call("getSignatureStatuses", params, partial(read_slotted, read=read))

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
        return await self.call("getSignaturesForAddress", [address, config], _read_history)

    async def transaction(self, signature: str, commitment: Commitment) -> bytes | None:
        """The bytes of a landed transaction; None: the node does not have it (yet, or any longer)."""
        return await self._transaction(signature, commitment, _read_raw)

    async def landed(self, signature: str, commitment: Commitment) -> LandedTransaction | None:
        """A landed transaction with its effects; None: the node does not have it (yet, or any longer)."""
        return await self._transaction(signature, commitment, read_landed)

    async def transaction_logs(self, signature: str, commitment: Commitment) -> tuple[str, ...]:
        """The program log of a landed transaction; empty when the node does not keep it."""
        return await self._transaction(signature, commitment, _read_transaction_logs) or ()

    async def _transaction(
        self, signature: str, commitment: Commitment, read: Callable[[Any], T]
    ) -> T | None:
        config = {"commitment": commitment, "encoding": "base64", "maxSupportedTransactionVersion": 0}
        return await self.call("getTransaction", [signature, config], partial(_optional, read))

    async def send(self, raw: bytes, *, preflight: bool) -> str:
        """Send signed bytes; returns the signature. Sending the same bytes again is harmless.

        Without preflight they go to all nodes that answer, because one node may accept transactions and lose them.
        "Already processed" counts as sent.

        Raises:
            TransactionFailed: the preflight at confirmed failed; this copy was not sent.
            BlockhashNotFound: the preflight does not know the blockhash.
            ChainUnavailable: unknown whether it was sent.
            RpcError: refused otherwise (signatures, size).
        """
        config = {"encoding": "base64", "skipPreflight": not preflight, "preflightCommitment": Confirmed}
        send = self.call if preflight else self._everywhere
        try:
            return await send("sendTransaction", [base64.b64encode(raw).decode(), config], read_string)
        except RpcError as error:
            if error.code != PREFLIGHT_FAILURE:
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
        params = [base64.b64encode(raw).decode(), config]
        return (
            await self.call("simulateTransaction", params, partial(read_slotted, read=read_simulation))
        ).value

    async def recent_priority_fees(self, writable: Sequence[str]) -> list[int]:
        """Lowest landed price of each recent slot for these writable accounts, micro-lamports per compute unit."""
        return await self.call("getRecentPrioritizationFees", [list(writable)], _read_fees)

    # time

    async def slot(self, commitment: Commitment) -> int:
        """The node's slot."""
        return await self.call("getSlot", [{"commitment": commitment}], read_int)

    async def epoch_info(self, commitment: Commitment) -> EpochInfo:
        """Slot and block height from one answer."""
        return await self.call("getEpochInfo", [{"commitment": commitment}], read_epoch_info)

    # transport

    async def call(self, method: str, params: Sequence[Any], read: Callable[[Any], T]) -> T:
        """One JSON-RPC call; returns `read(result)`; `read` raises ChainUnavailable for a malformed result.

        When a node gives no usable answer the next one is asked at once; after all of them, the next round
        comes after a back-off.

        Raises:
            ChainUnavailable: no usable answer in any round.
            MethodRefused: no node offers the method.
            RpcError: a node said no, and no other one said yes.
        """
        for attempt in itertools.count(1):
            try:
                return await self._round(method, params, read)
            except ChainUnavailable as error:
                if attempt >= self._retry.attempts:
                    raise
                wait = self._retry.backoff.wait(attempt)
                if error.retry_after is not None:
                    # A node that asks for a longer wait than ours is tried after our longest.
                    wait = min(max(wait, error.retry_after), self._retry.backoff.longest)
                await self._sleep(wait)
        raise AssertionError("unreachable")

    def refuses(self, method: str) -> bool:
        """Whether a node does not offer the method, so that only the others can answer it."""
        return self._endpoints.refuses(method)

    async def _round(self, method: str, params: Sequence[Any], read: Callable[[Any], T]) -> T:
        """Ask one node after the other until one answers."""
        tried: set[int] = set()
        unavailable: ChainUnavailable | None = None
        refused: RpcError | None = None
        while (number := await self._endpoints.take(method, tried)) is not None:
            tried.add(number)
            try:
                return await self._ask(number, method, params, read)
            except ChainUnavailable as error:
                unavailable = error
            except RpcError as error:
                if error.code in REQUEST_AT_FAULT:
                    raise
                # Providers have their own codes for "not here" and "not for you", so another node is asked.
                refused = error
        # A node that gives no answer now may offer what the others refuse.
        raise (
            unavailable
            or refused
            or MethodRefused(
                f"No RPC node of this network offers {method}; name one that does in the settings.", code=0
            )
        )

    async def _ask(self, number: int, method: str, params: Sequence[Any], read: Callable[[Any], T]) -> T:
        started = time.monotonic()
        outcome = "unavailable"
        try:
            result = await self._endpoints.ask(number, method, params, self._retry.request_timeout, read)
            outcome = "ok"
        except RpcError:
            outcome = "refused"
            raise
        finally:
            self._observer(method, outcome, time.monotonic() - started)
        return result

    async def _everywhere(self, method: str, params: Sequence[Any], read: Callable[[Any], T]) -> T:
        """Ask all healthy nodes at once; return the first success, else raise the first definite error."""
        numbers = self._endpoints.usable()
        if len(numbers) == 1:
            return await self.call(method, params, read)
        for number in numbers:
            self._endpoints.spend(number)
        answers = await asyncio.gather(
            *(self._ask(number, method, params, read) for number in numbers), return_exceptions=True
        )
        problems = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(problems) < len(answers):
            return next(answer for answer in answers if not isinstance(answer, BaseException))
        raise next((each for each in problems if not isinstance(each, ChainUnavailable)), problems[0])


def _config(commitment: Commitment) -> dict[str, Any]:
    return {"commitment": commitment, "encoding": "base64"}


def _at(not_before: int, read: Callable[[Any], T], result: Any) -> Slotted[T]:
    """The answer, which has to be of slot `not_before` or later. Raises NodeBehind."""
    reply = read_slotted(result, read)
    if reply.slot < not_before:
        raise NodeBehind(not_before - reply.slot)
    return reply


def _optional(read: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else read(value)


def _read_all(read: Callable[[Any], T], count: int, value: Any) -> list[T]:
    found = [read(each) for each in read_list(value)]
    if len(found) != count:
        raise ChainUnavailable(f"The RPC node answered with {len(found)} values instead of {count}.")
    return found


def _read_optional_account(value: Any) -> AccountInfo | None:
    return _optional(read_account, value)


def _read_optional_status(value: Any) -> SignatureStatus | None:
    return _optional(read_status, value)


def _read_keyed(value: Any) -> dict[str, AccountInfo]:
    return {read_text(each, "pubkey"): read_account(field(each, "account")) for each in read_list(value)}


def _read_history(value: Any) -> list[HistoryEntry]:
    return [read_history_entry(entry) for entry in read_list(value)]


def _read_fees(value: Any) -> list[int]:
    return [read_int(field(entry, "prioritizationFee")) for entry in read_list(value)]


def _read_raw(value: Any) -> bytes:
    return read_base64(field(value, "transaction"))


def _read_transaction_logs(value: Any) -> tuple[str, ...]:
    meta = field(value, "meta")
    return () if meta is None else read_logs(field(meta, "logMessages"))
