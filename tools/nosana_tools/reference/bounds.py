"""The table of what a poster can do wrong in docs/markets.md: a row for each bound, with the figures of the code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from nosana_operator.api.result import MAX_COMPRESSED
from nosana_operator.content.fetch import DEFAULT_SIZE_LIMIT, MAX_BLOCK, MAX_BLOCKS
from nosana_operator.definition import LIMITS, Limit
from nosana_operator.definition.flowstate import MAX_LOG_BYTES, MAX_LOG_ENTRIES
from nosana_operator.jobs.decision.decide import GIVE_UP_DEFINITION
from nosana_operator.jobs.decision.start_limits import CREATE_LIMIT, PULL_LIMIT
from nosana_operator.jobs.definitions import MAX_FETCHES
from nosana_operator.market.runs.decide import BETWEEN_REQUESTS, DELIVERY_LIMIT, POSTER_GRACE, RESULT_TRIES
from nosana_operator.market.runs.poster import MAX_DEFINITION
from nosana_operator.regex.runner import Limits
from nosana_operator.workload import Storage
from nosana_tools.reference.tables import table

BEGIN: Final = "<!-- Written by `make docs` from the limits in the code. -->\n"
END: Final = "<!-- End of what `make docs` writes. -->\n"


@dataclass(frozen=True, slots=True)
class Bound:
    """A row."""

    field: str
    """Of a definition, of the accounts on chain, or what a job does."""
    attempt: str
    """What a poster may do."""
    outcome: str
    cost: str
    """What it costs the host."""


def _size(number: int) -> str:
    for unit, factor in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if number % factor == 0:
            return f"{number // factor:,} {unit}"
    return f"{number:,} bytes"


def _time(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    if seconds % 60:
        return f"{seconds} s"
    return "a minute" if seconds == 60 else f"{seconds // 60} minutes"


def _of_definition(limit: Limit) -> Bound:
    amount = _size(limit.maximum) if limit.unit == "bytes" else f"{limit.maximum:,} {limit.unit}"
    return Bound(
        limit.subject, f"more than {amount}", "refused, with the path and the limit: `DefinitionInvalid`", "–"
    )


def _others() -> Iterator[Bound]:
    storage = Storage()
    patterns = Limits()
    yield Bound(
        "definition: place",
        "not put it on IPFS",
        f"looked for {_time(GIVE_UP_DEFINITION)}, at least once ({MAX_FETCHES} jobs at a time), then "
        "`DefinitionNotFound` or `DefinitionUnreachable`",
        "a slot for that time",
    )
    yield Bound(
        "definition: content",
        "other bytes than its CID stands for",
        "never used; every block is verified",
        "–",
    )
    yield Bound(
        "definition: size",
        f"more than {_size(DEFAULT_SIZE_LIMIT)}, more than {MAX_BLOCKS} blocks, blocks of more than "
        f"{_size(2 * DEFAULT_SIZE_LIMIT)} together, a folder",
        "refused: `DefinitionInvalid`",
        f"a download of {_size(3 * DEFAULT_SIZE_LIMIT + MAX_BLOCK)} a try",
    )
    yield Bound(
        "definition: form", "anything but the language", "refused with every mistake and its path", "–"
    )
    yield Bound("`ops`: GPUs", "more at once than the slot has", "refused: `GpuOpsExceedSlot`", "–")
    yield Bound(
        "`container/create-volume`: size",
        f"more volumes than fit into `volumes.jobSize` of the settings ({storage.job_size}; each has "
        f"`volumes.size`, {storage.size})",
        "refused, with the number that fits",
        "–",
    )
    yield Bound(
        "`resources`, disk",
        "more than the slot's `ephemeralStorage`",
        "the op fails, before the first byte where the size is known",
        "the download",
    )
    yield Bound(
        "`results`",
        "a pattern that never ends",
        f"ended after {patterns.cpu} s in a process of its own, all patterns of an op after {patterns.total:g} s; "
        "the value says so",
        "seconds of one core",
    )
    yield Bound(
        "log",
        "any amount",
        f"the newest {MAX_LOG_ENTRIES:,} lines and {_size(MAX_LOG_BYTES)} of an op",
        "what the node keeps of a log",
    )
    yield Bound(
        "result",
        "any amount",
        f"log lines go, oldest first, until it fits: {_size(MAX_COMPRESSED)} compressed",
        "as much in Secrets, for a day",
    )
    yield Bound(
        "image", "one that cannot be pulled", f"the op fails after {_time(PULL_LIMIT)}", "a slot, paid"
    )
    yield Bound(
        "container",
        "one that cannot be created",
        f"the op fails after {_time(CREATE_LIMIT)}",
        "a slot, paid",
    )
    yield Bound("time-out", "negative, or none at all", "expired at once", "a slot for seconds")
    yield Bound(
        "time-out",
        "years; longer than a date can say",
        "never later than `spec.maxTimeout`",
        "unset: as long as they pay for",
    )
    yield Bound("extension", "again and again", "followed, never beyond `spec.maxTimeout`", "–")
    yield Bound(
        "price",
        "0, in a free market",
        "served as any other job, up to its time-out",
        "set `spec.minPrice` to keep out of it",
    )
    yield Bound(
        "`end`",
        "at any moment, before it is verified too",
        "paid by that; the result is posted by `complete`",
        "–",
    )
    yield Bound(
        "run's key", "used again for another run", "a run of its own, told apart by its beginning", "–"
    )
    yield Bound(
        "NOS account",
        "closed, to be created again at your cost (0.002 SOL)",
        "created again when the run pays more than `accountRent` of the settings; otherwise it waits "
        f"{_time(POSTER_GRACE)} for the poster, then the run is given back unpaid",
        f"a slot for {_time(POSTER_GRACE)}, less NOS than the rent",
    )
    yield Bound("`logistics`", "an endpoint inside your network", "never contacted, see below", "–")
    yield Bound(
        "`logistics`", f"a definition of more than {_size(MAX_DEFINITION)}", "refused", "the download"
    )
    yield Bound(
        "`logistics`",
        "an endpoint that is slow or away",
        f"the definition is given up after {_time(GIVE_UP_DEFINITION)}; the result is tried {RESULT_TRIES} times, "
        f"{_time(BETWEEN_REQUESTS)} apart, until {_time(DELIVERY_LIMIT)} after the job's end at most",
        f"a slot for {_time(DELIVERY_LIMIT)}; paid as far as the time-out goes",
    )


BOUNDS: Final = (*map(_of_definition, LIMITS), *_others())


def with_bounds(page: str) -> str:
    """The page with the table between the markers written again."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    head = ("field", "what they may do", "what becomes of it", "what it costs you")
    rows = ((one.field, one.attempt, one.outcome, one.cost) for one in BOUNDS)
    return f"{before}{BEGIN}\n{table(head, rows)}\n{END}{after}"
