"""The files that `render` and `submit` read: a NosanaJob, or a bare job definition."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

import click

from nosana_operator.api import (
    API_VERSION,
    GROUP,
    JOB_KIND,
    MAX_JOB_NAME,
    NosanaJobSpec,
    NosanaJobStatus,
    parse_inline,
    parse_part,
)
from nosana_operator.definition import Definition, DefinitionError, Loaded, load, parse, plan
from nosana_operator.definition.literals import ResultValue
from nosana_operator.errors import NosanaError
from nosana_operator.jobs.decision.captures import captured
from nosana_operator.workload import Fetching, JobContext, gpu_demand, unsupported

STDIN: Final = "-"
NO_UID: Final = "00000000-0000-0000-0000-000000000000"
DEFAULT_NAMESPACE: Final = "default"
UNNAMED_CLUSTER: Final = "cluster"
UNNAMED_FETCH_IMAGE: Final = "nosana-fetch"
UNNAMED_TRUSTED_CLASS: Final = "trusted"
SUFFIX: Final = 6
"""Characters that `submit` appends to the name of a definition file, so that it can be submitted again."""


class DocumentError(NosanaError):
    """A file cannot be used as a NosanaJob or a definition here."""


@dataclass(frozen=True, slots=True)
class JobDocument:
    """A NosanaJob as plain data, with its definition when it is inline."""

    body: dict[str, Any]
    spec: NosanaJobSpec
    definition: Definition | None
    bare: bool
    """Whether the file held a definition only; the NosanaJob around it, with its name, was made for it."""


def read_text(path: str) -> bytes:
    """The bytes of a file, `-` for standard input. Raises DocumentError."""
    try:
        with click.open_file(path, "rb") as file:
            content: bytes = file.read()
    except OSError as error:
        raise DocumentError(f"the file cannot be read: {error.strerror or error}") from None
    return content


def read_job(path: str, *, name: str | None = None, namespace: str | None = None) -> JobDocument:
    """The NosanaJob in the file at `path`, or one made around the definition in it.

    `name` and `namespace` override the file's. Raises DocumentError, DefinitionError or ApiError.
    """
    loaded: Loaded = load(read_text(path), source=path)
    value = loaded.value
    bare = not (isinstance(value, dict) and "apiVersion" in value and "kind" in value)
    if not bare:
        body = _known_kind(value)
    else:
        parse(value)
        body = {
            "apiVersion": API_VERSION,
            "kind": JOB_KIND,
            "metadata": {"name": job_name(path)},
            "spec": {"definition": value},
        }
    metadata = dict(body.get("metadata") or {})
    metadata |= {key: text for key, text in (("name", name), ("namespace", namespace)) if text}
    body = {**body, "metadata": metadata}
    _check_name(metadata)
    spec = parse_part(NosanaJobSpec, JOB_KIND, "spec", body.get("spec"))
    definition = parse_inline(spec.definition) if spec.definition is not None else None
    return JobDocument(body, spec, definition, bare)


def checked_context(job: JobDocument) -> JobContext | None:
    """What the builders need of a job; None when its definition is not inline.

    Checks everything that the operator checks before anything runs: the order of the ops, what this version
    supports, the GPUs. Raises DefinitionError or DocumentError.
    """
    if job.definition is None:
        return None
    metadata = job.body["metadata"]
    ctx = JobContext(
        name=metadata["name"],
        namespace=metadata.get("namespace") or DEFAULT_NAMESPACE,
        uid=metadata.get("uid") or NO_UID,
        spec=job.spec,
        definition=job.definition,
        cluster=UNNAMED_CLUSTER,
        fetching=Fetching(image=UNNAMED_FETCH_IMAGE),
        trusted_runtime_class=UNNAMED_TRUSTED_CLASS,
        results=_captured_results(job.body),
    )
    plan(ctx.definition)
    problems = unsupported(ctx)
    if problems:
        raise DefinitionError(problems)
    demand = gpu_demand(ctx)
    if demand is not None and demand.exceeds:
        raise DocumentError(demand.message)
    return ctx


def _captured_results(body: Mapping[str, Any]) -> Mapping[str, Mapping[str, ResultValue]]:
    """What the status of a NosanaJob holds of its ops' `results`."""
    status = parse_part(NosanaJobStatus, JOB_KIND, "status", body.get("status"))
    ids = {op.index: op.id for op in status.ops}
    return {ids[index]: values for index, values in captured(status.ops, {}).items()}


def job_name(path: str) -> str:
    """A name for the job of a definition file, made from the file's name: a DNS label of at most 46 characters."""
    stem = PurePath(path).stem if path != STDIN else ""
    label = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "job"
    label = label if label[0].isalpha() else f"job-{label}"
    return label[: MAX_JOB_NAME - SUFFIX].rstrip("-")


def _known_kind(value: Mapping[str, Any]) -> dict[str, Any]:
    if value["kind"] == JOB_KIND and value["apiVersion"] == API_VERSION:
        return dict(value)
    if str(value["apiVersion"]).startswith(f"{GROUP}/") and value["kind"] == JOB_KIND:
        raise DocumentError(f"apiVersion {value['apiVersion']} is not served; write {API_VERSION}")
    raise DocumentError(f"the file holds a {value['kind']}; a {JOB_KIND} or a job definition is needed")


def _check_name(metadata: Mapping[str, Any]) -> None:
    name = metadata.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        raise DocumentError(
            "metadata.name has to be a DNS label that starts with a letter; set it, or give --name"
        )
    if len(name) > MAX_JOB_NAME:
        raise DocumentError(f"metadata.name may have at most {MAX_JOB_NAME} characters; give --name")


def problems_of(error: NosanaError) -> list[str]:
    """Every reason of an error, one line each."""
    if isinstance(error, DefinitionError):
        return [str(problem) for problem in error.problems]
    return [str(error)]
