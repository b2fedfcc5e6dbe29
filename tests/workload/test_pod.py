from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_operator.api import (
    ANNOTATION_OP_ID,
    FINALIZER_OP,
    LABEL_CHAIN_JOB,
    LABEL_JOB,
    LABEL_JOB_UID,
    LABEL_MARKET,
    LABEL_OP,
    LABEL_RUN,
    Gpu,
    Resources,
    Toleration,
)
from nosana_operator.api.quantity import parse_quantity
from nosana_operator.workload import ArgsError, JobContext, build_pod, pod_name, run_args
from nosana_operator.workload.container import escape_expansion
from nosana_operator.workload.image import full_reference
from support.workload import RUN, context, op, run_op


def pod(ctx: JobContext, index: int = 0, attempt: int = 0) -> dict[str, Any]:
    return build_pod(ctx, index, run_args(ctx, index), attempt=attempt)


def container(ctx: JobContext, index: int = 0) -> dict[str, Any]:
    (only,) = pod(ctx, index)["spec"]["containers"]
    body: dict[str, Any] = only
    return body


def env(ctx: JobContext, index: int = 0) -> dict[str, str]:
    listed = container(ctx, index)["env"]
    assert len({item["name"] for item in listed}) == len(listed)
    return {item["name"]: item["value"] for item in listed}


# --- what a kubelet does to text -----------------------------------------------------------------------------


def expand(text: str, known: dict[str, str]) -> str:
    """Kubernetes' own expansion, as its documentation of `command`, `args` and `env` describes it."""
    out, at = "", 0
    while at < len(text):
        if text[at] != "$" or at + 1 == len(text):
            out += text[at]
            at += 1
        elif text[at + 1] == "$":
            out += "$"
            at += 2
        elif text[at + 1] == "(" and ")" in text[at + 2 :]:
            end = text.index(")", at + 2)
            name = text[at + 2 : end]
            out += known.get(name, f"$({name})")
            at = end + 1
        else:
            out += text[at : at + 2]
            at += 2
    return out


@given(st.text(alphabet="$()AB {", max_size=12))
def test_text_reaches_the_container_as_it_was_written(text: str) -> None:
    assert expand(escape_expansion(text), {"A": "1", "B": "2", "": "3", "AB": "4"}) == text


@given(st.text(max_size=30))
def test_text_without_dollars_is_left_alone(text: str) -> None:
    plain = text.replace("$", "")
    assert escape_expansion(plain) == plain


# --- names, labels, owner --------------------------------------------------------------------------------


@pytest.mark.parametrize(("attempt", "name"), [(0, "job-3"), (1, "job-3-r1"), (12, "job-3-r12")])
def test_a_pod_is_named_after_op_and_attempt(attempt: int, name: str) -> None:
    ctx = context(*(op(f"op{n}") for n in range(4)))
    assert pod_name(ctx, 3, attempt) == name
    assert pod(ctx, 3, attempt)["metadata"]["name"] == name


def test_the_longest_name_fits_a_label() -> None:
    ctx = context(*(op(f"op{n}") for n in range(64)), name="j" * 52)
    assert len(pod_name(ctx, 63, 99_999)) <= 63


