"""The result of a check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but only in part, or not for long."""
    FAILURE = "failure"
    """The operator, or one of its markets, cannot do its work."""
    UNKNOWN = "unknown"
    """The service did not answer, or we have no right to ask it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    """The name of the check: stable, for programs."""
    subject: str
    """What was checked: a NosanaMarket, a network, a key; empty for the cluster as a whole."""
    level: Level
    message: str
    """A sentence without its full stop."""
    remedy: str = ""
    """What to do, as a sentence; empty when there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One check of one thing; its methods make the findings."""

    check: str
    subject: str = ""

    def ok(self, message: str) -> Finding:
        """The check passed."""
        return Finding(self.check, self.subject, Level.OK, message.rstrip("."))

    def warning(self, message: str, remedy: str) -> Finding:
        """It works, with a reservation."""
        return Finding(self.check, self.subject, Level.WARNING, message.rstrip("."), remedy)

    def failure(self, message: str, remedy: str) -> Finding:
        """It does not work."""
        return Finding(self.check, self.subject, Level.FAILURE, message.rstrip("."), remedy)

    def unknown(self, message: str, remedy: str = "") -> Finding:
        """The check had no answer."""
        return Finding(self.check, self.subject, Level.UNKNOWN, message.rstrip("."), remedy)


def exit_code(findings: Iterable[Finding]) -> int:
    """1 when a check failed; warnings and unknown findings are 0."""
    return int(any(finding.level is Level.FAILURE for finding in findings))
