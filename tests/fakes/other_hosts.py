"""What the tests of the market host's queue see and do beyond the lab: other markets, other users of a key."""

from __future__ import annotations

from typing import Any

from solders.keypair import Keypair

from fakes.chain import keypair
from fakes.market import MarketLab
from fakes.market_objects import ADMIN, JOBS, MARKET
from nosana_operator.api import API_VERSION, MARKET_KIND, find_condition
from nosana_operator.chain import DEVNET
from nosana_operator.chain.program import JobsProgram
from nosana_sandbox.program.layout import QUEUE_NODE, Market
from nosana_sandbox.world.instructions import list_job, open_market

PROGRAM = JobsProgram(DEVNET)


def slots(lab: MarketLab, market: str = MARKET) -> dict[str, Any]:
    body = lab.kube.find(MARKET_KIND, ADMIN, market) or {}
    return dict((body.get("status") or {}).get("slots") or {})


def ready(lab: MarketLab, market: str = MARKET) -> tuple[str, str, str]:
    body = lab.kube.find(MARKET_KIND, ADMIN, market) or {}
    found = find_condition((body.get("status") or {}).get("conditions"), "Ready") or {}
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


def wallet(lab: MarketLab, address: str) -> dict[str, Any]:
    wallets = (lab.market().get("status") or {}).get("wallets") or []
    return next((dict(one) for one in wallets if one.get("address") == address), {})


def set_gpus(lab: MarketLab, count: int, node: str = "node-1") -> None:
    lab.kube.edit("Node", None, node, {"status": {"allocatable": {"nvidia.com/gpu": str(count)}}})


def spec(lab: MarketLab, **changes: Any) -> None:
    lab.kube.edit(MARKET_KIND, ADMIN, MARKET, {"spec": changes})


def chain_market(lab: MarketLab, label: str = "market") -> Market:
    account = lab.ledger.account(keypair(label).pubkey())
    assert account is not None
    return Market.decode(account.data)


def add_market(lab: MarketLab, label: str, wallets: list[str]) -> None:
    """Another market on chain, and a NosanaMarket for it."""
    authority, market = keypair("authority"), keypair(label)
    opened = open_market(
        market.pubkey(), authority.pubkey(), price=10, job_timeout=7200, job_expiration=86_400
    )
    assert lab.ledger.act([opened], authority, market) is None
    lab.clock.advance(1)
    lab.kube.add(
        {
            "apiVersion": API_VERSION,
            "kind": MARKET_KIND,
            "metadata": {"name": label, "namespace": ADMIN},
            "spec": {
                "address": str(market.pubkey()),
                "network": "localnet",
                "jobNamespace": JOBS,
                "wallets": [{"secretRef": {"name": name}} for name in wallets],
            },
        }
    )


def post_to(lab: MarketLab, label: str, number: int, *, timeout: int = 60) -> None:
    """List a job in another market."""
    job, run, poster = keypair(f"{label}-{number}"), keypair(f"run-{label}-{number}"), lab.begin.poster
    listed = list_job(
        keypair(label).pubkey(),
        job.pubkey(),
        run.pubkey(),
        poster.pubkey(),
        ipfs_job=bytes([number]) * 32,
        timeout=timeout,
    )
    assert lab.ledger.act([listed], poster, job, run) is None


def matches(lab: MarketLab, *labels: str) -> int:
    """Runs of NosanaJobs that have not ended, and keys that stand: what may be matched or is."""
    running = sum(
        not any(
            one["type"] in ("Complete", "Failed") and one["status"] == "True"
            for one in (body.get("status") or {}).get("conditions") or ()
        )
        for body in lab.nosana_jobs()
    )
    hosts = {key.pubkey() for key in lab.begin.hosts}
    standing = 0
    for label in labels:
        market = chain_market(lab, label)
        standing += sum(key in hosts for key in market.queue) if market.queue_type == QUEUE_NODE else 0
    return running + standing


def by_hand(lab: MarketLab, host: Keypair, *instructions: Any, signers: tuple[Keypair, ...] = ()) -> None:
    """Somebody else uses the host's key."""
    assert lab.ledger.act(list(instructions), host, *signers) is None


def work_by_hand(lab: MarketLab, host: Keypair, label: str | None = None) -> None:
    """A host takes a job, or stands: in another market where one is named."""
    run = Keypair()
    node, market = str(host.pubkey()), str(keypair(label).pubkey() if label else lab.begin.market)
    work = PROGRAM.work(run=str(run.pubkey()), market=market, node=node, nft=None, metadata=None)
    by_hand(lab, host, PROGRAM.create_nos_account(payer=node, owner=node), work, signers=(run,))
