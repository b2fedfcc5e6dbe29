from __future__ import annotations

from typing import Any

import pytest

from nosana_operator.workload import build_op_objects, run_args
from nosana_operator.workload.pod import Restart, make_restart
from support.workload import context, op


def counted(tries: float | None) -> dict[str, Any]:
    return {"policy": "on-failure"} | ({} if tries is None else {"restart_tries": tries})


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        (None, Restart()),
        ("no", Restart()),
        ("always", Restart("Always")),
        ("unless-stopped", Restart("Always")),
        ("on-failure", Restart("OnFailure")),
        (counted(None), Restart("OnFailure")),
        (counted(0), Restart("OnFailure")),
        (counted(3), Restart("Never", 3)),
    ],
)
def test_who_does_what(policy: Any, found: Restart) -> None:
    ctx = context(op(**({} if policy is None else {"restart_policy": policy})))
    assert make_restart(run_args(ctx, 0)) == found


def test_a_later_run_is_a_pod_with_a_name_and_number_of_its_own() -> None:
    ctx = context(op(restart_policy=counted(3)))
    first, second = (build_op_objects(ctx, 0, attempt=n)[-1]["metadata"] for n in (0, 1))
    assert (first["name"], second["name"]) == ("job-0", "job-0-r1")
    assert "nosana.io/attempt" not in first["annotations"]
    assert second["annotations"]["nosana.io/attempt"] == "1"
    assert first["annotations"]["nosana.io/restart-tries"] == "3"