def test_a_private_job_has_no_labels_of_the_chain() -> None:
    metadata = pod(context(op("An-op/Id.1")))["metadata"]
    assert metadata["labels"][LABEL_JOB] == "job"
    assert metadata["labels"][LABEL_OP] == "0"
    assert not {LABEL_RUN, LABEL_MARKET, LABEL_CHAIN_JOB} & set(metadata["labels"])
    assert metadata["annotations"] == {
        ANNOTATION_OP_ID: "An-op/Id.1",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    assert metadata["finalizers"] == [FINALIZER_OP]


def test_a_market_job_carries_its_addresses() -> None:
    labels = pod(context(op(), run=RUN))["metadata"]["labels"]
    assert (labels[LABEL_RUN], labels[LABEL_MARKET], labels[LABEL_CHAIN_JOB]) == (
        RUN.run,
        RUN.market,
        RUN.job,
    )


def test_the_job_owns_its_pod() -> None:
    ctx = context(op())
    metadata = pod(ctx)["metadata"]
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("NosanaJob", ctx.name, ctx.uid)
    assert owner["controller"] is True
    assert metadata["labels"][LABEL_JOB_UID] == ctx.uid


# --- environment -----------------------------------------------------------------------------------------


def test_the_order_of_the_environment() -> None:
    ctx = context(
        op(env={"A": "op", "NOSANA_ID": "forged"}), defaults={"env": {"A": "global", "B": "global"}}, run=RUN
    )
    assert env(ctx) == {"A": "op", "B": "global", "NOSANA_ID": RUN.job, "NVIDIA_VISIBLE_DEVICES": "void"}


@pytest.mark.parametrize(
    ("gpu", "resource", "seen"),
    [
        (False, "nvidia.com/gpu", "void"),
        (True, "nvidia.com/gpu", None),
        (True, "nvidia.com/mig-1g.5gb", None),
        (True, "amd.com/gpu", "void"),
    ],
)
def test_no_definition_says_which_gpus_it_sees(gpu: bool, resource: str, seen: str | None) -> None:
    asked = {"NVIDIA_VISIBLE_DEVICES": "all"}
    ctx = context(op(gpu=gpu, env=asked), defaults={"env": asked}, gpu=Gpu(resource_name=resource))
    assert env(ctx).get("NVIDIA_VISIBLE_DEVICES") == seen


# --- resources and placement -------------------------------------------------------------------------------


def test_a_stage_never_asks_for_more_than_the_slot() -> None:
    ctx = context(
        op("a", group="s"),
        op("b", group="s"),
        op("c", group="s"),
        op("d"),
        resources=Resources(cpu="1", memory="1Gi", ephemeral_storage="10G"),
    )
    for name, whole in (("cpu", "1"), ("memory", "1Gi"), ("ephemeral-storage", "10G")):
        together = [container(ctx, index)["resources"] for index in range(3)]
        assert {part["limits"][name] for part in together} == {whole}
        asked = [parse_quantity(part["requests"][name]) for part in together]
        assert sum(asked) <= parse_quantity(whole)
        assert min(asked) > parse_quantity(whole) * 32 / 100
        assert container(ctx, 3)["resources"]["requests"][name] == whole


@pytest.mark.parametrize(
    ("memory", "size"), [(None, "4Gi"), ("64Gi", "4Gi"), ("4Gi", "4Gi"), ("1000Mi", "1000Mi"), ("0", "4Gi")]
)
def test_shared_memory_never_exceeds_the_memory(memory: str | None, size: str) -> None:
    (volume,) = pod(context(op(), resources=Resources(memory=memory)))["spec"]["volumes"]
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": size}


@pytest.mark.parametrize(
    ("own", "everywhere", "gets"),
    [(True, False, True), (False, True, True), (None, True, True), (False, False, False)],
)
def test_an_op_cannot_refuse_the_global_gpu(own: bool | None, everywhere: bool, gets: bool) -> None:
    args: dict[str, Any] = {} if own is None else {"gpu": own}
    ctx = context(op(**args), defaults={"gpu": everywhere}, gpu=Gpu(count=3))
    limits = container(ctx).get("resources", {}).get("limits", {})
    assert limits == ({"nvidia.com/gpu": "3"} if gets else {})


def keys(tolerations: list[dict[str, str]]) -> list[str]:
    return [t["key"] for t in tolerations][2:]


@pytest.mark.parametrize(
    ("gpu", "wanted", "tolerated"),
    [
        (True, Gpu(), ["nvidia.com/gpu"]),
        (False, Gpu(), []),
        # Bound to the GPU nodes by the admin, it has to get past their taint.
        (False, Gpu(node_selector={"pool": "gpu"}), ["nvidia.com/gpu"]),
        (True, Gpu(resource_name="amd.com/gpu"), ["amd.com/gpu"]),
        (True, Gpu(resource_name="nvidia.com/gpu.shared"), ["nvidia.com/gpu"]),
        (False, Gpu(tolerations=(Toleration(key="team", operator="Exists"),)), ["team"]),
    ],
)
def test_tolerations(gpu: bool, wanted: Gpu, tolerated: list[str]) -> None:
    spec = pod(context(op(gpu=gpu), gpu=wanted))["spec"]
    assert keys(spec["tolerations"]) == tolerated
    # An op on a node that went silent is unknown, not failed.
    for toleration in spec["tolerations"][:2]:
        assert toleration["effect"] == "NoExecute"
        assert "tolerationSeconds" not in toleration


def test_only_gpu_ops_are_bound_to_kinds_of_gpus() -> None:
    wanted = Gpu(product="X", min_memory_mi_b=100, node_selector={"pool": "p"})
    ctx = context(op("a", gpu=True), op("b"), gpu=wanted)
    gpu, plain = pod(ctx, 0)["spec"], pod(ctx, 1)["spec"]
    anywhere = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "pool": "p"}
    assert gpu["nodeSelector"] == {**anywhere, "nvidia.com/gpu.product": "X"}
    terms = gpu["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    # Kubernetes knows "greater than" only.
    assert terms == [
        {"matchExpressions": [{"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["99"]}]}
    ]
    assert plain["nodeSelector"] == anywhere
    assert "affinity" not in plain


def test_the_walls_of_every_pod() -> None:
    spec = pod(context(op(gpu=True)))["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["containers"][0]["securityContext"] == {"allowPrivilegeEscalation": False}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert not any("hostPath" in volume for volume in spec["volumes"])


# --- what no container can be made of ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        "ubuntu",
        "ubuntu:24.04",
        "registry.hub.docker.com/nosana/stats:v1.2.1",
        "localhost:5000/a/b__c.d-e/f",
        "ghcr.io/open-webui/open-webui:main",
        "[2001:db8::1]:5000/a",
        "a@sha256:" + "0" * 64,
        "a:tag@sha256:" + "f" * 64,
    ],
)
def test_image_references_are_taken(image: str) -> None:
    assert container(context(op(image=image)))["image"] == full_reference(image)


@pytest.mark.parametrize(
    ("args", "path"),
    [
        ({"image": ""}, "ops[0].args.image"),
        ({"image": "Ubuntu"}, "ops[0].args.image"),
        ({"image": "https://ghcr.io/a/b"}, "ops[0].args.image"),
        ({"image": "a b"}, "ops[0].args.image"),
        ({"image": "a:"}, "ops[0].args.image"),
        ({"image": "a@sha256:12"}, "ops[0].args.image"),
        ({"image": "a" * 600}, "ops[0].args.image"),
        ({"image": "a\n"}, "ops[0].args.image"),
        ({"work_dir": "here"}, "ops[0].args.work_dir"),
        ({"work_dir": "/a\0b"}, "ops[0].args.work_dir"),
        ({"env": {"": "x"}}, "ops[0].args.env"),
        ({"env": {"A=B": "x"}}, "ops[0].args.env"),
        ({"env": {"Ä": "x"}}, "ops[0].args.env"),
        ({"env": {"A": "x\0"}}, "ops[0].args.env.A"),
        ({"cmd": ["a", "\0"]}, "ops[0].args.cmd"),
        ({"cmd": "a\0"}, "ops[0].args.cmd"),
        ({"entrypoint": "\0"}, "ops[0].args.entrypoint"),
    ],
)
def test_what_cannot_be_a_container_is_told_with_its_place(args: dict[str, Any], path: str) -> None:
    ctx = context(run_op("x", {"image": "a"} | args))
    with pytest.raises(ArgsError, match='op "x" cannot start') as caught:
        pod(ctx)
    assert [problem.path for problem in caught.value.problems] == [path]


@pytest.mark.parametrize(
    ("defaults", "path"),
    [
        ({"work_dir": "here"}, "global.work_dir"),
        ({"env": {"A=": "x"}}, "global.env"),
        ({"entrypoint": ["\0"]}, "global.entrypoint"),
    ],
)
def test_bad_defaults_are_found_where_they_stand(defaults: dict[str, Any], path: str) -> None:
    with pytest.raises(ArgsError) as caught:
        pod(context(op(), defaults=defaults))
    assert [problem.path for problem in caught.value.problems] == [path]
