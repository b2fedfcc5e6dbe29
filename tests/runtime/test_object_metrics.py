"""What NosanaJobs and NosanaMarkets tell Prometheus: counted at the scrape, gone with their objects."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from nosana_operator.runtime.metrics.object_metrics import Balance, ObjectCollector

NOW = 1_767_225_600.0
"""2026-01-01T00:00:00Z"""


def job(phase: str | None, market: str = "", *said: tuple[str, str, str], **spec: Any) -> dict[str, Any]:
    """Made an hour ago; each of `said` is type, status and reason of a condition that changed 10 min ago."""
    conditions = [
        {"type": kind, "status": status, "reason": reason, "lastTransitionTime": "2025-12-31T23:50:00Z"}
        for kind, status, reason in said
    ]
    status: dict[str, Any] = {"conditions": conditions} | ({"phase": phase} if phase else {})
    return {
        "metadata": {"creationTimestamp": "2025-12-31T23:00:00Z"},
        "spec": spec | ({"run": {"market": market}} if market else {}),
        "status": status,
    }


def market(name: str, address: str, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "ns", "name": name},
        "spec": {"address": address, "network": "devnet", "slots": {"reserve": 3}},
        "status": status,
    }


class Scrape:
    """A registry over lists that a test may change."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.markets: list[dict[str, Any]] = []
        self.balances: dict[tuple[str, str], Balance] = {}
        self.registry = CollectorRegistry(auto_describe=True)
        collector = ObjectCollector(lambda: self.jobs, lambda: self.markets, self.balances, lambda: NOW)
        self.registry.register(collector)

    def value(self, name: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"nosana_operator_{name}", labels)

    def text(self) -> str:
        return generate_latest(self.registry).decode()


def test_jobs_by_market_and_phase() -> None:
    scrape = Scrape()
    scrape.jobs = [job("Running"), job(None), job("Running", "M"), job("Running", "M")]
    assert scrape.value("jobs", market="", phase="Running") == 1
    assert scrape.value("jobs", market="", phase="Pending") == 1
    assert scrape.value("jobs", market="M", phase="Running") == 2
    scrape.jobs.clear()
    assert "nosana_operator_jobs{" not in scrape.text()


def test_how_long_a_job_has_been_in_a_phase_that_passes() -> None:
    scrape = Scrape()
    scrape.jobs = [
        job("Pending"),
        job("Pending", suspend=True),
        job("Starting", "M", ("Accepted", "True", "Accepted")),
        job("Running", "M", ("Ready", "True", "Running")),
    ]
    assert scrape.value("oldest_job_seconds", market="", phase="Pending") == 3600
    assert scrape.value("oldest_job_seconds", market="M", phase="Starting") == 600
    assert scrape.value("oldest_job_seconds", market="M", phase="Running") is None
    scrape.jobs = [job("Pending", suspend=True)]
    assert "oldest_job_seconds{" not in scrape.text()


def test_runs_that_are_not_settled() -> None:
    scrape = Scrape()
    scrape.markets = [market("quiet", "Q")]
    late = job("Settling", "M", ("Failed", "True", "OpFailed"), ("Settled", "False", "TransactionFailed"))
    late["status"]["timing"] = {"ended": "2025-12-31T23:58:20.500000Z"}
    scrape.jobs = [
        late,
        job("Settling", "M", ("Complete", "True", "Succeeded")),
        job("Completed", "M", ("Complete", "True", "Succeeded"), ("Settled", "True", "Finished")),
        job("Completed", "", ("Complete", "True", "Succeeded")),
        job("Running", "M", ("Settled", "False", "WalletMissing")),
    ]
    assert scrape.value("unsettled_runs", market="M", reason="TransactionFailed") == 1
    assert scrape.value("unsettled_runs", market="M", reason="NotBegun") == 1
    assert scrape.value("unsettled_runs", market="M", reason="Finished") is None
    assert scrape.value("oldest_unsettled_run_seconds", market="M") == 600
    assert scrape.value("oldest_unsettled_run_seconds", market="Q") == 0
    assert scrape.value("oldest_unsettled_run_seconds", market="") is None
    scrape.jobs = [late]
    assert scrape.value("oldest_unsettled_run_seconds", market="M") == 99.5


def test_runs_past_their_expiry() -> None:
    scrape = Scrape()
    scrape.markets = [market("quiet", "Q")]
    late, later, ended, settled = (job("Running", "M") for _ in range(4))
    for one, expires_at in (
        (late, "23:50:00"),
        (later, "23:40:00"),
        (ended, "22:00:00"),
        (settled, "22:00:00"),
    ):
        one["status"]["run"] = {"expiresAt": f"2025-12-31T{expires_at}.000000Z"}
    done = {"lastTransitionTime": "2025-12-31T23:50:00Z", "status": "True", "reason": "Any"}
    ended["status"]["conditions"] = [{"type": "Complete", **done}]
    settled["status"]["conditions"] = [{"type": "Settled", **done}]
    running = job("Running", "M")
    running["status"]["run"] = {"expiresAt": "2026-12-31T00:00:00.000000Z"}
    scrape.jobs = [late, later, ended, settled, running]
    assert scrape.value("oldest_run_past_expiry_seconds", market="M") == 1200
    assert scrape.value("oldest_run_past_expiry_seconds", market="Q") == 0
    scrape.jobs = [ended, settled, running]
    assert scrape.value("oldest_run_past_expiry_seconds", market="M") in (0, None)


def test_markets_tell_slots_conditions_and_keys() -> None:
    scrape = Scrape()
    here = {"market_namespace": "ns", "market_name": "m", "market": "M"}
    scrape.markets = [
        market(
            "m",
            "M",
            slots={"total": 8, "free": 1, "standing": 2, "running": 2},
            conditions=[{"type": "Ready", "status": "False", "reason": "SolTooLow"}],
            wallets=[
                {"secret": "k/id.json", "address": "K1", "state": "Blocked", "reason": "SolTooLow"},
                {"secret": "l/id.json", "state": "Unknown"},
            ],
        ),
        market("new", "N"),
    ]
    for state, count in (("total", 8), ("free", 1), ("standing", 2), ("running", 2), ("reserved", 3)):
        assert scrape.value("slots", **here, state=state) == count
    said = {"condition": "Ready", "status": "False", "reason": "SolTooLow"}
    assert scrape.value("market_condition", **here, **said) == 1
    key = {"secret": "k/id.json", "key": "K1", "state": "Blocked", "reason": "SolTooLow"}
    assert scrape.value("wallet_state", **here, **key) == 1
    unread = {"secret": "l/id.json", "key": "", "state": "Unknown", "reason": ""}
    assert scrape.value("wallet_state", **here, **unread) == 1
    assert 'market_name="new"' not in scrape.text()
    scrape.markets.clear()
    assert "{" not in scrape.text()


def test_what_a_key_has_is_shown_while_a_market_names_it() -> None:
    scrape = Scrape()
    scrape.balances["devnet", "K1"] = Balance(lamports=7, nos=2_500_000, xnos=10_000_000)
    assert "K1" not in scrape.text()
    scrape.markets = [market(name, name, wallets=[{"secret": "s", "address": "K1"}]) for name in ("a", "b")]
    assert scrape.value("wallet_balance_lamports", network="devnet", key="K1") == 7
    assert scrape.value("wallet_balance_nos", network="devnet", key="K1") == 2.5
    assert scrape.value("wallet_stake_xnos", network="devnet", key="K1") == 10
