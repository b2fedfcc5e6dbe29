"""NosanaMarkets that cannot work say why and what to do; the others go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from solders.keypair import Keypair

from nosana_operator.api import MARKET_KIND, MarketCondition
from nosana_sandbox.world.genesis import NOS
from support.markets_on_cluster import fund, offered, secret
from support.scene import SYSTEM, Scene, condition, eventually, says

pytestmark = pytest.mark.cluster


async def told(scene: Scene, name: str, kind: str) -> tuple[str, str]:
    """Reason and message of a condition that is False, once it is, together with Ready and Stalled."""

    async def look() -> Mapping[str, Any] | None:
        body = await scene.kube.get(MARKET_KIND, SYSTEM, name)
        return body if condition(body, kind)[0] == "False" else None

    body = await eventually(look, f"NosanaMarket {name} says {kind}=False")
    assert condition(body, MarketCondition.READY)[0] == "False"
    assert condition(body, MarketCondition.STALLED)[0] == "True"
    _, reason, message = condition(body, kind)
    assert condition(body, MarketCondition.READY)[1] == reason
    return reason, message


async def test_each_lack_is_named_with_its_remedy_and_the_operator_goes_on(scene: Scene) -> None:
    poor, idler = await fund(scene, sol=0, staked=10 * NOS), await fund(scene, sol=1, staked=None)
    await secret(scene, "poor", poor)
    await secret(scene, "idler", idler)
    await scene.make(scene.host.wallet_secret("[1, 2, 3]", "broken"))
    wallet: Any = lambda name: {"wallets": [{"secretRef": {"name": name}}]}  # noqa: E731
    nowhere = str(Keypair().pubkey())

    await offered(scene, "no-such-market", address=nowhere)
    await offered(scene, "a-wallet-is-no-market", address=scene.running.world.poster.address)
    await offered(scene, "not-an-address", address="not-an-address")
    await offered(scene, "unknown-network", network="moonbase")
    await offered(scene, "same-namespace", jobNamespace=SYSTEM)
    await offered(scene, "no-secret", **wallet("nobody-made-it"))
    await offered(scene, "broken-key", **wallet("broken"))
    await offered(scene, "no-money", **wallet("poor"))
    await offered(scene, "no-stake", **wallet("idler"))

    found, keys = MarketCondition.MARKET_FOUND, MarketCondition.WALLETS_READY
    expected: dict[str, tuple[str, str, tuple[str, ...]]] = {
        "no-such-market": (found, "MarketNotFound", (nowhere, "spec.address")),
        "a-wallet-is-no-market": (found, "MarketNotFound", ("spec.address",)),
        "not-an-address": (found, "MarketAddressInvalid", ("spec.address", "create another")),
        "unknown-network": (found, "NetworkUnknown", ("'moonbase'", "localnet")),
        "same-namespace": (found, "SpecInvalid", ("spec.jobNamespace", "another one")),
        "no-secret": (keys, "SecretMissing", (f"{SYSTEM}/nobody-made-it", "create it")),
        "broken-key": (keys, "SecretInvalid", (f"{SYSTEM}/broken",)),
        "no-money": (keys, "SolTooLow", (str(poor.pubkey()), "send it at least")),
        "no-stake": (keys, "StakeMissing", (str(idler.pubkey()), "stake NOS")),
    }
    for name, (kind, reason, words) in expected.items():
        said, message = await told(scene, name, kind)
        assert said == reason, (name, message)
        for word in words:
            assert word in message, (name, message)
        assert "[1, 2, 3]" not in message, "what a Secret holds is never told"

    # Beside all of these, the good one serves.
    posted = await scene.post(says("all the same"))
    await scene.settled(posted)

    # They hold nothing, so they go at once.
    for name in expected:
        await scene.kube.delete(MARKET_KIND, SYSTEM, name)
        await scene.gone(MARKET_KIND, SYSTEM, name)


async def test_what_was_lacking_is_noticed_when_it_comes(scene: Scene) -> None:
    late = await fund(scene, sol=1, staked=10 * NOS)
    await offered(scene, "late", wallets=[{"secretRef": {"name": "late"}}], slots=1)
    assert (await told(scene, "late", MarketCondition.WALLETS_READY))[0] == "SecretMissing"
    await secret(scene, "late", late)

    async def standing() -> bool:
        body = await scene.kube.get(MARKET_KIND, SYSTEM, "late")
        return (
            condition(body, MarketCondition.READY)[0] == "True" and body["status"]["slots"]["standing"] == 1
        )

    await eventually(standing, "the late NosanaMarket's key stands in the queue")
    await scene.kube.delete(MARKET_KIND, SYSTEM, "late")
    await scene.gone(MARKET_KIND, SYSTEM, "late")
    names = await scene.instructions(str(late.pubkey()))
    assert [name for each in names for name in each] == ["Work", "Stop"], "it left the queue before it went"
