"""Results at rest: the bytes that come back are the bytes that went in, or an error of ours."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_operator.api.result import (
    MAX_PART,
    MAX_RAW,
    RESULT_KEY,
    ResultError,
    ResultTooLarge,
    pack_result,
    read_result,
    result_names,
    result_secrets,
)

JOB = {"metadata": {"name": "hello", "namespace": "jobs", "uid": "u-1"}}


def noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)


@given(st.binary(max_size=2000))
def test_the_bytes_come_back(raw: bytes) -> None:
    assert read_result(result_secrets(JOB, [raw])) == raw


def test_a_large_result_is_split_and_joined() -> None:
    raw = noise(2 * MAX_PART + 10)
    secrets = result_secrets(JOB, [raw])
    assert [s["metadata"]["name"] for s in secrets] == ["hello-result-0", "hello-result-1", "hello-result-2"]
    assert result_names(secrets[0]) == tuple(s["metadata"]["name"] for s in secrets)
    assert read_result(secrets) == raw


def test_the_same_bytes_are_packed_the_same() -> None:
    assert result_secrets(JOB, [b"abc"]) == result_secrets(JOB, [b"abc"])


@pytest.mark.parametrize("raw", [noise(4 * 1024 * 1024 + 1), bytes(MAX_RAW + 1)], ids=["compressed", "raw"])
def test_what_does_not_fit_is_refused(raw: bytes) -> None:
    with pytest.raises(ResultTooLarge):
        pack_result([raw])


def missing_part(secrets: list[dict[str, Any]]) -> None:
    del secrets[1]


def swapped(secrets: list[dict[str, Any]]) -> None:
    secrets.reverse()


def other_bytes(secrets: list[dict[str, Any]]) -> None:
    secrets[0]["data"] = result_secrets(JOB, [b"other"])[0]["data"]


def not_base64(secrets: list[dict[str, Any]]) -> None:
    secrets[0]["data"][RESULT_KEY] = "%%%"


def no_key(secrets: list[dict[str, Any]]) -> None:
    secrets[0]["data"] = {}


def no_annotations(secrets: list[dict[str, Any]]) -> None:
    del secrets[0]["metadata"]["annotations"]


def nothing(secrets: list[dict[str, Any]]) -> None:
    secrets.clear()


@pytest.mark.parametrize(
    "damage", [missing_part, swapped, other_bytes, not_base64, no_key, no_annotations, nothing]
)
def test_damage_is_noticed(damage: Any) -> None:
    secrets = copy.deepcopy(list(result_secrets(JOB, [noise(MAX_PART + 10)])))
    damage(secrets)
    with pytest.raises(ResultError):
        read_result(secrets)
