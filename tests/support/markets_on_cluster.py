"""Further keys and NosanaMarkets on the sandbox cluster."""

from __future__ import annotations

import base64
import json
from typing import Any

from solders.keypair import Keypair

from nosana_sandbox.chain import LAMPORTS_PER_SOL
from nosana_sandbox.world.genesis import stake_accounts
from support.scene import Scene, eventually


async def fund(scene: Scene, *, sol: int, staked: int | None) -> Keypair:
    """A new key with so much SOL and so much NOS staked (None: it never staked)."""
    key = Keypair()
    if sol:
        await scene.poster.call("requestAirdrop", str(key.pubkey()), sol * LAMPORTS_PER_SOL)

        async def arrived() -> bool | None:
            balance = await scene.poster.call("getBalance", str(key.pubkey()), {"commitment": "confirmed"})
            return balance["value"] > 0 or None

        await eventually(arrived, "the money is there")
    if staked is not None:
        for address, account in stake_accounts(key.pubkey(), amount=staked).items():
            data = base64.b64encode(account.data).decode()
            await scene.poster.call(
                "sandbox_setAccount", str(address), {"owner": str(account.owner), "data": data}
            )
    return key


async def secret(scene: Scene, name: str, key: Keypair) -> None:
    body = scene.host.wallet_secret(json.dumps(list(bytes(key))), name)
    await scene.make(body)


async def offered(scene: Scene, name: str, **spec: Any) -> None:
    """Another NosanaMarket beside the sandbox's own."""
    body = scene.host.market(**spec)
    body["metadata"]["name"] = name
    await scene.make(body)
