"""Puts the two loops together: the one place where the domain rooms meet the edges they know by Protocols."""

from __future__ import annotations

from datetime import UTC, datetime

from nosana_operator.chain import Wallet
from nosana_operator.health_probes import NetworkProber
from nosana_operator.jobs import JobController, JobSettings
from nosana_operator.market import ChainPolls, MarketHost, Poll, RunController, Wallets
from nosana_operator.market import Edges as MarketEdges
from nosana_operator.regex import RegexRunner
from nosana_operator.runtime.metrics.chain_metrics import ChainCollector
from nosana_operator.runtime.networks import ConfiguredNetworks, definition_gateways
from nosana_operator.runtime.operator import Edges, Loops
from nosana_operator.runtime.queue import WorkQueue
from nosana_operator.workload import node_ranges


class WallClock:
    """Our clock."""

    def now(self) -> datetime:
        """Aware, UTC."""
        return datetime.now(UTC)


def build_loops(edges: Edges) -> Loops:
    """Job controller and market host over the real edges."""
    settings, clock = edges.settings, WallClock()
    networks = ConfiguredNetworks(
        settings.networks,
        edges.http,
        observer=edges.metrics.rpc_request,
        on_change=lambda network, kind, address: edges.chain_changed(kind, address),
        on_transaction=edges.metrics.transaction,
        own_ranges=lambda: (*settings.isolation.blocked, *node_ranges(edges.cache.list("Node"))),
    )
    for name in settings.networks:
        edges.metrics.begin_network(name)
    edges.metrics.registry.register(ChainCollector(networks.clients))
    prober = NetworkProber()
    jobs = JobController(
        kube=edges.kube,
        cache=edges.cache,
        definitions=definition_gateways(settings.networks, edges.http),
        events=edges.events,
        metrics=edges.metrics,
        clock=clock,
        prober=prober,
        settings=JobSettings(
            cluster=settings.cluster_name,
            cluster_domain=settings.cluster_domain,
            fetching=settings.fetch,
            isolation=settings.isolation,
            storage=settings.volumes,
            exposure=settings.exposure,
        ),
        match=RegexRunner().match,
        wake=edges.enqueue_job,
    )
    market = MarketEdges(
        kube=edges.kube,
        cache=edges.cache,
        networks=networks,
        read_wallet=Wallet.parse,
        events=edges.events,
        metrics=edges.metrics,
        clock=clock,
        leadership=edges.leadership,
    )
    wallets = Wallets(edges.kube, edges.cache, Wallet.parse, clock)
    work: WorkQueue[Poll] = WorkQueue("chain polls")
    polls = ChainPolls(
        market, wallets, wake=work.add, changed=lambda network: edges.chain_changed("wallet", network)
    )
    return Loops(
        reconcile_job=jobs.reconcile,
        reconcile_market=MarketHost(market, wallets, polls).reconcile,
        reconcile_run=RunController(market, wallets).reconcile,
        background=(*networks.background, ("chain polls", lambda: run_polls(work, polls))),
        close=(jobs.close, prober.close),
    )


async def run_polls(work: WorkQueue[Poll], polls: ChainPolls) -> None:
    """Do all polls for ever, each beside the others: one that gets no answer keeps none of them waiting."""
    for check in polls.all:
        work.add(check)
    try:
        await work.run(max(1, len(polls.all)), polls.reconcile)
    finally:
        work.stop()
