"""Strategies for job definitions: nearly valid ones with sizes around the limits, and damaged copies of real ones.

Large parts are built from a drawn size, not drawn item by item, so that an example costs little.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

from nosana_operator.definition import limits

Strategy = st.SearchStrategy[Any]


def _nested(depth: int) -> Any:
    value: Any = "x"
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


def _around(limit: int) -> list[int]:
    return [limit - 1, limit, limit + 1]


LITERALS = [
    "%%global.job%%",
    "%%global.variables.v%%",
    "%%global.frps_address%%",
    "%%ops.a.host%%",
    "%%ops.a.results.r%%",
    "%%ops.b.results.missing%%",
    "%%ops.a.endpoint.80%%",
    "%%ops.a.%%",
    "%%ops.nobody.host%%",
    "%%globals.ops.a.host%%",
    "%%",
    "%%%%",
    "x%%global.job%%y%%global.job%%",
]
MARKERS: list[Any] = [
    "__remove-if-empty__",
    {"__spread__": "%%ops.a.results.r%%"},
    {"__spread__": "%%global.variables.v%%"},
    {"__spread__": "%%ops.a.results.r%%", "chunked": True},
    {"__pairs__": [["a", "b"]]},
    {"__spread__": "x", "more": 1},
]
TEXTS = [
    "",
    " ",
    "a",
    "b",
    "A-b_c.d",
    "é",
    "日本",
    "\n",
    "\x00",
    "\ud800",
    "$(HOME) $$",
    "a" * 64,
    "a" * 300,
    *LITERALS,
]
GARBAGE: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, 1e308, 2**31, 2**53 + 1, 2**64, -(2**63) - 1, 10**400, float("nan"), float("inf"),
    [], {}, [[]], [None], {"": None}, {"__proto__": {}}, ["x"] * 50,
    _nested(limits.MAX_DEPTH - 8), _nested(limits.MAX_DEPTH + 1), _nested(900),
    *MARKERS, *TEXTS,
]  # fmt: skip
garbage = st.sampled_from(GARBAGE)
texts = st.sampled_from(TEXTS)


def _mostly(usual: Strategy, *rare: Strategy) -> Strategy:
    return st.integers(0, 15).flatmap(lambda n: usual if n else st.one_of(*rare))


def _sized(item: Callable[[int], Any], limit: int) -> Strategy:
    """A list of `item(0)`, `item(1)` …, rarely as long as the limit."""
    return _mostly(st.integers(0, 3), st.sampled_from(_around(limit))).map(
        lambda size: [item(n) for n in range(size)]
    )


def _long(limit: int) -> Strategy:
    return st.sampled_from(_around(limit)).map(lambda size: "x" * size)


words = _mostly(texts, _long(limits.MAX_WORD_BYTES))
commands = _mostly(words | st.lists(words, max_size=3) | st.sampled_from(MARKERS), garbage)
# No name like `1x`: the operator leaves it to the API server, of which those before 1.34 refuse it.
env_names = st.sampled_from(["A", "b", "X_1", "a.b", "a-b", "", "=", "A=B", "é", "KUBERNETES_PORT", "\x00"])
env = _mostly(
    st.dictionaries(env_names, words, max_size=3),
    _sized(lambda n: (f"V{n}", "x"), limits.MAX_ENV).map(dict),
    garbage,
)
port_numbers = _mostly(
    st.sampled_from([1, 80, 443, 8080, 65535]),
    st.sampled_from([0, -1, 65536, 80.0, 80.5, 2**40, "80", "80-90", "80:90"]),
)
health_checks = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("http"),
            "path": texts | st.just("/"),
            "method": st.sampled_from(["GET", "POST", "HEAD"]),
            "expected_status": st.sampled_from([200, 404, 200.0, -1, 10**30]),
            "continuous": st.booleans(),
        },
        optional={
            "headers": st.dictionaries(texts, texts, max_size=2),
            "body": garbage,
            "restart_on_failure": st.booleans(),
            "max_restarts": st.sampled_from([0, 1, 2.5, -1]),
        },
    ),
    st.fixed_dictionaries(
        {"type": st.just("websocket"), "expected_response": texts, "continuous": st.booleans()}
    ),
)
exposed_ports = st.fixed_dictionaries(
    {"port": port_numbers},
    optional={
        "type": st.sampled_from(["web", "api", "webapi", "websocket", "none", "tcp"]),
        "health_checks": _mostly(
            st.lists(health_checks, max_size=2),
            st.tuples(health_checks, st.sampled_from(_around(limits.MAX_HEALTH_CHECKS))).map(
                lambda pair: [pair[0]] * pair[1]
            ),
        ),
    },
)
exposes = _mostly(
    port_numbers
    | exposed_ports
    | st.lists(port_numbers | exposed_ports | st.sampled_from([*MARKERS, *LITERALS]), max_size=3)
    | st.sampled_from([*MARKERS, *LITERALS]),
    _sized(lambda n: 1000 + n, limits.MAX_PORTS),
    _sized(lambda n: {"port": 1000 + n, "type": "web"}, limits.MAX_PORTS),
    garbage,
)
aliases = _mostly(
    texts | st.lists(texts, max_size=3) | st.sampled_from(["db,cache", "a b", "a..b", "-a"]),
    _sized(lambda n: f"n{n}", limits.MAX_ALIASES),
    _sized(lambda n: f"n{n}", limits.MAX_ALIASES).map(",".join),
    garbage,
)
paths = _mostly(st.sampled_from(["/data", "/a/b", "/", "/data/../x", "/dev/shm"]), texts)
resources = st.one_of(
    st.sampled_from(MARKERS),
    st.fixed_dictionaries(
        {"type": st.just("S3"), "target": paths},
        optional={
            "url": st.sampled_from(["https://x.test/a", "s3://b/p", "http://", "ftp://x"]) | texts,
            "bucket": texts,
            "buckets": st.just([{"url": "s3://b/p", "files": ["f"]}]),
            "files": st.lists(texts, max_size=2),
            "allowWrite": st.booleans(),
            "IAM": st.just({"REGION": "r", "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s"}),
        },
    ),
    st.fixed_dictionaries(
        {"type": st.just("HF"), "repo": texts | st.just("o/n"), "target": paths},
        optional={"files": st.lists(texts, max_size=2), "accessToken": texts},
    ),
    st.fixed_dictionaries({"type": st.just("Ollama"), "model": texts | st.just("llama3:8b")}),
)
resource_lists = _mostly(
    st.lists(resources, max_size=2),
    _sized(lambda n: {"type": "Ollama", "model": f"m{n}"}, limits.MAX_MOUNTS),
    garbage,
)
volume_lists = _mostly(
    st.lists(
        st.fixed_dictionaries({"name": st.sampled_from(["v", "w", "none"]) | texts, "dest": paths}),
        max_size=2,
    ),
    _sized(lambda n: {"name": "v", "dest": f"/d{n}"}, limits.MAX_MOUNTS),
    garbage,
)
patterns = _mostly(
    st.sampled_from(["x", "(", "(a+)+$", "(?<=a)b", "[", "\\", "(x)(y)?", ""]),
    _long(limits.MAX_PATTERN),
    texts,
)
results = _mostly(
    st.dictionaries(
        st.sampled_from(["r", "s"]) | texts,
        patterns
        | st.fixed_dictionaries(
            {
                "regex": patterns,
                "logType": st.lists(
                    st.sampled_from(["stdin", "stdout", "stderr", "nodeerr", "all"]), max_size=3
                ),
            }
        ),
        max_size=2,
    ),
    _sized(lambda n: (f"r{n}", "x"), limits.MAX_PATTERNS).map(dict),
    garbage,
)
run_args = st.fixed_dictionaries(
    {"image": _mostly(st.sampled_from(["ubuntu", "a/b:1", "ghcr.io/x/y@sha256:" + "0" * 64]), texts)},
    optional={
        "cmd": commands,
        "entrypoint": commands,
        "env": env,
        "work_dir": paths,
        "gpu": _mostly(st.booleans(), garbage),
        "expose": exposes,
        "private": st.booleans(),
        "resources": resource_lists,
        "volumes": volume_lists,
        "aliases": aliases,
        "authentication": _mostly(
            st.just({"docker": {"username": "u", "password": "p", "server": "r.test"}}), garbage
        ),
        "restart_policy": st.sampled_from(
            ["no", "always", "unless-stopped", "on-failure", "never", {"policy": "on-failure", "restart_tries": 2}]
        ),
        "trusted_execution_env": st.booleans(),
    },
)  # fmt: skip
names = _mostly(st.sampled_from(["a", "b", "c"]), texts, _long(limits.MAX_NAME))
executions = st.fixed_dictionaries(
    {},
    optional={
        "group": _mostly(st.sampled_from(["g", "h", ""]), texts, _long(limits.MAX_NAME)),
        "depends_on": st.lists(names, max_size=2),
        "stop_if_dependent_stops": st.booleans(),
        "timeout": st.sampled_from([-1, 0, 1, 0.5, 60, 10**6, 10**12, 1e300]),
    },
)
run_ops = st.fixed_dictionaries(
    {"type": st.just("container/run"), "id": names, "args": run_args},
    optional={"execution": executions, "results": results},
)
volume_ops = st.fixed_dictionaries(
    {
        "type": st.just("container/create-volume"),
        "id": names,
        "args": st.fixed_dictionaries({"name": st.sampled_from(["v", "w"])}),
    }
)


def _renamed(ops: list[Any]) -> list[Any]:
    """Ops with ids of their own where two have the same."""
    seen: set[str] = set()
    out = []
    for index, op in enumerate(ops):
        out.append(op if op["id"] not in seen else {**op, "id": f"op{index}"})
        seen.add(out[-1]["id"])
    return out


op_lists = _mostly(
    st.lists(_mostly(run_ops, volume_ops), min_size=1, max_size=4).map(_renamed),
    st.lists(run_ops, max_size=3),
    st.tuples(run_args, st.sampled_from(_around(limits.MAX_OPS)), st.booleans()).map(
        lambda parts: [
            {"type": "container/run", "id": f"o{n}", "args": parts[0]}
            | ({"execution": {"group": "g"}} if parts[2] else {})
            for n in range(parts[1])
        ]
    ),
    _sized(
        lambda n: {"type": "container/create-volume", "id": f"v{n}", "args": {"name": f"v{n}"}},
        limits.MAX_VOLUMES,
    ),
    st.sampled_from(_around(limits.MAX_VALUES)).map(lambda size: ["x"] * size),
    garbage,
)
logistics = st.fixed_dictionaries(
    {
        side: st.fixed_dictionaries(
            {
                "type": st.sampled_from(["api", "api-listen"]),
                "args": st.fixed_dictionaries({}, optional={"endpoint": texts | _long(limits.MAX_ENDPOINT)}),
            }
        )
        for side in ("send", "receive")
    }
)
tops = st.fixed_dictionaries(
    {"version": st.just("0.1"), "type": st.just("container"), "ops": op_lists},
    optional={
        "meta": _mostly(
            st.just({"trigger": "cli", "system_resources": {"required_vram": 6, "required_cuda": "12"}}),
            garbage,
        ),
        "global": st.fixed_dictionaries(
            {},
            optional={
                "gpu": st.booleans(),
                "image": texts,
                "env": env,
                "entrypoint": commands,
                "work_dir": paths,
                "variables": st.dictionaries(st.just("v"), texts | st.just('["a", 80]'), max_size=1),
            },
        ),
        "deployment_id": texts,
        "ssh": st.just({"public_keys": ["ssh-ed25519 AAAA"]}),
    },
)
definitions = _mostly(
    tops,
    st.tuples(tops, logistics).map(lambda pair: pair[0] | {"logistics": pair[1]}),
    st.tuples(tops, st.sampled_from(["version", "type", "ops", "more"]), garbage).map(
        lambda parts: parts[0] | {parts[1]: parts[2]}
    ),
    garbage,
)
"""Definitions of which about half are valid."""

_changes = st.tuples(
    st.sampled_from(["drop", "double", "replace", "swap", "retype", "enlarge"]),
    st.integers(0, 2**31),
    garbage,
)


def damaged(originals: list[Mapping[str, Any]]) -> Strategy:
    """Copies of `originals` with one or two changes each at places that are drawn."""
    return st.builds(_change, st.sampled_from(originals), st.lists(_changes, min_size=1, max_size=2))


MAX_SLOTS = 2 * limits.MAX_VALUES
"""Places of a value that is not enlarged any more."""


def _change(original: Mapping[str, Any], changes: list[tuple[str, int, Any]]) -> Any:
    value: Any = {"": copy.deepcopy(original)}
    for kind, place, new in changes:
        slots = _slots(value)
        if not 0 < len(slots) < MAX_SLOTS:
            break
        holder, key = slots[place % len(slots)]
        if kind == "drop":
            del holder[key]
        elif kind == "double" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == "swap":
            other, other_key = slots[place // len(slots) % len(slots)]
            holder[key], other[other_key] = copy.deepcopy((other[other_key], holder[key]))
        elif kind == "retype":
            holder[key] = [holder[key]] if place % 2 else {"value": holder[key]}
        elif kind == "enlarge":
            holder[key] = _enlarged(holder[key])
        else:
            text = isinstance(holder[key], str) and place % 4
            holder[key] = TEXTS[place % len(TEXTS)] if text else copy.deepcopy(new)
    return value.get("")


def _slots(value: Any) -> list[tuple[Any, Any]]:
    """Every place that holds a value, as (container, key)."""
    slots: list[tuple[Any, Any]] = []
    open_ = [value]
    while open_:
        holder = open_.pop()
        pairs = list(holder.items() if isinstance(holder, dict) else enumerate(holder))
        slots += [(holder, key) for key, _ in pairs]
        open_ += [each for _, each in pairs if isinstance(each, dict | list)]
    return slots


def _enlarged(value: Any) -> Any:
    if isinstance(value, str):
        return value[:1000] * 1000
    if isinstance(value, list):
        return [copy.deepcopy(each) for each in value[:100] for _ in range(100)]
    if isinstance(value, dict):
        return value | {f"k{n}": n for n in range(1000)}
    return value * 10**30 if isinstance(value, int | float) else value
