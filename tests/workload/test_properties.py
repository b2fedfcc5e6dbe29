"""Whatever valid definition comes: it is refused with reasons, or it becomes objects that Kubernetes takes."""

from __future__ import annotations

import copy
import json
import os
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nosana_operator.api import Exposure, Gpu, NosanaJobSpec, Resources, Run
from nosana_operator.definition import DefinitionError, parse, validate
from nosana_operator.workload import Fetching, JobContext, build_objects, gpu_demand, unsupported
from support.workload import RUN, UID

text = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["$$", "$(A)", "%%global.job%%", "%%", "{}"]
)
words = st.lists(text, max_size=3)
names = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=8)
images = st.sampled_from(["ubuntu", "a/b:1", "ghcr.io/x/y@sha256:" + "0" * 64, "Upper", ""])
ports = st.integers(-1, 70_000) | st.sampled_from([80, 1.5])
port_objects = st.fixed_dictionaries(
    {"port": ports}, optional={"type": st.sampled_from(["web", "api", "none"])}
)
maybe_served = st.fixed_dictionaries(
    {},
    optional={
        "cmd": text | words,
        "entrypoint": text | words,
        "env": st.dictionaries(names | text, text, max_size=3),
        "work_dir": st.sampled_from(["/", "/srv/x", "x", ""]),
        "gpu": st.booleans(),
        "expose": ports | port_objects | st.lists(ports | port_objects, max_size=3),
        "private": st.booleans(),
        "aliases": text | words,
        "restart_policy": st.sampled_from(["no", "always"]),
    },
)
run_ops = st.builds(
    lambda args, image, id, group: {
        "type": "container/run",
        "id": id,
        "args": args | {"image": image},
        **({"execution": {"group": group}} if group else {}),
    },
    maybe_served,
    images,
    text.filter(lambda value: " " not in value),
    st.sampled_from(["", "s", "t"]),
)
volume_ops = st.builds(lambda id: {"type": "container/create-volume", "id": id, "args": {"name": "v"}}, names)
definitions = st.builds(
    lambda ops, defaults: {"version": "0.1", "type": "container", "ops": ops, "global": defaults},
    st.lists(run_ops | run_ops | volume_ops, max_size=4, unique_by=lambda op: op["id"]),
    st.fixed_dictionaries(
        {},
        optional={
            "gpu": st.booleans(),
            "env": st.dictionaries(names, text, max_size=2),
            "entrypoint": words,
            "work_dir": st.just("/w"),
        },
    ),
)


def context(
    definition: dict[str, Any], *, run: Run | None = None, domain: str | None = "x.test"
) -> JobContext:
    spec = NosanaJobSpec(
        definition=definition,
        gpu=Gpu(count=2),
        resources=Resources(cpu="3", memory="5Gi"),
        exposure=Exposure(domain=domain),
        run=run,
    )
    return JobContext(
        "job", "jobs", UID, spec, parse(definition), "here", fetching=Fetching(image="fetcher:1")
    )


def refused_or_built(ctx: JobContext) -> list[dict[str, Any]] | None:
    demand = gpu_demand(ctx)
    if unsupported(ctx) or (demand is not None and demand.exceeds):
        return None
    # What ops would show while the job runs; what its literals make of that is not known before.
    shown = {op.id: {name: ["seen"] for name in op.results or ()} for op in ctx.definition.ops}
    try:
        return build_objects(replace(ctx, results=shown))  # type: ignore[arg-type]
    except DefinitionError:
        if any(shown.values()):
            return None
        raise


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(definitions, st.sampled_from([None, RUN]), st.sampled_from([None, "x.test"]))
def test_building_never_raises_once_a_definition_was_accepted(
    definition: dict[str, Any], run: Run | None, domain: str | None
) -> None:
    assume(validate(definition).valid)
    ctx = context(definition, run=run, domain=domain)
    built = refused_or_built(ctx)
    if built is None:
        return
    names = [(body["kind"], body["metadata"]["name"]) for body in built]
    assert len(set(names)) == len(names)
    pods = [body for body in built if body["kind"] == "Pod"]
    assert len(pods) == sum(item["type"] == "container/run" for item in definition["ops"])
    # It can be sent at all.
    assert json.loads(json.dumps(built)) == built


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(definitions)
def test_what_is_built_is_valid_kubernetes(definition: dict[str, Any]) -> None:
    assume(validate(definition).valid)
    for body in refused_or_built(context(definition)) or ():
        kubernetes_validate.validate(body, "1.35", strict=True)


def corpus() -> list[Path]:
    folder = Path(os.environ.get("NOSANA_CORPUS") or Path(__file__).parents[2] / ".." / "shared" / "corpus")
    found = sorted([*folder.glob("templates/*.json"), *folder.glob("examples/*.json")])
    if not found and os.environ.get("CI") == "true":
        raise AssertionError(f"no corpus in {folder}")
    return found


@pytest.mark.corpus
@pytest.mark.skipif(
    not corpus(), reason="no corpus: set NOSANA_CORPUS to a folder with templates/ and examples/"
)
@pytest.mark.parametrize(
    "version",
    ["1.31", "1.35", "1.37", *(pytest.param(f"1.{n}", marks=pytest.mark.soak) for n in (32, 33, 34, 36))],
)
def test_the_corpus_is_refused_or_built(version: str) -> None:
    built = 0
    for path in corpus():
        report = validate(json.loads(path.read_text()))
        if report.definition is None:
            continue
        try:
            bodies = refused_or_built(
                context(report.definition.model_dump(by_alias=True, exclude_unset=True))
            )
        except DefinitionError as error:
            raise AssertionError(f"{path.name}: {error}") from error
        built += bodies is not None
        for body in bodies or ():
            kubernetes_validate.validate(body, version, strict=True)
    assert built >= 20


@pytest.mark.corpus
@pytest.mark.skipif(
    not corpus(), reason="no corpus: set NOSANA_CORPUS to a folder with templates/ and examples/"
)
def test_the_corpus_without_what_is_not_served_is_built() -> None:
    built = total = 0
    for path in corpus():
        report = validate(json.loads(path.read_text()))
        if report.definition is None:
            continue
        definition = copy.deepcopy(report.definition.model_dump(by_alias=True, exclude_unset=True))
        definition.pop("logistics", None)
        total += 1
        built += refused_or_built(context(definition)) is not None
    assert built / total > 0.85
