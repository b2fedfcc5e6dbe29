"""The objects of a cluster that serves a market, as an administrator writes them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from solders.pubkey import Pubkey

from nosana_operator.api import API_VERSION, MARKET_KIND
from nosana_operator.api.placement import NodeSettings

ADMIN, JOBS = "nosana-system", "nosana-jobs"
MARKET = "gpus"
Body = dict[str, Any]


def gpu_node(name: str, gpus: int) -> Body:
    """A node that is ready."""
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": NodeSettings().labels},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus), "pods": str(max(100, 2 * gpus)), "cpu": "64"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def wallet_secret(name: str, key: bytes) -> Body:
    """A Secret with a key as Solana's tools write it."""
    data = base64.b64encode(json.dumps(list(key)).encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": ADMIN},
        "data": {"id.json": data},
    }


def nosana_market(name: str, address: Pubkey, wallets: Iterable[str], /, **spec: Any) -> Body:
    """A NosanaMarket whose keys are in these Secrets."""
    return {
        "apiVersion": API_VERSION,
        "kind": MARKET_KIND,
        "metadata": {"name": name, "namespace": ADMIN},
        "spec": {
            "address": str(address),
            "network": "localnet",
            "jobNamespace": JOBS,
            "wallets": [{"secretRef": {"name": wallet}} for wallet in wallets],
            **spec,
        },
    }
