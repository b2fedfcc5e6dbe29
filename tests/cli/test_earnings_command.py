from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from nosana_operator.chain import LedgerEntry
from nosana_operator.cli.earnings import as_csv, as_json, as_table, decimal, earnings, sums

FINISH = LedgerEntry(
    signature="sig1",
    slot=10,
    time=1_760_000_000,
    kind="finish",
    key="key1",
    market="marketA",
    job="job1",
    run="run1",
    failed=False,
    earned=3_600_000_001,
    refunded=5,
    seconds=3600,
    fee=5000,
)
WORK = replace(FINISH, signature="sig0", kind="work", earned=0, refunded=0, seconds=0, time=1_759_999_000)
FAILED = replace(WORK, signature="sig2", failed=True)


@pytest.mark.parametrize(
    ("amount", "decimals", "text"),
    [(0, 6, "0.000000"), (1, 6, "0.000001"), (12_345_678, 6, "12.345678"), (5000, 9, "0.000005000")],
)
def test_amounts_are_exact(amount: int, decimals: int, text: str) -> None:
    assert decimal(amount, decimals) == text


def test_sums_are_by_network_market_and_key() -> None:
    entries = [
        ("mainnet", FINISH),
        ("mainnet", WORK),
        ("mainnet", FAILED),
        ("mainnet", replace(FINISH, market="marketB", signature="sig3")),
        ("devnet", replace(FINISH, key="key2", signature="sig4", kind="end", fee=0)),
    ]
    found = sums(entries)
    assert [(row.network, row.market, row.wallet, row.runs) for row in found] == [
        ("devnet", "marketA", "key2", 1),
        ("mainnet", "marketA", "key1", 1),
        ("mainnet", "marketB", "key1", 1),
    ]
    assert found[1].fees == 15_000, "what failed cost its fee"
    assert found[1].earned == 3_600_000_001


def test_what_is_unknown_is_said_and_not_guessed() -> None:
    unknown = replace(FINISH, earned=None, refunded=None, seconds=None, signature="sig5")
    (row,) = sums([("mainnet", FINISH), ("mainnet", unknown)])
    assert (row.runs, row.earned, row.unknown, row.untimed) == (2, 3_600_000_001, 1, 1)
    table = as_table([("mainnet", FINISH), ("mainnet", unknown)], None)
    assert "1 payments are not in the sums" in table
    assert "1 jobs are closed on chain" in table
    (_header, line) = csv.reader(io.StringIO(as_csv([("mainnet", unknown)], None)))
    assert line[8:11] == ["", "", ""]
    assert json.loads(as_json([("mainnet", unknown)], None))["transactions"][0]["earned"] is None


def test_the_table_has_a_grand_total_and_lines_up() -> None:
    lines = as_table([("mainnet", FINISH), ("mainnet", replace(FINISH, market="B"))], None).splitlines()
    assert len(lines) == 4
    assert lines[-1].split() == ["all", "2", "7200.000002", "0.000010", "2.00", "0.000010000"]
    assert len({len(line) for line in lines}) == 1


def test_transactions_come_in_the_order_of_time() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([("mainnet", FINISH), ("mainnet", WORK)], None))))
    assert [row["kind"] for row in rows] == ["work", "finish"]
    assert rows[1]["earned_nos"] == "3600.000001"
    assert rows[1]["time"] == "2025-10-09T08:53:20Z"


def test_nothing_says_so() -> None:
    since = datetime(2026, 11, 1, 1, tzinfo=UTC) + timedelta(hours=1)
    assert as_table([], since) == "No transactions of these keys since 2026-11-01T02:00:00Z.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "'yesterday' is not a time"),
        (["--wallet", "abc"], "--network has to name the network"),
        (["--wallet", "abc", "--settings", "SETTINGS"], "is not a Solana address"),
        (["--wallet", "abc", "--settings", "SETTINGS", "--network", "nowhere"], "the settings have localnet"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], said: str, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "networks: {localnet: {rpc: ['http://127.0.0.1:1'], program: "
        "nosJTmGQxvwXy23vng5UjkTbfv91Bzf9jEuro78dAGR, nosMint: devr1BGQndEW5k5zfvG5FsLyZv1Ap73vNgAHcQ9sUVP}}"
    )
    told = CliRunner().invoke(earnings, [str(settings) if part == "SETTINGS" else part for part in arguments])
    assert told.exit_code in (1, 2)
    assert said in told.output
    assert "Traceback" not in told.output
