"""What the chart promises, whatever the values: rights, isolation, what stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from nosana_tools.chart import CHART
from support.chart import MARKET, MONITORS, OPTIONS

Body = dict[str, Any]
READ = {"get", "list", "watch"}


def of_kind(bodies: list[Body], *kinds: str) -> list[Body]:
    return [body for body in bodies if body["kind"] in kinds]


def one(bodies: list[Body], kind: str, suffix: str = "") -> Body:
    (body,) = (b for b in of_kind(bodies, kind) if b["metadata"]["name"].endswith(suffix))
    return body


def programs(bodies: list[Body]) -> list[Body]:
    """The specs of all pods."""
    inside = [b["spec"]["template"]["spec"] for b in of_kind(bodies, "Deployment", "Job")]
    return inside + [b["spec"] for b in of_kind(bodies, "Pod")]


@pytest.mark.parametrize("values", OPTIONS.values(), ids=OPTIONS)
def test_no_secret_is_made(rendered: Any, values: dict[str, Any]) -> None:
    assert not of_kind(rendered(values), "Secret")


@pytest.mark.parametrize("values", OPTIONS.values(), ids=OPTIONS)
def test_pods_pass_the_level_of_the_operators_namespace(rendered: Any, values: dict[str, Any]) -> None:
    """Pod Security `restricted`: what Helm's namespace may enforce, and the plain manifests' one does."""
    specs = programs(rendered(values))
    assert len(specs) == (3 if values.get("leave", {}).get("enabled", True) else 2)
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert all(v.keys() & {"configMap", "secret", "emptyDir"} for v in spec["volumes"])
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            mounts = {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]}
            assert [path for path, read_only in mounts.items() if not read_only] == ["/tmp"]


def test_ids_are_left_to_openshift(rendered: Any) -> None:
    for spec in programs(rendered(OPTIONS["OpenShift"])):
        assert not spec["securityContext"].keys() & {"runAsUser", "runAsGroup", "fsGroup"}


# -- rights ---------------------------------------------------------------------------------------------------


def writes(role: Body) -> bool:
    return any(set(rule["verbs"]) - READ for rule in role["rules"])


def bound_roles(bodies: list[Body], kind: str) -> list[Body]:
    """Roles of this kind that the operator's account has (not those that Kubernetes adds up for users)."""
    names = {b["roleRef"]["name"] for b in of_kind(bodies, f"{kind}Binding") if b["subjects"]}
    return [b for b in of_kind(bodies, kind) if b["metadata"]["name"] in names]


def test_with_namespaces_nothing_is_written_elsewhere(rendered: Any) -> None:
    bodies = rendered({"watchNamespaces": ["a", "b"]})
    for cluster in bound_roles(bodies, "ClusterRole"):
        assert not writes(cluster)
        assert not any("secrets" in rule["resources"] for rule in cluster["rules"])
    roles = {(b["metadata"]["namespace"], b["metadata"]["name"]) for b in of_kind(bodies, "Role")}
    assert roles == {
        ("a", "nosana-operator"),
        ("b", "nosana-operator"),
        ("nosana-system", "nosana-operator-leader-election"),
    }


def test_the_rules_are_the_same_either_way(rendered: Any) -> None:
    whole, some = rendered(), rendered({"watchNamespaces": ["a"]})
    wide = {b["metadata"]["name"]: b["rules"] for b in bound_roles(whole, "ClusterRole")}
    narrow = {b["metadata"]["name"]: b["rules"] for b in bound_roles(some, "ClusterRole")}
    narrow |= {
        b["metadata"]["name"]: b["rules"]
        for b in bound_roles(some, "Role")
        if b["metadata"]["namespace"] == "a"
    }
    assert wide == narrow


