"""`nosana-operator earnings`: what the host's keys earned, read from the chain alone.

NosanaMarkets only provide the list of keys; with --wallet not even that, so the answer outlives every object and
every cluster.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from nosana_operator.api import MARKET_KIND
from nosana_operator.cli.cluster import kubeconfig_option, sign_in
from nosana_operator.errors import NosanaError, NotFound
from nosana_operator.transactions import PAYING_INSTRUCTIONS

if TYPE_CHECKING:
    from nosana_operator.chain import ChainClient, LedgerEntry
    from nosana_operator.runtime.settings import Settings

_NOS: Final = 6
"""Decimals of NOS."""
_SOL: Final = 9
_SPAN: Final = re.compile(r"(\d{1,4})([mhdw])")
_SPANS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_COLUMNS: Final = (
    *("time", "network", "market", "wallet", "kind", "failed", "job", "run"),
    *("earned_nos", "refunded_nos", "seconds", "fee_sol", "signature"),
)
"""Columns of the CSV output."""


class NothingToReadError(NotFound):
    """No key or no network is given or found."""


@dataclass(frozen=True, slots=True)
class Earnings:
    """What one key earned in one market. NOS base units, lamports, seconds."""

    network: str
    market: str | None
    """None: the transactions that show the market are older than the requested time."""
    wallet: str
    runs: int
    """Runs that ended with pay: by `finish`, or by their owner's `end`."""
    earned: int
    refunded: int
    seconds: int
    fees: int
    unknown: int
    """Payments whose amount the RPC node no longer has; the sums leave them out."""
    untimed: int
    """Payments whose job account is closed; the sum of seconds leaves them out."""


