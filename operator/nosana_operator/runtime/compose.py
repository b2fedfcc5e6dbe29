"""Puts the two loops together: the one place where the domain rooms meet the edges that they know only as Protocols."""

from __future__ import annotations

from datetime import UTC, datetime

from nosana_operator.chain import Wallet
from nosana_operator.health_probes import NetworkProber
from nosana_operator.jobs import JobController, JobSettings
from nosana_operator.market import ChainPolls, Edges, MarketHost, Poll, RunController, Wallets
from nosana_operator.regex import RegexRunner
from nosana_operator.runtime.metrics.chain_metrics import ChainCollector
from nosana_operator.runtime.networks import ConfiguredNetworks, definition_gateways
from nosana_operator.runtime.operator import Loops, OperatorContext
from nosana_operator.runtime.queue import WorkQueue
from nosana_operator.workload import node_ranges


class WallClock:
    """The system's clock."""

    def now(self) -> datetime:
        """Aware, UTC."""
        return datetime.now(UTC)


def build_loops(ctx: OperatorContext) -> Loops:
    """Build job controller and market host over the real edges."""
    settings, clock = ctx.settings, WallClock()
    networks = ConfiguredNetworks(
        settings.networks,
        ctx.http,
        observer=ctx.metrics.rpc_request,
        on_change=lambda network, kind, address: ctx.chain_changed(kind, address),
        on_transaction=ctx.metrics.transaction,
        own_ranges=lambda: (*settings.isolation.blocked, *node_ranges(ctx.cache.list("Node"))),
    )
    for name in settings.networks:
        ctx.metrics.begin_network(name)
    ctx.metrics.registry.register(ChainCollector(networks.clients))
    prober = NetworkProber()
    jobs = JobController(
        kube=ctx.kube,
        cache=ctx.cache,
        definitions=definition_gateways(settings.networks, ctx.http),
        events=ctx.events,
        metrics=ctx.metrics,
        clock=clock,
        prober=prober,
        settings=JobSettings(
            cluster=settings.cluster_name,
            cluster_domain=settings.cluster_domain,
            fetching=settings.fetch,
            isolation=settings.isolation,
            nodes=settings.nodes,
            storage=settings.volumes,
            exposure=settings.exposure,
        ),
        match=RegexRunner().match,
        wake=ctx.enqueue_job,
    )
    market = Edges(
        kube=ctx.kube,
        cache=ctx.cache,
        networks=networks,
        read_wallet=Wallet.parse,
        events=ctx.events,
        metrics=ctx.metrics,
        clock=clock,
        leadership=ctx.leadership,
    )
    wallets = Wallets(ctx.kube, ctx.cache, Wallet.parse, clock)
    work: WorkQueue[Poll] = WorkQueue("chain polls")
    polls = ChainPolls(
        market, wallets, wake=work.add, changed=lambda network: ctx.chain_changed("wallet", network)
    )
    host = MarketHost(market, wallets, polls, settings.nodes)
    return Loops(
        reconcile_job=jobs.reconcile,
        reconcile_market=host.reconcile,
        reconcile_run=RunController(market, wallets).reconcile,
        observe_pod=host.observe_pod,
        background=(*networks.background, ("chain polls", lambda: run_polls(work, polls))),
        close=(jobs.close, prober.close),
    )


async def run_polls(work: WorkQueue[Poll], polls: ChainPolls) -> None:
    """Run all polls until cancelled, each in a worker of its own, so that a silent node delays only its own polls."""
    for poll in polls.all:
        work.add(poll)
    try:
        await work.run(max(1, len(polls.all)), polls.reconcile)
    finally:
        work.stop()
