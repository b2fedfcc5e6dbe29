"""Made-up definitions of several ops: which pods are started, in which order, and what the result says.

The table is tried twice: against the in-memory API, process by process, and on the sandbox's real nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fakes.jobs import op

Body = dict[str, Any]
TWICE = {"policy": "on-failure", "restart_tries": 2}
MAKE = {"type": "container/create-volume", "id": "make", "args": {"name": "data"}}
DATA = [{"name": "data", "dest": "/data"}]
BAD = {"cmd": ["%%ops.nobody.host%%"]}


def flagged(name: str, *listed: str, **more: Any) -> Body:
    """An op that starts before those it lists, and stops when one of them ends."""
    made = op(name, depends_on=list(listed), **more)
    made["execution"]["stop_if_dependent_stops"] = True
    return made


@dataclass(frozen=True)
class Flow:
    """`exits`: op → exit code of its container, others run until they are stopped. `starts`: waves of pods, each
    started once the one before runs or has ended. `ends`: the status of each op.
    """

    ops: tuple[Body, ...]
    exits: Mapping[int, int]
    starts: tuple[str, ...]
    ends: tuple[str, ...]
    flow: str = "success"
    spec: Mapping[str, Any] = field(default_factory=dict)
    says: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """The log of each op that has a command of its own."""
    stop: bool = False
    """`spec.stop` is set once the last wave runs."""

    def names(self, job: str) -> list[set[str]]:
        """The waves as names of pods."""
        return [{f"{job}-{name}" for name in wave.split()} for wave in self.starts]

    def pods(self, index: int) -> list[str]:
        """The pods of one op, first to last, without the job's name."""
        return [name for wave in self.starts for name in wave.split() if name.split("-")[0] == str(index)]


