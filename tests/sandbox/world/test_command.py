"""`nosana-sandbox` against a world that runs as a process of its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nosana_sandbox.cli import main
from nosana_sandbox.world.process import WorldProcess
from nosana_sandbox.world.state import World

pytestmark = pytest.mark.contract


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOSANA_SANDBOX_STATE", str(tmp_path))
    return tmp_path


@pytest.fixture
def world(state: Path) -> Iterator[World]:
    process = WorldProcess(state)
    yield process.start()
    process.remove()


def run(*arguments: str, code: int = 0) -> str:
    result: Result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result.stdout


def test_post_look_extend_delist(world: World, tmp_path: Path) -> None:
    definition = tmp_path / "job.json"
    definition.write_text('{"version": "0.1", "type": "container", "ops": []}')
    address = run("post", str(definition), "--timeout", "60").strip()
    run("extend", address, "--by", "30")
    body = json.loads(run("job", address, "--output", "json"))
    assert (body["address"], body["state"], body["timeout"], body["price"]) == (address, "Queued", 90, 1_000)
    assert body["totals"] == {"deposited": 90_000, "earned": 0, "refunded": 0}
    assert body["result"] is None
    assert "0.09 NOS" in run("job", address)
    run("delist", address)
    run("job", address, code=1)


def test_what_is_no_definition_can_be_posted_too(world: World, tmp_path: Path) -> None:
    """Hosts have to bear it, so the sandbox must be able to offer it."""
    broken = tmp_path / "broken.json"
    broken.write_bytes(b"\xff not JSON")
    address = run("post", str(broken), "--timeout", "60").strip()
    assert json.loads(run("job", address, "--output", "json"))["state"] == "Queued"


def test_the_clock_is_moved(world: World) -> None:
    before = json.loads(run("clock", "--output", "json"))["unixTime"]
    after = json.loads(run("clock", "--advance", "5000", "--output", "json"))["unixTime"]
    assert 5_000 <= after - before < 5_060


def test_faults_are_scripted(world: World) -> None:
    added = run(
        "fault", "add", "server-error", "--method", "sendTransaction", "--times", "2", "--status", "502"
    )
    assert added.split()[:2] == ["server-error", "sendTransaction"]
    assert "status=502" in added
    run("fault", "add", "lag", "--slots", "3", "--method", "getSlot", "--skip", "1", "--chance", "0.5")
    run("fault", "seed", "9")
    body = json.loads(run("fault", "list", "--output", "json"))
    assert (body["seed"], [rule["kind"] for rule in body["rules"]]) == (9, ["server-error", "lag"])
    run("fault", "clear")
    assert run("fault", "list") == ""
    assert json.loads(run("fault", "fork", "2", "--output", "json"))["lostTransactions"] == []
    run("fault", "hang-up", "--cut")
    run("fault", "fork", "99", code=1)
    run("fault", "add", "sunny", code=2)


def test_without_a_world_every_command_says_what_to_do(state: Path) -> None:
    for arguments in (("status",), ("job", "11111111111111111111111111111111"), ("clock",)):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1
        assert "nosana-sandbox up" in result.stderr + str(result.exception)


def test_a_killed_world_is_noticed_and_started_anew(state: Path) -> None:
    process = WorldProcess(state)
    first = process.start()
    assert process.start() == first, "what runs stays"
    pid = json.loads((state / "world" / "processes.json").read_text())["world"]["pid"]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert process.running() is None
    second = process.start()
    assert second.market != first.market
    process.remove()
    assert not (state / "world").exists()
    process.remove()


def test_replay_tells_agreement_and_difference(tmp_path: Path) -> None:
    recordings = Path(__file__).parents[2] / "data" / "jobs-program"
    assert run("replay", str(recordings / "quit.json")).strip().endswith("agree")
    steps = json.loads((recordings / "quit.json").read_text())
    steps[0]["result"] = {"ok": not steps[0]["result"]["ok"]}
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(steps))
    out = run("replay", str(changed), code=1)
    assert steps[0]["name"] in out
    assert f"{len(steps) - 1} of {len(steps)} agree" in out
