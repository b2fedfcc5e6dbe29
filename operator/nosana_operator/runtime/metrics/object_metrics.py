"""Metrics of NosanaJobs and NosanaMarkets, counted at each scrape: a series ends with its last object."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from nosana_operator.api import JobCondition, condition_is_true, find_condition, parse_timestamp
from nosana_operator.runtime.metrics.family import Family

Body = Mapping[str, Any]

_OBJECT = ("market_namespace", "market_name")
"""The NosanaMarket's namespace and name; `market` is the address on chain."""

JOBS = Family(
    "jobs",
    "gauge",
    "NosanaJobs by the address of their market (empty: private jobs) and phase.",
    ("market", "phase"),
)
OLDEST_JOB = Family(
    "oldest_job_seconds",
    "gauge",
    "The longest time since a condition changed, of the jobs in a phase in which none should stay for long; "
    "without suspended jobs.",
    ("market", "phase"),
)
UNSETTLED = Family(
    "unsettled_runs",
    "gauge",
    "Runs whose job has ended and which are not settled at finalized yet, by the reason of the condition Settled.",
    ("market", "reason"),
)
OLDEST_UNSETTLED = Family(
    "oldest_unsettled_run_seconds",
    "gauge",
    "The longest time since the end of a job whose run is not settled; 0 without one.",
    ("market",),
)
OLDEST_OVERDUE = Family(
    "oldest_run_past_expiry_seconds",
    "gauge",
    "Of the runs that are past their expiry, whose job has not ended and which are not settled, the longest time "
    "since the expiry; 0 without one.",
    ("market",),
)
SLOTS = Family(
    "slots",
    "gauge",
    "Slots of a NosanaMarket by state: total, free, standing, running, reserved.",
    (*_OBJECT, "market", "state"),
)
CONDITIONS = Family(
    "market_condition",
    "gauge",
    "1 for each condition of a NosanaMarket, with its status and reason as labels.",
    (*_OBJECT, "market", "condition", "status", "reason"),
)
WALLETS = Family(
    "wallet_state",
    "gauge",
    "1 for each key of a NosanaMarket, with its state (Ready, Standing, Blocked, Unknown) and the reason for "
    "it as labels. `key` is empty while its Secret cannot be read.",
    (*_OBJECT, "market", "secret", "key", "state", "reason"),
)
LAMPORTS = Family(
    "wallet_balance_lamports", "gauge", "SOL of a key, in lamports (10^-9).", ("network", "key")
)
NOS = Family("wallet_balance_nos", "gauge", "NOS on a key's own account.", ("network", "key"))
STAKE = Family(
    "wallet_stake_xnos",
    "gauge",
    "Weighted stake of a key in xNOS; 0 without a stake account.",
    ("network", "key"),
)
FAMILIES = (
    JOBS,
    OLDEST_JOB,
    UNSETTLED,
    OLDEST_UNSETTLED,
    OLDEST_OVERDUE,
    SLOTS,
    CONDITIONS,
    WALLETS,
    LAMPORTS,
    NOS,
    STAKE,
)

BASE_UNITS = 1e6
"""NOS base units in a NOS."""
_PASSING = ("Pending", "Starting", "Stopping", "Settling")
"""Phases that another one follows without anybody's doing."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What a key had when it was last read: lamports, and base units of NOS and weighted stake."""

    lamports: int
    nos: int
    xnos: int