@pytest.mark.parametrize("values", OPTIONS.values(), ids=OPTIONS)
def test_no_rule_is_wide_open(rendered: Any, values: dict[str, Any]) -> None:
    for role in of_kind(rendered(values), "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
            assert "nonResourceURLs" not in rule
            if "secrets" in rule["resources"]:
                assert not {"list", "watch"} & set(rule["verbs"])


def test_the_leaders_lease_is_in_its_own_namespace(rendered: Any) -> None:
    roles = of_kind(rendered(), "Role")
    (role,) = roles
    assert role["metadata"]["namespace"] == "nosana-system"
    assert {r for rule in role["rules"] for r in rule["resources"]} == {"leases"}
    assert all(
        rule["verbs"] == ["create"] or rule["resourceNames"] == ["nosana-operator"] for rule in role["rules"]
    )


def test_users_get_their_rights_through_kubernetes_own_roles(rendered: Any) -> None:
    roles = {
        label.removeprefix("rbac.authorization.k8s.io/aggregate-to-"): body["rules"]
        for body in of_kind(rendered(), "ClusterRole")
        for label in body["metadata"]["labels"]
        if label.startswith("rbac.authorization.k8s.io/aggregate-to-")
    }
    assert set(roles) == {"view", "edit", "admin"}
    assert all(set(rule["verbs"]) <= READ for rule in roles["view"])
    assert [rule["resources"] for rule in roles["edit"]] == [["nosanajobs"]]
    # Status is where the operator keeps what it signed.
    assert not any(
        "/" in resource for rules in roles.values() for rule in rules for resource in rule["resources"]
    )


@pytest.mark.parametrize("values", OPTIONS.values(), ids=OPTIONS)
def test_bindings_lead_to_the_account_that_pods_have(rendered: Any, values: dict[str, Any]) -> None:
    bodies = rendered(values)
    namespace = one(bodies, "Deployment")["metadata"]["namespace"]
    (account,) = {spec["serviceAccountName"] for spec in programs(bodies)}
    for binding in of_kind(bodies, "ClusterRoleBinding", "RoleBinding"):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]
        role = [b for b in bodies if b["kind"] == binding["roleRef"]["kind"]]
        assert binding["roleRef"]["name"] in {b["metadata"]["name"] for b in role}
    for policy in of_kind(bodies, "ValidatingAdmissionPolicy"):
        (condition,) = policy["spec"]["matchConditions"]
        assert condition["expression"].endswith(f"!= 'system:serviceaccount:{namespace}:{account}'")


# -- parts that have to fit each other ------------------------------------------------------------------------


@pytest.mark.parametrize("values", OPTIONS.values(), ids=OPTIONS)
def test_selectors_take_the_operator_and_nothing_else(rendered: Any, values: dict[str, Any]) -> None:
    bodies = rendered(values | {"replicas": 2, "podLabels": {"app.kubernetes.io/instance": "mine"}})
    deployment = one(bodies, "Deployment")
    wanted = deployment["spec"]["selector"]["matchLabels"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [wanted]
    for body in of_kind(bodies, "Service"):
        selectors.append(body["spec"]["selector"])
    for body in of_kind(bodies, "PodDisruptionBudget", "PodMonitor"):
        selectors.append(body["spec"]["selector"]["matchLabels"])
    for body in of_kind(bodies, "NetworkPolicy"):
        selectors.append(body["spec"]["podSelector"]["matchLabels"])
    others = [b["spec"]["template"]["metadata"]["labels"] for b in of_kind(bodies, "Job")]
    others += [b["metadata"]["labels"] for b in of_kind(bodies, "Pod")]
    for selector in selectors:
        assert selector == wanted
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= other.items() for other in others)


