"""`nosana-operator validate` and `schema`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nosana_operator.cli.schemas import schema
from nosana_operator.cli.validate import validate

GOOD = '{"version":"0.1","type":"container","ops":[{"type":"container/run","id":"a","args":{"image":"i"}}]}'
BAD = GOOD.replace('"image":"i"', '"image":"i","output":"/o"')
WARNED = GOOD.replace('"image":"i"', '"image":"i","cmd":["echo hi"]')


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {"good.json": GOOD, "bad.json": BAD, "warned.json": WARNED}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "good.yaml").write_text(
        "version: '0.1'\ntype: container\nops:\n- type: container/run\n  id: a\n  args: {image: i}\n"
    )
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_a_nosanajob_is_no_definition(files: Path) -> None:
    body = {"apiVersion": "nosana.io/v1alpha1", "kind": "NosanaJob", "spec": {"definition": json.loads(GOOD)}}
    (files / "job.json").write_text(json.dumps(body))
    done = CliRunner().invoke(validate, ["job.json"])
    assert done.exit_code == 1
    assert done.output == (
        "job.json:$: this is a Kubernetes object, not a job definition (check a NosanaJob with nosana-operator render)\n"
    )


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "code", "starts"),
    [
        (["good.json", "good.yaml"], 0, ["good.json: valid", "good.yaml: valid"]),
        (["warned.json"], 0, ["warned.json:ops[0].args.cmd: warning: ", "warned.json: valid"]),
        (
            ["bad.json", "good.json"],
            1,
            ['bad.json:ops[0].args.output: unknown key "output"', "good.json: valid"],
        ),
        (["nope.json"], 1, ["nope.json:$: the file cannot be read: No such file"]),
        (["folder"], 1, ["folder:$: the file cannot be read: "]),
        (["/dev/zero"], 1, ["/dev/zero:$: the document is larger than 1048576 bytes"]),
    ],
)
def test_text(arguments: list[str], code: int, starts: list[str]) -> None:
    result = CliRunner().invoke(validate, arguments)
    lines = result.output.splitlines()

    assert result.exit_code == code, result.output
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True)), lines


@pytest.mark.usefixtures("files")
def test_json() -> None:
    result = CliRunner().invoke(validate, ["--output", "json", "bad.json", "warned.json", "nope.json"])
    bad, warned, nope = json.loads(result.output)

    assert result.exit_code == 1
    assert (bad["file"], bad["valid"], len(bad["errors"]), bad["warnings"]) == ("bad.json", False, 1, [])
    assert set(bad["errors"][0]) == {"path", "message", "hint"}
    assert bad["errors"][0]["path"] == "ops[0].args.output"
    assert (warned["valid"], warned["errors"], len(warned["warnings"])) == (True, [], 1)
    assert (nope["valid"], nope["errors"][0]["path"]) == (False, "$")


@pytest.mark.parametrize(("text", "code"), [(GOOD, 0), (BAD, 1), ("nonsense", 1), ("", 1)])
def test_standard_input(text: str, code: int) -> None:
    result = CliRunner().invoke(validate, ["-"], input=text)

    assert result.exit_code == code
    assert result.output.startswith("-:")


def test_a_file_has_to_be_named() -> None:
    assert CliRunner().invoke(validate, []).exit_code == 2


def test_schema() -> None:
    result = CliRunner().invoke(schema, [])

    assert result.exit_code == 0
    assert json.loads(result.output)["title"] == "Nosana job definition"
