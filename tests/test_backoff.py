from __future__ import annotations

import pytest

from nosana_operator.backoff import Backoff, jitter


@pytest.mark.parametrize(("failures", "bound"), [(1, 0.5), (2, 1), (3, 2), (7, 30), (10_000, 30)])
def test_the_bound_doubles_up_to_the_longest(failures: int, bound: float) -> None:
    assert Backoff(0.5, 30).bound(failures) == bound


def test_a_wait_is_between_half_its_bound_and_the_bound() -> None:
    waits = [Backoff(1, 8).wait(3) for _ in range(200)]
    assert all(2 <= wait <= 4 for wait in waits)
    assert max(waits) - min(waits) > 1, "those who failed together try again at different moments"


def test_the_jitter_of_a_caller_is_used() -> None:
    assert Backoff(1, 8, jitter=lambda: 0.75).wait(2) == 1.5
    assert 0.5 <= jitter() <= 1
