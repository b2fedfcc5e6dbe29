"""docs/metrics.md tells of what is served, and of all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from nosana_operator.runtime.metrics.chain_metrics import ChainCollector
from nosana_operator.runtime.metrics.family import PREFIX, Family
from nosana_operator.runtime.metrics.operator_metrics import OperatorMetrics
from nosana_operator.runtime.metrics.page import families, metrics_page

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
_OF_TARGETS = {"job", "instance", "namespace", "pod", "service", "endpoint", "container", "node", "cluster"}
"""Labels that Prometheus and the Prometheus operator give a target."""


def test_the_page_is_as_the_program_writes_it() -> None:
    written = PAGE.read_text()
    assert written == metrics_page(), "write it anew: nosana-operator metrics > docs/metrics.md"


def test_what_is_served_is_declared_and_the_other_way_round() -> None:
    metrics = OperatorMetrics()
    metrics.expose_objects(list, list)
    metrics.expose_watches(dict)
    metrics.registry.register(ChainCollector({}))
    text = generate_latest(metrics.registry).decode()
    served = dict(re.findall(rf"^# TYPE ({PREFIX}_\S+) (\S+)$", text, re.MULTILINE))
    assert served == {family.full_name: family.type for family in families()}


def test_each_family_is_told_once() -> None:
    told = re.findall(rf"^\| `({PREFIX}_\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(told) == sorted(family.full_name for family in families())


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_labels_are_none_that_a_scrape_would_rename(family: Family) -> None:
    assert not set(family.labels) & _OF_TARGETS
    assert not set(family.labels) & {"nosanajob", "run", "uid", "name"}, "a series per job"
    assert family.text.endswith((".", ")."))
    assert "|" not in family.text
