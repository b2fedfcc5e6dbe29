"""Reports late, doubled and out of order: the store keeps each account's newest state."""

from __future__ import annotations

import pytest

from nosana_operator.chain import DEVNET, SYSTEM, Job, Run
from nosana_operator.chain.rpc.wire import AccountInfo
from nosana_operator.chain.watch.snapshot import SnapshotStore
from support.recordings import data_of, steps

STEP = steps("finish")[0]
ROLE = {account["role"]: account["pubkey"] for account in STEP["instruction"]["accounts"]}
RUN, JOB, MARKET, NODE = ROLE["run"], ROLE["job"], ROLE["market"], ROLE["authority"]


def info(role: str, when: str = "pre") -> AccountInfo:
    account = STEP[when][ROLE[role]]
    return AccountInfo(account["lamports"], account["owner"], data_of(account))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> SnapshotStore:
    made = SnapshotStore(DEVNET.jobs, clock)
    made.watch([NODE], [JOB], [MARKET])
    return made


def run_of(store: SnapshotStore) -> Run | None:
    return store.runs[RUN].value


def test_a_run_is_known_by_listing_or_by_notification(store: SnapshotStore) -> None:
    assert store.runs_of(NODE) is None, "nothing was answered yet"
    assert store.report("run", RUN, 10, info("run")) is True
    assert store.runs_of(NODE) is None, "one notification is not the whole list"
    assert store.report_runs(NODE, 11, {RUN: info("run")}) == set()
    runs = store.runs_of(NODE)
    assert runs is not None
    assert [run.address for run in runs] == [RUN]
    assert store.single_accounts == {JOB: "job", MARKET: "market", RUN: "run"}


@pytest.mark.parametrize(
    ("slot", "gone"), [(9, False), (10, False), (11, True)], ids=["older", "same slot", "newer"]
)
def test_a_listing_without_a_known_run_closes_it_only_when_newer(
    store: SnapshotStore, slot: int, gone: bool
) -> None:
    store.report("run", RUN, 10, info("run"))
    assert store.report_runs(NODE, slot, {}) == ({RUN} if gone else set())
    assert (run_of(store) is None) == gone
    assert (RUN in store.single_accounts) != gone


def test_a_late_report_does_not_bring_a_closed_run_back(store: SnapshotStore, clock: Clock) -> None:
    store.report("run", RUN, 10, info("run"))
    assert store.report("run", RUN, 12, None) is True
    assert store.report("run", RUN, 11, info("run")) is False
    assert run_of(store) is None
    clock.now = 601
    store.report_runs(NODE, 13, {})
    assert RUN not in store.runs, "the closed run is forgotten in time"


def test_closed_runs_are_forgotten_without_listings(store: SnapshotStore, clock: Clock) -> None:
    for slot in range(10, 1010, 10):
        store.report("run", f"{RUN}{slot}", slot, info("run"))
        store.report("run", f"{RUN}{slot}", slot + 1, None)
        clock.now += 100
        store.mark_listed([NODE])
    assert 1 <= len(store.runs) <= 7


def test_a_false_slot_holds_nothing_up_once_it_is_known(store: SnapshotStore) -> None:
    store.report("job", JOB, 10**12, info("job"))
    store.report("market", MARKET, 20, info("market"))
    assert store.report("job", JOB, 30, info("job", "post")) is False
    store.correct_slots(180, 30)
    assert store.report("job", JOB, 30, info("job", "post")) is True
    assert store.markets[MARKET].slot == 20


def test_a_fork_that_takes_a_run_back_and_gives_it_again(store: SnapshotStore) -> None:
    store.report_runs(NODE, 10, {RUN: info("run")})
    assert store.report_runs(NODE, 11, {}) == {RUN}
    assert store.report_runs(NODE, 12, {RUN: info("run")}) == {RUN}
    assert run_of(store) is not None


def test_a_job_follows_its_newest_report(store: SnapshotStore) -> None:
    assert store.report("job", JOB, 10, info("job")) is True
    assert store.report("job", JOB, 10, info("job")) is False, "told twice"
    assert store.report("job", JOB, 12, info("job", "post")) is True
    assert store.report("job", JOB, 11, info("job")) is False, "told late"
    seen = store.jobs[JOB]
    assert isinstance(seen.value, Job)
    assert (seen.value.state, seen.slot) == (2, 12)


@pytest.mark.parametrize(
    "account",
    [None, AccountInfo(5, SYSTEM, b""), AccountInfo(2_561_280, SYSTEM, data_of(STEP["pre"][JOB]))],
    ids=["closed", "got lamports again", "forged under another owner"],
)
def test_what_the_program_does_not_own_is_no_job(store: SnapshotStore, account: AccountInfo | None) -> None:
    store.report("job", JOB, 10, info("job"))
    assert store.report("job", JOB, 11, account) is True
    assert store.jobs[JOB].value is None


def test_what_cannot_be_read_changes_nothing(store: SnapshotStore, caplog: pytest.LogCaptureFixture) -> None:
    store.report("job", JOB, 10, info("job"))
    assert store.report("job", JOB, 11, AccountInfo(1, DEVNET.jobs, b"\0" * 240)) is False
    assert store.jobs[JOB].value is not None
    assert "account ignored" in caplog.text


def test_what_is_not_watched_is_not_kept(store: SnapshotStore) -> None:
    store.watch([], [], [])
    assert store.report("job", JOB, 10, info("job")) is False
    assert store.report("market", MARKET, 10, info("market")) is False
    assert store.report("run", RUN, 10, info("run")) is False
    assert store.report_runs(NODE, 11, {RUN: info("run")}) == set()
    assert not store.jobs
    assert not store.markets
    assert not store.runs


def test_to_stop_watching_forgets(store: SnapshotStore) -> None:
    store.report_runs(NODE, 10, {RUN: info("run")})
    store.report("job", JOB, 10, info("job"))
    store.report("market", MARKET, 10, info("market"))
    store.watch([], [], [MARKET])
    assert (store.runs_of(NODE), [*store.jobs], [*store.runs]) == (None, [], [])
    assert [*store.markets] == [MARKET]


def test_a_run_of_somebody_else_in_a_listing_is_ignored(store: SnapshotStore) -> None:
    other = ROLE["payer_job"]
    store.watch([other], [], [])
    assert store.report_runs(other, 10, {RUN: info("run")}) == set()
    assert store.runs_of(other) == ()