class ObjectCollector(Collector):
    """Gauges of the cached NosanaJobs and NosanaMarkets.

    `balances` is keyed by (network, address); a key that no NosanaMarket's status names any more has no series.
    `now` returns unix seconds.
    """

    def __init__(
        self,
        jobs: Callable[[], Iterable[Body]],
        markets: Callable[[], Iterable[Body]],
        balances: Mapping[tuple[str, str], Balance],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._jobs = jobs
        self._markets = markets
        self._balances = balances
        self._now = now

    def collect(self) -> Iterable[Metric]:
        """The families as they are now."""
        markets = list(self._markets())
        yield from self._of_jobs({_address(body) for body in markets})
        yield from _of_markets(markets)
        yield from self._of_keys(markets)

    def describe(self) -> Iterable[Metric]:
        """Nothing: describing the families at registration would read a cache that is not filled yet."""
        return ()

    def _of_jobs(self, served: set[str]) -> Iterable[Metric]:
        now = self._now()
        phases: Tally[tuple[str, str]] = Tally()
        unsettled: Tally[tuple[str, str]] = Tally()
        oldest: dict[tuple[str, str], float] = {}
        waiting = dict.fromkeys(served, 0.0)
        overdue = dict.fromkeys(served, 0.0)
        for body in self._jobs():
            spec, status = body.get("spec") or {}, body.get("status") or {}
            market = str((spec.get("run") or {}).get("market") or "")
            phase = str(status.get("phase") or "Pending")
            phases[market, phase] += 1
            if phase in _PASSING and not spec.get("suspend"):
                oldest[market, phase] = max(oldest.get((market, phase), 0.0), now - _moved_at(body))
            settled = find_condition(status.get("conditions"), JobCondition.SETTLED) or {}
            if not market or settled.get("status") == "True":
                continue
            if (ended := _ended_at(status)) is not None:
                unsettled[market, str(settled.get("reason") or "NotBegun")] += 1
                waiting[market] = max(waiting.get(market, 0.0), now - ended)
            elif expires_at := (status.get("run") or {}).get("expiresAt"):
                overdue[market] = max(overdue.get(market, 0.0), now - _unix(str(expires_at)))
        for family, values in (
            (JOBS, phases),
            (OLDEST_JOB, oldest),
            (UNSETTLED, unsettled),
            (OLDEST_UNSETTLED, {(market,): seconds for market, seconds in waiting.items()}),
            (OLDEST_OVERDUE, {(market,): seconds for market, seconds in overdue.items()}),
        ):
            metric = family.collected()
            for labels, value in sorted(values.items()):
                metric.add_metric(labels, max(value, 0))
            yield metric

    def _of_keys(self, markets: Iterable[Body]) -> Iterable[Metric]:
        lamports, nos, stake = LAMPORTS.collected(), NOS.collected(), STAKE.collected()
        shown = {
            (str((body.get("spec") or {}).get("network") or ""), str(wallet.get("address") or ""))
            for body in markets
            for wallet in (body.get("status") or {}).get("wallets") or ()
        }
        for key in sorted(shown & self._balances.keys()):
            balance = self._balances[key]
            lamports.add_metric(key, balance.lamports)
            nos.add_metric(key, balance.nos / BASE_UNITS)
            stake.add_metric(key, balance.xnos / BASE_UNITS)
        yield from (lamports, nos, stake)


def _of_markets(markets: Iterable[Body]) -> Iterable[Metric]:
    slots, conditions, wallets = SLOTS.collected(), CONDITIONS.collected(), WALLETS.collected()
    for body in markets:
        meta, status = body["metadata"], body.get("status") or {}
        which = (meta["namespace"], meta["name"], _address(body))
        if counted := status.get("slots"):
            for state in ("total", "free", "standing", "running"):
                slots.add_metric((*which, state), counted.get(state, 0))
            reserve = ((body.get("spec") or {}).get("slots") or {}).get("reserve", 0)
            slots.add_metric((*which, "reserved"), min(reserve, counted.get("total", 0)))
        for one in status.get("conditions") or ():
            conditions.add_metric((*which, one["type"], one["status"], one["reason"]), 1)
        for wallet in status.get("wallets") or ():
            labels = [str(wallet.get(field) or "") for field in ("secret", "address", "state", "reason")]
            wallets.add_metric((*which, *labels), 1)
    yield from (slots, conditions, wallets)


def _address(body: Body) -> str:
    return str((body.get("spec") or {}).get("address") or "")


def _moved_at(body: Body) -> float:
    """When the status of a condition last changed; the creation when none has yet. Unix seconds."""
    changes = [
        _unix(str(one["lastTransitionTime"]))
        for one in (body.get("status") or {}).get("conditions") or ()
        if one.get("lastTransitionTime")
    ]
    return max((_unix(str(body["metadata"]["creationTimestamp"])), *changes))


def _ended_at(status: Body) -> float | None:
    """When the job ended, in unix seconds; None: it has not."""
    for kind in (JobCondition.COMPLETE, JobCondition.FAILED):
        if condition_is_true(status.get("conditions"), kind):
            ended = (status.get("timing") or {}).get("ended")
            condition = find_condition(status.get("conditions"), kind) or {}
            return _unix(str(ended or condition["lastTransitionTime"]))
    return None


def _unix(text: str) -> float:
    moment: datetime = parse_timestamp(text)
    return moment.timestamp()
