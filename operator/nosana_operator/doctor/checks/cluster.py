"""The Kubernetes API and what the operator needs of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from nosana_operator.api import GROUP, VERSION, crds
from nosana_operator.doctor.facts import Bodies, Body, Facts, Known, Unknown
from nosana_operator.doctor.finding import Finding, Subject
from nosana_operator.doctor.rights import Right
from nosana_operator.kube.server import ServerFacts
from nosana_operator.runtime.kubernetes_versions import NEWEST_VALIDATED, version_problem
from nosana_operator.workload import Storage

SKEW_SECONDS: Final = 5.0
"""Clocks that are further apart make times in statuses and logs misleading."""
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
"""Provisioners of disks that one node at a time can mount."""
_CRDS_REMEDY: Final = "Apply them: nosana-operator crds | kubectl apply --server-side -f -"


def cluster_findings(facts: Facts) -> Iterator[Finding]:
    """API, version, clock, CRDs, rights, storage, Ingress, network policies."""
    cluster = facts.cluster
    say = Subject("kubernetes.api")
    if isinstance(cluster.server, Unknown):
        yield say.failure(
            cluster.server.why,
            "Check the kubeconfig (--kubeconfig, $KUBECONFIG), the API server's address and its certificate.",
        )
        return
    yield from _server(cluster.server)
    yield from _crds(cluster.crds, cluster.served)
    yield from _rights(cluster.rights)
    yield from _storage(cluster.storage_classes, facts.settings.volumes)
    yield from _ingress(cluster.ingress_classes, facts)
    yield Subject("kubernetes.network-policies").unknown(
        "no API tells whether the cluster's network enforces NetworkPolicies; without that, jobs reach the "
        "cluster's own addresses",
        "Use a network that does (Calico, Cilium, …); docs/install.md says how to try it.",
    )


def _server(server: ServerFacts) -> Iterator[Finding]:
    say = Subject("kubernetes.api")
    if server.seconds > SLOW_SECONDS:
        yield say.warning(
            f"it answers, after {server.seconds:.1f} s",
            "Look at the load of the control plane, and at the way to it.",
        )
    else:
        yield say.ok(f"it answers, after {server.seconds * 1000:.0f} ms")
    say = Subject("kubernetes.version")
    problem = version_problem(server.version)
    newest = f"{NEWEST_VALIDATED[0]}.{NEWEST_VALIDATED[1]}"
    if problem is not None:
        sentence, _, remedy = problem.rstrip(".").partition("; ")
        yield say.failure(sentence, f"{remedy.capitalize()}.")
    elif (server.version.major, server.version.minor) > NEWEST_VALIDATED:
        yield say.warning(
            f"Kubernetes {server.version.text} is newer than {newest}, the newest that objects were validated for",
            "Look for a newer version of the operator.",
        )
    else:
        yield say.ok(f"Kubernetes {server.version.text}")
    say = Subject("kubernetes.clock")
    if server.clock_offset is None:
        yield say.unknown("the API server does not tell its time")
    elif abs(server.clock_offset) > SKEW_SECONDS:
        word = "ahead of" if server.clock_offset > 0 else "behind"
        yield say.warning(
            f"the API server's clock is {abs(server.clock_offset):.0f} s {word} the one here",
            "Set both by NTP: timeouts of private jobs and the times in statuses go by the operator's clock.",
        )
    else:
        yield say.ok("the API server's clock and the one here agree")


# -- CRDs


def _crds(found: Mapping[str, Known[Body | None]], served: Known[bool]) -> Iterator[Finding]:
    for name, wanted in _our_fields().items():
        say = Subject("kubernetes.crds", name)
        theirs = found.get(name)
        if theirs is None:
            yield say.failure("the CRD is not there", _CRDS_REMEDY)
        elif not isinstance(theirs, Unknown):
            yield _crd(say, wanted, theirs)
        elif served is True:
            yield say.unknown(
                f"{GROUP}/{VERSION} is served; the CRD itself cannot be read: {theirs.why}",
                "Run the doctor with the rights of a cluster admin to have its schema compared.",
            )
        elif served is False:
            yield say.failure(f"{GROUP}/{VERSION} is not served", _CRDS_REMEDY)
        else:
            yield say.unknown(theirs.why)


def _crd(say: Subject, wanted: frozenset[str], theirs: Body) -> Finding:
    version = next((v for v in theirs["spec"]["versions"] if v["name"] == VERSION), None)
    if version is None or not version.get("served"):
        return say.failure(f"it does not serve {VERSION}", _CRDS_REMEDY)
    there = _fields(_schema(version))
    if missing := sorted(wanted - there):
        return say.failure(f"it is older than this program: it lacks {_some(missing)}", _CRDS_REMEDY)
    stored = (theirs.get("status") or {}).get("storedVersions") or [VERSION]
    if others := sorted(set(stored) - {VERSION}):
        return say.warning(
            f"objects may still be stored as {', '.join(others)}",
            "Rewrite them (kubectl get -A -o name, and an empty patch of each), then take that version out of "
            "the CRD's status.storedVersions.",
        )
    if more := sorted(there - wanted):
        return say.warning(
            f"it is newer than this program: it also has {_some(more)}",
            "Use the version of the operator that the CRDs came with.",
        )
    return say.ok(f"{VERSION} is served and stored, with the schema of this program")


@cache
def _our_fields() -> Mapping[str, frozenset[str]]:
    """What this program's own CRDs have, by name."""
    return {
        crd["metadata"]["name"]: frozenset(_fields(_schema(crd["spec"]["versions"][0]))) for crd in crds()
    }


