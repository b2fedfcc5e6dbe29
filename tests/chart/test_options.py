"""Each documented value is read, and what comes of it is valid for the oldest and the newest Kubernetes."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from nosana_operator.api import MARKET_KIND, NosanaMarketSpec, parse_part
from nosana_operator.runtime.settings import parse_settings
from nosana_tools.chart import CHART
from nosana_tools.chart.generate import render
from nosana_tools.chart.values import read_values
from support.chart import MARKET, MONITORS, OPTIONS

Body = dict[str, Any]


@functools.cache
def _check(body: str, version: str) -> None:
    # Most objects are the same whatever the values: judged once.
    kubernetes_validate.validate(json.loads(body), version, strict=True)


@pytest.mark.parametrize("values", OPTIONS.values(), ids=OPTIONS)
def test_what_comes_of_it_is_valid(rendered: Any, values: dict[str, Any]) -> None:
    bodies = rendered(values)
    assert bodies
    for body in bodies:
        assert body["metadata"]["name"]
        group = body["apiVersion"].partition("/")[0]
        if group == "nosana.io":
            assert body["kind"] == MARKET_KIND
            parse_part(NosanaMarketSpec, MARKET_KIND, "spec", body["spec"])
        elif group != "monitoring.coreos.com":
            for version in ("1.31", "1.37"):
                _check(json.dumps(body, sort_keys=True), version)
        elif body["kind"] == "PrometheusRule":
            assert all(
                rule.keys() >= {"alert", "expr"} for g in body["spec"]["groups"] for rule in g["rules"]
            )
    names = [(b["kind"], b["metadata"].get("namespace"), b["metadata"]["name"]) for b in bodies]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("values", OPTIONS.values(), ids=OPTIONS)
def test_the_version_of_the_cluster_changes_nothing(helm: Path, values: dict[str, Any]) -> None:
    assert render(helm, values, kubernetes="1.31.0") == render(helm, values, kubernetes="1.37.0")


def _paths(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _paths(value, (*path, key))


def test_each_documented_value_is_tried() -> None:
    tried = {path for values in OPTIONS.values() for path in _paths(values)}
    documented = {
        value.path for value in read_values((CHART / "values.yaml").read_text()) if value.description
    }
    assert documented <= tried


def test_each_value_but_what_the_cluster_decides_changes_something(helm: Path) -> None:
    defaults = render(helm, {})
    for name, values in OPTIONS.items():
        assert (render(helm, values) == defaults) == (name == "defaults"), name


@pytest.mark.parametrize("name", ["defaults", "settings", "some namespaces"])
def test_the_operator_takes_the_settings(rendered: Any, name: str) -> None:
    values = OPTIONS[name]
    (text,) = (
        body["data"]["settings.yaml"]
        for body in rendered(values)
        if body["kind"] == "ConfigMap" and "settings.yaml" in body.get("data", {})
    )
    settings = parse_settings(text)
    assert settings.watch_namespaces == tuple(values.get("watchNamespaces", ()))
    if name == "settings":
        assert (settings.cluster_name, settings.metrics.port) == ("lab", 9090)
        assert settings.networks["mainnet"].program.startswith("nosJ")
        # Helm's numbers are floating ones; 1.5e+07 would be refused.
        assert settings.networks["mainnet"].fees.maximum == 15_000_000


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"watchNamespace": ["a"]}, "additional properties 'watchNamespace' not allowed"),
        ({"image": {"repo": "x"}}, "/image': additional properties 'repo' not allowed"),
        ({"replicas": "2"}, "/replicas"),
        ({"image": {"digest": "abc"}}, "/image/digest"),
        ({"settings": {"clustername": "x"}}, "/settings': additional properties 'clustername' not allowed"),
        ({"settings": {"watchNamespaces": ["x"]}}, "additional properties 'watchNamespaces' not allowed"),
        ({"settings": {"metrics": {"port": 0}}}, "/settings/metrics/port"),
        ({"settings": {"networks": {"devnet": {}}}}, "missing property 'rpc'"),
        ({"settings": {"networks": {"x": {"rpc": ["http://a"]}}}}, "missing properties 'program', 'nosMint'"),
        ({"settings": {"log": {"level": "loud"}}}, "/settings/log/level"),
        ({"affinity": {"nodeAfinity": {}}}, "additional properties 'nodeAfinity' not allowed"),
        ({"resources": {"request": {}}}, "additional properties 'request' not allowed"),
        ({"securityContext": {"runAsNonroot": True}}, "additional properties 'runAsNonroot' not allowed"),
        ({"jobNamespaces": {"podSecurity": "restricted"}}, "/jobNamespaces/podSecurity"),
        ({"jobNamespaces": {"names": ["Jobs"]}}, "/jobNamespaces/names/0"),
        ({"markets": [{"name": "x"}]}, "missing property 'spec'"),
        ({"markets": [MARKET | {"spec": {**MARKET["spec"], "minprice": 1}}]}, "'minprice' not allowed"),
        ({"metrics": {"renderMode": "maybe"}}, "/metrics/renderMode"),
        ({"jobNamespaces": {"names": ["nosana-system"]}}, "nosana-system is the operator's namespace"),
        (
            {"markets": [MARKET | {"spec": {**MARKET["spec"], "jobNamespace": "nosana-system"}}]},
            "jobNamespace of lab is the operator's namespace",
        ),
        (
            {"markets": [MARKET], "watchNamespaces": ["a"]},
            "jobNamespace nosana-jobs of lab is not in watchNamespaces",
        ),
        (
            {"markets": [MARKET], "watchNamespaces": ["nosana-jobs"]},
            "namespace nosana-system, in which they are made",
        ),
        (
            {"metrics": {"serviceMonitor": {"enabled": True}, "renderMode": "failIfMissing"}},
            "does not serve monitoring.coreos.com/v1",
        ),
        (
            {"metrics": MONITORS | {"service": {"enabled": False}}},
            "metrics.serviceMonitor needs metrics.service",
        ),
    ],
)
def test_mistakes_are_refused(rendered: Any, values: dict[str, Any], told: str) -> None:
    with pytest.raises(Exception, match="(?s)" + told.replace("(", r"\(")) as refused:
        rendered(values)
    assert type(refused.value).__name__ == "RenderError"


def test_an_older_kubernetes_is_refused(rendered: Any) -> None:
    with pytest.raises(Exception, match=r"requires kubeVersion: >=1\.31\.0-0"):
        rendered({}, kubernetes="1.30.9")
