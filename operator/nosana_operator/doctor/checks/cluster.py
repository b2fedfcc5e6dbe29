"""The Kubernetes API, and what the operator needs from the cluster."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any, Final

from nosana_operator.api import GROUP, VERSION, crds
from nosana_operator.doctor.facts import Bodies, Body, Facts, Known, Unknown
from nosana_operator.doctor.finding import Finding, Subject
from nosana_operator.doctor.rights import Right
from nosana_operator.kube.server import ServerFacts
from nosana_operator.runtime.kubernetes_versions import NEWEST_VALIDATED, version_problem
from nosana_operator.workload import Isolation, Storage, node_ranges, resolver_ranges

SKEW_SECONDS: Final = 5.0
"""A larger difference between the clocks makes times in statuses and logs misleading."""
SLOW_SECONDS: Final = 1.0
_DEFAULT_STORAGE: Final = "storageclass.kubernetes.io/is-default-class"
_DEFAULT_INGRESS: Final = "ingressclass.kubernetes.io/is-default-class"
_ONE_NODE: Final = frozenset(
    {
        "disk.csi.azure.com",
        "ebs.csi.aws.com",
        "kubernetes.io/no-provisioner",
        "pd.csi.storage.gke.io",
        "rancher.io/local-path",
    }
)
"""Provisioners of disks that only one node at a time can mount."""
_CRDS_REMEDY: Final = "Apply them: nosana-operator crds | kubectl apply --server-side -f -"


def cluster_findings(facts: Facts) -> Iterator[Finding]:
    """API, version, clock, CRDs, rights, storage, Ingress, DNS, network policies."""
    cluster = facts.cluster
    check = Subject("kubernetes.api")
    if isinstance(cluster.server, Unknown):
        yield check.failure(
            cluster.server.reason,
            "Check the kubeconfig (--kubeconfig, $KUBECONFIG), the API server's address and its certificate.",
        )
        return
    yield from _server(cluster.server)
    yield from _crds(cluster.crds, cluster.served)
    yield from _rights(cluster.rights)
    yield from _storage(cluster.storage_classes, facts.settings.volumes)
    yield from _ingress(cluster.ingress_classes, facts)
    yield from _dns(facts)
    yield Subject("kubernetes.network-policies").unknown(
        "no API shows whether the cluster's network enforces NetworkPolicies; if it does not, jobs reach the "
        "cluster's own addresses",
        "Use a network that enforces them (Calico, Cilium, …); docs/install.md says how to test it.",
    )


def _server(server: ServerFacts) -> Iterator[Finding]:
    check = Subject("kubernetes.api")
    if server.seconds > SLOW_SECONDS:
        yield check.warning(
            f"the API server took {server.seconds:.1f} s to answer",
            "Check the load of the control plane and the network between here and there.",
        )
    else:
        yield check.ok(f"the API server answered after {server.seconds * 1000:.0f} ms")
    check = Subject("kubernetes.version")
    problem = version_problem(server.version)
    newest = f"{NEWEST_VALIDATED[0]}.{NEWEST_VALIDATED[1]}"
    if problem is not None:
        message, _, remedy = problem.rstrip(".").partition("; ")
        yield check.failure(message, f"{remedy.capitalize()}.")
    elif (server.version.major, server.version.minor) > NEWEST_VALIDATED:
        yield check.warning(
            f"Kubernetes {server.version.text} is newer than {newest}, the newest validated version",
            "Check for a newer version of the operator.",
        )
    else:
        yield check.ok(f"Kubernetes {server.version.text}")
    check = Subject("kubernetes.clock")
    if server.clock_offset is None:
        yield check.unknown("the API server's answer has no date")
    elif abs(server.clock_offset) > SKEW_SECONDS:
        word = "ahead of" if server.clock_offset > 0 else "behind"
        yield check.warning(
            f"the API server's clock is {abs(server.clock_offset):.0f} s {word} this machine's",
            "Synchronize both with NTP: timeouts of private jobs and the times in statuses use the operator's clock.",
        )
    else:
        yield check.ok("the API server's clock and this machine's agree")


# -- CRDs


def _crds(installed: Mapping[str, Known[Body | None]], served: Known[bool]) -> Iterator[Finding]:
    for name, expected in _our_fields().items():
        check = Subject("kubernetes.crds", name)
        crd = installed.get(name)
        if crd is None:
            yield check.failure("the CRD is not installed", _CRDS_REMEDY)
        elif not isinstance(crd, Unknown):
            yield _crd(check, expected, crd)
        elif served is True:
            yield check.unknown(
                f"{GROUP}/{VERSION} is served; the CRD itself cannot be read: {crd.reason}",
                "Run the doctor with the rights of a cluster admin to compare the schema.",
            )
        elif served is False:
            yield check.failure(f"{GROUP}/{VERSION} is not served", _CRDS_REMEDY)
        else:
            yield check.unknown(crd.reason)


def _crd(check: Subject, expected: frozenset[str], crd: Body) -> Finding:
    version = next((v for v in crd["spec"]["versions"] if v["name"] == VERSION), None)
    if version is None or not version.get("served"):
        return check.failure(f"the CRD does not serve {VERSION}", _CRDS_REMEDY)
    fields = _fields(_schema(version))
    if missing := sorted(expected - fields):
        return check.failure(f"the CRD is older than this program: it lacks {_some(missing)}", _CRDS_REMEDY)
    stored = (crd.get("status") or {}).get("storedVersions") or [VERSION]
    if others := sorted(set(stored) - {VERSION}):
        return check.warning(
            f"objects may still be stored as {', '.join(others)}",
            "Rewrite them (kubectl get -A -o name, and an empty patch for each), then remove that version from the "
            "CRD's status.storedVersions.",
        )
    if more := sorted(fields - expected):
        return check.warning(
            f"the CRD is newer than this program: it also has {_some(more)}",
            "Use the version of the operator that the CRDs came with.",
        )
    return check.ok(f"{VERSION} is served and stored, with the schema of this program")


@cache
def _our_fields() -> Mapping[str, frozenset[str]]:
    """The fields of this program's own CRDs, by the CRD's name."""
    return {
        crd["metadata"]["name"]: frozenset(_fields(_schema(crd["spec"]["versions"][0]))) for crd in crds()
    }


def _schema(version: Mapping[str, Any]) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def _fields(schema: Mapping[str, Any], path: str = "") -> set[str]:
    """The path of every field, and the allowed values of every enum."""
    out = {f"{path}={value}" for value in schema.get("enum") or ()}
    for name, inner in (schema.get("properties") or {}).items():
        out |= {f"{path}.{name}".lstrip("."), *_fields(inner, f"{path}.{name}".lstrip("."))}
    for wrapper in ("items", "additionalProperties"):
        if isinstance(schema.get(wrapper), Mapping):
            out |= _fields(schema[wrapper], f"{path}[]")
    return out


def _some(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


# -- rights


def _rights(rights: Mapping[Right, Known[bool]]) -> Iterator[Finding]:
    missing: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    unanswered = ""
    for right, answer in rights.items():
        if isinstance(answer, Unknown):
            unanswered = unanswered or answer.reason
        elif not answer:
            missing[right.name, right.namespace].append(right.verb)
    for (name, namespace), verbs in missing.items():
        where = f"in namespace {namespace}" if namespace else "in all namespaces"
        yield Subject("kubernetes.rights", name).failure(
            f"no right to {', '.join(verbs)} {name} {where}",
            "Bind the operator's service account to the roles of the chart (rbac.create), or run the doctor as the "
            "user that the operator runs as.",
        )
    check = Subject("kubernetes.rights")
    if unanswered:
        yield check.unknown(f"not all rights could be checked: {unanswered}")
    elif rights and not missing:
        yield check.ok(f"all {len(rights)} rights are granted")


# -- what jobs use


def _storage(classes: Known[Bodies], settings: Storage) -> Iterator[Finding]:
    check = Subject("kubernetes.storage")
    if isinstance(classes, Unknown):
        yield check.unknown(f"StorageClasses cannot be listed: {classes.reason}")
        return
    default = next((c for c in classes if _annotated(c, _DEFAULT_STORAGE)), None)
    chosen = default
    if settings.storage_class is not None:
        chosen = next((c for c in classes if c["metadata"]["name"] == settings.storage_class), None)
        if chosen is None:
            names = ", ".join(sorted(c["metadata"]["name"] for c in classes)) or "none"
            yield check.failure(
                f"there is no StorageClass {settings.storage_class!r}, which volumes.storageClass names",
                f"Name one that exists ({names}), or leave it out for the default.",
            )
            return
    if chosen is None:
        yield check.warning(
            "there is no default StorageClass: jobs that create volumes are refused",
            "Mark a StorageClass as the default, or name one in volumes.storageClass.",
        )
        return
    name, provisioner = chosen["metadata"]["name"], str(chosen.get("provisioner"))
    if settings.access_mode == "ReadWriteMany" and provisioner in _ONE_NODE:
        yield check.warning(
            f"volumes.accessMode is ReadWriteMany, but {name} ({provisioner}) provides disks for a single node",
            "Name a class of shared file systems in volumes.storageClass, or set volumes.accessMode to "
            "ReadWriteOnce.",
        )
    else:
        yield check.ok(f"volumes come from {name} ({provisioner}), {settings.access_mode}")


def _ingress(classes: Known[Bodies], facts: Facts) -> Iterator[Finding]:
    class_names: dict[str, str | None] = {}
    exposure = facts.settings.exposure
    if exposure.domain is not None:
        class_names["settings"] = exposure.ingress_class_name
    if not isinstance(facts.markets, Unknown):
        for market in facts.markets:
            if not isinstance(market.spec, Unknown) and market.spec.exposure.domain is not None:
                subject = f"nosanamarket {market.namespace}/{market.name}"
                class_names[subject] = market.spec.exposure.ingress_class_name
    if not class_names:
        yield Subject("kubernetes.ingress").warning(
            "no exposure.domain is set: exposed ports are Services, which posters cannot reach",
            "Set exposure.domain (in the settings for private jobs, in a NosanaMarket's spec for its jobs), "
            "with DNS for *.domain.",
        )
    for subject, name in class_names.items():
        yield _ingress_class(Subject("kubernetes.ingress", subject), classes, name)


def _ingress_class(check: Subject, classes: Known[Bodies], name: str | None) -> Finding:
    if isinstance(classes, Unknown):
        return check.unknown(f"IngressClasses cannot be listed: {classes.reason}")
    names = sorted(c["metadata"]["name"] for c in classes)
    if name is not None and name in names:
        return check.ok(f"IngressClass {name} exists")
    if name is not None:
        return check.failure(
            f"there is no IngressClass {name!r}",
            f"Name one that exists ({', '.join(names) or 'none'}), or install the controller.",
        )
    if any(_annotated(c, _DEFAULT_INGRESS) for c in classes):
        return check.ok("the default IngressClass is used")
    return check.warning(
        "no IngressClass is named and none is the default: many controllers ignore such an Ingress",
        "Name one in exposure.ingressClassName, or mark one as the default.",
    )


# -- DNS


def _dns(facts: Facts) -> Iterator[Finding]:
    """Whether the jobs' NetworkPolicies allow the resolvers that a pod uses."""
    check, cluster, isolation = Subject("kubernetes.dns"), facts.cluster, facts.settings.isolation
    if isinstance(cluster.dns_services, Unknown):
        yield check.unknown(f"the Service of the cluster's DNS cannot be read: {cluster.dns_services.reason}")
        return
    if isinstance(cluster.nodes, Unknown):
        yield check.unknown(f"nodes cannot be listed: {cluster.nodes.reason}")
        return
    problems = [
        problem for service in cluster.dns_services for problem in _dns_service(check, service, isolation)
    ]
    yield from problems
    if isinstance(cluster.nameservers, Unknown):
        yield check.unknown(
            f"a pod's resolv.conf cannot be read: {cluster.nameservers.reason}",
            "Run the doctor in the operator's pod (helm test, or kubectl exec as docs/install.md shows).",
        )
        return
    resolvers = resolver_ranges(isolation.dns, cluster.nodes, cluster.dns_services)
    closed = (*isolation.blocked, *node_ranges(cluster.nodes))
    for address in cluster.nameservers:
        if _within(address, closed) and not _within(address, resolvers):
            problems.append(
                check.failure(
                    f"pods use the nameserver {address}, which the NetworkPolicies of jobs block: jobs cannot "
                    "resolve names",
                    f"Add {address}/{ip_address(address).max_prefixlen} to isolation.dns.cidrs in the settings.",
                )
            )
            yield problems[-1]
    if not problems:
        yield check.ok(f"jobs may use the nameservers of pods: {', '.join(cluster.nameservers)}")


