"""`nosana-operator leave`: takes all keys out of the markets' queues before the operator is uninstalled.

It sets an annotation that expires (`ANNOTATION_LEAVE_UNTIL`), because `spec.paused` belongs to the admin. So an
operator that is installed again, or stays after all, joins the queues again by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from nosana_operator.api import (
    ANNOTATION_LEAVE_UNTIL,
    MARKET_KIND,
    MarketCondition,
    find_condition,
    timestamp,
)
from nosana_operator.cli.cluster import kubeconfig_option, on_cluster
from nosana_operator.errors import NosanaError, NotFound, Unavailable
from nosana_operator.ports import Body, Kube

STAYS_OUT: Final = timedelta(minutes=5)
"""How long the keys stay out of the queues after the time-out: by then the operator is gone."""
_POLL_SECONDS: Final = 1.0

Key = tuple[str, str]


class StillStandingError(NosanaError):
    """When the time-out was over, keys still stood in a market's queue, or may have."""


@click.command()
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The operator's settings file; its watchNamespaces choose the NosanaMarkets.",
)
@click.option(
    "--namespace", "namespaces", multiple=True, help="Only NosanaMarkets of this namespace (repeatable)."
)
@click.option("--timeout", default=300, show_default=True, type=click.IntRange(min=1), help="Seconds.")
@kubeconfig_option
def leave(
    settings_file: Path | None, namespaces: tuple[str, ...], timeout: int, kubeconfig: Path | None
) -> None:
    """Take all keys out of the markets' queues and wait until none stands in one; running jobs continue.

    The operator sends the transactions, so it has to run. Unless it is gone five minutes after the time-out, it
    joins the queues again. Exits with 1 when a key still stands in a queue, or when that is unknown.
    """

    async def work(kube: Kube, _: str) -> int:
        chosen = namespaces or _watched(settings_file)
        for line in await leave_queues(kube, chosen, timedelta(seconds=timeout)):
            click.echo(line)
        return 0

    on_cluster(kubeconfig, None, work)


def _watched(settings_file: Path | None) -> tuple[str, ...]:
    if settings_file is None:
        return ()
    # Not at the top: reading settings needs the runtime, and the other commands do not.
    from nosana_operator.runtime.settings import load_settings

    return load_settings(settings_file).watch_namespaces


async def leave_queues(
    kube: Kube,
    namespaces: Sequence[str],
    timeout: timedelta,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[str]:
    """Make the operator leave the queues of these namespaces' NosanaMarkets (empty: of all), and wait.

    Returns a line for each market. Raises StillStandingError when a key still stands in a queue after `timeout`.
    While the API server does not answer, the time runs.
    """
    deadline = now() + timeout
    until = timestamp(deadline + STAYS_OUT)
    left: dict[Key, Body] = {}
    everywhere: tuple[str | None, ...] = (None,)
    for namespace in namespaces or everywhere:
        for body in await kube.list(MARKET_KIND, namespace):
            meta = body["metadata"]
            key = (meta["namespace"], meta["name"])
            try:
                left[key] = await kube.patch(
                    MARKET_KIND, *key, {"metadata": {"annotations": {ANNOTATION_LEAVE_UNTIL: until}}}
                )
            except NotFound:
                continue
    while True:
        waiting = {key: problem for key, body in left.items() if (problem := still_standing(body))}
        if not waiting:
            return [_line(key, body) for key, body in left.items()] or ["there is no NosanaMarket to leave"]
        if now() >= deadline:
            raise StillStandingError(
                f"after {timeout.total_seconds():g} s keys may still stand in these queues: "
                + "; ".join(
                    f"{namespace}/{name}: {problem}" for (namespace, name), problem in waiting.items()
                )
                + ". Check that the operator runs and that its RPC endpoints answer, and try again with a longer "
                "--timeout; a key in a queue without an operator gets runs that nobody serves."
            )
        await sleep(_POLL_SECONDS)
        for key in waiting:
            try:
                left[key] = await kube.get(MARKET_KIND, *key)
            except NotFound:
                # Its finalizer kept it until its keys had left the queue.
                del left[key]
            except Unavailable:
                continue


def still_standing(market: Mapping[str, Any]) -> str | None:
    """What may still stand in the queue of a NosanaMarket that was read after the annotation was set; None: nothing.

    The operator writes each signed transaction into the status by a compare-and-swap before it sends it: a `work`
    that is missing from a status read after our own write will never be sent.
    """
    status = market.get("status") or {}
    conditions = status.get("conditions")
    standing = (status.get("slots") or {}).get("standing", 0)
    pending = sorted({one["kind"] for one in status.get("transactions") or ()})
    market_found = find_condition(conditions, MarketCondition.MARKET_FOUND) or {}
    wallets = status.get("wallets") or ()
    unread = any(one.get("state") == "Unknown" for one in wallets)
    parts = [
        f"{standing} {'key stands' if standing == 1 else 'keys stand'}" if standing else "",
        f"{' and '.join(pending)} not final yet" if pending else "",
        "not known whether a key stands" if market_found.get("status") == "Unknown" or unread else "",
    ]
    if not any(parts):
        return None
    ready = find_condition(conditions, MarketCondition.READY) or {}
    # A key that stands in the queue although it is blocked has its own message: perhaps the operator cannot remove it.
    barred = [
        one
        for one in wallets
        if one.get("standing")
        and one.get("state") == "Blocked"
        and one["message"] not in ready.get("message", "")
    ]
    reasons = "; ".join(f"{one['reason']}: {one['message']}" for one in (ready, *barred) if one)
    return ", ".join(filter(None, parts)) + (f" ({reasons})" if reasons else "")


def _line(key: Key, market: Mapping[str, Any]) -> str:
    running = ((market.get("status") or {}).get("slots") or {}).get("running", 0)
    jobs = f"; {running} running {'job continues' if running == 1 else 'jobs continue'}" if running else ""
    return f"{key[0]}/{key[1]}: out of the queue{jobs}"
