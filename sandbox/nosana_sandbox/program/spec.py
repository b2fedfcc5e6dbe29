"""What an instruction is: its name, its arguments, its accounts with their checks, and what it does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from nosana_sandbox.program.anchor import Context, Field

Argument = int | bytes
"""An integer, or 32 bytes of a content address."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One instruction. `arguments` are Borsh types in order; `handler` gets their values."""

    name: str
    arguments: tuple[str, ...]
    fields: tuple[Field, ...]
    handler: Callable[[Context, tuple[Argument, ...]], None]

    @property
    def discriminator(self) -> bytes:
        """The first 8 bytes of the instruction's data."""
        return hashlib.sha256(f"global:{self.name}".encode()).digest()[:8]

    @property
    def title(self) -> str:
        """The name as the program logs it."""
        return "".join(word.capitalize() for word in self.name.split("_"))
