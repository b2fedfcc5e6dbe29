"""The process for regular expressions: reads patterns and lines from standard input, writes one line per pattern.

It runs by its path and not as a module, because importing the package would take longer than the work. So it
imports no other module of ours, and regress only where it is needed.

Input: the length of a JSON header (4 bytes, big-endian), the header, and then each line of the log as a
`FRAME` followed by its bytes (UTF-8). Header: {"searches": [[pattern, bits]], "budget": bytes,
"cpu": seconds, "memory": bytes}; `bits` are the log types that the pattern is tried on.
Output: {"values": [text or null, …]} or {"error": text}, in the patterns' order.
"""

from __future__ import annotations

import json
import math
import os
import resource
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import IO, Any, Final

FRAME: Final = struct.Struct(">BI")
"""A line's log type as one bit, and how many bytes it has."""
TOO_MUCH: Final = "not captured: results may hold {budget} bytes here and this would take more; match less"
_NICENESS: Final = 5
_QUOTED: Final = 200
"""Characters of a pattern that its error message repeats."""
_PIECE: Final = 1024
# The engine's messages → the messages of JavaScript engines, which Nosana's users know.
_MESSAGES: Final = {
    "Incomplete escape": "\\ at end of pattern",
    "Unbalanced bracket": "Unterminated character class",
    "Invalid atom character": "Nothing to repeat",
    "Invalid braced quantifier": "Nothing to repeat",
    "Quantifier not allowed here": "Nothing to repeat",
    "Invalid quantifier": "numbers out of order in {} quantifier",
    "Invalid token at named capture group identifier": "Invalid capture group name",
    "Invalid group modifier": "Invalid group",
}

Frames = Sequence[tuple[int, bytes]]


class TooMuchError(Exception):
    """The captures are larger than the budget."""


def main() -> None:
    """Handle one request."""
    source = sys.stdin.buffer
    header = json.loads(source.read(int.from_bytes(source.read(4), "big")))
    os.nice(_NICENESS)
    _limit(resource.RLIMIT_CORE, 0)
    lines = list(_frames(source))
    _limit(resource.RLIMIT_AS, header["memory"])
    left = header["budget"]
    for pattern, bits in header["searches"]:
        _limit_cpu(header["cpu"])
        answer, used = _answer(pattern, bits, lines, left)
        left -= used
        _write(answer)


def _frames(source: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    while frame := source.read(FRAME.size):
        bit, length = FRAME.unpack(frame)
        yield bit, source.read(length)


def _write(answer: Mapping[str, Any]) -> None:
    """Write one line in pieces; one JSON text of a million captures would need many times their memory."""
    if "error" in answer:
        sys.stdout.write(json.dumps(answer))
    else:
        values = answer["values"]
        sys.stdout.write('{"values": [')
        for at in range(0, len(values), _PIECE):
            piece = json.dumps(values[at : at + _PIECE])
            sys.stdout.write((", " if at else "") + piece[1:-1])
        sys.stdout.write("]}")
    sys.stdout.write("\n")
    sys.stdout.flush()


def _limit_cpu(seconds: int) -> None:
    """End this process after that many more CPU seconds, even when its parent is gone."""
    _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds)


def _limit(what: int, value: int) -> None:
    """Set the soft limit, at most the hard one."""
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _answer(pattern: str, bits: int, lines: Frames, budget: int) -> tuple[dict[str, Any], int]:
    import regress

    try:
        values, used = _capture(regress.Regex(pattern), count_groups(pattern), bits, lines, budget)
    except regress.RegressError as error:
        return {"error": syntax_error(pattern, str(error))}, 0
    except TooMuchError:
        return {"error": TOO_MUCH.format(budget=budget)}, 0
    except UnicodeEncodeError:
        return {"error": syntax_error(pattern, "half of a surrogate pair stands alone")}, 0
    return {"values": values}, used


def _capture(regex: Any, groups: int, bits: int, lines: Frames, budget: int) -> tuple[list[str | None], int]:
    values: list[str | None] = []
    used = 0
    for bit, line in lines:
        if not bits & bit:
            continue
        match = regex.find(line.decode("utf-8", "replace"))
        if match is None:
            continue
        for group in range(groups + 1):
            # Offsets are those of the UTF-8 bytes.
            span = match.group(group)
            text = None if span is None else line[span]
            # Empty captures need memory too, and every line may have one.
            used += 4 + (len(text) if text else 0)
            if used > budget:
                raise TooMuchError
            values.append(None if text is None else text.decode("utf-8", "replace"))
    return values, used


def count_groups(pattern: str) -> int:
    """The number of capture groups of a valid pattern, which the engine does not report."""
    return sum(pattern[at] == "(" and _captures(pattern, at + 1) for at in _parentheses(pattern))


def _captures(pattern: str, at: int) -> bool:
    if pattern[at : at + 1] != "?":
        return True
    return pattern[at + 1 : at + 2] == "<" and pattern[at + 2 : at + 3] not in ("=", "!")


def _parentheses(pattern: str) -> Iterator[int]:
    """The positions of parentheses that are not escaped or in a class."""
    at = 0
    in_class = False
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            at += 1
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character in "()":
            yield at
        at += 1


def syntax_error(pattern: str, problem: str) -> str:
    """The value of an invalid pattern in the result: the error message as JavaScript words it."""
    if problem == "Unbalanced parenthesis":
        problem = "Unmatched ')'" if _closes_too_much(pattern) else "Unterminated group"
    quoted = pattern if len(pattern) <= _QUOTED else pattern[:_QUOTED] + "…"
    return f"SyntaxError: Invalid regular expression: /{quoted}/: {_MESSAGES.get(problem, problem)}"


def _closes_too_much(pattern: str) -> bool:
    depths = accumulate(1 if pattern[at] == "(" else -1 for at in _parentheses(pattern))
    return any(depth < 0 for depth in depths)


if __name__ == "__main__":
    main()
