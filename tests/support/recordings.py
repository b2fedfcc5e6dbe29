"""The recorded steps of the real Jobs program, as the chain tests use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[1] / "data" / "jobs-program"


def steps(instruction: str) -> list[dict[str, Any]]:
    """The steps of one instruction."""
    loaded: list[dict[str, Any]] = json.loads((FOLDER / f"{instruction}.json").read_text())
    return loaded


def instructions() -> list[str]:
    """Names of all recorded instructions."""
    return sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "keys")


def data_of(account: dict[str, Any]) -> bytes:
    """An account's whole data; recordings leave trailing zeros out."""
    return bytes.fromhex(account["data"]).ljust(account["dataLen"], b"\0")
