"""What the job controller logs."""

from __future__ import annotations

import logging

import pytest

from fakes.jobs import Lab, definition, op, private_job


async def test_a_line_for_each_thing_that_is_done(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nosana_operator.jobs")
    lab = Lab(exits={0: 0, 1: 1})
    lab.kube.add(private_job({"definition": definition(op("a"), op("b"))}))
    await lab.drive(lab.over())
    lab.kube.remove("NosanaJob", "jobs", "hello")
    await lab.drive(lambda: lab.phase() is None)
    said = [
        (line.getMessage(), getattr(line, "op", None), getattr(line, "pod", None))
        for line in caplog.records
        if line.name == "nosana_operator.jobs.controller"
    ]
    assert {line.job for line in caplog.records if hasattr(line, "job")} == {"jobs/hello"}
    assert [one for one in said if one[1] or one[2]] == [
        ("starting op", "a", "hello-0"),
        ("starting op", "b", "hello-1"),
        ("pod released", "a", "hello-0"),
        ("pod released", "b", "hello-1"),
    ]
    texts = [text for text, _, _ in said]
    assert texts[0] == "finalizer added"
    assert "storing result: failed" in texts
    assert "Failed: op 'b' failed: exit code 1" in texts
    assert texts[-1] == "finalizer removed"
    assert texts.count("Running: a is running") == 1, "nothing is said again and again"
