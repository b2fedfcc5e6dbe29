"""`nosana-operator leave`: out of the queues of all markets, before the operator itself goes.

It asks by an annotation with an end (`ANNOTATION_LEAVE_UNTIL`): `spec.paused` is the admin's, and an operator
that is installed again, or stays after all, stands again by itself.
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
"""How long after the time-out the queues are left: by then the operator has gone."""
_LOOK_EVERY: Final = 1.0

Key = tuple[str, str]


class StillStandingError(NosanaError):
    """Keys stand in a market's queue, or may, after the time that leaving could take."""


@click.command()
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The operator's settings file: its watchNamespaces say which NosanaMarkets.",
)
@click.option(
    "--namespace", "namespaces", multiple=True, help="Only NosanaMarkets of this namespace (repeatable)."
)
@click.option("--timeout", default=300, show_default=True, type=click.IntRange(min=1), help="Seconds.")
@kubeconfig_option
def leave(
    settings_file: Path | None, namespaces: tuple[str, ...], timeout: int, kubeconfig: Path | None
) -> None:
    """Leave the queues of all markets, and wait until no key stands; running jobs go on.

    The operator does the leaving, so it has to run. It stands again five minutes after the time-out unless it
    is gone by then. Exit code 1 when a key still stands, or nobody knows.
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
    """Have the operator leave the queues of these namespaces' NosanaMarkets (none named: of all), and wait.

    Gives what there is to say about each. Raises StillStandingError when `timeout` is over before no key
    stands; silence of the API server counts as time, not as an answer.
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
        waited = {key: why for key, body in left.items() if (why := still_standing(body))}
        if not waited:
            return [_line(key, body) for key, body in left.items()] or ["there is no NosanaMarket to leave"]
        if now() >= deadline:
            raise StillStandingError(
                f"after {timeout.total_seconds():g} s these queues are not left: "
                + "; ".join(f"{namespace}/{name}: {why}" for (namespace, name), why in waited.items())
                + ". See that the operator runs and that its RPC endpoints answer, and try again with a longer "
                "--timeout; a key that stands with no operator behind it gets runs that nobody serves."
            )
        await sleep(_LOOK_EVERY)
        for key in waited:
            try:
                left[key] = await kube.get(MARKET_KIND, *key)
            except NotFound:
                # Its finalizer held it until the queue was left.
                del left[key]
            except Unavailable:
                continue


def still_standing(market: Mapping[str, Any]) -> str | None:
    """What of a NosanaMarket, read after it was asked to leave, may still stand in the queue; None: nothing.

    The operator writes what it signs into the status before it is sent, by a compare-and-swap: a `work` that
    is not in a status read after our own write will never be sent.
    """
    status = market.get("status") or {}
    conditions = status.get("conditions")
    standing = (status.get("slots") or {}).get("standing", 0)
    pending = sorted({one["kind"] for one in status.get("transactions") or ()})
    found = find_condition(conditions, MarketCondition.MARKET_FOUND) or {}
    wallets = status.get("wallets") or ()
    unread = any(one.get("state") == "Unknown" for one in wallets)
    parts = [
        f"{standing} {'key stands' if standing == 1 else 'keys stand'}" if standing else "",
        f"{' and '.join(pending)} not final yet" if pending else "",
        "not known whether a key stands" if found.get("status") == "Unknown" or unread else "",
    ]
    if not any(parts):
        return None
    ready = find_condition(conditions, MarketCondition.READY) or {}
    # A key that stands though it may not has a message of its own: perhaps the operator cannot take it out.
    barred = [
        one
        for one in wallets
        if one.get("standing")
        and one.get("state") == "Blocked"
        and one["message"] not in ready.get("message", "")
    ]
    told = "; ".join(f"{one['reason']}: {one['message']}" for one in (ready, *barred) if one)
    return ", ".join(filter(None, parts)) + (f" ({told})" if told else "")


def _line(key: Key, market: Mapping[str, Any]) -> str:
    running = ((market.get("status") or {}).get("slots") or {}).get("running", 0)
    jobs = f"; {running} running {'job goes' if running == 1 else 'jobs go'} on" if running else ""
    return f"{key[0]}/{key[1]}: out of the queue{jobs}"
