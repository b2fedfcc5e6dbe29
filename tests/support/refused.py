"""Objects that a Kubernetes API server takes, and changes of them that it refuses."""

from __future__ import annotations

import base64
from typing import Any

from nosana_operator.api import API_VERSION

Body = dict[str, Any]
NAMESPACE = "jobs"


def _meta(name: str) -> Body:
    return {"name": name, "namespace": NAMESPACE}


_CONTAINER: Body = {"name": "op", "image": "docker.io/library/ubuntu:latest"}
GOOD: dict[str, Body] = {
    "NosanaJob": {
        "apiVersion": API_VERSION,
        "kind": "NosanaJob",
        "metadata": _meta("job"),
        "spec": {"definition": {"version": "0.1"}},
    },
    "NosanaMarket": {
        "apiVersion": API_VERSION,
        "kind": "NosanaMarket",
        "metadata": _meta("market"),
        "spec": {
            "address": "3" * 32,
            "network": "devnet",
            "jobNamespace": NAMESPACE,
            "wallets": [{"secretRef": {"name": "a"}}],
        },
    },
    "Pod": {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _meta("pod"),
        "spec": {"containers": [_CONTAINER], "hostname": "a"},
    },
    "Service": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta("web"),
        "spec": {"ports": [{"name": "p80", "port": 80}]},
    },
    "Secret": {"apiVersion": "v1", "kind": "Secret", "metadata": _meta("secret"), "data": {"a": "Yg=="}},
    "PersistentVolumeClaim": {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _meta("claim"),
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    },
    "Ingress": {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": _meta("ingress"),
        "spec": {
            "rules": [
                {
                    "host": "a.example.com",
                    "http": {
                        "paths": [
                            {
                                "path": "/",
                                "pathType": "Prefix",
                                "backend": {"service": {"name": "web", "port": {"number": 80}}},
                            }
                        ]
                    },
                }
            ]
        },
    },
    "EndpointSlice": {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": _meta("slice"),
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.2.3"], "hostname": "a"}],
    },
    "NetworkPolicy": {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta("policy"),
        "spec": {
            "podSelector": {},
            "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]}],
        },
    },
    "Event": {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": _meta("event"),
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reason": "Started",
        "action": "Start",
        "type": "Normal",
        "note": "words",
        "reportingController": "nosana.io/operator",
        "reportingInstance": "a",
        "regarding": {"kind": "NosanaJob", "namespace": NAMESPACE, "name": "job", "apiVersion": API_VERSION},
    },
}


def changed(body: Body, change: Body) -> Body:
    """The object with these fields in place of its own; lists are replaced, None takes a field away."""
    out = {name: value for name, value in body.items() if change.get(name, value) is not None}
    for name, value in ((name, value) for name, value in change.items() if value is not None):
        out[name] = changed(out.get(name) or {}, value) if isinstance(value, dict) else value
    return out


def _container(**fields: Any) -> Body:
    return {"spec": {"containers": [_CONTAINER | fields]}}


def _ports(*ports: Body) -> Body:
    return {"spec": {"ports": list(ports)}}