def _dns_service(check: Subject, service: Body, isolation: Isolation) -> Iterator[Finding]:
    """NetworkPolicies apply to the pods behind a Service: their namespace and ports count."""
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    if not service["spec"].get("selector"):
        return
    if namespace not in isolation.dns.namespaces:
        yield check.failure(
            f"the cluster's DNS pods are in namespace {namespace}, which the NetworkPolicies of jobs block",
            f"Add {namespace} to isolation.dns.namespaces in the settings.",
        )
    ports = {port.get("targetPort", port["port"]) for port in service["spec"]["ports"] if _is_dns(port)}
    for port in sorted({port for port in ports if isinstance(port, int)} - set(isolation.dns.ports)):
        yield check.failure(
            f"the pods of Service {namespace}/{name} answer DNS on port {port}, which the NetworkPolicies of jobs "
            "block",
            f"Add {port} to isolation.dns.ports in the settings.",
        )


def _is_dns(port: Body) -> bool:
    """A DNS Service has a port for metrics too."""
    return bool(port["port"] == 53)


def _within(address: str, cidrs: Iterable[str]) -> bool:
    return any(ip_address(address) in ip_network(cidr) for cidr in cidrs)


def _annotated(body: Body, name: str) -> bool:
    return (body["metadata"].get("annotations") or {}).get(name) == "true"
