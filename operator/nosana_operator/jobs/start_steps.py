"""How long each step of a job's start took; each is reported once, when its moment is first written. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nosana_operator.api import Timing, parse_timestamp

_STEPS: Final = ("accepted", "scheduled", "fetched", "pulled", "started", "ready")
"""A job without resources has no `fetched`."""


def new_steps(before: Timing | None, after: Mapping[str, str]) -> list[tuple[str, float]]:
    """The steps whose moment is in `after` but not in `before`, with the seconds since the previous step.

    `before` is the whole status.timing as read, `after` the job controller's part as written. The first step
    counts from the match; for a private job, from its creation.
    """
    previous = before.model_dump(exclude_none=True) if before else {}
    moments = {name: parse_timestamp(text) for name, text in {**previous, **after}.items()}
    last = moments.get("matched") or moments.get("created")
    steps: list[tuple[str, float]] = []
    # One op may fetch its resources while another op's image is pulled.
    for step in sorted((step for step in _STEPS if step in moments), key=lambda step: moments[step]):
        if last is not None and step not in previous:
            steps.append((step, (moments[step] - last).total_seconds()))
        last = moments[step]
    return steps
