"""CustomResourceDefinitions, generated from the models: structural schemas without `$ref`, with CEL rules.

pydantic writes `$defs`, `title` and `anyOf: [..., null]`. Kubernetes' structural schemas have none of them, so
they are inlined, dropped and unwrapped here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from nosana_operator.api.common import ApiModel
from nosana_operator.api.job import NosanaJobSpec, NosanaJobStatus
from nosana_operator.api.market import NosanaMarketSpec, NosanaMarketStatus
from nosana_operator.api.names import GROUP, JOB_KIND, MARKET_KIND, MAX_JOB_NAME, PLURALS, VERSION
from nosana_operator.citations import without_citations

JsonObject = dict[str, Any]

_UNSEEN = {"observedGeneration": -1}
"""The status of an object that no controller has seen; without it, kstatus reports the object as current."""
_DROPPED = {"$defs", "title", "additionalProperties", "const"}


def _structural(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> JsonObject:
    """One schema node without references, titles and null."""
    if "$ref" in schema:
        target = defs[schema["$ref"].rsplit("/", 1)[1]]
        return _structural({**target, **{k: v for k, v in schema.items() if k != "$ref"}}, defs)
    for keyword in ("anyOf", "allOf"):
        if keyword in schema:
            kept = [part for part in schema[keyword] if part.get("type") != "null"]
            if len(kept) != 1:
                raise TypeError(f"a CRD cannot hold {keyword} of {len(kept)} types")
            rest = {k: v for k, v in schema.items() if k not in (keyword, "default")}
            return _structural({**kept[0], **rest}, defs)
    out: JsonObject = {}
    for key, value in schema.items():
        if key in _DROPPED:
            continue
        if key == "default" and value in (None, [], {}):
            continue
        if key == "properties":
            out[key] = {name: _structural(sub, defs) for name, sub in value.items()}
        elif key == "items":
            out[key] = _structural(value, defs)
        else:
            out[key] = copy.deepcopy(value)
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping) and not out.get("x-kubernetes-preserve-unknown-fields"):
        out["additionalProperties"] = {"maxLength": 256, **_structural(extra, defs)}
    if "enum" in out:
        out["type"] = "string"
    if out.get("type") == "integer":
        out.setdefault("format", "int64")
    if "description" in out:
        out["description"] = " ".join(without_citations(out["description"]).split())
    if "default" in out:
        out["default"] = _without_nothing(out["default"])
    return out


def _without_nothing(default: Any) -> Any:
    """A default without nulls, empty lists and empty objects at any depth; the API server refuses null."""
    if not isinstance(default, Mapping):
        return default
    inner = {name: _without_nothing(value) for name, value in default.items()}
    return {name: value for name, value in inner.items() if value not in (None, [], {})}


def schema_of(model: type[ApiModel]) -> JsonObject:
    """The structural schema of a model."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(raw, raw.get("$defs", {}))


def _rule(rule: str, message: str, path: str | None = None) -> JsonObject:
    out = {"rule": rule, "message": message}
    return out | ({"fieldPath": path} if path else {})


def _column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> JsonObject:
    return {"name": name, "type": kind, "jsonPath": path, "priority": 1 if wide else 0}


def _crd(
    kind: str,
    short: str,
    spec: JsonObject,
    status: JsonObject,
    *,
    columns: Iterable[JsonObject],
    rules: Iterable[JsonObject],
    selectable: Iterable[str],
) -> JsonObject:
    plural = PLURALS[kind]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "labels": {
                "app.kubernetes.io/name": "nosana-operator",
                "app.kubernetes.io/part-of": "nosana-operator",
            },
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["nosana"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "selectableFields": [{"jsonPath": path} for path in selectable],
                    "additionalPrinterColumns": list(columns),
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status | {"default": dict(_UNSEEN)},
                            },
                            "x-kubernetes-validations": list(rules),
                        }
                    },
                }
            ],
        },
    }


