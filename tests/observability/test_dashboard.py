"""The dashboard: expressions that Prometheus can read, of metrics and labels that exist, in panels that fit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from nosana_operator.runtime.metrics.page import families
from support.dashboard import PANELS, ROWS, TARGETS, VARIABLES, Target
from support.promtool import Promtool, series_names, used_labels, used_names

each_target = pytest.mark.parametrize("target", TARGETS, ids=str)


def test_rows_are_the_promised_ones() -> None:
    assert ROWS == ["Fleet", "Markets", "Jobs", "Money", "Chain", "Internals"]


def test_prometheus_can_read_each_expression(promtool: Promtool, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": target.evaluable} for n, target in enumerate(TARGETS)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert promtool.complaints("check", "rules", file) == ""


@each_target
def test_metrics_and_labels_exist(target: Target) -> None:
    labels = {family.full_name: set(family.labels) for family in families()}
    names = used_names(target.expression)
    assert names
    assert names <= series_names()
    for name in names & labels.keys():
        assert used_labels(target.expression, name) <= labels[name]


@each_target
def test_legends_name_labels_that_are_there(target: Target) -> None:
    known = {label for family in families() for label in family.labels} | {"instance"}
    assert set(target.legend_labels) <= known
    for label in target.legend_labels:
        assert label in target.expression or "process_" in target.expression


def test_every_family_is_shown() -> None:
    """Whoever adds a metric says where one looks at it."""
    used = {name for target in TARGETS for name in used_names(target.expression)}
    shown = {
        family.full_name for family in families() if any(name.startswith(family.full_name) for name in used)
    }
    assert shown == {family.full_name for family in families()}


def test_panels_have_numbers_of_their_own_and_do_not_cover_each_other() -> None:
    assert max(Counter(panel["id"] for panel in PANELS).values()) == 1
    taken: Counter[tuple[int, int]] = Counter()
    for panel in PANELS:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
        taken.update(cells)
    assert max(taken.values()) == 1


def test_panels_ask_the_chosen_data_source_and_market() -> None:
    assert VARIABLES == ["datasource", "market"]
    for target in TARGETS:
        assert target.source == "${datasource}"
    labels = {family.full_name: family.labels for family in families() if "market" in family.labels}
    for target in TARGETS:
        if used_names(target.expression) & labels.keys():
            assert 'market=~"$market"' in target.expression, target
