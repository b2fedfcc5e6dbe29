"""Metrics: names that Prometheus' own linter takes, values, series that go with their objects."""

from __future__ import annotations

import re

from prometheus_client import generate_latest

from nosana_operator.runtime.metrics.operator_metrics import OperatorMetrics
from nosana_operator.runtime.queue import WorkQueue


def exposition(metrics: OperatorMetrics) -> str:
    return generate_latest(metrics.registry).decode()


def value(metrics: OperatorMetrics, name: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"nosana_operator_{name}", labels)


def test_a_queue_tells_what_happens() -> None:
    metrics = OperatorMetrics()
    queue = metrics.queue("jobs", "NosanaJob")
    queue.added()
    queue.started(0.02)
    queue.finished("retry", 0.3)
    queue.finished("success", 0.3)
    assert value(metrics, "workqueue_adds_total", queue="jobs") == 1
    assert value(metrics, "workqueue_retries_total", queue="jobs") == 1
    assert value(metrics, "reconcile_total", kind="NosanaJob", result="retry") == 1
    assert value(metrics, "reconcile_total", kind="NosanaJob", result="requeue") == 0
    assert value(metrics, "reconcile_duration_seconds_count", kind="NosanaJob") == 2
    assert value(metrics, "workqueue_queue_duration_seconds_bucket", queue="jobs", le="0.025") == 1


async def test_depth_is_read_at_the_scrape() -> None:
    metrics = OperatorMetrics()
    queue: WorkQueue[str] = WorkQueue("jobs")
    metrics.watch_queue(queue)
    queue.add("a")
    assert value(metrics, "workqueue_depth", queue="jobs") == 1
    assert value(metrics, "workqueue_longest_running_processor_seconds", queue="jobs") == 0


def test_requests_and_events() -> None:
    metrics = OperatorMetrics()
    metrics.kubernetes_request("apply", "NosanaJob", "200", 0.01)
    metrics.rpc_request("getSlot", "ok", 0.2)
    metrics.watch_event("Pod", None)
    metrics.watch_event("Pod", "MODIFIED")
    metrics.loop_lag(0.5)
    assert value(metrics, "kubernetes_requests_total", verb="apply", kind="NosanaJob", code="200") == 1
    assert value(metrics, "kubernetes_request_duration_seconds_count", verb="apply") == 1
    assert value(metrics, "solana_rpc_requests_total", method="getSlot", outcome="ok") == 1
    assert value(metrics, "watch_events_total", kind="Pod", type="LISTED") == 1
    assert value(metrics, "watch_events_total", kind="Pod", type="MODIFIED") == 1
    assert value(metrics, "event_loop_lag_seconds_bucket", le="0.25") == 0
    assert value(metrics, "event_loop_lag_seconds_bucket", le="0.5") == 1


def test_who_leads() -> None:
    metrics = OperatorMetrics()
    assert value(metrics, "leader") == 0
    metrics.leader(True)
    assert value(metrics, "leader") == 1
    metrics.leader(False)
    assert value(metrics, "leader") == 0


def test_money_and_latency() -> None:
    metrics = OperatorMetrics()
    metrics.run_to_pod(0.25)
    metrics.run_to_pod(-0.1)
    metrics.start_step("pulled", 40)
    metrics.finish_sent("M", 1.7)
    metrics.matched("M")
    metrics.settled("M", "finish", earned=300, refunded=200, seconds=30, took=14.0)
    metrics.settled("M", "complete", earned=0, refunded=0, seconds=0, took=-1.0)
    metrics.transaction("devnet", "finish", "landed", 5_000)
    metrics.transaction("devnet", "work", "expired", 0)
    assert value(metrics, "run_to_pod_seconds_bucket", le="0.05") == 1
    assert value(metrics, "run_to_pod_seconds_bucket", le="0.3") == 2
    assert value(metrics, "job_start_duration_seconds_sum", step="pulled") == 40
    assert value(metrics, "end_to_finish_seconds_bucket", market="M", le="1.5") == 0
    assert value(metrics, "end_to_finish_seconds_bucket", market="M", le="2.0") == 1
    assert value(metrics, "runs_matched_total", market="M") == 1
    assert value(metrics, "settled_runs_total", market="M", kind="finish") == 1
    assert value(metrics, "earned_nos_total", market="M") == 0.0003
    assert value(metrics, "refunded_nos_total", market="M") == 0.0002
    assert value(metrics, "paid_seconds_total", market="M") == 30
    assert value(metrics, "settlement_duration_seconds_bucket", market="M", le="1.0") == 1
    assert value(metrics, "settlement_duration_seconds_bucket", market="M", le="15.0") == 2
    finish = {"network": "devnet", "kind": "finish"}
    assert value(metrics, "solana_transactions_total", **finish, outcome="landed") == 1
    assert value(metrics, "solana_fees_lamports_total", **finish) == 5_000
    assert value(metrics, "solana_fees_lamports_total", network="devnet", kind="work") == 0


def test_counters_of_money_begin_at_zero() -> None:
    """`increase()` does not see what a series begins with."""
    metrics = OperatorMetrics()
    metrics.expose_objects(
        list, lambda: [{"metadata": {"namespace": "n", "name": "m"}, "spec": {"address": "M"}}]
    )
    metrics.begin_network("devnet")
    exposition(metrics)
    for name in ("runs_matched", "earned_nos", "refunded_nos", "paid_seconds"):
        assert value(metrics, f"{name}_total", market="M") == 0
    assert value(metrics, "settled_runs_total", market="M", kind="finish") == 0
    assert value(metrics, "settlement_duration_seconds_count", market="M") == 0
    assert value(metrics, "solana_fees_lamports_total", network="devnet", kind="quit") == 0


def test_the_silence_of_watches_is_read_at_the_scrape() -> None:
    metrics = OperatorMetrics()
    ages: dict[str, float] = {}
    metrics.expose_watches(lambda: ages)
    assert "watch_age_seconds{" not in exposition(metrics)
    ages["Pod"] = 31.5
    assert value(metrics, "watch_age_seconds", kind="Pod") == 31.5


def test_names_follow_the_rules() -> None:
    metrics = OperatorMetrics()
    metrics.expose_objects(list, list)
    metrics.expose_watches(dict)
    text = exposition(metrics)
    families = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    ours = [(name, kind) for name, kind in families if name.startswith("nosana_operator_")]
    assert len(ours) > 35
    for name, kind in ours:
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"(_ms|_millis|_kb|_mb)(_|$)", name), name
        assert re.search(rf"^# HELP {name} \S.*\.$", text, re.MULTILINE), name
    assert "_created" not in text


def test_two_registries_do_not_meet() -> None:
    one, two = OperatorMetrics(), OperatorMetrics()
    one.leader(True)
    assert value(two, "leader") == 0