def _job_crd() -> JsonObject:
    spec = schema_of(NosanaJobSpec)
    sources = spec["properties"]["definitionFrom"]
    sources["x-kubernetes-validations"] = [
        _rule(
            "[has(self.ipfs), has(self.configMap), has(self.secret)].filter(x, x).size() == 1",
            "set exactly one of ipfs, configMap, secret",
        )
    ]
    spec["properties"]["run"]["x-kubernetes-validations"] = [_rule("self == oldSelf", "run is immutable")]
    spec["x-kubernetes-validations"] = [
        _rule(
            "has(self.definition) != has(self.definitionFrom)",
            "set exactly one of definition and definitionFrom",
        ),
        _rule(
            "!has(self.run) || !has(self.suspend) || !self.suspend",
            "a run cannot be suspended: its poster pays for the time",
        ),
        _rule("has(self.run) == has(oldSelf.run)", "spec.run is set at creation or never"),
        _rule(
            "has(self.definition) == has(oldSelf.definition) && "
            "(!has(self.definition) || self.definition == oldSelf.definition) && "
            "has(self.definitionFrom) == has(oldSelf.definitionFrom) && "
            "(!has(self.definitionFrom) || self.definitionFrom == oldSelf.definitionFrom)",
            "the definition is immutable: make another NosanaJob",
        ),
    ]
    return _crd(
        JOB_KIND,
        "nj",
        spec,
        schema_of(NosanaJobStatus),
        columns=[
            _column("Phase", ".status.phase"),
            _column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
            _column("Endpoint", ".status.endpoints[0].url"),
            _column("Age", ".metadata.creationTimestamp", "date"),
            _column("Node", ".status.ops[*].node", wide=True),
            _column("Market", ".spec.run.market", wide=True),
            _column("Run", ".spec.run.run", wide=True),
            _column("Result", ".status.resultCID", wide=True),
        ],
        rules=[
            _rule(
                f"self.metadata.name.size() <= {MAX_JOB_NAME} && "
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                f"metadata.name has to be a DNS label that starts with a letter, of at most {MAX_JOB_NAME} "
                "characters: the names of its pods begin with it",
            )
        ],
        selectable=[".status.phase", ".spec.run.market", ".spec.run.run"],
    )


def _market_crd() -> JsonObject:
    spec = schema_of(NosanaMarketSpec)
    for name in ("address", "network", "jobNamespace"):
        spec["properties"][name]["x-kubernetes-validations"] = [
            _rule("self == oldSelf", f"spec.{name} is immutable: make another NosanaMarket")
        ]
    spec["properties"]["wallets"]["x-kubernetes-validations"] = [
        _rule(
            "self.all(w, self.exists_one(v, v.secretRef.name == w.secretRef.name && "
            "v.secretRef.key == w.secretRef.key))",
            "each wallet once",
        )
    ]
    return _crd(
        MARKET_KIND,
        "nm",
        spec,
        schema_of(NosanaMarketStatus),
        columns=[
            _column("Address", ".spec.address"),
            _column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            _column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
            _column("Free", ".status.slots.free", "integer"),
            _column("Standing", ".status.slots.standing", "integer"),
            _column("Running", ".status.slots.running", "integer"),
            _column("Age", ".metadata.creationTimestamp", "date"),
            _column("Price", ".status.price", "integer", wide=True),
            _column("Network", ".spec.network", wide=True),
        ],
        rules=[
            _rule(
                "self.metadata.name.size() <= 63",
                "metadata.name may have at most 63 characters: it is a label",
            )
        ],
        selectable=[".spec.address"],
    )


class _PlainDumper(yaml.SafeDumper):
    """Writes no anchors: people who read a CRD expect each schema in full."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def crds() -> list[JsonObject]:
    """Both CustomResourceDefinitions as plain objects, in a fixed order."""
    return [_job_crd(), _market_crd()]


def crds_yaml() -> str:
    """Both as one YAML stream: the output of `nosana-operator crds` and the content of `manifests/crds.yaml`."""
    return yaml.dump_all(crds(), Dumper=_PlainDumper, sort_keys=False, width=110, explicit_start=True)
