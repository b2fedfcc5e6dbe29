from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_operator.api.quantity import UNIT, QuantityError, cores, parse_quantity, size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", Fraction(0)),
        ("2", Fraction(2)),
        ("500m", Fraction(1, 2)),
        ("0.1", Fraction(1, 10)),
        (".5", Fraction(1, 2)),
        ("1.", Fraction(1)),
        ("1k", Fraction(1000)),
        ("1Ki", Fraction(1024)),
        ("1.5Gi", Fraction(3 * 2**29)),
        ("128974848", Fraction(128974848)),
        ("129e6", Fraction(129_000_000)),
        ("123E-2", Fraction(123, 100)),
        ("1E", Fraction(10**18)),
        ("7Ei", Fraction(7 * 2**60)),
        ("100n", Fraction(1, 10**7)),
        ("3u", Fraction(3, 10**6)),
        ("-1", Fraction(-1)),
        ("+4M", Fraction(4_000_000)),
        # More digits than a Decimal of the default precision holds.
        ("1000000000000000000000000000000.1", Fraction(10**30) + Fraction(1, 10)),
    ],
)
def test_every_form_is_read_exactly(text: str, value: Fraction) -> None:
    assert parse_quantity(text) == value * UNIT


@pytest.mark.parametrize(("text", "billionths"), [("1e-12", 1), ("1.5n", 2), ("0.0000000001", 1)])
def test_what_is_finer_is_rounded_up(text: str, billionths: int) -> None:
    assert parse_quantity(text) == billionths


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "m", "1KI", "1K", "1mi", "1e", "1e9999", "0x10", "1_000", "٣", "1\n"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(QuantityError, match="not a Kubernetes quantity"):
        parse_quantity(text)


@given(st.integers(1, 10**9))
def test_cores_say_whole_millicores(milli: int) -> None:
    assert parse_quantity(cores(milli * UNIT // 1000)) == milli * UNIT // 1000


def test_cores_are_never_none() -> None:
    assert cores(UNIT // 7000) == "1m"


@given(st.integers(0, 2**62))
def test_sizes_are_exact(count: int) -> None:
    assert parse_quantity(size(count * UNIT)) == count * UNIT


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1000, "1000"),
        (4 * 2**30, "4Gi"),
        (3 * 2**29, "1536Mi"),
        (2**40, "1Ti"),
        (2**30 + 1, "1073741825"),
    ],
)
def test_sizes_use_the_largest_unit(value: int, text: str) -> None:
    assert size(value * UNIT) == text
