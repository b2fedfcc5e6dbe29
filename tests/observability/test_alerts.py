"""The alerts: promtool's own tests of each, a runbook for each, and words that exist."""

from __future__ import annotations

import re
import typing
from typing import Any

import pytest
import yaml

from nosana_operator.api import JobReason, MarketReason
from nosana_operator.api.job import Phase
from nosana_operator.runtime.metrics.page import families
from support.promtool import ALERTS, ROOT, RULES, RUNBOOKS, Promtool, series_names, used_labels, used_names

RULE_LIST: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
each_rule = pytest.mark.parametrize("rule", RULE_LIST, ids=lambda rule: rule["alert"])


def test_prometheus_takes_the_rules(promtool: Promtool) -> None:
    assert promtool.complaints("check", "rules", ALERTS) == ""


def test_each_fires_and_stays_silent_as_it_should(promtool: Promtool) -> None:
    assert promtool.complaints("test", "rules", *sorted(RULES.glob("*.yaml"))) == ""


@each_rule
def test_each_has_a_test_of_both(rule: dict[str, Any]) -> None:
    tests = yaml.safe_load((RULES / f"{rule['alert']}.yaml").read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    assert {check["alertname"] for check in checks} == {rule["alert"]}
    assert any(check["exp_alerts"] for check in checks)
    assert any(not check["exp_alerts"] for check in checks)


@each_rule
def test_each_tells_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    runbook = ROOT / told["runbook_url"]
    assert runbook == RUNBOOKS / f"{rule['alert']}.md"
    assert re.findall(r"^#+ .*$", runbook.read_text(), re.MULTILINE) == [
        f"# {rule['alert']}",
        "## What it means",
        "## How to look",
        "## What to do",
    ]


def test_no_runbook_is_left_over() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {rule["alert"] for rule in RULE_LIST}
    assert {path.stem for path in RULES.glob("*.yaml")} == {rule["alert"] for rule in RULE_LIST}


@each_rule
def test_expressions_use_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    labels = {family.full_name: set(family.labels) for family in families()}
    names = used_names(rule["expr"])
    assert names
    assert names <= series_names()
    for name in names:
        assert used_labels(rule["expr"], name) <= labels[name]


@each_rule
def test_reasons_and_phases_are_words_of_the_api(rule: dict[str, Any]) -> None:
    words = {
        "reason": {*(str(one) for one in MarketReason), *(str(one) for one in JobReason)},
        "phase": set(typing.get_args(Phase)),
    }
    for label, known in words.items():
        for text in re.findall(rf'\b{label}[=!]~?"([^"]+)"', rule["expr"]):
            assert set(text.split("|")) <= known
