"""What the API server refuses beyond the schemas: Kubernetes' own limits of names, sizes and references.

After Kubernetes' validation (`pkg/apis/*/validation`), for the kinds and fields that the operator writes, in the
oldest version that it supports.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fakes.schemas import Body, schema_check

MAX_OBJECT = 3 * 2**19
"""Bytes of an object in etcd."""
MAX_SECRET = 2**20
"""Bytes of a Secret's or ConfigMap's data, decoded."""
MAX_ANNOTATIONS = 2**18
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_ENV = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUANTITY = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
_SYSTEM = {"resourceVersion", "generation", "uid", "creationTimestamp", "deletionTimestamp", "managedFields"}


def refusals(body: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[str]:
    """Why the API server would not take this object in place of `old`; empty: it does.

    What has not changed is not judged again.
    """
    kind = body["kind"]
    out: list[str] = []
    before = old or {}
    if old is None or any(body.get(part) != before.get(part) for part in body if part != "metadata"):
        schema_check(body["apiVersion"], kind)(body, old, kind, out)
        size = len(
            json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        )
        if size > MAX_OBJECT:
            out.append(f"{kind}: etcdserver: request is too large: {size} bytes")
    if out:
        return out
    out += _metadata(kind, body["metadata"], before.get("metadata") or {})
    parts = {name for name in body if old is None or body[name] != before.get(name)}
    if parts - {"metadata", "status"}:
        out += _KINDS.get(kind, lambda _: ())(body)
        if old is not None and kind in _IMMUTABLE:
            out += _IMMUTABLE[kind](before, body)
    return out


def _text(value: str, pattern: re.Pattern[str], most: int, path: str) -> Iterator[str]:
    if len(value) > most:
        yield f"{path}: {value[:80]!r}: must be no more than {most} characters"
    elif not pattern.fullmatch(value):
        yield f"{path}: {value[:80]!r} does not match {pattern.pattern}"


def _qualified(value: str, path: str) -> Iterator[str]:
    prefix, slash, name = value.rpartition("/")
    if slash:
        yield from _text(prefix, _SUBDOMAIN, 253, path)
    yield from _text(name, _NAME, 63, path)


def _labels(labels: Mapping[str, str], path: str) -> Iterator[str]:
    for key, value in labels.items():
        yield from _qualified(key, path)
        if value:
            yield from _text(value, _NAME, 63, f"{path}.{key}")


def _metadata(kind: str, meta: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[str]:
    name = meta["name"]
    if name != old.get("name"):
        if kind == "Service":
            yield from _text(name, _SERVICE, 63, "metadata.name")
        elif kind == "Namespace":
            yield from _text(name, _LABEL, 63, "metadata.name")
        else:
            yield from _text(name, _SUBDOMAIN, 253, "metadata.name")
        if "namespace" in meta:
            yield from _text(meta["namespace"], _LABEL, 63, "metadata.namespace")
    if meta.get("labels") and meta["labels"] != old.get("labels"):
        yield from _labels(meta["labels"], "metadata.labels")
    notes = meta.get("annotations")
    if notes and notes != old.get("annotations"):
        for key in notes:
            yield from _qualified(key.lower(), "metadata.annotations")
        if sum(len(k.encode()) + len(v.encode()) for k, v in notes.items()) > MAX_ANNOTATIONS:
            yield f"metadata.annotations: Too long: must have at most {MAX_ANNOTATIONS} bytes"
    for each in meta.get("finalizers") or ():
        yield from _qualified(each, "metadata.finalizers")
    if "deletionTimestamp" in old and set(meta.get("finalizers") or ()) - set(old.get("finalizers") or ()):
        yield "metadata.finalizers: no new finalizers can be added if the object is being deleted"
    owners = meta.get("ownerReferences") or ()
    for owner in owners:
        if not all(owner.get(part) for part in ("apiVersion", "kind", "name", "uid")):
            yield "metadata.ownerReferences: apiVersion, kind, name and uid must not be empty"
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        yield "metadata.ownerReferences: only one may be the controller"


def _unique(values: Iterable[Any], path: str) -> Iterator[str]:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            yield f"{path}: Duplicate value: {value!r}"
        seen.add(value)


def _number(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= 65535:
        yield f"{path}: {value}: must be between 1 and 65535"


def _quantities(amounts: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, amount in amounts.items():
        yield from _qualified(name, path)
        if not _QUANTITY.fullmatch(str(amount)):
            yield f"{path}.{name}: {amount!r} is no quantity"
        elif str(amount).startswith("-"):
            yield f"{path}.{name}: must be greater than or equal to 0"
        if "/" in name and not re.fullmatch(r"\d+(\.0+)?|\d+[kMGTPE]i?", str(amount)):
            yield f"{path}.{name}: {amount!r}: must be an integer"


# ------------------------------------------------------------------ pods


def _pod(body: Body) -> Iterator[str]:
    spec = body["spec"]
    volumes = [one["name"] for one in spec.get("volumes") or ()]
    yield from _unique(volumes, "spec.volumes.name")
    for volume in spec.get("volumes") or ():
        yield from _text(volume["name"], _LABEL, 63, "spec.volumes.name")
        if len(volume.keys() - {"name"}) != 1:
            yield f"spec.volumes.{volume['name']}: must specify exactly one volume type"
        for source in ("secret", "configMap"):
            for item in (volume.get(source) or {}).get("items") or ():
                if item["path"].startswith("/") or ".." in item["path"].split("/"):
                    yield f"spec.volumes.{volume['name']}: {item['path']!r} must be a relative path without '..'"
        for source, field in (("secret", "secretName"), ("persistentVolumeClaim", "claimName")):
            if source in volume and not volume[source].get(field):
                yield f"spec.volumes.{volume['name']}.{source}.{field}: Required value"
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    if not spec["containers"]:
        yield "spec.containers: Required value"
    yield from _unique([one["name"] for one in containers], "spec.containers.name")
    for container in containers:
        yield from _container(container, set(volumes))
    ports = [port["name"] for one in spec["containers"] for port in one.get("ports") or () if "name" in port]
    yield from _unique(ports, "spec.containers.ports.name")
    yield from _labels(spec.get("nodeSelector") or {}, "spec.nodeSelector")
    for name in ("hostname", "subdomain"):
        if spec.get(name):
            yield from _text(spec[name], _LABEL, 63, f"spec.{name}")
    for alias in spec.get("hostAliases") or ():
        yield from _address(alias["ip"], "spec.hostAliases.ip")
        for name in alias.get("hostnames") or ():
            yield from _text(name, _SUBDOMAIN, 253, "spec.hostAliases.hostnames")
    for toleration in spec.get("tolerations") or ():
        yield from _toleration(toleration)
    if not spec.get("terminationGracePeriodSeconds", 30) >= 0:
        yield "spec.terminationGracePeriodSeconds: must be greater than or equal to 0"
    if not 1 <= spec.get("activeDeadlineSeconds", 1) <= 2**31 - 1:
        yield "spec.activeDeadlineSeconds: must be between 1 and 2147483647"
    if spec.get("restartPolicy", "Always") not in ("Always", "OnFailure", "Never"):
        yield f"spec.restartPolicy: Unsupported value: {spec['restartPolicy']!r}"


def _container(container: Mapping[str, Any], volumes: set[str]) -> Iterator[str]:
    path = f"spec.containers.{container['name']}"
    yield from _text(container["name"], _LABEL, 63, path)
    image = container.get("image", "")
    if not image.strip() or image != image.strip():
        yield f"{path}.image: {image!r}: must not be empty or have leading or trailing whitespace"
    mounts = container.get("volumeMounts") or ()
    yield from _unique([mount["mountPath"] for mount in mounts], f"{path}.volumeMounts.mountPath")
    for mount in mounts:
        if mount["name"] not in volumes:
            yield f"{path}.volumeMounts.name: Not found: {mount['name']!r}"
        if not mount["mountPath"] or ":" in mount["mountPath"]:
            yield f"{path}.volumeMounts.mountPath: {mount['mountPath']!r}: must not be empty or contain ':'"
        below = mount.get("subPath", "")
        if below.startswith("/") or ".." in below.split("/"):
            yield f"{path}.volumeMounts.subPath: {below!r} must be a relative path without '..'"
    for port in container.get("ports") or ():
        yield from _number(port["containerPort"], f"{path}.ports.containerPort")
        if "name" in port:
            yield from _text(port["name"], _PORT_NAME, 15, f"{path}.ports.name")
    for variable in container.get("env") or ():
        name = variable["name"]
        if not _ENV.fullmatch(name) or name in (".", "..") or name.startswith(".."):
            yield f"{path}.env.name: {name!r} is no name of an environment variable"
        if variable.get("value") and "valueFrom" in variable:
            yield f"{path}.env.{name}: value and valueFrom may not both be given"
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    yield from _quantities(limits, f"{path}.resources.limits")
    yield from _quantities(requests, f"{path}.resources.requests")
    for name, amount in limits.items():
        if "/" in name and "kubernetes.io/" not in name and str(requests.get(name, amount)) != str(amount):
            yield f"{path}.resources: {name} has to be the same in limits and requests"
    for name in requests:
        if "/" in name and name not in limits:
            yield f"{path}.resources: {name} has to be in limits too"


def _toleration(toleration: Mapping[str, Any]) -> Iterator[str]:
    key, how = toleration.get("key"), toleration.get("operator", "Equal")
    if key:
        yield from _qualified(key, "spec.tolerations.key")
    elif how != "Exists":
        yield "spec.tolerations.operator: must be Exists when key is empty"
    if how == "Exists" and toleration.get("value"):
        yield "spec.tolerations.value: must be empty when operator is Exists"
    if how not in ("Exists", "Equal"):
        yield f"spec.tolerations.operator: Unsupported value: {how!r}"
    if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
        yield "spec.tolerations.effect: must be NoExecute when tolerationSeconds is set"


def _address(text: str, path: str) -> Iterator[str]:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        yield f"{path}: {text!r} is no IP address"


# ------------------------------------------------------------------ the other kinds


def _service(body: Body) -> Iterator[str]:
    spec = body["spec"]
    ports = spec.get("ports") or ()
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield "spec.ports: Required value"
    yield from _unique([port.get("name") for port in ports], "spec.ports.name")
    yield from _unique([(port.get("protocol", "TCP"), port["port"]) for port in ports], "spec.ports")
    for port in ports:
        if len(ports) > 1 and not port.get("name"):
            yield "spec.ports.name: Required value"
        if port.get("name"):
            yield from _text(port["name"], _LABEL, 63, "spec.ports.name")
        yield from _number(port["port"], "spec.ports.port")
        target = port.get("targetPort", 1)
        if isinstance(target, str):
            yield from _text(target, _PORT_NAME, 15, "spec.ports.targetPort")
        else:
            yield from _number(target, "spec.ports.targetPort")
    yield from _labels(spec.get("selector") or {}, "spec.selector")


def _ingress(body: Body) -> Iterator[str]:
    for rule in body["spec"].get("rules") or ():
        if rule.get("host"):
            yield from _text(rule["host"].removeprefix("*."), _SUBDOMAIN, 253, "spec.rules.host")
        for path in (rule.get("http") or {}).get("paths") or ():
            if path["pathType"] != "ImplementationSpecific" and not path.get("path", "").startswith("/"):
                yield "spec.rules.http.paths.path: must be an absolute path"
            service = path["backend"].get("service")
            if service is not None:
                yield from _text(service["name"], _SERVICE, 63, "spec.rules.http.paths.backend.service.name")
                yield from _number(
                    service["port"].get("number", 1), "spec.rules.http.paths.backend.service.port"
                )
    for tls in body["spec"].get("tls") or ():
        for host in tls.get("hosts") or ():
            yield from _text(host.removeprefix("*."), _SUBDOMAIN, 253, "spec.tls.hosts")


def _endpoint_slice(body: Body) -> Iterator[str]:
    if len(body["endpoints"]) > 1000:
        yield "endpoints: Too many: must have at most 1000 items"
    for endpoint in body["endpoints"]:
        if not 1 <= len(endpoint["addresses"]) <= 100:
            yield "endpoints.addresses: must have 1 to 100 items"
        for address in endpoint["addresses"]:
            yield from _address(address, "endpoints.addresses")
        if "hostname" in endpoint:
            yield from _text(endpoint["hostname"], _LABEL, 63, "endpoints.hostname")
    yield from _unique([port.get("name", "") for port in body.get("ports") or ()], "ports.name")
    for port in body.get("ports") or ():
        if port.get("name"):
            yield from _text(port["name"], _LABEL, 63, "ports.name")
        yield from _number(port.get("port", 1), "ports.port")


def _network_policy(body: Body) -> Iterator[str]:
    spec = body["spec"]
    rules = [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]
    for rule in rules:
        for peer in [*(rule.get("from") or ()), *(rule.get("to") or ())]:
            if not peer:
                yield "spec: must specify a peer"
            if "ipBlock" in peer:
                if len(peer) > 1:
                    yield "spec: may not specify both ipBlock and another peer"
                yield from _block(peer["ipBlock"])
        for port in rule.get("ports") or ():
            yield from _number(port.get("port", 1), "spec.ports.port")
            if "endPort" in port and not (
                isinstance(port.get("port"), int) and port["endPort"] >= port["port"]
            ):
                yield "spec.ports.endPort: needs a port that is not above it"


def _block(block: Mapping[str, Any]) -> Iterator[str]:
    try:
        whole = ipaddress.ip_network(block["cidr"])
        for text in block.get("except") or ():
            part = ipaddress.ip_network(text)
            if part.version != whole.version or part == whole or not part.subnet_of(whole):  # type: ignore[arg-type]
                yield f"spec.ipBlock.except: {text} must be a strict subset of {whole}"
    except ValueError as error:
        yield f"spec.ipBlock: {error}"


def _data(body: Body) -> Iterator[str]:
    total = 0
    for key, value in (body.get("data") or {}).items():
        yield from _text(key, _DATA_KEY, 253, "data")
        if body["kind"] == "Secret":
            try:
                total += len(base64.b64decode(value, validate=True))
            except binascii.Error:
                yield f"data.{key}: illegal base64 data"
        else:
            total += len(value.encode())
    total += sum(len(value.encode()) for value in (body.get("stringData") or {}).values())
    if total > MAX_SECRET:
        yield f"data: Too long: must have at most {MAX_SECRET} bytes"
    if body.get("type") == "kubernetes.io/dockerconfigjson" and ".dockerconfigjson" not in (
        body.get("data") or {}
    ):
        yield "data[.dockerconfigjson]: Required value"


def _claim(body: Body) -> Iterator[str]:
    spec = body["spec"]
    if not spec.get("accessModes"):
        yield "spec.accessModes: Required value"
    amount = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if amount is None:
        yield "spec.resources.requests.storage: Required value"
    else:
        yield from _quantities({"storage": amount}, "spec.resources.requests")


def _event(body: Body) -> Iterator[str]:
    if len(body.get("note", "").encode()) > 1024:
        yield "note: can have at most 1024 bytes"
    for name in ("reason", "action", "reportingInstance"):
        if not 1 <= len(body.get(name) or "") <= 128:
            yield f"{name}: must have 1 to 128 characters"
    if body.get("type") not in ("Normal", "Warning"):
        yield f"type: Unsupported value: {body.get('type')!r}"
    yield from _qualified(body.get("reportingController") or "", "reportingController")
    regarding = body.get("regarding") or {}
    if (regarding.get("namespace") or "default") != body["metadata"].get("namespace"):
        yield "involvedObject.namespace: does not match event.namespace"


def _budget(body: Body) -> Iterator[str]:
    if ("minAvailable" in body["spec"]) and ("maxUnavailable" in body["spec"]):
        yield "spec: minAvailable and maxUnavailable cannot be both set"


_KINDS: dict[str, Callable[[Body], Iterable[str]]] = {
    "Pod": _pod,
    "Service": _service,
    "Ingress": _ingress,
    "EndpointSlice": _endpoint_slice,
    "NetworkPolicy": _network_policy,
    "Secret": _data,
    "ConfigMap": _data,
    "PersistentVolumeClaim": _claim,
    "Event": _event,
    "PodDisruptionBudget": _budget,
}


def _pod_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    def fixed(spec: Mapping[str, Any]) -> Body:
        # What may change: images, the deadline, tolerations (added), the grace period, the node (by binding).
        left = {
            name: value
            for name, value in spec.items()
            if name
            not in ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "nodeName")
        }
        for name in ("containers", "initContainers"):
            if name in left:
                left[name] = [{k: v for k, v in one.items() if k != "image"} for one in left[name]]
        return left

    if fixed(old["spec"]) != fixed(new["spec"]):
        yield "spec: Forbidden: pod updates may not change fields other than the image, deadline and tolerations"


def _claim_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    def fixed(spec: Mapping[str, Any]) -> Body:
        return {
            k: v for k, v in spec.items() if k not in ("resources", "volumeName", "volumeAttributesClassName")
        }

    if fixed(old["spec"]) != fixed(new["spec"]):
        yield "spec: Forbidden: spec is immutable after creation except resources.requests"


def _secret_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if old.get("type", "Opaque") != new.get("type", "Opaque"):
        yield "type: field is immutable"
    if old.get("immutable") and (not new.get("immutable") or old.get("data") != new.get("data")):
        yield "data: field is immutable when `immutable` is set"


_IMMUTABLE: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Iterable[str]]] = {
    "Pod": _pod_change,
    "PersistentVolumeClaim": _claim_change,
    "Secret": _secret_change,
}
