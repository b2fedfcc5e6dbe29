"""Exact arithmetic on Kubernetes quantities (`500m`, `16Gi`, `1e3`): a slot that lacks one byte is no slot."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Final

from nosana_operator.errors import NosanaError

UNIT: Final = 10**9
"""One core, byte or device. Amounts are whole numbers of billionths, the precision of Kubernetes."""

_FORM: Final = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]{1,3}))?"
)
_SUFFIXES: Final = {
    **{suffix: Fraction(10) ** power for suffix, power in zip("num", (-9, -6, -3), strict=True)},
    **{suffix: Fraction(10) ** (3 * (n + 1)) for n, suffix in enumerate("kMGTPE")},
    **{f"{suffix}i": Fraction(1024) ** (n + 1) for n, suffix in enumerate("KMGTPE")},
}


class QuantityError(NosanaError):
    """The text is not a Kubernetes quantity."""


@lru_cache(maxsize=4096)
def parse_quantity(text: str) -> int:
    """The value of a quantity in billionths of the resource's unit, rounded up as Kubernetes does.

    Raises QuantityError.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise QuantityError(f"{text[:40]!r} is not a Kubernetes quantity; write for example 500m, 2 or 16Gi")
    scale = _SUFFIXES[match["suffix"]] if match["suffix"] else Fraction(10) ** int(match["exponent"] or 0)
    return ceil(Fraction(match["number"]) * scale * UNIT)


def cores(amount: int) -> str:
    """A quantity of CPU, rounded down to whole millicores, at least one (Kubernetes has nothing smaller)."""
    milli = max(1, amount * 1000 // UNIT)
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def size(amount: int) -> str:
    """A quantity of bytes, rounded down to whole bytes, in the largest binary unit that is exact."""
    count = amount // UNIT
    for n, suffix in reversed(list(enumerate("KMGTPE", start=1))):
        if count and count % 1024**n == 0:
            return f"{count // 1024**n}{suffix}i"
    return str(count)
