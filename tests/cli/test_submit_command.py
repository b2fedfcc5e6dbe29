from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fakes.kube import FakeKube
from nosana_operator.api import MAX_JOB_NAME
from nosana_operator.cli import main
from nosana_operator.cli.documents import DocumentError, JobDocument, read_job
from nosana_operator.cli.submit import MANAGER, follow, send
from nosana_operator.errors import Conflict, NotFound, Unavailable

DEFINITION = {
    "version": "0.1",
    "type": "container",
    "ops": [{"type": "container/run", "id": "x", "args": {"image": "ubuntu"}}],
}
Body = dict[str, Any]


class Kube(FakeKube):
    """Answers what it is told, in order; the last answer stays."""

    def __init__(self, *answers: Body | Exception) -> None:
        super().__init__()
        self.answers = list(answers)
        self.sent: list[tuple[str, Any]] = []

    def _answer(self) -> Body:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def get(self, kind: str, namespace: str | None, name: str) -> Body:
        self.sent.append(("get", (kind, namespace, name)))
        return self._answer()

    async def create(self, body: Mapping[str, Any], *, manager: str | None = None) -> Body:
        self.sent.append(("create", body))
        return self._answer()

    async def apply(
        self, body: Mapping[str, Any], *, manager: str, subresource: str | None = None, force: bool = True
    ) -> Body:
        self.sent.append((f"apply as {manager}", body))
        return self._answer()


def document(folder: Path, body: object, **given: str) -> JobDocument:
    file = folder / "my-job.json"
    file.write_text(json.dumps(body))
    return read_job(str(file), **given)


def job(**metadata: Any) -> Body:
    return {
        "apiVersion": "nosana.io/v1alpha1",
        "kind": "NosanaJob",
        "metadata": {"name": "mine"} | metadata,
        "spec": {"definition": DEFINITION},
    }


async def test_each_submission_of_a_definition_is_a_new_job(tmp_path: Path) -> None:
    kube = Kube({})
    for _ in range(2):
        await send(kube, document(tmp_path, DEFINITION), namespace="here", unique=True)
    (verb, first), (_, second) = kube.sent
    assert verb == "create"
    assert first["spec"] == {"definition": DEFINITION}
    assert first["metadata"]["namespace"] == "here"
    assert first["metadata"]["name"].startswith("my-job-")
    assert len(first["metadata"]["name"]) <= MAX_JOB_NAME
    assert first["metadata"]["name"] != second["metadata"]["name"]


async def test_a_given_name_is_kept_and_may_be_taken(tmp_path: Path) -> None:
    given = document(tmp_path, DEFINITION, name="given", namespace="there")
    kube = Kube({"made": True})
    assert await send(kube, given, namespace="here", unique=False) == {"made": True}
    assert kube.sent[0][1]["metadata"] == {"name": "given", "namespace": "there"}
    with pytest.raises(DocumentError, match="there is a NosanaJob given in there already"):
        await send(Kube(Conflict("taken")), given, namespace="here", unique=False)


async def test_a_nosanajob_is_applied_without_what_the_server_wrote(tmp_path: Path) -> None:
    body = job(uid="u", resourceVersion="7", generation=3, labels={"a": "b"}) | {
        "status": {"phase": "Failed"}
    }
    kube = Kube({})
    await send(kube, document(tmp_path, body), namespace="here", unique=True)
    ((verb, sent),) = kube.sent
    assert verb == f"apply as {MANAGER}"
    assert sent == job(namespace="here", labels={"a": "b"})


@pytest.mark.parametrize("body", [DEFINITION, job()])
async def test_a_cluster_without_the_kind_or_the_namespace_is_told_with_the_remedy(
    tmp_path: Path, body: Body
) -> None:
    with pytest.raises(DocumentError, match="no namespace here, or does not serve NosanaJobs") as caught:
        await send(Kube(NotFound("404")), document(tmp_path, body), namespace="here", unique=True)
    assert "nosana-operator crds" in str(caught.value)


async def test_silence_after_a_create_is_looked_into(tmp_path: Path) -> None:
    bare = document(tmp_path, DEFINITION)
    kube = Kube(Unavailable("no answer"), {"made": True})
    assert await send(kube, bare, namespace="here", unique=True) == {"made": True}
    assert kube.sent[1] == ("get", ("NosanaJob", "here", kube.sent[0][1]["metadata"]["name"]))
    with pytest.raises(DocumentError, match="created no NosanaJob"):
        await send(Kube(Unavailable("no answer"), NotFound("none")), bare, namespace="here", unique=True)
    # A name that others may use, too, proves nothing.
    with pytest.raises(Unavailable):
        await send(Kube(Unavailable("no answer")), bare, namespace="here", unique=False)


def seen(phase: str | None = None, uid: str = "u", url: str | None = None, **conditions: str) -> Body:
    listed = [
        {"type": kind, "status": text.partition(" ")[0], "message": text.partition(" ")[2]}
        for kind, text in conditions.items()
    ]
    status = {"conditions": listed, "endpoints": [{"url": url}, {}] if url else []}
    return {"metadata": {"uid": uid}, "status": status | ({"phase": phase} if phase else {})}


MADE = {"metadata": {"name": "mine", "namespace": "here", "uid": "u"}}


@pytest.mark.parametrize(
    ("answers", "lines", "succeeded"),
    [
        (
            [
                {"metadata": {"uid": "u"}},
                seen("Starting", Accepted="True taken", Ready="False starting"),
                seen("Starting", Accepted="True taken", Ready="False starting"),
                seen("Running", Ready="True serving", Complete="False not yet", url="http://a.test"),
                seen("Completed", Ready="True done", Complete="True all ops succeeded"),
            ],
            [
                "Pending",
                "Starting: starting",
                "Running: serving (http://a.test)",
                "Completed: all ops succeeded",
            ],
            True,
        ),
        ([seen("Failed", Failed="True op x failed")], ["Failed: op x failed"], False),
        (
            [Unavailable("no answer"), Unavailable("no answer"), seen("Stopped", Complete="True stopped")],
            ["waiting for the Kubernetes API: no answer", "Stopped: stopped"],
            True,
        ),
        ([NotFound("none")], ["the NosanaJob was deleted"], False),
        (
            [seen("Completed", uid="v", Complete="True x")],
            ["the NosanaJob was deleted, and somebody created another one of that name"],
            False,
        ),
    ],
)
async def test_a_job_is_followed_to_its_end(
    answers: list[Body | Exception], lines: list[str], succeeded: bool
) -> None:
    told: list[str] = []
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    assert await follow(Kube(*answers), MADE, told.append, sleep=sleep) is succeeded
    assert told == lines
    assert len(slept) == len(answers) - 1


def test_a_bad_definition_never_reaches_the_cluster(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps(DEFINITION | {"version": "0"}))
    result = CliRunner().invoke(main, ["submit", str(file)], env={"KUBECONFIG": "/nowhere"})
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{file}: version: ")
    assert "nowhere" not in result.stderr
