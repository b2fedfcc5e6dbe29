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
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from solana.rpc.commitment import Commitment, Confirmed

from nosana_operator.chain.errors import BlockhashNotFound, ChainUnavailable, RpcError, TransactionFailed
from nosana_operator.chain.wire import (
    AccountInfo,
    Blockhash,
    EpochInfo,
    Memcmp,
    SignatureStatus,
    Simulation,
    Slotted,
    field,
    read_account,
    read_decimal,
    read_int,
    read_list,
    read_logs,
    read_slotted,
    read_status,
    read_text,
)

MAX_ACCOUNTS: Final = 100
"""Accounts in one getMultipleAccounts."""
MAX_SIGNATURES: Final = 256
_MAX_BODY: Final = 64 * 1024 * 1024
_PREFLIGHT_FAILURE: Final = -32002

# JSON-RPC codes by which a node says "not now": unhealthy, behind, slot not reached, rate limits.
_TRANSIENT_CODES: Final = frozenset({-32004, -32005, -32014, -32016, -32429, -32603, 429, 503})

Observer = Callable[[str, str, float], None]
"""Called for every attempt with method, outcome (`ok`, `unavailable`, `refused`) and seconds."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how long one call tries. Waits are random between nothing and a doubling bound."""

    attempts: int = 4
    first_wait: float = 0.25
    longest_wait: float = 4.0
    request_timeout: float = 10.0


class Rpc:
    """One RPC node.

    Args:
        url: its HTTP address; may hold an API key, so it never appears in an error.
        session: the caller's HTTP session; not closed here.
        retry: bounds.
        observer: metrics hook.
        sleep: how to wait between attempts (tests).
    """

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        *,
        retry: Retry | None = None,
        observer: Observer | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._session = session
        self._retry = retry or Retry()
        self._observer = observer or (lambda method, outcome, seconds: None)
        self._sleep = sleep
        self._ids = itertools.count(1)
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

    async def transaction_logs(self, signature: str, commitment: Commitment) -> tuple[str, ...]:
        """The program log of a landed transaction; empty when the node does not keep it."""
        config = {"commitment": commitment, "encoding": "base64", "maxSupportedTransactionVersion": 0}
        result = await self.call("getTransaction", [signature, config])
        return () if result is None else read_logs(field(field(result, "meta"), "logMessages"))

    async def send(self, raw: bytes, *, preflight: bool) -> str:
        """Send signed bytes; returns the signature. Resending the same bytes is harmless.

        "Already processed" counts as sent.

        Raises:
            TransactionFailed: the preflight at confirmed says no; this copy was not sent.
            BlockhashNotFound: the preflight does not know the blockhash.
            ChainUnavailable: unknown whether it was sent.
            RpcError: refused otherwise (signatures, size).
        """
        config = {"encoding": "base64", "skipPreflight": not preflight, "preflightCommitment": Confirmed}
        try:
            return str(await self.call("sendTransaction", [base64.b64encode(raw).decode(), config]))
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
        return read_slotted(
            result,
            lambda value: Simulation(
                value.get("err"),
                read_logs(value.get("logs")),
                value["unitsConsumed"] if isinstance(value.get("unitsConsumed"), int) else None,
            ),
        ).value

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
        """One JSON-RPC call with retries; returns `result`.

        Raises:
            ChainUnavailable: no usable answer in all attempts.
            RpcError: the node said no.
        """
        bound = self._retry.first_wait
        for attempt in itertools.count(1):
            started = time.monotonic()
            try:
                result = await self._attempt(method, params)
            except ChainUnavailable as error:
                self._observer(method, "unavailable", time.monotonic() - started)
                if attempt >= self._retry.attempts:
                    raise
                wait = self._random.uniform(0, bound)
                if error.retry_after is not None:
                    # A node that asks for more patience than we have is tried at our longest wait.
                    wait = min(max(wait, error.retry_after), self._retry.longest_wait)
                await self._sleep(wait)
                bound = min(bound * 2, self._retry.longest_wait)
            except RpcError:
                self._observer(method, "refused", time.monotonic() - started)
                raise
            else:
                self._observer(method, "ok", time.monotonic() - started)
                return result
        raise AssertionError("unreachable")

    async def _attempt(self, method: str, params: Sequence[Any]) -> Any:
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        timeout = aiohttp.ClientTimeout(total=self._retry.request_timeout)
        try:
            async with self._session.post(
                self._url, json=request, timeout=timeout, allow_redirects=False
            ) as response:
                status, retry_after = response.status, _retry_after(response.headers.get("Retry-After"))
                body = await _read(response)
        except TimeoutError:
            raise ChainUnavailable(
                f"The RPC node gave {method} no answer in {self._retry.request_timeout:g} s; asked again."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            # aiohttp's texts name host and port, not the path that may hold a key.
            raise ChainUnavailable(
                f"The RPC node cannot be reached ({type(error).__name__}); it is asked again."
            ) from None
        try:
            reply = json.loads(body)
        except ValueError:
            reply = None
        if not isinstance(reply, Mapping) or not (
            "result" in reply or isinstance(reply.get("error"), Mapping)
        ):
            raise ChainUnavailable(
                f"The RPC node answered {method} with HTTP {status} and no JSON-RPC; it is asked again.",
                retry_after=retry_after,
            )
        refusal = reply.get("error")
        if isinstance(refusal, Mapping):
            raise _refusal(method, status, refusal, retry_after)
        return reply["result"]


def _refusal(
    method: str, status: int, error: Mapping[str, Any], retry_after: float | None
) -> ChainUnavailable | RpcError:
    code = error.get("code")
    code = code if isinstance(code, int) else 0
    said = str(error.get("message", "no reason"))[:300]
    if status == 429 or status >= 500 or code in _TRANSIENT_CODES:
        return ChainUnavailable(
            f"The RPC node cannot answer {method} now: {said} ({code}); it is asked again.",
            retry_after=retry_after,
        )
    return RpcError(f"The RPC node refused {method}: {said} ({code}).", code=code, data=error.get("data"))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > _MAX_BODY:
            raise aiohttp.ClientPayloadError("answer too large")
    return bytes(data)


def _retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header; the date form is not used by RPC providers."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None


def _config(commitment: Commitment) -> dict[str, Any]:
    return {"commitment": commitment, "encoding": "base64"}
