"""values.schema.json: closed, so that Helm refuses a value that nobody reads instead of ignoring it.

Types follow from the defaults in values.yaml; this file adds what a default does not show. The operator's settings, the
specs of markets and the parts of pods come from their definitions: the settings' models, the CRDs, Kubernetes' own
schemas.
"""

from __future__ import annotations

import copy
import functools
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nosana_operator.api import MARKET_KIND, crds
from nosana_operator.chain import NETWORK_PROGRAMS
from nosana_operator.runtime.settings import Settings
from nosana_tools.chart.values import Value

JsonSchema = dict[str, Any]

_DIALECT: Final = "http://json-schema.org/draft-07/schema#"
_KUBERNETES: Final = "kubernetes-json-schema/v1.37.0-local-strict/_definitions.json"
"""The newest supported release; an API server that lacks a field refuses it."""
_DNS_LABEL: Final = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_NAME: Final = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
_DURATION: Final = "^([0-9]+(ms|s|m|h))+$"
_OWN_SETTINGS: Final = ("watchNamespaces",)
"""Settings that the chart writes itself, because other objects depend on them too."""


def values_schema(values: Sequence[Value]) -> JsonSchema:
    """The JSON schema of values.yaml."""
    definitions: dict[str, JsonSchema] = {}
    given = _given(definitions)
    root = _closed({})
    for value in values:
        name = ".".join(value.path)
        if any(name.startswith(f"{whole}.") for whole in given):
            continue
        node = root
        for key in value.path[:-1]:
            node = node["properties"][key]
        node["properties"][value.path[-1]] = {
            **({"description": value.description} if value.description else {}),
            **(given[name] if name in given else _of_default(value.default)),
        }
    # Helm hands it to every subchart.
    root["properties"]["global"] = {"type": "object"}
    return {"$schema": _DIALECT, "title": "Values of nosana-operator", **root, "definitions": definitions}


def _of_default(default: Any) -> JsonSchema:
    if isinstance(default, bool):
        return {"type": "boolean"}
    if isinstance(default, int):
        return {"type": "integer", "minimum": 0}
    if isinstance(default, str):
        return {"type": "string"}
    if isinstance(default, dict) and default:
        return _closed({})
    raise TypeError(f"the default {default!r} does not show its type; add it to nosana_tools.chart.schema")


def _given(definitions: dict[str, JsonSchema]) -> Mapping[str, JsonSchema]:
    """The schemas that defaults do not show, by the value's path."""
    words: JsonSchema = {"type": "object", "additionalProperties": {"type": "string"}}
    namespaces: JsonSchema = _list({"type": "string", "pattern": _DNS_LABEL}, unique=True)

    def kubernetes(name: str) -> JsonSchema:
        return {"$ref": _kubernetes(f"io.k8s.api.{name}", definitions)}

    interval = {"type": "string", "pattern": _DURATION}
    return {
        "commonLabels": words,
        "image.repository": {"type": "string", "minLength": 1},
        "image.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
        "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
        "imagePullSecrets": _list(kubernetes("core.v1.LocalObjectReference")),
        "settings": settings_schema(),
        "secrets": _list({"type": "string", "pattern": _NAME}, unique=True),
        "watchNamespaces": namespaces,
        "serviceAccount.annotations": words,
        "jobNamespaces.names": namespaces,
        "jobNamespaces.podSecurity": {"enum": ["baseline", "privileged"]},
        "jobNamespaces.labels": words,
        "markets": _list(_closed({"name": {"type": "string", "pattern": _NAME}, "spec": _market_spec()})),
        "leave.timeout": {"type": "integer", "minimum": 1},
        "metrics.service.annotations": words,
        "metrics.serviceMonitor.interval": interval,
        "metrics.serviceMonitor.labels": words,
        "metrics.podMonitor.interval": interval,
        "metrics.podMonitor.labels": words,
        "metrics.prometheusRule.labels": words,
        "metrics.dashboard.labels": words,
        "metrics.dashboard.annotations": words,
        "metrics.renderMode": {"enum": ["skipIfMissing", "failIfMissing", "alwaysRender"]},
        "networkPolicy.from": _list(kubernetes("networking.v1.NetworkPolicyPeer")),
        "resources": kubernetes("core.v1.ResourceRequirements"),
        "podSecurityContext": kubernetes("core.v1.PodSecurityContext"),
        "securityContext": kubernetes("core.v1.SecurityContext"),
        "podAnnotations": words,
        "podLabels": words,
        "nodeSelector": words,
        "tolerations": _list(kubernetes("core.v1.Toleration")),
        "affinity": kubernetes("core.v1.Affinity"),
        "topologySpreadConstraints": _list(kubernetes("core.v1.TopologySpreadConstraint")),
        "extraEnv": _list(kubernetes("core.v1.EnvVar")),
        # Any object: the API server validates it.
        "extraObjects": _list({"type": ["object", "string"]}),
    }