class _Since(click.ParamType[datetime]):
    """30m, 12h, 7d, 4w, or a date or time in ISO 8601."""

    name = "when"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        span = _SPAN.fullmatch(value)
        if span is not None:
            return datetime.now(UTC) - timedelta(**{_SPANS[span[2]]: int(span[1])})
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is not a time; give 30m, 12h, 7d or 4w, or a date such as 2026-11-01, or a time such "
                "as 2026-11-01T12:00:00Z",
                param,
                ctx,
            )
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@click.command()
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="NOSANA_OPERATOR_SETTINGS",
    help="The operator's settings file, for its networks. Default: $NOSANA_OPERATOR_SETTINGS.",
)
@click.option("--network", help="Network of the settings; needed with --wallet when there are several.")
@click.option(
    "--wallet",
    "wallets",
    multiple=True,
    help="Address of a key (repeatable). Default: the keys of all NosanaMarkets.",
)
@click.option("--market", help="Address of a market; only its transactions count.")
@click.option(
    "--since", type=_Since(), help="30m, 12h, 7d, 4w, or a date or time (UTC unless it names an offset)."
)
@click.option("-n", "--namespace", help="Namespace of the NosanaMarkets. Default: all namespaces.")
@kubeconfig_option
@click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="table: sums by market and key; csv: every transaction; json: both.",
)
def earnings(
    settings_file: Path | None,
    network: str | None,
    wallets: tuple[str, ...],
    market: str | None,
    since: datetime | None,
    namespace: str | None,
    kubeconfig: Path | None,
    output: str,
) -> None:
    """Show what the host's keys earned, refunded and spent on fees, from their transactions on chain.

    Only finalized transactions count. Anybody may close a job account some time after the job's end; then the
    job's seconds are unknown, but not what it paid.
    """
    from nosana_operator.runtime.settings import load_settings

    async def work() -> None:
        settings = load_settings(settings_file)
        keys = (
            {(_network(settings, network), wallet) for wallet in wallets}
            if wallets
            else await _keys(kubeconfig, namespace, network)
        )
        read = await _read(settings, sorted(keys), since)
        entries = [(name, entry) for name, entry in read if market in (None, entry.market)]
        click.echo(_FORMATS[output](entries, since), nl=False)

    try:
        asyncio.run(work())
    except NosanaError as error:
        click.echo(f"nosana-operator: {error}", err=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _network(settings: Settings, chosen: str | None) -> str:
    names = sorted(settings.networks)
    if chosen is None and len(names) == 1:
        return names[0]
    if chosen not in names:
        choice = (
            f"the settings have {', '.join(names)}" if names else "the settings name none: give --settings"
        )
        raise NothingToReadError(f"--network has to name the network of the wallets; {choice}.")
    return str(chosen)


async def _keys(kubeconfig: Path | None, namespace: str | None, network: str | None) -> set[tuple[str, str]]:
    """(network, address) of the keys that NosanaMarkets name."""
    async with sign_in(kubeconfig) as (kube, _):
        markets = await kube.list(MARKET_KIND, namespace)
    keys = {
        (market["spec"]["network"], wallet["address"])
        for market in markets
        for wallet in (market.get("status") or {}).get("wallets", ())
        if wallet.get("address") and network in (None, market["spec"]["network"])
    }
    if not keys:
        raise NothingToReadError(
            "no NosanaMarket has a key; give the keys' addresses with --wallet, or list them with kubectl get nm -A"
        )
    return keys


async def _read(
    settings: Settings, keys: Sequence[tuple[str, str]], since: datetime | None
) -> list[tuple[str, LedgerEntry]]:
    import aiohttp

    from nosana_operator.chain import read_ledger
    from nosana_operator.runtime.networks import ConfiguredNetworks

    entries: list[tuple[str, LedgerEntry]] = []
    async with aiohttp.ClientSession() as http:
        clients: Mapping[str, ChainClient] = ConfiguredNetworks(
            settings.networks, http, observer=lambda *_: None, on_change=lambda *_: None
        ).clients
        for network, wallet in keys:
            client = clients.get(network)
            if client is None:
                raise NothingToReadError(
                    f"the settings have no network {network!r}, which a NosanaMarket names; give --settings with "
                    "the operator's settings file"
                )
            ledger = await read_ledger(
                client.rpc,
                client.program.programs,
                wallet,
                since=None if since is None else int(since.timestamp()),
                progress=_progress(wallet),
            )
            entries += [(network, entry) for entry in ledger]
    return entries


def _progress(wallet: str) -> Callable[[int, int], None]:
    """Reports from time to time how much of a long history is read."""

    def report(done: int, total: int) -> None:
        if done % 500 == 0:
            click.echo(f"{wallet}: {done} of {total} transactions", err=True)

    return report


def sums(entries: Iterable[tuple[str, LedgerEntry]]) -> list[Earnings]:
    """Entries, each with its network's name, summed by market and key."""
    groups: dict[tuple[str, str, str], list[LedgerEntry]] = {}
    for network, entry in entries:
        groups.setdefault((network, entry.market or "", entry.key), []).append(entry)
    rows = []
    for (network, market, wallet), group in sorted(groups.items()):
        paid = [entry for entry in group if entry.kind in PAYING_INSTRUCTIONS and not entry.failed]
        rows.append(
            Earnings(
                network=network,
                market=market or None,
                wallet=wallet,
                runs=len(paid),
                earned=sum(entry.earned or 0 for entry in paid),
                refunded=sum(entry.refunded or 0 for entry in paid),
                seconds=sum(entry.seconds or 0 for entry in paid),
                fees=sum(entry.fee for entry in group),
                unknown=sum(entry.earned is None for entry in paid),
                untimed=sum(entry.seconds is None for entry in paid),
            )
        )
    return rows


def as_table(entries: Sequence[tuple[str, LedgerEntry]], since: datetime | None) -> str:
    """Sums for a person, the grand total last."""
    rows = sums(entries)
    if not rows:
        return f"No transactions of these keys{_after(since)}.\n"
    lines = [("NETWORK", "MARKET", "WALLET", "RUNS", "NOS", "REFUNDED", "HOURS", "FEES SOL")]
    lines += [(row.network, row.market or "?", row.wallet, *_figures([row])) for row in rows]
    if len(rows) > 1:
        lines.append(("all", "", "", *_figures(rows)))
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    text = "".join(
        "  ".join(
            cell.ljust(width) if at < 3 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in lines
    )
    unknown, untimed = sum(row.unknown for row in rows), sum(row.untimed for row in rows)
    if unknown:
        text += f"{unknown} payments are not in the sums: the RPC node no longer has what they paid.\n"
    if untimed:
        text += f"{untimed} jobs are closed on chain: the hours are without theirs.\n"
    return text


def _figures(rows: Sequence[Earnings]) -> tuple[str, str, str, str, str]:
    return (
        str(sum(row.runs for row in rows)),
        decimal(sum(row.earned for row in rows), _NOS),
        decimal(sum(row.refunded for row in rows), _NOS),
        f"{sum(row.seconds for row in rows) / 3600:.2f}",
        decimal(sum(row.fees for row in rows), _SOL),
    )


def decimal(amount: int, decimals: int) -> str:
    """Base units as a decimal number, exactly."""
    whole, rest = divmod(amount, 10**decimals)
    return f"{whole}.{rest:0{decimals}d}"


def _after(since: datetime | None) -> str:
    return "" if since is None else f" since {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def as_csv(entries: Sequence[tuple[str, LedgerEntry]], since: datetime | None) -> str:
    """One line per transaction, amounts in NOS and SOL; an empty cell is unknown."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(_COLUMNS)
    for network, entry in _by_time(entries):
        lines.writerow(
            (
                _time(entry.time),
                network,
                entry.market,
                entry.key,
                entry.kind,
                str(entry.failed).lower(),
                entry.job,
                entry.run,
                None if entry.earned is None else decimal(entry.earned, _NOS),
                None if entry.refunded is None else decimal(entry.refunded, _NOS),
                entry.seconds,
                decimal(entry.fee, _SOL),
                entry.signature,
            )
        )
    return out.getvalue()


def as_json(entries: Sequence[tuple[str, LedgerEntry]], since: datetime | None) -> str:
    """Sums and transactions, amounts in NOS base units and lamports; null is unknown."""
    document: dict[str, Any] = {
        "since": None if since is None else _time(int(since.timestamp())),
        "sums": [asdict(row) for row in sums(entries)],
        "transactions": [
            asdict(entry) | {"network": network, "time": _time(entry.time)}
            for network, entry in _by_time(entries)
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _by_time(entries: Sequence[tuple[str, LedgerEntry]]) -> list[tuple[str, LedgerEntry]]:
    return sorted(entries, key=lambda pair: pair[1].time or 0)


def _time(unix: int | None) -> str | None:
    return None if unix is None else datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_FORMATS: Final = {"table": as_table, "csv": as_csv, "json": as_json}
