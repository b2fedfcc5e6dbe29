"""The chart on a real API server: Helm installs, upgrades and uninstalls it, kubectl applies it, its policies hold.

Nothing acts on the objects here; what the operator does in the cluster is in tests/cluster.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nosana_operator.api import API_VERSION, JOB_KIND, MARKET_KIND
from nosana_operator.runtime.settings import parse_settings
from nosana_sandbox.cluster.apiserver import BareApiServer
from nosana_sandbox.cluster.build import ensure_helm
from nosana_sandbox.cluster.errors import KubectlError
from nosana_sandbox.cluster.kubectl import Kubectl
from nosana_tools.chart import CHART, MANIFESTS

pytestmark = pytest.mark.contract

OPERATOR = "system:serviceaccount:nosana-system:nosana-operator"
DEFINITION = {"version": "0.1", "type": "container", "ops": []}
MARKET = {
    "name": "lab",
    "spec": {
        "address": "97G9NnvBDQ2WpKu6fasoMsAKmfj63C9rhysJnkeWodAf",
        "network": "mainnet",
        "jobNamespace": "nosana-jobs",
        "wallets": [{"secretRef": {"name": "host-key"}}],
    },
}
RUN = {
    "marketRef": {"namespace": "nosana-system", "name": "lab"},
    **dict.fromkeys(
        ("market", "job", "run", "node", "project", "payer", "runPayer"),
        "97G9NnvBDQ2WpKu6fasoMsAKmfj63C9rhysJnkeWodAf",
    ),
    "price": 115,
    "startedAt": "2026-01-02T03:04:05Z",
}


@pytest.fixture(scope="module")
def server(kubernetes_programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareApiServer]:
    """One of its own: the chart's policies would refuse what other tests do."""
    with BareApiServer(tmp_path_factory.mktemp("chart-server"), kubernetes_programs) as running:
        yield running


@pytest.fixture(scope="module")
def kubectl(server: BareApiServer, kubernetes_programs: Path) -> Kubectl:
    return Kubectl(kubernetes_programs / "kubectl", server.kubeconfig)


class Helm:
    def __init__(self, kubeconfig: Path) -> None:
        self._fixed = ["--kubeconfig", str(kubeconfig), "--namespace", "nosana-system"]
        self._program = str(ensure_helm(print))

    def __call__(self, *arguments: str, values: dict[str, Any] | None = None) -> str:
        given = ["--values", "-"] if values is not None else []
        done = subprocess.run(
            [self._program, *arguments, *self._fixed, *given],
            input=json.dumps(values),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def helm(server: BareApiServer) -> Helm:
    return Helm(server.kubeconfig)


@pytest.fixture(scope="module")
def applied(kubectl: Kubectl) -> Kubectl:
    """The plain manifests, as somebody without Helm installs them."""
    kubectl.run(
        "apply", "--server-side", "-f", str(MANIFESTS / "crds.yaml"), "-f", str(MANIFESTS / "operator.yaml")
    )
    kubectl.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return kubectl


@pytest.fixture(scope="module")
def installed(applied: Kubectl, helm: Helm) -> str:
    """A release over what was applied by hand; what it said."""
    return helm("install", "nosana-operator", str(CHART), "--take-ownership", values={"markets": [MARKET]})


def job(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace}
    return {
        "apiVersion": API_VERSION,
        "kind": JOB_KIND,
        "metadata": meta,
        "spec": {"definition": DEFINITION} | spec,
    }


def pod(name: str, **annotations: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "nosana-jobs", "annotations": annotations},
        "spec": {"containers": [{"name": "x", "image": "ubuntu"}]},
    }


def create(kubectl: Kubectl, body: dict[str, Any], *options: str) -> None:
    kubectl.run("create", "-f", "-", "--dry-run=server", *options, stdin=json.dumps(body))