def _closed(properties: JsonSchema, required: Sequence[str] | None = None) -> JsonSchema:
    needed = list(properties) if required is None else list(required)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"required": needed} if needed else {}),
    }


def _list(items: JsonSchema, *, unique: bool = False) -> JsonSchema:
    return {"type": "array", "items": items, **({"uniqueItems": True} if unique else {})}


# -- the operator's settings ----------------------------------------------------------------------------------


def settings_schema() -> JsonSchema:
    """The schema of the operator's settings, without those that the chart writes itself."""
    models = Settings.model_json_schema()
    schema = _shape(models, models["$defs"])
    for name in _OWN_SETTINGS:
        del schema["properties"][name]
    networks = schema["properties"]["networks"]
    network = networks["additionalProperties"]
    networks["properties"] = {name: {**network, "required": ["rpc"]} for name in NETWORK_PROGRAMS}
    networks["additionalProperties"] = {**network, "required": ["rpc", "program", "nosMint"]}
    networks["propertyNames"] = {"pattern": _DNS_LABEL}
    # The kubelet and the Service have to know it: "any free one" is no port here.
    schema["properties"]["metrics"]["properties"]["port"] |= {"minimum": 1, "maximum": 65535}
    return schema


def _shape(node: JsonSchema, models: Mapping[str, JsonSchema]) -> JsonSchema:
    """Types and keys of a model's schema, with references replaced; the operator itself checks the values."""
    match node:
        case {"$ref": reference}:
            return _shape(models[reference.rsplit("/", 1)[1]], models)
        case {"anyOf": [some, {"type": "null"}]}:
            shape = _shape(some, models)
            return shape | {"type": [shape["type"], "null"]}
        case {"enum": allowed}:
            return {"enum": allowed}
        case {"type": "array", "items": items}:
            return _list(_shape(items, models))
        case {"type": "object", "properties": properties}:
            shapes = {name: _shape(value, models) for name, value in properties.items()}
            return _closed(shapes, node.get("required", []))
        case {"type": "object", "additionalProperties": values}:
            return {"type": "object", "additionalProperties": _shape(values, models)}
    return {"type": node["type"]}


# -- the spec of markets --------------------------------------------------------------------------------------


def _market_spec() -> JsonSchema:
    (crd,) = (crd for crd in crds() if crd["spec"]["names"]["kind"] == MARKET_KIND)
    spec: JsonSchema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return _closed_structural(spec)


def _closed_structural(schema: JsonSchema) -> JsonSchema:
    """A CRD's schema, closed, and without what only the API server can check."""
    out = {
        key: value
        for key, value in schema.items()
        if not key.startswith("x-kubernetes-") and key not in ("default", "format")
    }
    if schema.get("x-kubernetes-int-or-string"):
        out["type"] = ["integer", "string"]
    if "properties" in out:
        out["properties"] = {name: _closed_structural(sub) for name, sub in out["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            out["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = _closed_structural(out[key])
    return out


# -- parts of pods --------------------------------------------------------------------------------------------


def _kubernetes(name: str, definitions: dict[str, JsonSchema]) -> str:
    """A reference to one of Kubernetes' own types; adds it to `definitions`, with the types that it uses."""
    reference = f"#/definitions/{name}"
    if name not in definitions:
        schema = copy.deepcopy(_kubernetes_definitions()[name])
        definitions[name] = {}  # a type may contain itself
        definitions[name] = _without_text(schema, definitions)
    return reference


def _without_text(node: Any, definitions: dict[str, JsonSchema]) -> Any:
    if isinstance(node, list):
        return [_without_text(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if key == "$ref":
            out[key] = _kubernetes(value.rsplit("/", 1)[1], definitions)
        elif key == "description" and isinstance(value, str):
            continue  # megabytes, and every admin has them from `kubectl explain`
        elif not key.startswith("x-kubernetes-"):
            out[key] = _without_text(value, definitions)
    return out


@functools.cache
def _kubernetes_definitions() -> Mapping[str, JsonSchema]:
    file = importlib.resources.files("kubernetes_validate").joinpath(_KUBERNETES)
    definitions: Mapping[str, JsonSchema] = json.loads(file.read_text())["$defs"]
    return definitions
