"""`results`: values captured from an op's log by regular expressions (docs/protocol/job-definition.md#results). Pure.

Each expression is tried once on every line; the whole match and then every group are appended to its value. The
caller passes the engine, which runs strangers' patterns in JavaScript's dialect (`nosana_operator.regex`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from nosana_operator.definition.flowstate import LogEntry
from nosana_operator.definition.literals import ResultValue
from nosana_operator.definition.model import ResultPattern

MAX_RESULT_BYTES: Final = 2 * 1024 * 1024
"""UTF-8 bytes that all ops of a job may capture together; they fit into a compressed result."""
MAX_RESULT_SECONDS: Final = 30.0
"""Seconds that the engine may work for all ops of a job together: after the end nobody pays for them."""

Search = tuple[str, frozenset[str] | None]
"""A regular expression, and the types of the lines it is tried on (None: all)."""
Line = tuple[str, str]
"""A line's log type and its text, line break included."""
Match = Callable[[Sequence[Search], Sequence[Line], int, float], Awaitable[Sequence[ResultValue]]]
"""The engine: searches, lines, how many bytes may be captured and how many seconds that may take → a value for each
search, in order."""

_CONTAINER: Final = frozenset({"stdout", "stderr"})


async def extract(
    results: Mapping[str, str | ResultPattern],
    entries: Iterable[LogEntry],
    match: Match,
    *,
    streams_apart: bool = False,
    max_bytes: int = MAX_RESULT_BYTES,
    seconds: float = MAX_RESULT_SECONDS,
) -> dict[str, ResultValue]:
    """The values of an op's `results` by name, in the definition's order.

    A value is a list of captures (None for a group that did not participate), empty when nothing matched, or
    the error message of an invalid expression. `streams_apart=False`: the log mixes stdout and stderr, so a
    `logType` of either searches the lines of both.
    """
    if not results:
        return {}
    searches = [_search(pattern, streams_apart) for pattern in results.values()]
    values = await match(searches, [(entry.type, entry.log) for entry in entries], max_bytes, seconds)
    return dict(zip(results, values, strict=True))


def _search(pattern: str | ResultPattern, streams_apart: bool) -> Search:
    if isinstance(pattern, str):
        return _expression(pattern), None
    types = frozenset[str](pattern.log_type)
    if not streams_apart and types & _CONTAINER:
        types |= _CONTAINER
    return _expression(pattern.regex), types


def _expression(text: str) -> str:
    # `*` alone is not a valid expression. The node replaces it with this one, which matches every line.
    return "/*" if text == "*" else text