REFUSED: dict[str, tuple[str, Body, str]] = {
    "a field that no schema has": ("NosanaJob", {"spec": {"timeOut": 1}}, "unknown field"),
    "a number below its minimum": ("NosanaJob", {"spec": {"timeout": 0}}, "not between"),
    "a missing field": ("NosanaJob", {"spec": {"run": {"job": "a"}}}, "Required value"),
    "two definitions": (
        "NosanaJob",
        {"spec": {"definitionFrom": {"configMap": {"name": "a"}}}},
        "exactly one of",
    ),
    "no definition": ("NosanaJob", {"spec": {"definition": None}}, "exactly one of"),
    "a job's name that is too long": ("NosanaJob", {"metadata": {"name": "a" * 53}}, "metadata.name"),
    "a job's name with a digit first": ("NosanaJob", {"metadata": {"name": "1a"}}, "metadata.name"),
    "an object beyond etcd": ("NosanaJob", {"spec": {"definition": {"x": "a" * 3 * 2**19}}}, "too large"),
    "a wallet twice": (
        "NosanaMarket",
        {"spec": {"wallets": [{"secretRef": {"name": "a"}}, {"secretRef": {"name": "a", "key": "id.json"}}]}},
        "each wallet once",
    ),
    "a label's value of 64 characters": ("Pod", {"metadata": {"labels": {"a": "b" * 64}}}, "63 characters"),
    "a label's value with a blank": ("Pod", {"metadata": {"labels": {"a": "b c"}}}, "does not match"),
    "annotations beyond 256 KiB": ("Pod", {"metadata": {"annotations": {"a": "b" * 2**18}}}, "Too long"),
    "a pod's name with a capital": ("Pod", {"metadata": {"name": "Pod"}}, "metadata.name"),
    "a container's name of 64 characters": ("Pod", _container(name="a" * 64), "63 characters"),
    "an image that is a blank": ("Pod", _container(image=" "), "image"),
    "an image with a blank before it": ("Pod", _container(image=" ubuntu"), "image"),
    "an environment variable without a name": ("Pod", _container(env=[{"name": ""}]), "env.name"),
    "an environment variable with =": ("Pod", _container(env=[{"name": "a=b"}]), "env.name"),
    "a port 0": ("Pod", _container(ports=[{"containerPort": 0}]), "between 1 and 65535"),
    "a port 65536": ("Pod", _container(ports=[{"containerPort": 65536}]), "between 1 and 65535"),
    "a port's name of 16 characters": (
        "Pod",
        _container(ports=[{"containerPort": 1, "name": "a" * 16}]),
        "15 characters",
    ),
    "two mounts at one path": (
        "Pod",
        {
            "spec": {
                "containers": [
                    _CONTAINER
                    | {"volumeMounts": [{"name": "a", "mountPath": "/x"}, {"name": "b", "mountPath": "/x"}]}
                ],
                "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}],
            }
        },
        "Duplicate value",
    ),
    "a mount of a volume that is not there": (
        "Pod",
        _container(volumeMounts=[{"name": "a", "mountPath": "/x"}]),
        "Not found",
    ),
    "a mount path with a colon": (
        "Pod",
        {
            "spec": {
                "containers": [_CONTAINER | {"volumeMounts": [{"name": "a", "mountPath": "/x:y"}]}],
                "volumes": [{"name": "a", "emptyDir": {}}],
            }
        },
        "':'",
    ),
    "two volumes of one name": (
        "Pod",
        {"spec": {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]}},
        "Duplicate value",
    ),
    "half a GPU": ("Pod", _container(resources={"limits": {"nvidia.com/gpu": "0.5"}}), "integer"),
    "a GPU that is only requested": (
        "Pod",
        _container(resources={"requests": {"nvidia.com/gpu": "1"}}),
        "limits too",
    ),
    "no quantity": ("Pod", _container(resources={"limits": {"memory": "lots"}}), "quantity"),
    "two containers of one name": (
        "Pod",
        {"spec": {"containers": [_CONTAINER, _CONTAINER]}},
        "Duplicate value",
    ),
    "a host name of 64 characters": ("Pod", {"spec": {"hostname": "a" * 64}}, "63 characters"),
    "a field of no pod": ("Pod", {"spec": {"gpu": 1}}, "unknown field"),
    "a service without ports": ("Service", _ports(), "Required value"),
    "a service's name that begins with a digit": ("Service", {"metadata": {"name": "1a"}}, "metadata.name"),
    "a service's name of 64 characters": ("Service", {"metadata": {"name": "a" * 64}}, "63 characters"),
    "two ports without names": ("Service", _ports({"port": 1}, {"port": 2}), "Required value"),
    "one port twice": ("Service", _ports({"port": 1, "name": "a"}, {"port": 1, "name": "b"}), "Duplicate"),
    "a Secret beyond 1 MiB": (
        "Secret",
        {"data": {"a": base64.b64encode(b"b" * (2**20 + 1)).decode()}},
        "Too long",
    ),
    "data that is not base64": ("Secret", {"data": {"a": "?"}}, "base64"),
    "a key with a slash": ("Secret", {"data": {"a/b": "Yg=="}}, "does not match"),
    "a claim of nothing": (
        "PersistentVolumeClaim",
        {"spec": {"resources": {"requests": {"storage": "-1"}}}},
        "0",
    ),
    "a claim without a mode": ("PersistentVolumeClaim", {"spec": {"accessModes": []}}, "Required value"),
    "a host with an underscore": (
        "Ingress",
        {"spec": {"rules": [{"host": "a_b.example.com"}]}},
        "rules.host",
    ),
    "an endpoint's address that is a name": (
        "EndpointSlice",
        {"endpoints": [{"addresses": ["example"]}]},
        "IP address",
    ),
    "1001 endpoints": ("EndpointSlice", {"endpoints": [{"addresses": ["10.1.2.3"]}] * 1001}, "Too many"),
    "an exception outside of its block": (
        "NetworkPolicy",
        {"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}]}]}},
        "subset",
    ),
    "a note beyond 1 KiB": ("Event", {"note": "a" * 1025}, "1024"),
    "an event without an action": ("Event", {"action": ""}, "action"),
    "an event elsewhere": ("Event", {"regarding": {"namespace": "other"}}, "namespace"),
}
"""What is wrong → kind, what is changed of the good object, words of the stand-in's refusal."""
