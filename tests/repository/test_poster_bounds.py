"""docs/markets.md says what a poster can do wrong; a test stands behind every row of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nosana_operator.content.fetch import DEFAULT_SIZE_LIMIT, MAX_BLOCK, MAX_BLOCKS
from nosana_operator.definition import MAX_OPS
from nosana_operator.definition.flowstate import MAX_LOG_BYTES, MAX_LOG_ENTRIES
from nosana_operator.jobs.decision.decide import GIVE_UP_DEFINITION
from nosana_operator.jobs.decision.start_limits import PULL_LIMIT
from nosana_operator.jobs.definitions import MAX_FETCHES
from nosana_operator.market.runs.decide import BETWEEN_REQUESTS, DELIVERY_LIMIT, POSTER_GRACE, RESULT_TRIES
from nosana_operator.market.runs.poster import MAX_DEFINITION

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "markets.md").read_text()

# In the table's order: its first two cells, and the test.
TESTS = {
    ("definition: place", "not put it"): "jobs/test_life.py::test_a_definition_that_cannot_be_reached_is_looked_for_two_minutes",
    ("definition: content", "other bytes"): "content/test_fetch_and_pin.py::test_all_lying_is_final",
    ("definition: size", "more than 1 MiB"): "content/test_fetch_and_pin.py::test_blocks_without_content_count_toward_the_limit",
    ("definition: form", "anything"): "definition/test_reading.py::test_any_bytes_are_refused_with_an_error_of_ours",
    ("`ops`", "more than 64"): "definition/test_bounds.py::test_the_number_of_ops_is_bounded",
    ("`ops`: GPUs", "more at once"): "workload/test_unsupported.py::test_gpus_of_a_stage",
    ("`resources`, disk", "more than the slot"): "fetching/test_fetching_trouble.py::test_a_disk_that_is_too_small_is_said_at_once",
    ("`results`", "a pattern"): "regex/test_regex_runner.py::test_a_pattern_that_takes_for_ever_harms_no_other",
    ("log", "any amount"): "definition/test_flowstate.py::test_a_log_tail_keeps_the_newest_and_tells_what_it_left_out",
    ("result", "any amount"): "jobs/test_job_result.py::test_a_result_that_does_not_fit_loses_its_oldest_lines_and_says_so",
    ("image", "one that cannot"): "jobs/test_start_limits.py::test_what_cannot_start_is_given_up",
    ("time-out", "negative"): "market/test_lives.py::test_no_time_out_of_a_free_job_holds_a_slot",
    ("time-out", "years"): "market/test_payment.py::test_a_run_is_finished_at_the_hosts_bound_whatever_its_time_out",
    ("extension", "again"): "market/test_payment.py::test_an_extension_without_end_does_not_go_beyond_the_hosts_bound",
    ("price", "0"): "market/test_payment.py::test_a_free_job_without_end_is_finished_at_the_hosts_bound",
    ("`end`", "at any moment"): "market/test_lives.py::test_a_run_that_was_over_before_it_could_be_verified",
    ("run's key", "used again"): "market/test_lives.py::test_a_poster_who_uses_a_runs_key_again",
    ("NOS account", "closed"): "market/test_payment.py::test_a_poster_who_closes_his_account_each_time_costs_no_rent",
    ("`logistics`", "an endpoint inside"): "content/test_poster.py::test_a_name_with_one_address_inside_is_not_asked",
    ("`logistics`", "an endpoint that is slow"): "market/test_confidential.py::test_a_poster_who_never_answers_is_given_up_after_two_minutes",
}  # fmt: skip


def _rows() -> list[tuple[str, ...]]:
    section = PAGE.split("## What a poster can do wrong")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def test_every_row_has_a_test() -> None:
    rows = _rows()
    assert len(rows) == len(TESTS)
    for row, (field, begin) in zip(rows, TESTS, strict=True):
        assert row[0] == field
        assert row[1].startswith(begin)


@pytest.mark.parametrize("named", TESTS.values())
def test_the_test_is_there(named: str) -> None:
    file, _, name = named.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), named


def test_the_figures_are_the_codes() -> None:
    assert (DEFAULT_SIZE_LIMIT, MAX_BLOCK) == (1024 * 1024, 2 * 1024 * 1024)
    assert MAX_FETCHES == 16
    assert (MAX_BLOCKS, MAX_OPS, MAX_LOG_ENTRIES) == (512, 64, 24_999)
    assert MAX_LOG_BYTES == 16 * 1024 * 1024
    assert MAX_DEFINITION == 900 * 1024
    assert (GIVE_UP_DEFINITION.total_seconds(), PULL_LIMIT.total_seconds()) == (120, 900)
    assert POSTER_GRACE.total_seconds() == 600
    assert (RESULT_TRIES, BETWEEN_REQUESTS.total_seconds(), DELIVERY_LIMIT.total_seconds()) == (4, 10, 40)
