from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from nosana_operator.api import MAX_JOB_NAME
from nosana_operator.cli import main
from nosana_operator.cli.documents import SUFFIX, job_name

DEFINITION: dict[str, Any] = {
    "version": "0.1",
    "type": "container",
    "ops": [{"type": "container/run", "id": "x", "args": {"image": "ubuntu", "expose": 80}}],
}


def with_args(**args: Any) -> dict[str, Any]:
    op = DEFINITION["ops"][0]
    return DEFINITION | {"ops": [op | {"args": op["args"] | args}]}


def job(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "nosana.io/v1alpha1",
        "kind": "NosanaJob",
        "metadata": {"name": "mine"},
        "spec": {"definition": DEFINITION} | spec,
    }


def run(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["render", *args], input=stdin)


def rendered(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(result.stdout))


def written(folder: Path, body: object, name: str = "job.json") -> str:
    file = folder / name
    file.write_text(json.dumps(body) if name.endswith(".json") else yaml.safe_dump(body))
    return str(file)


@pytest.mark.parametrize("name", ["My Job (2).json", "My Job (2).yaml"])
def test_a_bare_definition_is_named_after_its_file(tmp_path: Path, name: str) -> None:
    service, pod = rendered(run(written(tmp_path, DEFINITION, name)))
    assert pod["metadata"]["name"] == "my-job-2-0"
    assert service["metadata"]["namespace"] == pod["metadata"]["namespace"] == "default"


def test_name_and_namespace_may_be_given(tmp_path: Path) -> None:
    bodies = rendered(run(written(tmp_path, DEFINITION), "--name", "given", "--namespace", "there"))
    assert bodies[-1]["metadata"]["name"] == "given-0"
    assert {body["metadata"]["namespace"] for body in bodies} == {"there"}


def test_a_nosanajob_is_rendered_as_it_is(tmp_path: Path) -> None:
    body = job(exposure={"domain": "x.test"})
    body["metadata"] |= {"uid": "3c9a3a52-7a4e-4c1c-9d53-0d0c1f7b6a11", "namespace": "jobs"}
    bodies = rendered(run(written(tmp_path, body, "job.yaml")))
    assert [b["kind"] for b in bodies] == ["Service", "Ingress", "Pod"]
    assert bodies[-1]["metadata"]["ownerReferences"][0]["uid"] == body["metadata"]["uid"]


def test_standard_input() -> None:
    bodies = rendered(run("-", stdin=json.dumps(DEFINITION)))
    assert bodies[-1]["metadata"]["name"] == "job-0"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([], "a definition must be an object"),
        ({"version": "0.1"}, "type"),
        (with_args(image=7), "ops[0].args.image"),
        (with_args(volumes=[{"name": "v", "dest": "/v"}]), "ops[0].args.volumes[0].name"),
        (with_args(cmd=["%%global.variables.A%%"]), "args.cmd[0]"),
        (DEFINITION | {"ops": [DEFINITION["ops"][0] | {"execution": {"depends_on": ["y"]}}]}, 'no op "y"'),
        (
            DEFINITION
            | {
                "global": {"gpu": True},
                "ops": [DEFINITION["ops"][0] | {"id": n, "execution": {"group": "s"}} for n in "ab"],
            },
            'stage "s" needs 2 GPUs',
        ),
        (job(timeout=0), "spec.timeout"),
        (job(gpus=1), "spec.gpus"),
        (job() | {"metadata": {}}, "--name"),
        (job() | {"metadata": {"name": "Mine"}}, "--name"),
        (job() | {"metadata": {"name": "m" * 53}}, "at most 52"),
        (job() | {"apiVersion": "nosana.io/v9"}, "write nosana.io/v1alpha1"),
        (job() | {"kind": "NosanaMarket"}, "holds a NosanaMarket"),
        (
            {**job(), "spec": {"definitionFrom": {"ipfs": "QmTcNQ4dGq8veeg8v5cQyGoaJEPSYQnVTd1TvfckVFVzRu"}}},
            "render the definition's own file",
        ),
    ],
)
def test_what_cannot_be_rendered_is_told(tmp_path: Path, body: object, told: str) -> None:
    file = written(tmp_path, body)
    result = run(file)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert told in result.stderr
    assert all(line.startswith(f"{file}: ") for line in result.stderr.splitlines())


def test_a_file_that_is_not_there() -> None:
    result = run("/nowhere/at/all.json")
    assert result.exit_code == 1
    assert result.stderr == "/nowhere/at/all.json: the file cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/hello-world.json", "hello-world"),
        ("ComfyUI--flux.json", "comfyui-flux"),
        ("1st.yaml", "job-1st"),
        ("-", "job"),
        ("äöü.json", "job"),
        ("x" * 80 + ".json", "x" * (MAX_JOB_NAME - SUFFIX)),
        ("x" * 45 + "-yz.json", "x" * 45),
    ],
)
def test_names_of_files_as_names_of_jobs(path: str, name: str) -> None:
    assert job_name(path) == name


def test_an_op_that_takes_results_is_shown_once_the_status_has_them() -> None:
    asking = DEFINITION["ops"][0] | {"id": "b", "args": {"image": "i", "cmd": ["%%ops.x.results.k%%"]}}
    first = DEFINITION["ops"][0] | {"id": "x", "results": {"k": "v"}}
    body = job(definition=DEFINITION | {"ops": [first, asking]})
    answer = run("-", stdin=json.dumps(body))
    assert [each["metadata"]["name"] for each in rendered(answer) if each["kind"] == "Pod"] == ["mine-0"]
    assert answer.output.endswith('# ops[1] "b" waits for "%%ops.x.results.k%%"\n')
    shown = {"id": "x", "index": 0, "stage": "x", "state": "Succeeded", "results": {"k": '["v"]'}}
    answer = run("-", stdin=json.dumps(body | {"status": {"ops": [shown]}}))
    assert rendered(answer)[-1]["spec"]["containers"][0]["args"] == ["v"]


def test_a_definition_that_is_too_large_for_a_job_says_where_it_may_stand() -> None:
    def two_ops(words: int) -> str:
        """Each op is within the limit of its own arguments."""
        one, two = (with_args(cmd=["x" * 1000] * words)["ops"][0] | {"id": name} for name in "ab")
        return json.dumps(DEFINITION | {"ops": [one, two]})

    answer = run("-", stdin=two_ops(132))
    assert answer.exit_code == 1
    assert "a NosanaJob holds at most 262144 bytes of definition" in answer.stderr
    assert "spec.definitionFrom" in answer.stderr
    assert run("-", stdin=two_ops(129)).exit_code == 0
