"""What is read of ops' logs: streams apart where that is offered, and what rotation took away is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from fakes.edges import FakeClock
from nosana_operator.api import OpStatus
from nosana_operator.errors import NotFound, Refused, Unavailable
from nosana_operator.jobs.decision.view import Ended, PodView
from nosana_operator.jobs.errors import LogNotReadYet
from nosana_operator.jobs.logs import KEEP_BYTES, LogMemory, LogReader
from nosana_operator.jobs.result import MAX_LOG_READ, Log, RunLog, retained
from nosana_operator.workload import CONTAINER

OUT = b"2026-01-02T03:04:05.1Z one\n2026-01-02T03:04:05.3Z three\n"
ERR = b"2026-01-02T03:04:05.2Z two\n2026-01-02T03:04:05.4Z four\n"
OP = OpStatus(id="a", index=0, stage="a", state="Running")


@dataclass
class Logs:
    """An API server: `whole` by pod, `streams` where it tells them apart; `offers` is how it answers to one."""

    whole: Mapping[str, bytes | Exception] = field(default_factory=lambda: {"p": OUT})
    streams: Mapping[str, bytes] = field(default_factory=dict)
    offers: str = "refused"
    before: bytes | None = None
    """The log of the container before the last restart, where it is another one."""
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def read_logs(self, namespace: str, pod: str, container: str, **options: Any) -> bytes:
        assert (namespace, container) == ("ns", CONTAINER), "the API server knows no other container here"
        self.asked.append(options)
        stream = options.get("stream")
        if stream is not None and self.offers == "refused":
            raise Refused("stream: Forbidden: may not be specified")
        found = self.streams.get(stream) if stream is not None and self.offers == "apart" else None
        if found is None:
            found = self.before if options.get("previous") and self.before is not None else self.whole[pod]  # type: ignore[assignment]
        if isinstance(found, Exception):
            raise found
        return found[: options.get("limit_bytes")]  # type: ignore[index]


def reader(logs: Logs, clock: FakeClock) -> LogReader:
    return LogReader(logs, clock)  # type: ignore[arg-type]


def pod(clock: FakeClock, name: str = "p", *, ended: bool = True, **more: Any) -> PodView:
    end = Ended(clock.now(), clock.now(), 0) if ended else None
    more = {"container_id": "c1"} | more
    return PodView(name, f"uid-{name}", 0, node="n", started_at=clock.now(), ended=end, **more)


async def read(logs: Logs, *pods: PodView, memory: LogMemory | None = None) -> Log:
    return await reader(logs, FakeClock()).read("ns", pods, OP, memory or LogMemory())


async def test_streams_apart_come_back_in_the_order_of_time() -> None:
    clock = FakeClock()
    log = await read(Logs(streams={"Stdout": OUT, "Stderr": ERR}, offers="apart"), pod(clock))
    assert log.streams_apart
    said = [(entry.type, entry.log) for entry in retained(log).lines]
    assert said == [("stdout", "one\n"), ("stderr", "two\n"), ("stdout", "three\n"), ("stderr", "four\n")]


async def test_an_op_that_wrote_to_one_stream_only() -> None:
    log = await read(Logs(streams={"Stdout": b"", "Stderr": ERR}, offers="apart"), pod(FakeClock()))
    assert [entry.type for entry in retained(log).lines] == ["stderr", "stderr"]


@pytest.mark.parametrize("offers", ["refused", "unheard of"])
async def test_where_streams_are_not_told_apart_a_node_is_asked_for_them_once(offers: str) -> None:
    logs, clock = Logs(offers=offers), FakeClock()
    reads = reader(logs, clock)
    for _ in range(2):
        logs.asked.clear()
        log = await reads.read("ns", [pod(clock)], OP, LogMemory())
        assert not log.streams_apart
        assert [entry.type for entry in retained(log).lines] == ["stdout", "stdout"]
    assert [options["stream"] for options in logs.asked] == [None]


async def test_a_container_without_a_log_says_nothing_of_streams() -> None:
    logs, clock = Logs(whole={"p": Refused("the container has not started"), "q": OUT}), FakeClock()
    reads = reader(logs, clock)
    log = await reads.read("ns", [pod(clock)], OP, LogMemory())
    assert log == Log((), "the log is gone: the container has not started")
    logs.offers, logs.streams = "apart", {"Stdout": OUT, "Stderr": ERR}
    assert (await reads.read("ns", [pod(clock, "q")], OP, LogMemory())).streams_apart


async def test_the_log_before_the_last_restart_is_read_too() -> None:
    logs = Logs(before=OUT, whole={"p": ERR})
    log = await read(logs, pod(FakeClock(), restarts=3, container_id="c4", previous_id="c3"))
    assert [run.stdout for run in log.runs] == [OUT, ERR]
    assert [options["previous"] for options in logs.asked if options["stream"] is None] == [True, False]
    assert log.problem == "the logs of 2 of the op's runs are gone: only the last ones are kept"
    assert {options["limit_bytes"] for options in logs.asked} == {MAX_LOG_READ // 2}


async def test_a_container_that_waits_to_be_started_again_is_read_once() -> None:
    logs = Logs()
    log = await read(logs, pod(FakeClock(), container_id="c2", previous_id="c2", restarts=1))
    assert log == Log((RunLog(OUT),), "the logs of 1 of the op's runs are gone: only the last ones are kept")
    assert [options["previous"] for options in logs.asked if options["stream"] is None] == [False]


class TestRestarts:
    """A container that the kubelet starts again: `c1`, `c2`, …, each with a log of its own."""

    def said(self, number: int) -> bytes:
        return b"2026-01-02T03:04:0%dZ run %d\n" % (number, number)

    async def test_every_run_that_was_seen_is_in_the_result(self) -> None:
        clock, memory, logs = FakeClock(), LogMemory(), Logs()
        reads = reader(logs, clock)
        for number in (1, 2, 3):
            logs.whole = {"p": self.said(number)}
            view = pod(
                clock, ended=False, restarts=number, container_id=f"c{number + 1}", previous_id=f"c{number}"
            )
            for _ in range(2):
                asked = len(logs.asked)
                await reads.track("ns", [view], memory, clock.now())
            assert len(logs.asked) == asked, "a log is kept once"
        logs.whole = {"p": self.said(4)}
        log = await reads.read(
            "ns", [pod(clock, restarts=3, container_id="c4", previous_id="c3")], OP, memory
        )
        assert [run.stdout for run in log.runs] == [self.said(number) for number in (1, 2, 3, 4)]
        assert log.problem is None

    async def test_the_newest_runs_stay_within_the_bound(self) -> None:
        clock, memory, logs = FakeClock(), LogMemory(), Logs()
        reads = reader(logs, clock)
        for number in (1, 2, 3):
            logs.whole = {"p": self.said(number) + b"x" * (KEEP_BYTES // 2 - 100)}
            view = pod(
                clock, ended=False, restarts=number, container_id=f"c{number + 1}", previous_id=f"c{number}"
            )
            await reads.track("ns", [view], memory, clock.now())
        assert list(memory.earlier_runs) == [("uid-p", "c2"), ("uid-p", "c3")]
        logs.whole = {"p": self.said(4)}
        log = await reads.read(
            "ns", [pod(clock, restarts=3, container_id="c4", previous_id="c3")], OP, memory
        )
        assert log.problem == "the logs of 1 of the op's runs are gone: only the last ones are kept"

    async def test_the_earlier_runs_of_another_pod_are_not_this_ones(self) -> None:
        """Container ids are unique on a node only, and the result asks pod by pod."""
        clock, memory, logs = FakeClock(), LogMemory(), Logs(whole={"p": OUT, "q": ERR})
        reads = reader(logs, clock)
        restarted: dict[str, Any] = {"ended": False, "restarts": 1, "container_id": "c2", "previous_id": "c1"}
        await reads.track("ns", [pod(clock, **restarted)], memory, clock.now())
        log = await reads.read("ns", [pod(clock, "q", container_id="c3")], OP, memory)
        assert log == Log((RunLog(ERR),))

    async def test_the_current_run_of_a_container_is_never_one_of_its_earlier_runs(self) -> None:
        """A kubelet that starts again may name the same container as the one before and as the one that runs."""
        clock, memory, logs = FakeClock(), LogMemory(), Logs()
        reads = reader(logs, clock)
        await reads.track(
            "ns",
            [pod(clock, ended=False, restarts=1, container_id="c2", previous_id="c1")],
            memory,
            clock.now(),
        )
        logs.whole = {"p": ERR}
        log = await reads.read("ns", [pod(clock, container_id="c1", previous_id="c1")], OP, memory)
        assert log == Log((RunLog(ERR),))
        assert [options["previous"] for options in logs.asked[-1:]] == [False]

    async def test_what_a_kubelet_says_of_a_container_that_it_dropped_is_no_log(self) -> None:
        clock, memory = FakeClock(), LogMemory()
        logs = Logs(whole={"p": b"unable to retrieve container logs for containerd://c1"})
        view = pod(clock, ended=False, restarts=1, container_id="c2", previous_id="c1")
        await reader(logs, clock).track("ns", [view], memory, clock.now())
        assert memory.earlier_runs == {}
        log = await reader(logs, clock).read("ns", [pod(clock)], OP, memory)
        assert log == Log((), "the log is gone: the node has dropped a container of pod p")

    async def test_what_cannot_be_kept_is_read_at_the_end(self) -> None:
        clock, memory, logs = FakeClock(), LogMemory(), Logs(whole={"p": Unavailable("no answer")})
        reads = reader(logs, clock)
        running: dict[str, Any] = {"restarts": 1, "container_id": "c2", "previous_id": "c1"}
        await reads.track("ns", [pod(clock, ended=False, **running)], memory, clock.now())
        assert memory.earlier_runs == {}
        logs.before, logs.whole = OUT, {"p": ERR}
        log = await reads.read("ns", [pod(clock, **running)], OP, memory)
        assert log == Log((RunLog(OUT), RunLog(ERR)))

    async def test_a_log_that_a_kubelet_gives_for_two_containers_is_that_of_one(self) -> None:
        clock, memory, logs = FakeClock(), LogMemory(), Logs()
        view = pod(clock, ended=False, restarts=1, container_id="c2", previous_id="c2")
        await reader(logs, clock).track("ns", [view], memory, clock.now())
        log = await reader(logs, clock).read("ns", [pod(clock, restarts=1, container_id=None)], OP, memory)
        assert log == Log(
            (RunLog(OUT),), "the logs of 1 of the op's runs are gone: only the last ones are kept"
        )


async def test_a_log_that_cannot_be_read_is_asked_for_again_for_a_minute() -> None:
    clock, memory = FakeClock(), LogMemory()
    reads = reader(Logs(whole={"p": Unavailable("no answer")}), clock)
    with pytest.raises(LogNotReadYet):
        await reads.read("ns", [pod(clock)], OP, memory)
    clock.advance(61)
    log = await reads.read("ns", [pod(clock)], OP, memory)
    assert log == Log((), "the log could not be read: no answer")


async def test_one_log_that_is_gone_leaves_the_others() -> None:
    logs, clock = Logs(whole={"p": NotFound("pod p is gone"), "q": OUT}), FakeClock()
    log = await reader(logs, clock).read(
        "ns", [pod(clock, "p"), pod(clock, "q")], OP.model_copy(update={"attempt": 1}), LogMemory()
    )
    assert log == Log((RunLog(OUT),), "the log is gone: pod p is gone")


class TestRotation:
    def begins(self, moment: str) -> Logs:
        return Logs(whole={"p": f"{moment} x\n".encode()})

    async def tracked(self, logs: Logs, clock: FakeClock, view: PodView) -> LogMemory:
        memory = LogMemory()
        assert await reader(logs, clock).track("ns", [view], memory, clock.now() + timedelta(5)) is None
        return memory

    async def test_a_log_that_begins_later_at_the_end_has_lost_lines(self) -> None:
        clock = FakeClock()
        memory = await self.tracked(self.begins("2026-01-02T03:04:05.1Z"), clock, pod(clock, ended=False))
        log = await read(self.begins("2026-01-02T03:14:05.2Z"), pod(clock), memory=memory)
        assert log.problem == (
            "the lines from 2026-01-02T03:04:05.1Z to 2026-01-02T03:14:05.2Z are gone: "
            "the node rotated the log while the op ran"
        )

    async def test_a_log_that_begins_as_before_has_not(self) -> None:
        clock, logs = FakeClock(), self.begins("2026-01-02T03:04:05.1Z")
        memory = await self.tracked(logs, clock, pod(clock, ended=False))
        assert (await read(logs, pod(clock), memory=memory)).problem is None

    async def test_a_restarted_container_has_another_log(self) -> None:
        clock, logs = FakeClock(), self.begins("2026-01-02T03:04:05.1Z")
        memory = await self.tracked(logs, clock, pod(clock, ended=False))
        later = self.begins("2026-01-02T03:06:05.1Z")
        later.before = b"2026-01-02T03:05:05.1Z x\n"
        log = await read(later, pod(clock, restarts=1, container_id="c2", previous_id="c1"), memory=memory)
        # That of the run before has become another one; that of this run was never looked at.
        assert str(log.problem).count("are gone") == 1

    async def test_an_op_that_says_nothing_is_looked_at_less_and_less(self) -> None:
        clock, memory, logs = FakeClock(), LogMemory(), Logs(whole={"p": b""})
        reads, view, waits = reader(logs, clock), pod(clock, ended=False), []
        wait: float | None = 0.0
        while wait is not None:
            clock.advance(wait)
            wait = await reads.track("ns", [view], memory, clock.now())
            waits.append(wait)
        assert waits == [5, 5, 10, 20, 40, 80, 160, 320, None]
        assert len(logs.asked) == 8
        assert {options["limit_bytes"] for options in logs.asked} == {64}

    async def test_a_look_that_gets_no_answer_is_repeated(self) -> None:
        clock, memory = FakeClock(), LogMemory()
        view = pod(clock, ended=False)
        logs = Logs(whole={"p": Unavailable("no answer")})
        reads = reader(logs, clock)
        clock.advance(5)
        assert await reads.track("ns", [view], memory, clock.now()) == 5
        logs.whole = {"p": OUT}
        clock.advance(5)
        assert await reads.track("ns", [view], memory, clock.now()) is None
        assert list(memory.first_line.values()) == ["2026-01-02T03:04:05.1Z"]
