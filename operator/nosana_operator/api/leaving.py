"""When a NosanaMarket is left for a while without its spec, which is the admin's, being changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from nosana_operator.api.conditions import parse_timestamp
from nosana_operator.api.names import ANNOTATION_LEAVE_UNTIL

_ALWAYS: Final = datetime.max.replace(tzinfo=UTC)


def leaves_until(annotations: Mapping[str, str] | None, now: datetime) -> datetime | None:
    """Until when its keys keep out of the queue; None when they need not (any more).

    A value that is no time says so for ever: out of the queue costs less than a run that nobody serves.
    """
    said = (annotations or {}).get(ANNOTATION_LEAVE_UNTIL)
    if said is None:
        return None
    try:
        until = parse_timestamp(said)
    except ValueError:
        return _ALWAYS
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return until if until > now else None
