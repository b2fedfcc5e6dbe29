"""The process may die at any request of a job's life: the next one ends the job as if nothing had happened."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.job_lives import SCENARIOS, Scenario, live


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_crash_at_any_point_changes_nothing(scenario: Scenario) -> None:
    clean, chances = await live(scenario)
    assert chances >= 6
    for point in range(1, chances + 1):
        crashed, _ = await live(scenario, frozenset({point}))
        assert crashed == clean, f"died at chance {point} of {chances}"


@given(st.sampled_from(SCENARIOS), st.frozensets(st.integers(1, 60), max_size=12))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_many_crashes_change_nothing(scenario: Scenario, points: frozenset[int]) -> None:
    clean, _ = await live(scenario)
    crashed, _ = await live(scenario, points)
    assert crashed == clean
