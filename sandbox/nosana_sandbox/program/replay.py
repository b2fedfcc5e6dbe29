"""Compares the stand-in with recordings of the real program, step by step."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solders.pubkey import Pubkey

from nosana_operator.errors import NosanaError
from nosana_sandbox.program.machine import execute
from nosana_sandbox.program.types import Account, AccountMeta, Custom, Instruction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nosana_sandbox.program.types import InstructionError


class RecordingError(NosanaError):
    """A file is not a list of recorded steps."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One step on which the stand-in and the real program do not agree; `details` are one line each."""

    step: str
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """How many steps were replayed, and those that differ."""

    steps: int
    differences: tuple[Difference, ...]

    @property
    def agreed(self) -> int:
        """How many steps agree."""
        return self.steps - len(self.differences)

    def lines(self) -> list[str]:
        """What is printed: a line per step that differs, then the count."""
        lines = [f"{found.step}: {'; '.join(found.details)}" for found in self.differences]
        return [*lines, f"{self.agreed} of {self.steps} agree"]


def replay(paths: Iterable[Path | str]) -> Report:
    """Execute every recorded step of the files on the stand-in and compare.

    Compared are the outcome, the error (`instructionError`, `logError`) and the accounts afterwards (owner,
    lamports, data); log lines are not. Raises RecordingError for a file that holds something else.
    """
    steps = [step for path in paths for step in load_steps(Path(path))]
    found = [Difference(str(step["name"]), tuple(details)) for step in steps if (details := compare(step))]
    return Report(len(steps), tuple(found))


def load_steps(path: Path) -> list[dict[str, Any]]:
    """The recorded steps of one file; the recordings' own list of keys, which lies beside them, has none."""
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordingError(
            f"The recording {path} cannot be read: {error.strerror}; name an existing file."
        ) from error
    except ValueError as error:
        raise RecordingError(f"The recording {path} is not JSON: {error}.") from error
    if (
        isinstance(steps, dict)
        and steps
        and all(isinstance(held, dict) and "pubkey" in held for held in steps.values())
    ):
        return []
    if not isinstance(steps, list) or not all(
        isinstance(step, dict) and "instruction" in step for step in steps
    ):
        raise RecordingError(
            f"The file {path} is not a list of recorded steps; name a recording of the program."
        )
    return steps


def compare(step: dict[str, Any]) -> list[str]:
    """Execute one step; what differs, in words."""
    before = {Pubkey.from_string(key): _account(held) for key, held in step["pre"].items()}
    result = execute(_instruction(step["instruction"]), before, step["clock"])
    expected = step["result"]
    details = _differing("ok", result.ok, expected["ok"])
    details += _differing("instructionError", _error(result.error), expected.get("instructionError"))
    details += _differing("logError", result.log_error, expected.get("logError"))
    if details:
        return details
    return _compare_accounts(
        result.changed,
        {Pubkey.from_string(key): _account(held) if held else None for key, held in step["post"].items()},
    )


def _compare_accounts(got: dict[Pubkey, Account | None], expected: dict[Pubkey, Account | None]) -> list[str]:
    details: list[str] = []
    for key in sorted(got.keys() | expected.keys(), key=str):
        if key not in expected:
            details.append(f"{key} changed")
        elif key not in got:
            details.append(f"{key} did not change")
        else:
            details += _compare_account(key, got[key], expected[key])
    return details


def _compare_account(key: Pubkey, got: Account | None, expected: Account | None) -> list[str]:
    if got is None or expected is None:
        return _differing(f"{key} closed", got is None, expected is None)
    details = _differing(f"{key} lamports", got.lamports, expected.lamports)
    details += _differing(f"{key} owner", str(got.owner), str(expected.owner))
    details += _differing(f"{key} dataLen", len(got.data), len(expected.data))
    if not details and got.data != expected.data:
        at = next(i for i, (a, b) in enumerate(zip(got.data, expected.data, strict=True)) if a != b)
        details.append(f"{key} data differs from byte {at} on")
    return details


def _differing(what: str, got: object, expected: object) -> list[str]:
    return [] if got == expected else [f"{what} is {got!r}, recorded {expected!r}"]


def _instruction(recorded: dict[str, Any]) -> Instruction:
    return Instruction(
        program_id=Pubkey.from_string(recorded["programId"]),
        accounts=tuple(
            AccountMeta(Pubkey.from_string(meta["pubkey"]), meta["isSigner"], meta["isWritable"])
            for meta in recorded["accounts"]
        ),
        data=bytes.fromhex(recorded["data"]),
    )


def _account(recorded: dict[str, Any]) -> Account:
    # Long data is stored without its trailing zeros.
    data = bytes.fromhex(recorded["data"])
    return Account(
        lamports=recorded["lamports"],
        owner=Pubkey.from_string(recorded["owner"]),
        data=data.ljust(recorded["dataLen"], b"\0"),
    )


def _error(error: InstructionError | None) -> object:
    return {"Custom": error.code} if isinstance(error, Custom) else error


def main(arguments: Sequence[str]) -> int:
    """`python -m nosana_sandbox.program.replay FILE…`: prints the report; 1 on a difference, 2 on misuse."""
    if not arguments:
        print("Name at least one recording: python -m nosana_sandbox.program.replay FILE…", file=sys.stderr)
        return 2
    try:
        report = replay(arguments)
    except RecordingError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(report.lines()))
    return 1 if report.differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