def until_refused(kubectl: Kubectl, body: dict[str, Any], told: str) -> None:
    """A policy counts some moments after it was made."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            create(kubectl, body)
        except KubectlError as error:
            if told not in str(error):
                raise
            return
    pytest.fail(f"it is not refused: {told}")


def test_plain_manifests_are_applied_and_then_stay_as_they_are(applied: Kubectl) -> None:
    files = ("-f", str(MANIFESTS / "crds.yaml"), "-f", str(MANIFESTS / "operator.yaml"))
    before = applied.get(*files)
    applied.run("apply", "--server-side", *files)
    versions = [
        [item["metadata"]["resourceVersion"] for item in got["items"]]
        for got in (before, applied.get(*files))
    ]
    assert versions[0] == versions[1]
    for sample in sorted((MANIFESTS / "samples").glob("*.yaml")):
        applied.run("apply", "--server-side", "--dry-run=server", "-f", str(sample))


def test_only_the_operator_says_that_a_job_is_a_markets(installed: str, kubectl: Kubectl) -> None:
    until_refused(kubectl, job("run-x", run=RUN), "only the operator sets spec.run")
    create(kubectl, job("run-x", run=RUN), f"--as={OPERATOR}")
    create(kubectl, job("private"))


def test_others_change_a_markets_job_but_not_whose_it_is(installed: str, kubectl: Kubectl) -> None:
    body = json.dumps(job("run-y", "nosana-jobs", run=RUN))
    kubectl.run("create", "-f", "-", f"--as={OPERATOR}", stdin=body)
    change = ("patch", "nosanajob", "run-y", "--namespace=nosana-jobs", "--type=merge", "--patch")
    kubectl.run(*change, '{"spec": {"stop": true}}')
    kubectl.run(*change, '{"metadata": {"labels": {"a": "b"}}}')
    with pytest.raises(KubectlError, match=r"only the operator sets spec\.run|run is immutable"):
        kubectl.run(*change, '{"spec": {"run": {"price": 1}}}')


def test_only_the_operator_makes_pods_where_markets_jobs_run(installed: str, kubectl: Kubectl) -> None:
    told = "only the operator makes pods"
    until_refused(kubectl, pod("x"), told)
    create(kubectl, pod("x"), f"--as={OPERATOR}")
    # Whoever may make a Deployment there could make pods by its controller.
    controller = "system:serviceaccount:kube-system:replicaset-controller"
    with pytest.raises(KubectlError, match=told):
        create(kubectl, pod("x"), f"--as={controller}", "--as-group=system:masters")
    mirror = pod("x", **{"kubernetes.io/config.mirror": "x"})
    mirror["spec"]["nodeName"] = "node-1"
    node = ("--as=kubelet", "--as-group=system:nodes", "--as-group=system:masters")
    create(kubectl, mirror, *node)
    with pytest.raises(KubectlError, match=told):
        create(kubectl, pod("x"), *node)
    elsewhere = pod("x")
    elsewhere["metadata"]["namespace"] = "default"
    create(kubectl, elsewhere)


def test_the_level_of_job_namespaces_is_enforced(installed: str, kubectl: Kubectl) -> None:
    body = pod("x")
    body["spec"]["hostNetwork"] = True
    with pytest.raises(KubectlError, match='violates PodSecurity "baseline'):
        create(kubectl, body, f"--as={OPERATOR}")


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "may"),
    [
        ("create", "pods", "nosana-jobs", True),
        ("get", "secrets", "default", True),
        ("list", "secrets", "nosana-jobs", False),
        ("list", "nodes", "", True),
        ("update", "nodes", "", False),
        ("create", "pods --subresource=exec", "nosana-jobs", False),
        ("patch", "leases.coordination.k8s.io/nosana-operator", "nosana-system", True),
        ("patch", "leases.coordination.k8s.io/other", "nosana-system", False),
        ("create", "leases.coordination.k8s.io", "default", False),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", "", False),
        ("create", "deployments.apps", "nosana-jobs", False),
    ],
)
def test_rights(
    installed: str, kubectl: Kubectl, verb: str, resource: str, namespace: str, may: bool
) -> None:
    where = ("--namespace", namespace) if namespace else ("--all-namespaces",)
    command = ("auth", "can-i", verb, *resource.split(), *where, f"--as={OPERATOR}")
    if may:
        assert kubectl.run(*command).strip() == "yes"
    else:
        with pytest.raises(KubectlError):
            kubectl.run(*command)


def test_users_have_what_their_namespaces_role_gives(installed: str, kubectl: Kubectl) -> None:
    """The roles that Kubernetes adds up are added up by a controller; the labels are what it goes by."""
    roles = kubectl.get("clusterrole", "--selector=rbac.authorization.k8s.io/aggregate-to-edit=true")["items"]
    assert "nosana-operator-edit" in {role["metadata"]["name"] for role in roles}


def test_a_release_over_known_kinds_brings_its_markets(installed: str, kubectl: Kubectl) -> None:
    assert "kubectl get nosanamarkets --namespace nosana-system" in installed
    market = kubectl.get("nosanamarket", "lab", "--namespace=nosana-system")
    assert market["kind"] == MARKET_KIND
    assert market["metadata"]["annotations"]["meta.helm.sh/release-name"] == "nosana-operator"


@contextlib.contextmanager
def operator(server: BareApiServer, kubectl: Kubectl, folder: Path) -> Iterator[Path]:
    """The operator as the chart sets it up: its service account, its settings. Gives its log."""
    release = ("--namespace=nosana-system", "nosana-operator")
    settings = yaml.safe_load(kubectl.get("configmap", *release)["data"]["settings.yaml"])
    settings["metrics"] = {"address": "127.0.0.1", "port": 0}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    kubeconfig = yaml.safe_load(server.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"token": kubectl.run("create", "token", *release).strip()}
    kubeconfig["contexts"][0]["context"]["namespace"] = "nosana-system"
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    options = [f"--settings={folder / 'settings.yaml'}", f"--kubeconfig={folder / 'kubeconfig'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "nosana_operator", "run", *options], stderr=log)
        try:
            yield folder / "log"
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.parametrize("namespaces", [[], ["nosana-system", "nosana-jobs"]], ids=["everywhere", "some"])
def test_the_operator_works_with_its_rights(
    installed: str, server: BareApiServer, kubectl: Kubectl, helm: Helm, tmp_path: Path, namespaces: list[str]
) -> None:
    helm("upgrade", "nosana-operator", str(CHART), "--reuse-values", values={"watchNamespaces": namespaces})
    name = "some" if namespaces else "all"
    ops = [{"type": "container/run", "id": "x", "args": {"image": "ubuntu", "expose": 80}}]
    body = job(name, "nosana-jobs", definition=DEFINITION | {"ops": ops})
    kubectl.run("create", "-f", "-", stdin=json.dumps(body))
    # Its own mark on the market shows that it works on those too.
    marked = r"--for=jsonpath={.metadata.finalizers}"
    with operator(server, kubectl, tmp_path) as log:
        kubectl.run("wait", "--namespace=nosana-jobs", "--for=create", f"pod/{name}-0", "--timeout=30s")
        kubectl.run("wait", "--namespace=nosana-system", marked, "nosanamarket/lab", "--timeout=30s")
    assert "orbidden" not in log.read_text()
    assert kubectl.get("lease", "nosana-operator", "--namespace=nosana-system")
    assert kubectl.get("networkpolicy", "--namespace=nosana-jobs")["items"]


def test_after_the_release_jobs_markets_and_kinds_are_still_there(
    installed: str, kubectl: Kubectl, helm: Helm
) -> None:
    """Last in this file, as it takes the release away; installed again, it takes all of it back."""
    create_once = json.dumps(job("stays"))
    kubectl.run("apply", "--server-side", "-f", "-", stdin=create_once)
    # The hook needs a cluster that runs pods; tests/cluster has one.
    helm("uninstall", "nosana-operator", "--no-hooks")
    left = kubectl.get("nosanajob,nosanamarket", "--all-namespaces")["items"]
    assert {item["metadata"]["name"] for item in left} >= {"stays", "lab"}
    assert not any("deletionTimestamp" in item["metadata"] for item in left)
    assert not kubectl.get("deployment", "--all-namespaces")["items"]
    assert not kubectl.get("validatingadmissionpolicy")["items"]
    said = helm("install", "nosana-operator", str(CHART), values={"markets": [MARKET]})
    assert "Not done yet" not in said
    assert kubectl.get("nosanajob", "stays")["spec"]["definition"] == DEFINITION


def test_a_first_release_says_that_its_markets_are_still_to_be_made(
    kubernetes_programs: Path, tmp_path: Path
) -> None:
    with BareApiServer(tmp_path / "server", kubernetes_programs) as fresh:
        helm, kubectl = Helm(fresh.kubeconfig), Kubectl(kubernetes_programs / "kubectl", fresh.kubeconfig)
        network = {"rpc": ["https://rpc.example.com"], "fees": {"maximum": 15_000_000}}
        values = {"markets": [MARKET], "settings": {"networks": {"mainnet": network}}}
        said = helm("install", "nosana-operator", str(CHART), "--create-namespace", values=values)
        assert "Not done yet: 1 of `markets`" in said
        kubectl.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        shown = said.split("<<END\n")[1].split("END\n")[0]
        kubectl.run("create", "--validate=strict", "-f", "-", stdin=shown)
        said = helm("upgrade", "nosana-operator", str(CHART), values=values)
        assert "Not done yet" not in said
        assert kubectl.get("nosanamarket", "lab", "--namespace=nosana-system")["spec"]["network"] == "mainnet"
        # Values that Helm kept have lost the difference between whole numbers and others.
        helm("upgrade", "nosana-operator", str(CHART), "--reuse-values", values={"replicas": 2})
        kept = kubectl.get("configmap", "nosana-operator", "--namespace=nosana-system")["data"][
            "settings.yaml"
        ]
        assert parse_settings(kept).networks["mainnet"].fees.maximum == 15_000_000