def _schema(version: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def _fields(schema: Mapping[str, Any], path: str = "") -> set[str]:
    """Every field's path, and the values of those that have a choice."""
    out = {f"{path}={value}" for value in schema.get("enum") or ()}
    for name, inner in (schema.get("properties") or {}).items():
        out |= {f"{path}.{name}".lstrip("."), *_fields(inner, f"{path}.{name}".lstrip("."))}
    for wrapper in ("items", "additionalProperties"):
        if isinstance(schema.get(wrapper), Mapping):
            out |= _fields(schema[wrapper], f"{path}[]")
    return out


def _some(names: list[str]) -> str:
    """The first three, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


# -- rights


def _rights(rights: Mapping[Right, Known[bool]]) -> Iterator[Finding]:
    lacking: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    silent = ""
    for right, answer in rights.items():
        if isinstance(answer, Unknown):
            silent = silent or answer.why
        elif not answer:
            lacking[right.name, right.namespace].append(right.verb)
    for (name, namespace), verbs in lacking.items():
        where = f"in namespace {namespace}" if namespace else "in all namespaces"
        yield Subject("kubernetes.rights", name).failure(
            f"no right to {', '.join(verbs)} {name} {where}",
            "Bind the operator's service account to the roles of the chart (rbac.create), or run the doctor as "
            "whoever the operator signs in as.",
        )
    say = Subject("kubernetes.rights")
    if silent:
        yield say.unknown(f"not all rights could be asked for: {silent}")
    elif rights and not lacking:
        yield say.ok(f"all {len(rights)} rights are there")


# -- what jobs use


def _storage(classes: Known[Bodies], settings: Storage) -> Iterator[Finding]:
    say = Subject("kubernetes.storage")
    if isinstance(classes, Unknown):
        yield say.unknown(f"StorageClasses cannot be listed: {classes.why}")
        return
    default = next((c for c in classes if _annotated(c, _DEFAULT_STORAGE)), None)
    chosen = default
    if settings.storage_class is not None:
        chosen = next((c for c in classes if c["metadata"]["name"] == settings.storage_class), None)
        if chosen is None:
            there = ", ".join(sorted(c["metadata"]["name"] for c in classes)) or "none"
            yield say.failure(
                f"there is no StorageClass {settings.storage_class!r}, which volumes.storageClass names",
                f"Name one that exists ({there}), or leave it out for the default.",
            )
            return
    if chosen is None:
        yield say.warning(
            "there is no default StorageClass: jobs that make volumes are refused",
            "Mark a StorageClass as the default, or name one in volumes.storageClass.",
        )
        return
    name, provisioner = chosen["metadata"]["name"], str(chosen.get("provisioner"))
    if settings.access_mode == "ReadWriteMany" and provisioner in _ONE_NODE:
        yield say.warning(
            f"volumes are asked for as ReadWriteMany, and {name} ({provisioner}) makes disks for one node",
            "Name a class of shared file systems in volumes.storageClass, or set volumes.accessMode to "
            "ReadWriteOnce.",
        )
    else:
        yield say.ok(f"volumes are made by {name} ({provisioner}), {settings.access_mode}")


def _ingress(classes: Known[Bodies], facts: Facts) -> Iterator[Finding]:
    wanted: dict[str, str | None] = {}
    exposure = facts.settings.exposure
    if exposure.domain is not None:
        wanted["settings"] = exposure.ingress_class_name
    if not isinstance(facts.markets, Unknown):
        for market in facts.markets:
            if not isinstance(market.spec, Unknown) and market.spec.exposure.domain is not None:
                subject = f"nosanamarket {market.namespace}/{market.name}"
                wanted[subject] = market.spec.exposure.ingress_class_name
    if not wanted:
        yield Subject("kubernetes.ingress").warning(
            "no exposure.domain is set: exposed ports are Services, which posters cannot reach",
            "Set exposure.domain (in the settings for private jobs, in a NosanaMarket's spec for its jobs), "
            "with DNS for *.domain.",
        )
    for subject, name in wanted.items():
        yield _ingress_class(Subject("kubernetes.ingress", subject), classes, name)


def _ingress_class(say: Subject, classes: Known[Bodies], name: str | None) -> Finding:
    if isinstance(classes, Unknown):
        return say.unknown(f"IngressClasses cannot be listed: {classes.why}")
    names = sorted(c["metadata"]["name"] for c in classes)
    if name is not None and name in names:
        return say.ok(f"IngressClass {name} is there")
    if name is not None:
        return say.failure(
            f"there is no IngressClass {name!r}",
            f"Name one that exists ({', '.join(names) or 'none'}), or install the controller.",
        )
    if any(_annotated(c, _DEFAULT_INGRESS) for c in classes):
        return say.ok("the default IngressClass is used")
    return say.warning(
        "no IngressClass is named and none is the default: many controllers pass such an Ingress over",
        "Name one in exposure.ingressClassName, or mark one as the default.",
    )


def _annotated(body: Body, name: str) -> bool:
    return (body["metadata"].get("annotations") or {}).get(name) == "true"
