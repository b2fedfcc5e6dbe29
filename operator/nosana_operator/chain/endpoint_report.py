"""Reports what one RPC endpoint supports; used by the doctor.

`Endpoints` chooses among nodes and hides their differences; this module shows them. Errors never contain a URL,
which may contain an API key.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, TypeVar

import aiohttp
from solana.rpc.commitment import Confirmed

from nosana_operator.chain.accounts import RUN_DISCRIMINATOR_BASE58, RUN_NODE_OFFSET
from nosana_operator.chain.addresses import SYSTEM, TOKEN, Programs
from nosana_operator.chain.errors import ChainUnavailable, MethodRefused, RpcError
from nosana_operator.chain.rpc.endpoints import Endpoints
from nosana_operator.chain.rpc.methods import Retry, Rpc
from nosana_operator.chain.rpc.wire import Memcmp, read_string

Answer = TypeVar("Answer")

GENESIS: Final = {
    "mainnet": "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d",
    "devnet": "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG",
    "testnet": "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY",
}
"""Hash of each public cluster's first block, which identifies the cluster."""

_SECONDS: Final = 6.0


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """What one endpoint answered; None where it gave no answer to that question."""

    latency: float
    """Seconds that one request took on an open connection."""
    slot: int
    """At confirmed."""
    genesis: str | None
    lists_accounts: bool | None
    """Whether it answers getProgramAccounts."""
    has_mint: bool | None
    """Whether the network's NOS mint exists there."""


async def report_endpoint(url: str, session: aiohttp.ClientSession, programs: Programs) -> EndpointReport:
    """Ask an endpoint for its slot, its cluster and what it serves.

    Raises:
        ChainUnavailable: it does not answer.
        RpcError: it refuses even its slot.
    """
    rpc = Rpc(Endpoints((url,), session), retry=Retry(attempts=1, request_timeout=_SECONDS))
    await rpc.slot(Confirmed)
    began = time.monotonic()
    slot = await rpc.slot(Confirmed)
    latency = time.monotonic() - began
    genesis, lists, mint = await asyncio.gather(
        _answer(rpc.call("getGenesisHash", [], read_string)),
        _lists(rpc, programs),
        _answer(_has_mint(rpc, programs)),
    )
    return EndpointReport(latency, slot, genesis, lists, mint)


async def time_websocket(url: str, session: aiohttp.ClientSession) -> float:
    """Subscribe to slots; the seconds until the first notification. Raises ChainUnavailable."""
    began = time.monotonic()
    try:
        async with (
            asyncio.timeout(_SECONDS),
            session.ws_connect(url, max_msg_size=1024 * 1024) as socket,
        ):
            await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "slotSubscribe", "params": []})
            async for message in socket:
                body = message.json() if message.type is aiohttp.WSMsgType.TEXT else {}
                if isinstance(body, dict) and body.get("method") == "slotNotification":
                    return time.monotonic() - began
                if isinstance(body, dict) and "error" in body:
                    raise ChainUnavailable("The WebSocket endpoint refuses slotSubscribe.")
    except TimeoutError:
        raise ChainUnavailable(f"The WebSocket endpoint sent no slot in {_SECONDS:g} s.") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ChainUnavailable(
            f"The WebSocket endpoint cannot be reached ({type(error).__name__})."
        ) from None
    raise ChainUnavailable("The WebSocket endpoint closed the connection.")


async def _answer(question: Awaitable[Answer]) -> Answer | None:
    try:
        return await question
    except (ChainUnavailable, RpcError):
        return None


async def _has_mint(rpc: Rpc, programs: Programs) -> bool:
    found = (await rpc.account(programs.nos_mint, Confirmed)).value
    return found is not None and found.owner == TOKEN


async def _lists(rpc: Rpc, programs: Programs) -> bool | None:
    # Nobody can have this host key, so the answer is empty however many runs there are.
    filters = [Memcmp(0, RUN_DISCRIMINATOR_BASE58), Memcmp(RUN_NODE_OFFSET, SYSTEM)]
    try:
        await rpc.program_accounts(programs.jobs, filters, Confirmed)
    except MethodRefused:
        return False
    except (ChainUnavailable, RpcError):
        return None
    return True
