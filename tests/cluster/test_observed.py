"""A real Prometheus scrapes the running operator: the dashboard shows it, the rules judge it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nosana_sandbox.host import METRICS_PORT
from nosana_sandbox.prometheus import PrometheusServer, ensure_prometheus
from nosana_sandbox.world.genesis import read_keypair
from nosana_sandbox.world.sandbox import Sandbox
from support.dashboard import TARGETS
from support.promtool import ALERTS, Promtool
from support.scene import Scene, eventually, says

pytestmark = pytest.mark.cluster

MAY_BE_EMPTY = {
    "Oldest job in a passing phase",
    "Runs not settled, by reason",
    "Slots behind the best node",
    "Latency of RPC nodes",
    "Jobs that run, by market",
}
"""What there is none of when all is well: jobs on their way, runs to settle, several RPC nodes to compare."""


@pytest.fixture
def prometheus(sandbox: Sandbox) -> Iterator[PrometheusServer]:
    """Prometheus beside the operator, with the chart's rules."""
    server = PrometheusServer(sandbox.local_cluster(), ensure_prometheus(print))
    server.start(f"127.0.0.1:{METRICS_PORT}", rules=ALERTS)
    yield server
    server.stop()


async def test_the_dashboard_shows_a_job_that_was_paid(scene: Scene, prometheus: PrometheusServer) -> None:
    async def scraped() -> bool:
        return bool(prometheus.query("nosana_operator_build_info"))

    # What a counter was before is seen first: an increase needs both.
    await eventually(scraped, "the operator is scraped")
    body = await scene.settled(await scene.post(says("seen"), timeout=60))
    earned = body["status"]["settlement"]["earned"] / 1e6
    market = body["spec"]["run"]["market"]

    async def paid() -> bool:
        found = prometheus.query(f'increase(nosana_operator_earned_nos_total{{market="{market}"}}[5m])')
        # Prometheus extends what it saw to the ends of the range.
        return bool(found) and found[0].value >= earned * 0.99

    await eventually(paid, "Prometheus knows what was earned")
    told = {str(target): prometheus.query(target.evaluable) for target in TARGETS}
    silent = {str(target) for target in TARGETS if not told[str(target)]}
    assert {target.panel for target in TARGETS if str(target) in silent} <= MAY_BE_EMPTY
    steps = {sample.labels["step"] for sample in told["Start of a job, step by step A"]}
    assert steps >= {"accepted", "scheduled", "pulled", "started", "ready"}
    assert told["Leads A"][0].value == 1
    assert told["Memory A"][0].value > 1e6
    assert prometheus.query('ALERTS{alertstate="firing"}') == []
    promtool = Promtool(ensure_prometheus(print) / "promtool")
    served = scene.host.metrics()
    assert promtool.complaints("check", "metrics", stdin=served) == ""
    key = read_keypair(Path(scene.running.world.host.keypair))
    assert str(key.pubkey()) in served
    assert str(key) not in served
