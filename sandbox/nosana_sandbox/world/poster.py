"""A poster: pins a definition to IPFS, lists it on the chain, reads, ends and extends the job.

Goes over HTTP as any client does, so it works with every chain and IPFS of the sandbox's shape.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from spl.token.instructions import create_idempotent_associated_token_account

from nosana_operator.content import digest_of
from nosana_sandbox.program.addresses import JOBS_PROGRAM, NOS_MINT
from nosana_sandbox.program.layout import STATE_QUEUED, Job, Market, Run
from nosana_sandbox.world.errors import TransactionFailed, UnknownJob, WorldError
from nosana_sandbox.world.instructions import delist_job, end_job, extend_job, list_job, vault_of
from nosana_sandbox.world.journal import JobView, Payment, payments_of, view_of

_CONFIRM_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1
_RUN_JOB: Final = 8
"""Offset of a run's job (docs/protocol/jobs-program.md#runaccount)."""


@dataclass(frozen=True, slots=True)
class Posted:
    """A listed job; `run` is None unless a host was waiting, `cid` is the definition's."""

    job: str
    run: str | None
    cid: str
    signature: str


class Poster:
    """One key that posts. Use as a context manager: it holds an HTTP session."""

    def __init__(self, *, rpc: str, ipfs: str, keypair: Keypair) -> None:
        """`rpc` and `ipfs` are base URLs."""
        self._rpc = rpc
        self._ipfs = ipfs
        self._keypair = keypair
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def address(self) -> Pubkey:
        """The address that posts and pays."""
        return self._keypair.pubkey()

    async def post(self, definition: bytes, market: str, *, timeout: int | None = None) -> Posted:
        """Pin a definition as it is and list it, for `timeout` seconds (else the market's own).

        Raises TransactionFailed, or WorldError when something cannot be reached.
        """
        return await self.list_job(await self.pin(definition), market, timeout=timeout)

    async def list_job(self, cid: str, market: str, *, timeout: int | None = None) -> Posted:
        """List a definition by its CID, whether or not anybody holds it. Raises as `post`."""
        where = _pubkey(market)
        seconds = timeout if timeout is not None else (await self._market(where)).job_timeout
        job, run = Keypair(), Keypair()
        instruction = list_job(
            where, job.pubkey(), run.pubkey(), self.address, ipfs_job=digest_of(cid), timeout=seconds
        )
        signature = await self._send([instruction], job, run)
        matched = await self._account(run.pubkey()) is not None
        return Posted(str(job.pubkey()), str(run.pubkey()) if matched else None, cid, signature)

    async def pin(self, data: bytes) -> str:
        """Pin exact bytes; their CID."""
        form = aiohttp.FormData()
        form.add_field("file", data, filename="job.json", content_type="application/octet-stream")
        body = json.loads(await self._http("POST", f"{self._ipfs}/api/v0/add?pin=true", form))
        return str(body["Hash"])

    async def fetch(self, cid: str) -> bytes:
        """A file's bytes."""
        return await self._http("GET", f"{self._ipfs}/ipfs/{cid}")

    async def job(self, address: str) -> JobView:
        """The job as it is at *confirmed*. Raises UnknownJob."""
        key = _pubkey(address)
        job = await self._job(key)
        runs = await self._runs(key)
        return view_of(key, job, runs, await self._history(address), vault_of(job.market))

    async def payments(self, address: str) -> tuple[Payment, ...]:
        """The successful transactions that name an account, at *confirmed*, oldest first."""
        return payments_of(await self._history(address))

    async def result(self, view: JobView) -> Any:
        """The job's result from IPFS, parsed when it is JSON, else as text; None when it has none."""
        if view.result_cid is None:
            return None
        data = await self.fetch(view.result_cid)
        try:
            return json.loads(data)
        except ValueError:
            return data.decode(errors="replace")

    async def end(self, address: str) -> str:
        """Stop a running job; the signature. Raises UnknownJob, WorldError when it does not run."""
        key = _pubkey(address)
        job = await self._job(key)
        runs = await self._runs(key)
        if job.state != STATE_QUEUED or not runs:
            raise WorldError(f"the job {address} does not run, so it cannot be ended; try `delist`")
        (at, run) = next(iter(runs.items()))
        # The host is paid in this transaction, so its NOS account has to be there.
        account = create_idempotent_associated_token_account(self.address, run.node, NOS_MINT)
        instruction = end_job(
            job.market,
            key,
            at,
            self.address,
            job_payer=job.payer,
            run_payer=run.payer,
            node=run.node,
        )
        return await self._send([account, instruction])

    async def extend(self, address: str, seconds: int) -> str:
        """Give a job `seconds` more than it has; the signature."""
        key = _pubkey(address)
        job = await self._job(key)
        return await self._send(
            [extend_job(job.market, key, self.address, job.payer, timeout=job.timeout + seconds)]
        )

    async def delist(self, address: str) -> str:
        """Delist a queued job; the signature."""
        key = _pubkey(address)
        job = await self._job(key)
        return await self._send([delist_job(job.market, key, self.address, job.payer)])

    async def call(self, method: str, *params: Any) -> Any:
        """One RPC request. Raises TransactionFailed for a refused transaction, else WorldError."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        reply = json.loads(await self._http("POST", self._rpc, json.dumps(body).encode()))
        error = reply.get("error")
        if error is None:
            return reply["result"]
        if method == "sendTransaction":
            logs = (error.get("data") or {}).get("logs") or []
            raise TransactionFailed(f"the chain refused the transaction: {_reason(logs) or error['message']}")
        raise WorldError(f"the chain refused {method}: {error['message']}")

    async def _send(self, instructions: Sequence[Instruction], *signers: Keypair) -> str:
        latest = (await self.call("getLatestBlockhash", {"commitment": "confirmed"}))["value"]
        message = MessageV0.try_compile(self.address, instructions, [], Hash.from_string(latest["blockhash"]))
        transaction = VersionedTransaction(message, [self._keypair, *signers])
        signature = str(transaction.signatures[0])
        await self.call(
            "sendTransaction",
            base64.b64encode(bytes(transaction)).decode(),
            {"encoding": "base64", "preflightCommitment": "confirmed"},
        )
        await self._confirmed(signature)
        return signature

    async def _confirmed(self, signature: str) -> None:
        deadline = time.monotonic() + _CONFIRM_SECONDS
        while time.monotonic() < deadline:
            (status,) = (await self.call("getSignatureStatuses", [signature]))["value"]
            if status is not None and status["err"] is not None:
                raise TransactionFailed(f"the transaction {signature} failed with {status['err']}")
            if status is not None and status["confirmationStatus"] in ("confirmed", "finalized"):
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise WorldError(
            f"the transaction {signature} was not confirmed within {_CONFIRM_SECONDS:g} s; "
            "does the chain move on?"
        )

    async def _account(self, key: Pubkey) -> bytes | None:
        config = {"encoding": "base64", "commitment": "confirmed"}
        value = (await self.call("getAccountInfo", str(key), config))["value"]
        return None if value is None else base64.b64decode(value["data"][0])

    async def _job(self, key: Pubkey) -> Job:
        data = await self._account(key)
        if data is None or data[:8] != Job.DISCRIMINATOR:
            raise UnknownJob(f"there is no job {key} on the chain; it may have been delisted or cleaned away")
        return Job.decode(data)

    async def _market(self, key: Pubkey) -> Market:
        data = await self._account(key)
        if data is None or data[:8] != Market.DISCRIMINATOR:
            raise WorldError(f"there is no market {key} on the chain; see `nosana-sandbox status`")
        return Market.decode(data)

    async def _runs(self, job: Pubkey) -> Mapping[Pubkey, Run]:
        filters = [
            {
                "memcmp": {
                    "offset": 0,
                    "bytes": base64.b64encode(Run.DISCRIMINATOR).decode(),
                    "encoding": "base64",
                }
            },
            {"memcmp": {"offset": _RUN_JOB, "bytes": str(job)}},
        ]
        config = {"encoding": "base64", "commitment": "confirmed", "filters": filters}
        found = await self.call("getProgramAccounts", str(JOBS_PROGRAM), config)
        return {
            Pubkey.from_string(each["pubkey"]): Run.decode(base64.b64decode(each["account"]["data"][0]))
            for each in found
        }

    async def _history(self, address: str) -> list[Mapping[str, Any]]:
        entries = await self.call("getSignaturesForAddress", address, {"commitment": "confirmed"})
        told = [
            await self.call(
                "getTransaction",
                entry["signature"],
                {"commitment": "confirmed", "encoding": "json", "maxSupportedTransactionVersion": 0},
            )
            for entry in reversed(entries)
        ]
        return [each for each in told if each]

    async def _http(self, verb: str, url: str, data: bytes | aiohttp.FormData | None = None) -> bytes:
        assert self._session is not None, "use the poster as a context manager"
        headers = {"Content-Type": "application/json"} if isinstance(data, bytes) else None
        try:
            async with self._session.request(verb, url, data=data, headers=headers) as response:
                if response.status != 200:
                    raise WorldError(f"{url} answered {response.status}: {(await response.text())[:200]}")
                return await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise WorldError(f"{url} cannot be reached ({error}); is the sandbox up?") from error


def _pubkey(address: str) -> Pubkey:
    try:
        return Pubkey.from_string(address)
    except ValueError:
        raise WorldError(f"{address!r} is not a Solana address; it needs 32 bytes in base58") from None


def _reason(logs: Sequence[str]) -> str | None:
    """The program's own words: the AnchorError line, else the last line."""
    return next((line for line in logs if "Error Code:" in line), logs[-1] if logs else None)
