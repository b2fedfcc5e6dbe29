"""What the builders make of a definition, run by a real kubelet: the author's text arrives as it was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nosana_operator.api import LABEL_JOB_UID, Gpu, Resources
from nosana_operator.workload import JobContext, build_objects
from nosana_sandbox.cluster.kubectl import Kubectl
from support.workload import UID, context, op

pytestmark = pytest.mark.cluster

Start = Callable[[JobContext], list[dict[str, Any]]]


@pytest.fixture
def start(kubectl: Kubectl) -> Iterator[Start]:
    """Makes a job's objects; without an operator there is nobody to own or release them."""
    kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "jobs"}}])
    # A pod is refused until the namespace has it.
    kubectl.run("wait", "--for=create", "serviceaccount/default", "--namespace=jobs", "--timeout=30s")

    def make(ctx: JobContext) -> list[dict[str, Any]]:
        bodies = build_objects(ctx)
        for body in bodies:
            del body["metadata"]["ownerReferences"]
            body["metadata"].pop("finalizers", None)
        kubectl.apply(bodies)
        return bodies

    yield make
    selector = f"--selector={LABEL_JOB_UID}={UID}"
    kubectl.run("delete", "pods,services", selector, "--namespace=jobs", "--wait=true", "--grace-period=1")


def succeeded(kubectl: Kubectl, name: str) -> str:
    """The log of a pod that has to end well."""
    kubectl.run(
        "wait", f"pod/{name}", "--namespace=jobs", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s"
    )
    return kubectl.run("logs", name, "--namespace=jobs")


def test_a_shell_line_is_what_its_author_wrote(kubectl: Kubectl, start: Start) -> None:
    line = (
        "echo \"$(echo inner) $((1 + 2)) ${A} $B\" '$(A)'; [ $$ -gt 0 ] && echo pid; "
        'echo "$NOSANA_ID $NVIDIA_VISIBLE_DEVICES"; pwd; df -k /dev/shm | tail -1; env | grep -c _SERVICE_PORT'
    )
    env = {"A": "$(B) $$", "B": "$$(A)", "NVIDIA_VISIBLE_DEVICES": "all"}
    start(
        context(
            op(cmd=f"{line} || true", env=env, work_dir="/tmp/not/there/yet"),
            resources=Resources(memory="64Mi"),
        )
    )
    said = succeeded(kubectl, "job-0").splitlines()
    assert said[:3] == ["inner 3 $(B) $$ $$(A) $(A)", "pid", f"{UID} void"]
    assert said[3] == "/tmp/not/there/yet"
    assert said[4].split()[1] == str(64 * 1024)
    # The API server's own Service is announced in any pod; others are not.
    assert int(said[5]) <= 2


def test_words_are_passed_on_one_by_one(kubectl: Kubectl, start: Start) -> None:
    words = ["$(A)", "$$", "a b", '{"a": [1]}', ""]
    start(context(op(entrypoint=["printf", "<%s>"], cmd=words, env={"A": "1"})))
    assert succeeded(kubectl, "job-0") == "".join(f"<{word}>" for word in words)


def test_an_op_finds_another_by_its_host_name(kubectl: Kubectl, start: Start) -> None:
    # The stand-in's programs look names up only where they are asked to do nothing else.
    find = "nslookup -type=a %%ops.web.host%% | grep -A1 ^Name: | tail -1 | cut -d' ' -f2"
    ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 $({find}) 80 | grep '200 OK'"
    look = f"until {ask}; do sleep 0.2; done"
    start(
        context(
            op("web", image="nginx", group="all", expose=80),
            op("client", image="busybox", cmd=look, group="all"),
        )
    )
    assert "200 OK" in succeeded(kubectl, "job-1")


def test_gpu_ops_go_where_the_gpus_are(kubectl: Kubectl, start: Start) -> None:
    wanted = Gpu(count=2, product="NVIDIA-GeForce-RTX-4090", min_memory_mi_b=24_000)
    start(
        context(op("a", cmd="env", gpu=True), op("b", cmd="env"), gpu=wanted, resources=Resources(cpu="200m"))
    )
    assert "NVIDIA_VISIBLE_DEVICES=void" not in succeeded(kubectl, "job-0")
    assert "NVIDIA_VISIBLE_DEVICES=void" in succeeded(kubectl, "job-1")
