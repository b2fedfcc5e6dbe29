"""The report of the findings, for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Final

import click

from nosana_operator.api import timestamp
from nosana_operator.doctor.finding import Finding, Level, exit_code

_COLOURS: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILURE: "red", Level.UNKNOWN: "cyan"}


def as_text(findings: Sequence[Finding]) -> Iterator[str]:
    """Lines for a terminal; click drops the colours elsewhere."""
    for finding in findings:
        level = click.style(f"{finding.level:<8}", fg=_COLOURS[finding.level])
        subject = f" [{finding.subject}]" if finding.subject else ""
        yield f"{level} {finding.check}{subject}: {finding.message}"
        if finding.remedy:
            yield f"         → {finding.remedy}"
    yield ""
    yield _summary(findings)


def as_json(findings: Sequence[Finding], now: datetime) -> str:
    """One JSON object; the names of checks and levels are stable."""
    counted = Counter(finding.level for finding in findings)
    return json.dumps(
        {
            "version": version("nosana-operator"),
            "at": timestamp(now),
            "healthy": exit_code(findings) == 0,
            "summary": {str(level): counted[level] for level in Level},
            "findings": [
                {
                    "check": finding.check,
                    "subject": finding.subject,
                    "level": str(finding.level),
                    "message": finding.message,
                    "remedy": finding.remedy,
                }
                for finding in findings
            ],
        },
        indent=2,
        ensure_ascii=False,
    )


def _summary(findings: Sequence[Finding]) -> str:
    counted = Counter(finding.level for finding in findings)
    words = {
        Level.FAILURE: ("failure", "failures"),
        Level.WARNING: ("warning", "warnings"),
        Level.UNKNOWN: ("unknown", "unknown"),
        Level.OK: ("ok", "ok"),
    }
    return ", ".join(f"{counted[level]} {words[level][counted[level] != 1]}" for level in words)
