from __future__ import annotations

import pytest

from nosana_tools.mutations import PACKAGE, ROOT, TARGETS, Change, mutated, mutations, targets_of

SOURCE = '''
import logging
log = logging.getLogger(__name__)
LIMIT = 300

def may_pay(seconds: int | None, free: bool = False) -> bool:
    """Whether so many seconds are paid for."""
    log.info("asked for %d", seconds or 7)
    return seconds is not None and seconds > 0
'''


def changed_lines() -> set[str]:
    after = {mutated(SOURCE, each) for each in mutations(SOURCE, "x.py")} - {None}
    return {line for text in after if text for line in text.splitlines()} - set(SOURCE.splitlines())


def test_what_decides_is_changed() -> None:
    lines = changed_lines()
    assert "    return seconds is not None or seconds > 0" in lines
    assert "    return seconds is not None and seconds >= 0" in lines
    assert any("free: bool =" in line and "True" in line for line in lines)


@pytest.mark.parametrize(
    "word", ["def may_pay(seconds: int +", "log.", "LIMIT", "Whether", "seconds != None"]
)
def test_what_no_test_has_to_notice_is_not(word: str) -> None:
    assert not [line for line in changed_lines() if word in line]


def test_a_change_names_its_lines() -> None:
    [mutation] = [each for each in mutations(SOURCE, "x.py") if each.operator == "ReplaceAndWithOr"]
    after = mutated(SOURCE, mutation)
    assert after is not None
    change = Change(mutation, SOURCE, after)
    assert change.lines == {("x.py", 8)}
    assert change.diff().splitlines()[-1] == "+    return seconds is not None or seconds > 0"


def test_every_target_and_every_test_that_is_named_exists() -> None:
    for target, stages in TARGETS.items():
        assert (ROOT / PACKAGE / target).exists(), target
        for tests in stages:
            for test in tests.split():
                assert (ROOT / test).exists(), test


def test_the_most_specific_target_judges() -> None:
    assert targets_of("market/host/slots.py") == TARGETS["market/host"]
    assert targets_of("market/facts.py") == TARGETS["market"]
    assert targets_of("chain/sender.py") == TARGETS["chain/sender.py"]
