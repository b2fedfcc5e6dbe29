"""The annotation that takes a NosanaMarket's keys out of the queue for a while without a change of its spec."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from nosana_operator.api.conditions import parse_timestamp
from nosana_operator.api.names import ANNOTATION_LEAVE_UNTIL

_ALWAYS: Final = datetime.max.replace(tzinfo=UTC)


def leaves_until(annotations: Mapping[str, str] | None, now: datetime) -> datetime | None:
    """When its keys may join the queue again; None when they may now.

    An invalid time counts as no end: being out of the queue costs less than a run that nobody serves.
    """
    value = (annotations or {}).get(ANNOTATION_LEAVE_UNTIL)
    if value is None:
        return None
    try:
        until = parse_timestamp(value)
    except ValueError:
        return _ALWAYS
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return until if until > now else None
