"""The start of a job, step by step: each told once, from the step before."""

from __future__ import annotations

import pytest

from nosana_operator.api import Timing
from nosana_operator.jobs.start_steps import new_steps


def at(second: float) -> str:
    return f"2026-01-01T00:00:{second:09.6f}Z"


@pytest.mark.parametrize(
    ("before", "after", "steps"),
    [
        pytest.param(None, {}, [], id="nothing yet"),
        pytest.param(None, {"accepted": at(1)}, [], id="nothing to count from"),
        pytest.param(
            {"matched": at(1), "created": at(2)},
            {"accepted": at(4)},
            [("accepted", 3.0)],
            id="from the match",
        ),
        pytest.param(
            None, {"created": at(2), "accepted": at(4)}, [("accepted", 2.0)], id="from the creation"
        ),
        pytest.param(
            {"matched": at(1), "accepted": at(2)},
            {"accepted": at(2), "scheduled": at(3), "pulled": at(7), "started": at(7.5)},
            [("scheduled", 1.0), ("pulled", 4.0), ("started", 0.5)],
            id="several at once",
        ),
        pytest.param(
            {"matched": at(1), "scheduled": at(2)},
            {"scheduled": at(2), "pulled": at(9), "fetched": at(5), "started": at(9)},
            [("fetched", 3.0), ("pulled", 4.0), ("started", 0.0)],
            id="fetched before the image is pulled",
        ),
        pytest.param(
            {"matched": at(1), "accepted": at(2), "started": at(8)},
            {"accepted": at(2), "started": at(8), "ready": at(9)},
            [("ready", 1.0)],
            id="what was told stays told",
        ),
    ],
)
def test_steps(before: dict[str, str] | None, after: dict[str, str], steps: list[tuple[str, float]]) -> None:
    assert new_steps(Timing(**before) if before else None, after) == steps
