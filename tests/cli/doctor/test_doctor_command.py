"""The command: exit codes, both outputs, and that it always ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from nosana_operator.cli.main import main
from nosana_operator.doctor.checks import examine
from nosana_operator.doctor.finding import Level
from nosana_operator.doctor.report import as_json, as_text
from support.healthy_cluster import HEALTHY, with_state

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A kubeconfig of an API server that is not there."""
    file = tmp_path / "kubeconfig"
    file.write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return file


def test_a_cluster_that_does_not_answer_is_a_failure_with_a_remedy(nowhere: Path) -> None:
    result = CliRunner().invoke(main, ["doctor", "--kubeconfig", str(nowhere), "-o", "json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["healthy"] is False
    (found,) = [each for each in report["findings"] if each["check"] == "kubernetes.api"]
    assert found["level"] == "failure"
    assert "kubeconfig" in found["remedy"]


def test_settings_that_cannot_be_used_are_told_and_the_rest_is_looked_at(
    nowhere: Path, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("networks: {devnet: {rpc: []}}")
    result = CliRunner().invoke(main, ["doctor", "--settings", str(file), "--kubeconfig", str(nowhere)])
    assert result.exit_code == 1
    assert "networks.devnet.rpc" in result.stdout
    assert "kubernetes.api" in result.stdout


def test_a_wrong_option_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["doctor", "--output", "yaml"]).exit_code == 2


def test_the_text_names_each_check_and_ends_with_a_sum() -> None:
    *lines, _, total = as_text(examine(with_state(lamports=0)))
    text = "\n".join(lines)
    assert "market.gpus [nosana-system/mine]" in text
    assert "→ Send it SOL: 0.1 is plenty." in text
    assert total.startswith("1 failure, 0 warnings, 1 unknown, ")


def test_the_json_has_the_same_findings_and_stable_names() -> None:
    findings = examine(HEALTHY)
    report = json.loads(as_json(findings, NOW))
    assert report["at"] == "2026-01-02T03:04:05Z"
    assert report["healthy"] is True
    assert report["summary"] == {
        level: sum(finding.level == level for finding in findings)
        for level in ("ok", "warning", "failure", "unknown")
    }
    assert [each["check"] for each in report["findings"]] == [finding.check for finding in findings]
    assert {each["level"] for each in report["findings"]} <= {str(level) for level in Level}
