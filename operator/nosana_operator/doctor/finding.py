"""What a check says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not all of it, or not for long."""
    FAILURE = "failure"
    """The operator, or one of its markets, cannot do its work."""
    UNKNOWN = "unknown"
    """Nobody answered, or we were not allowed to ask."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    """What was looked at: a fixed name, for programs."""
    subject: str
    """Whose: a NosanaMarket, a network, a key; empty for the cluster as a whole."""
    level: Level
    message: str
    """A sentence without its full stop."""
    remedy: str = ""
    """What to do, a sentence; empty when there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Makes the findings of one check about one thing."""

    check: str
    subject: str = ""

    def ok(self, message: str) -> Finding:
        """It is as it should be."""
        return Finding(self.check, self.subject, Level.OK, message.rstrip("."))

    def warning(self, message: str, remedy: str) -> Finding:
        """It works, but."""
        return Finding(self.check, self.subject, Level.WARNING, message.rstrip("."), remedy)

    def failure(self, message: str, remedy: str) -> Finding:
        """It does not work."""
        return Finding(self.check, self.subject, Level.FAILURE, message.rstrip("."), remedy)

    def unknown(self, message: str, remedy: str = "") -> Finding:
        """It was not found out."""
        return Finding(self.check, self.subject, Level.UNKNOWN, message.rstrip("."), remedy)


def exit_code(findings: Iterable[Finding]) -> int:
    """1 when something failed; warnings, and what nobody answered, are 0."""
    return int(any(finding.level is Level.FAILURE for finding in findings))