FLOWS: dict[str, Flow] = {
    "stages one after the other": Flow(
        (op("a"), op("b"), op("c")), {0: 0, 1: 0, 2: 0}, ("0", "1", "2"), ("success",) * 3
    ),
    "a group at once, then the next": Flow(
        (op("a", group="g"), op("b", group="g"), op("c")), {0: 0, 1: 0, 2: 0}, ("0 1", "2"), ("success",) * 3
    ),
    "groups in order of first appearance": Flow(
        (op("a", group="g"), op("b", group="h"), op("c", group="g")),
        {0: 0, 1: 0, 2: 0},
        ("0 2", "1"),
        ("success",) * 3,
    ),
    "a diamond": Flow(
        (
            op("a", group="g"),
            op("b", group="g", depends_on=["a"]),
            op("c", group="g", depends_on=["a"]),
            op("d", group="g", depends_on=["b", "c"]),
        ),
        {0: 0, 1: 0, 2: 0, 3: 0},
        ("0", "1 2", "3"),
        ("success",) * 4,
    ),
    "a chain written backwards": Flow(
        (
            op("c", group="g", depends_on=["b"]),
            op("b", group="g", depends_on=["a"]),
            op("a", group="g"),
        ),
        {0: 0, 1: 0, 2: 0},
        ("2", "1", "0"),
        ("success",) * 3,
    ),
    "a dependency in an earlier stage is met": Flow(
        (op("a"), op("b", depends_on=["a"])), {0: 0, 1: 0}, ("0", "1"), ("success",) * 2
    ),
    "a failed op stops neither its group nor the next stage": Flow(
        (op("a", group="g"), op("b", group="g"), op("c")),
        {0: 5, 1: 0, 2: 0},
        ("0 1", "2"),
        ("failed", "success", "success"),
        "failed",
    ),
    "an op that fails after it ran has released its dependents": Flow(
        (op("a", group="g"), op("b", group="g", depends_on=["a"])),
        {0: 1, 1: 0},
        ("0", "1"),
        ("failed", "success"),
        "failed",
    ),
    "an op that cannot start takes its dependents along": Flow(
        (
            op("a", group="g", **BAD),
            op("b", group="g", depends_on=["a"]),
            op("c", group="g", depends_on=["b"]),
            op("d"),
        ),
        {3: 0},
        ("3",),
        ("failed", "failed", "failed", "success"),
        "failed",
    ),
    "waits for all, and one of them never comes": Flow(
        (
            op("a", group="g"),
            op("b", group="g", **BAD),
            op("c", group="g", depends_on=["a", "b"]),
        ),
        {0: 0},
        ("0",),
        ("success", "failed", "failed"),
        "failed",
    ),
    "a server stops with its client": Flow(
        (flagged("server", "client", group="g"), op("client", group="g"), op("after")),
        {1: 0, 2: 0},
        ("0", "1", "2"),
        ("stopped", "success", "success"),
    ),
    "a server of two clients stops with the first that ends": Flow(
        (
            flagged("server", "short", "long", group="g"),
            op("short", group="g"),
            flagged("long", "short", group="g"),
        ),
        {1: 0},
        ("0", "2", "1"),
        ("stopped", "success", "stopped"),
    ),
    "a server whose client fails": Flow(
        (flagged("server", "client", group="g"), op("client", group="g")),
        {1: 9},
        ("0", "1"),
        ("stopped", "failed"),
        "failed",
    ),
    "an op's own time": Flow((op("a", timeout=4), op("b")), {1: 0}, ("0", "1"), ("success", "success")),
    "the job's time": Flow(
        (op("a", group="g"), op("b", group="g"), op("c")),
        {1: 0},
        ("0 1",),
        ("success", "success", "failed"),
        "failed",
        spec={"timeout": 6},
    ),
    "stopped in the middle": Flow(
        (op("a"), op("b", group="g"), op("c", group="g"), op("d")),
        {0: 0},
        ("0", "1 2"),
        ("success", "stopped", "stopped", "stopped"),
        "stopped",
        stop=True,
    ),
    "run again until the tries are spent": Flow(
        (op("a", restart_policy=TWICE), op("b")),
        {0: 1, 1: 0},
        ("0", "0-r1", "0-r2", "1"),
        ("failed", "success"),
        "failed",
    ),
    "a dependent starts once, however often the other runs": Flow(
        (op("a", group="g", restart_policy=TWICE), op("b", group="g", depends_on=["a"])),
        {0: 1, 1: 0},
        ("0", "1", "0-r1", "0-r2"),
        ("failed", "success"),
        "failed",
    ),
    "what one stage printed is the command of the next": Flow(
        (
            op("a", cmd="echo n=7") | {"results": {"n": r"n=(\d+)"}},
            op("b", group="g", cmd=["echo", "%%ops.a.results.n%%"]),
            op("c", group="g", cmd="echo in $N", env={"N": "as %%ops.a.results.n%%"}),
        ),
        {0: 0, 1: 0, 2: 0},
        ("0", "1 2"),
        ("success",) * 3,
        says={0: ["n=7"], 1: ["n=7 7"], 2: ["in as n=7 7"]},
    ),
    "results of an op that is not over yet": Flow(
        (
            op("a", group="g") | {"results": {"n": "x"}},
            op("b", group="g", cmd=["%%ops.a.results.n%%"]),
        ),
        {0: 0},
        ("0",),
        ("success", "failed"),
        "failed",
    ),
    "a volume, who fills it, and who reads it": Flow(
        (MAKE, op("fill", volumes=DATA), op("read", group="g", volumes=DATA), op("apart", group="g")),
        {1: 0, 2: 0, 3: 0},
        ("1", "2 3"),
        ("success",) * 4,
    ),
    "an init stage, servers, and a client that ends them": Flow(
        (
            op("init"),
            flagged("db", "web", group="serve"),
            flagged("web", "client", group="serve"),
            op("client", group="serve", depends_on=["web"]),
        ),
        {0: 0, 3: 0},
        ("0", "1", "2", "3"),
        ("success", "stopped", "stopped", "success"),
    ),
}
