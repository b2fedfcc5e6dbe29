"""The stand-in agrees with recordings of the real program, and the replay says so when it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nosana_sandbox.program.replay import RecordingError, compare, load_steps, main, replay

RECORDINGS = Path(__file__).parents[2] / "data" / "jobs-program"
FILES = sorted(path for path in RECORDINGS.glob("*.json") if path.name != "keys.json")
STEPS = [step for path in FILES for step in load_steps(path)]


def named(name: str) -> dict[str, Any]:
    """A copy of a step that a test may spoil."""
    return json.loads(json.dumps(next(step for step in STEPS if step["name"] == name)))


def test_every_instruction_is_recorded() -> None:
    assert len(FILES) == 19
    assert len(STEPS) == 218


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["name"])
def test_recorded_step(step: dict[str, Any]) -> None:
    assert compare(step) == []


def test_report_counts_and_names_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoiled = named("finish/before-timeout")
    payer = next(key for key, held in spoiled["post"].items() if held and held["dataLen"] == 165)
    spoiled["post"][payer]["lamports"] += 1
    wrong = named("finish/zero-result")
    wrong["result"]["logError"] = "Error Code: InvalidMint. Error Number: 6006"
    path = tmp_path / "finish.json"
    path.write_text(json.dumps([named("finish/free"), spoiled, wrong]))
    report = replay([path])
    assert (report.agreed, report.steps) == (1, 3)
    assert main([str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("finish/before-timeout: ")
    assert payer in lines[0]
    assert "InvalidMint" in lines[1]
    assert lines[2] == "1 of 3 agree"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda post, key: post.update({key: None}), "closed"),
        (lambda post, key: post.pop(key), "changed"),
        (lambda post, key: post[key].update(owner="11111111111111111111111111111111"), "owner"),
        (lambda post, key: post[key].update(dataLen=241), "dataLen"),
        (lambda post, key: post[key].update(data="ff" + post[key]["data"][2:]), "byte 0"),
    ],
)
def test_every_part_of_an_account_is_compared(change: Any, words: str) -> None:
    step = named("finish/before-timeout")
    job = next(key for key, held in step["post"].items() if held and held["dataLen"] == 240)
    change(step["post"], job)
    (line,) = compare(step)
    assert job in line
    assert words in line


def test_an_account_that_should_have_changed_is_found() -> None:
    step = named("finish/zero-result")
    step["result"] = named("finish/before-timeout")["result"]
    assert compare(step)[0].startswith("ok is False")


def test_agreeing_files_end_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(path) for path in FILES]) == 0
    assert capsys.readouterr().out == "218 of 218 agree\n"


@pytest.mark.parametrize("content", ["{", "{}", '{"a": 1}', '[{"name": 1}]'])
def test_other_files_are_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(RecordingError, match=r"x\.json"):
        replay([path])
    assert main([str(path)]) == 2
    assert "x.json" in capsys.readouterr().err
    assert main([]) == 2


def test_the_list_of_keys_beside_the_recordings_is_passed_over() -> None:
    with_keys = replay([RECORDINGS / "keys.json", RECORDINGS / "quit.json"])
    assert with_keys == replay([RECORDINGS / "quit.json"])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be read"):
        replay([tmp_path / "none.json"])
