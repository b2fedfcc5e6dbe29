"""The engine in its own process: JavaScript's dialect, and limits that strangers' patterns cannot pass."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nosana_operator.regex import Limits, RegexRunner, RegexUnavailable
from nosana_operator.regex.worker import count_groups, syntax_error

BUDGET = 1_000_000
QUICK = Limits(cpu=1, total=2.0)
FOREVER = r"(a+)+$"
BAIT = ("stdout", "a" * 40 + "b\n")

DIALECT = [
    (r"x=(\d+)", "x=1 x=2", ["x=1", "1"]),
    (r"(?<=chunk-\d+ ).*", "chunk-12 hello", ["hello"]),
    (r"(?<!no )yes", "no yes yes", ["yes"]),
    (r"(?<year>\d{4})-(?<month>\d\d)", "on 2026-01-02", ["2026-01", "2026", "01"]),
    (r"a(b)?(c)?", "ac", ["ac", None, "c"]),
    (r"[(](\w)[)]\((\w)\)", "(a)(b)", ["(a)(b)", "a", "b"]),
    (r"\w+", "é", None),
    (r"[^]", "\n", ["\n"]),
    (r"^b$", "a\nb", None),
    (r".*", "é → 😀!", ["é → 😀!"]),
    (r"→ (.)", "é → ß", ["→ ß", "ß"]),
    (r"(a)\1", "aa", ["aa", "a"]),
]

BROKEN = {
    "\\": "\\ at end of pattern",
    "(": "Unterminated group",
    ")": "Unmatched ')'",
    "(?:a": "Unterminated group",
    "[a": "Unterminated character class",
    "a{2,1}": "numbers out of order in {} quantifier",
    "*": "Nothing to repeat",
    "a**": "Nothing to repeat",
    "(?<n>a)(?<n>b)": "Duplicate capture group name",
    "(?<1>a)": "Invalid capture group name",
    "(?i)a": "Invalid group",
}
"""As V8 says it."""


async def test_the_dialect_is_javascripts() -> None:
    for pattern, text, expected in DIALECT:
        found = await RegexRunner().match([(pattern, None)], [("stdout", text)], BUDGET)
        assert found == [expected or []], pattern


async def test_the_message_of_an_invalid_pattern_repeats_its_beginning_only() -> None:
    [found] = await RegexRunner().match([("(" + "a" * 100_000, None)], [], BUDGET)
    assert len(found) < 300
    assert str(found).startswith("SyntaxError: Invalid regular expression: /(aaa")
    assert str(found).endswith("…/: Unterminated group")


async def test_a_call_takes_no_longer_than_its_caller_allows() -> None:
    found = await RegexRunner(Limits(cpu=5, total=60)).match([(FOREVER, None)] * 3, [BAIT], BUDGET, 1.0)
    assert [str(value)[:4] for value in found] == ["stop", "not ", "not "]
    assert "longer than 1 s" in str(found[0])


async def test_what_is_wrong_with_a_pattern_is_said_as_javascript_says_it() -> None:
    found = await RegexRunner().match([(pattern, None) for pattern in BROKEN], [], BUDGET)
    assert found == [
        f"SyntaxError: Invalid regular expression: /{pattern}/: {why}" for pattern, why in BROKEN.items()
    ]


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [("a", 0), ("(a)(?:b)(?<c>d)(?=e)(?!f)(?<=g)(?<!h)", 2), (r"\((a)\)[(](b)", 2), (r"[\]()](a)", 1)],
)
def test_groups_are_counted(pattern: str, groups: int) -> None:
    assert count_groups(pattern) == groups


def test_an_engine_word_without_a_counterpart_is_passed_on() -> None:
    assert syntax_error("x", "Something new").endswith("/x/: Something new")


async def test_each_line_is_tried_once_on_the_types_asked_for() -> None:
    lines = [("stdout", "v=1 v=2\n"), ("stderr", "v=3\n"), ("nodeerr", "v=4\n")]
    found = await RegexRunner().match([(r"v=\d", None), (r"v=\d", frozenset({"stderr"}))], lines, BUDGET)
    assert found == [["v=1", "v=3", "v=4"], ["v=3"]]


async def test_a_pattern_that_takes_for_ever_harms_no_other() -> None:
    found = await RegexRunner(Limits(cpu=1, total=60)).match(
        [("a", None), (FOREVER, None), ("b", None)], [BAIT], BUDGET
    )
    assert found[0] == ["a"]
    assert "took longer than 1 s" in str(found[1])
    assert found[2] == ["b"]


async def test_hostile_patterns_together_end_with_the_call() -> None:
    found = await RegexRunner(Limits(cpu=5, total=1.0)).match([(FOREVER, None)] * 5, [BAIT], BUDGET)
    assert "longer than 1 s together" in str(found[0])
    assert found[1:] == ["not tried: the results of this op took longer than 1 s together"] * 4


async def test_a_pattern_that_wants_all_memory_harms_no_other() -> None:
    runner = RegexRunner(Limits(memory=64 * 1024 * 1024))
    # It keeps a way back for each character of a long line.
    lines = [("stdout", "ab" * 2_000_000)]
    found = await runner.match([("(?:a|b)*c", None), ("^a", None)], lines, BUDGET)
    assert "needs more memory than it may have (64 MiB)" in str(found[0])
    assert found[1] == ["a"]


async def test_captures_are_bounded_for_all_patterns_together() -> None:
    lines = [("stdout", "x" * 99 + "\n")] * 100
    found = await RegexRunner().match([("x+", None), ("x+", None), ("y", None), ("^x", None)], lines, 15_000)
    assert found[0] == ["x" * 99] * 100
    assert "not captured" in str(found[1])
    assert found[2] == []
    assert found[3] == ["x"] * 100


async def test_no_process_to_be_had_says_nothing_about_the_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RegexUnavailable, match="cannot be started"):
        await RegexRunner().match([("a", None)], [], BUDGET)


async def test_a_cancelled_call_leaves_no_process_behind() -> None:
    call = asyncio.create_task(RegexRunner().match([(FOREVER, None)], [BAIT], BUDGET))
    async with asyncio.timeout(30):
        while not (mine := _workers()):  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not _workers() & mine


def _workers() -> set[str]:
    """Children of this process that are the engine."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for child in _text(task / "children").split():
            if "regex/worker.py" in _text(Path("/proc") / child / "cmdline"):
                found.add(child)
    return found


def _text(file: Path) -> str:
    """What the kernel says; nothing of a thread or process that has just ended."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    pattern=st.one_of(
        st.text(alphabet="ab()[]{}*+?|.\\^$,<=!:12kp", max_size=25),
        st.sampled_from([r"(a*)*c", r"(a|a)*c", r"((a+)+)+c", r"(?<=(a+)+)c", r"(a?){30}a{30}c", FOREVER]),
    ),
    text=st.one_of(st.just(BAIT[1]), st.text(max_size=60)),
)
def test_the_runner_always_returns_within_its_limit(pattern: str, text: str) -> None:
    async def run() -> None:
        started = time.monotonic()
        found = await RegexRunner(QUICK).match([(pattern, None), ("", None)], [("stdout", text)], BUDGET)
        # Its limit, and time for a loaded machine to end a process.
        assert time.monotonic() - started < QUICK.total + 10
        assert len(found) == 2

    asyncio.run(run())
