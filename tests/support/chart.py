"""The chart: values that set each of its options, and the objects in what Helm writes."""

from __future__ import annotations

from typing import Any

import yaml

Body = dict[str, Any]

MARKET: Body = {
    "name": "lab",
    "spec": {
        "address": "97G9NnvBDQ2WpKu6fasoMsAKmfj63C9rhysJnkeWodAf",
        "network": "mainnet",
        "jobNamespace": "nosana-jobs",
        "wallets": [{"secretRef": {"name": "host-key"}}],
        "gpu": {"count": 2, "product": "NVIDIA-H100", "tolerations": [{"key": "gpu", "operator": "Exists"}]},
        "slots": {"max": 2, "resources": {"cpu": "8", "memory": "48Gi"}},
    },
}
MONITORS = {
    "serviceMonitor": {"enabled": True, "interval": "1m", "labels": {"release": "prometheus"}},
    "podMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
    "prometheusRule": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "runbookUrl": "https://wiki.example.com/nosana/",
    },
    "dashboard": {"enabled": True, "labels": {"grafana_dashboard": "1"}, "annotations": {"folder": "GPU"}},
    "renderMode": "alwaysRender",
}
SETTINGS = {
    "clusterName": "lab",
    "metrics": {"port": 9090},
    "log": {"level": "debug"},
    "isolation": {"blocked": ["10.0.0.0/8"], "gatewayNamespaces": ["ingress"]},
    "volumes": {"storageClass": None, "accessMode": "ReadWriteMany", "size": "5Gi"},
    "fetch": {"mirrors": {"https://huggingface.co": "https://hub.example.com"}},
    "networks": {
        "mainnet": {
            "rpc": ["https://rpc.example.com"],
            "fees": {"cap": 100_000, "maximum": 15_000_000},
            "ipfs": {"pin": [{"type": "pinata", "url": "https://pin.example.com", "tokenFile": "/etc/x"}]},
        },
        "localnet": {"rpc": ["http://rpc"], "program": "1" * 32, "nosMint": "1" * 32},
    },
}
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "names": {"nameOverride": "host", "commonLabels": {"team": "gpu", "app.kubernetes.io/name": "mine"}},
    "whole name": {"fullnameOverride": "host-of-the-lab", "namespaceOverride": "elsewhere"},
    "image": {
        "image": {"repository": "registry.example.com/op", "tag": "1.2", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "login"}],
    },
    "digest": {"image": {"tag": "1.2", "digest": "sha256:" + "0a" * 32}},
    "two": {"replicas": 2},
    "two without budget": {"replicas": 2, "podDisruptionBudget": {"enabled": False}},
    "settings": {"settings": SETTINGS, "secrets": ["pinata", "an.other"]},
    "settings in a Secret": {
        "settingsSecret": {"name": "mine", "key": "file"},
        "watchNamespaces": ["a", "b"],
    },
    "some namespaces": {"watchNamespaces": ["nosana-system", "nosana-jobs", "team"]},
    "without CRDs": {"crds": {"enabled": False}},
    "CRDs go": {"crds": {"keep": False}},
    "without roles": {"rbac": {"create": False, "aggregate": False}},
    "another's account": {"serviceAccount": {"create": False, "name": "mine"}},
    "account": {"serviceAccount": {"annotations": {"a": "b"}}},
    "namespaces": {
        "namespace": {"create": True},
        "jobNamespaces": {
            "create": True,
            "names": ["a", "b"],
            "podSecurity": "privileged",
            "labels": {"x": "y"},
        },
    },
    "own namespaces": {"jobNamespaces": {"create": False}},
    "without policies": {"admissionPolicies": {"enabled": False}, "networkPolicy": {"enabled": False}},
    "markets": {"markets": [MARKET, MARKET | {"name": "spare"}]},
    "stays": {"leave": {"enabled": False}},
    "slow leave": {"leave": {"timeout": 900}},
    "monitors": {"metrics": {"service": {"enabled": True, "annotations": {"a": "b"}}, **MONITORS}},
    "without a Service": {"metrics": {"service": {"enabled": False}}},
    "who scrapes": {
        "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]}
    },
    "pod": {
        "resources": {"limits": {"cpu": 1, "memory": "2Gi"}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d", "app.kubernetes.io/component": "mine"},
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": 60,
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy"}],
    },
    "place": {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "control-plane", "operator": "Exists"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
                    ]
                }
            }
        },
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
    },
    "OpenShift": {
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
    },
    "more objects": {
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "y"}},
            'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "{{ .Release.Name }}-b"}',
        ]
    },
}


class UniqueKeys(yaml.CSafeLoader):
    """Refuses a key that is given twice: Helm 4 and server-side apply do."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is given twice: {node.start_mark}"
        return super().construct_mapping(node, deep)


def objects_in(text: str) -> list[Body]:
    return [body for body in yaml.load_all(text, UniqueKeys) if body is not None]