def test_the_port_is_the_one_of_the_settings(rendered: Any) -> None:
    bodies = rendered(OPTIONS["settings"])
    (container,) = one(bodies, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["ports"][0] == {"name": "metrics", "containerPort": 9090, "protocol": "TCP"}
    assert one(bodies, "Service")["spec"]["ports"][0]["port"] == 9090
    probes = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert probes == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_other_settings_are_another_pod_and_the_rest_is_not(rendered: Any) -> None:
    def pod(values: dict[str, Any]) -> Body:
        template: Body = one(rendered(values), "Deployment")["spec"]["template"]
        return template

    assert pod({"settings": {"clusterName": "x"}}) != pod({})
    for values in ({"replicas": 2}, {"markets": [MARKET]}, {"leave": {"timeout": 5}}, {"metrics": MONITORS}):
        assert pod(values) == pod({})


def test_settings_in_a_secret_are_mounted_where_the_others_are(rendered: Any) -> None:
    bodies = rendered(OPTIONS["settings in a Secret"])
    assert not of_kind(bodies, "ConfigMap")
    for spec in programs(bodies):
        assert spec["volumes"][0]["secret"]["items"] == [{"key": "file", "path": "settings.yaml"}]
    args = one(bodies, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    # The Secret does not hold the namespaces that the roles go by.
    assert args[-2:] == ["--namespace=a", "--namespace=b"]


def test_one_replica_has_no_budget_as_it_would_stop_each_drain(rendered: Any) -> None:
    assert not of_kind(rendered(), "PodDisruptionBudget")
    assert one(rendered({"replicas": 2}), "PodDisruptionBudget")["spec"]["minAvailable"] == 1
    assert not of_kind(rendered(OPTIONS["two without budget"]), "PodDisruptionBudget")


def test_the_settings_keep_no_name_of_a_secret_out_of_reach(rendered: Any) -> None:
    (container,) = one(rendered(OPTIONS["settings"]), "Deployment")["spec"]["template"]["spec"]["containers"]
    paths = {m["mountPath"] for m in container["volumeMounts"]}
    assert {"/etc/nosana/secrets/pinata", "/etc/nosana/secrets/an.other"} <= paths


# -- isolation ----------------------------------------------------------------------------------------------------


def test_job_namespaces_are_marked_for_the_policy_and_for_pod_security(rendered: Any) -> None:
    bodies = rendered(OPTIONS["namespaces"])
    levels = {
        body["metadata"]["name"]: body["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for body in of_kind(bodies, "Namespace")
    }
    assert levels == {"nosana-system": "restricted", "a": "privileged", "b": "privileged"}
    selector = one(bodies, "ValidatingAdmissionPolicyBinding", "-pods")["spec"]["matchResources"][
        "namespaceSelector"
    ]
    marked = {
        body["metadata"]["name"]
        for body in of_kind(bodies, "Namespace")
        if selector["matchLabels"].items() <= body["metadata"]["labels"].items()
    }
    assert marked == {"a", "b"}


def test_policies_deny_and_keep_to_the_namespaces_served(rendered: Any) -> None:
    """Two releases in one cluster must not refuse each other's work."""
    bodies = rendered({"watchNamespaces": ["a", "b"]})
    bindings = of_kind(bodies, "ValidatingAdmissionPolicyBinding")
    assert {b["spec"]["policyName"] for b in bindings} == {"nosana-operator-runs", "nosana-operator-pods"}
    for binding in bindings:
        assert binding["spec"]["validationActions"] == ["Deny"]
        (term,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
        assert (term["key"], term["values"]) == ("kubernetes.io/metadata.name", ["a", "b"])
    assert all(b["spec"]["failurePolicy"] == "Fail" for b in of_kind(bodies, "ValidatingAdmissionPolicy"))


# -- what stays, what comes when ------------------------------------------------------------------------------


def test_what_holds_jobs_or_money_outlives_the_release(rendered: Any) -> None:
    bodies = rendered({"markets": [MARKET]})
    kept = {b["kind"] for b in bodies if "helm.sh/resource-policy" in b["metadata"].get("annotations", {})}
    assert kept == {"CustomResourceDefinition", "Namespace", "NosanaMarket"}
    gone = rendered({"crds": {"keep": False}})
    assert not any(b["metadata"].get("annotations") for b in of_kind(gone, "CustomResourceDefinition"))


def test_the_queues_are_left_before_anything_is_deleted(rendered: Any) -> None:
    job = one(rendered(OPTIONS["slow leave"]), "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"][:2] == ["leave", "--timeout=900"]
    assert job["spec"]["activeDeadlineSeconds"] > 900


def test_helm_test_runs_the_doctor(rendered: Any) -> None:
    pod = one(rendered(), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["containers"][0]["args"][0] == "doctor"


def test_kinds_that_are_not_served_are_left_out_unless_wanted(rendered: Any) -> None:
    asked = {"metrics": MONITORS | {"renderMode": "skipIfMissing"}}
    wanted = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert not wanted & {b["kind"] for b in rendered(asked)}
    assert wanted <= {b["kind"] for b in rendered(asked, "--api-versions=monitoring.coreos.com/v1")}
    assert wanted <= {b["kind"] for b in rendered({"metrics": MONITORS})}


def test_alerts_and_dashboard_are_the_files(rendered: Any) -> None:
    bodies = rendered({"metrics": MONITORS | {"prometheusRule": {"enabled": True}}})
    files = CHART / "files"
    alerts = one(bodies, "PrometheusRule")["spec"]
    assert alerts == yaml.safe_load((files / "alerts.yaml").read_text())
    wiki = one(rendered({"metrics": MONITORS}), "PrometheusRule")["spec"]
    assert wiki == json.loads(
        json.dumps(alerts).replace('"docs/runbooks/', '"https://wiki.example.com/nosana/')
    )
    assert wiki != alerts
    (text,) = one(bodies, "ConfigMap", "-dashboard")["data"].values()
    assert json.loads(text) == json.loads((files / "dashboard.json").read_text())


def notes(rendered: Any, values: dict[str, Any]) -> str:
    text = (
        '{kind: ConfigMap, metadata: {name: notes}, text: {{ include "nosana-operator.notes" . | toJson }}}'
    )
    said: str = one(rendered(values | {"extraObjects": [text]}), "ConfigMap", "notes")["text"]
    return said


@pytest.mark.parametrize(
    ("values", "told", "untold"),
    [
        (
            {},
            [
                "helm test nosana-operator --namespace nosana-system",
                "settings.networks",
                "kubectl create secret",
            ],
            ["Not done"],
        ),
        ({"settings": OPTIONS["settings"]["settings"]}, ["network: localnet"], ["name its network"]),
        ({"watchNamespaces": ["team"]}, ["it serves namespaces team.", "namespace: team"], []),
        (
            {"markets": [MARKET]},
            ["kubectl get nosanamarkets --namespace nosana-system"],
            ["kubectl create secret"],
        ),
        ({"replicas": 2, "podDisruptionBudget": {"enabled": False}}, ["no disruption budget"], []),
    ],
)
def test_notes_say_what_to_do_next(
    rendered: Any, values: dict[str, Any], told: list[str], untold: list[str]
) -> None:
    said = notes(rendered, values)
    assert [part for part in told if part not in said] == []
    assert [part for part in untold if part in said] == []
