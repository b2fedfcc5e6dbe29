"""`nosana-operator doctor` on a cluster that works, and with mistakes planted in it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from solders.keypair import Keypair

from support.scene import Scene

pytestmark = pytest.mark.cluster

Findings = Sequence[Mapping[str, str]]
ELSEWHERE = str(Keypair().pubkey())


async def doctor(scene: Scene, settings: Mapping[str, Any], folder: Path) -> tuple[int, Findings]:
    """Exit code and findings of the command, which runs as a user's would."""
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(settings))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nosana_operator", "doctor", "--settings", str(file), "--output", "json"),
        env={**os.environ, "KUBECONFIG": str(scene.running.kubeconfig)},
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    assert process.returncode is not None
    findings: Findings = json.loads(told)["findings"]
    return process.returncode, findings


def failed(findings: Findings) -> set[str]:
    return {f"{each['check']} {each['subject']}".strip() for each in findings if each["level"] == "failure"}


async def test_a_cluster_that_works_has_no_failure(scene: Scene, tmp_path: Path) -> None:
    code, findings = await doctor(scene, scene.host.settings(scene.running.world), tmp_path)  # type: ignore[arg-type]
    assert failed(findings) == set()
    assert code == 0
    well = {each["check"] for each in findings if each["level"] == "ok"}
    assert well >= {
        "gpus",
        "kubernetes.api",
        "kubernetes.clock",
        "kubernetes.crds",
        "kubernetes.rights",
        "kubernetes.storage",
        "kubernetes.version",
        "market",
        "market.gpus",
        "market.namespace",
        "network.clock",
        "network.cluster",
        "network.ipfs-gateways",
        "network.pin",
        "network.rpc",
        "network.websocket",
        "settings",
        "wallet",
    }


async def test_mistakes_are_found_by_their_names(scene: Scene, tmp_path: Path) -> None:
    settings = scene.host.settings(scene.running.world)  # type: ignore[arg-type]
    network = settings["networks"]["localnet"]
    settings["networks"]["away"] = {**network, "rpc": ["http://127.0.0.1:9"], "ws": ["ws://127.0.0.1:9"]}
    settings["networks"]["bare"] = {**network, "ipfs": {"gateways": [], "pin": []}}
    settings["volumes"] = {"storageClass": "fast"}
    poor = Keypair()
    await scene.make(scene.host.wallet_secret(json.dumps(list(bytes(poor))), "doctor-poor"))
    await scene.make(scene.host.wallet_secret("[1, 2, 3]", "doctor-broken"))
    planted: dict[str, dict[str, Any]] = {
        "doctor-typo": {"network": "lokalnet", "paused": True},
        "doctor-lost": {"address": ELSEWHERE, "paused": True},
        "doctor-nowhere": {"jobNamespace": "doctor-nowhere", "paused": True},
        "doctor-keys": {
            "wallets": [
                {"secretRef": {"name": name}} for name in ("doctor-poor", "doctor-broken", "doctor-none")
            ],
            "paused": True,
        },
        "doctor-gpus": {"gpu": {"product": "NVIDIA-NONE"}, "paused": True},
    }
    for name, spec in planted.items():
        body = scene.host.market(**spec)
        body["metadata"]["name"] = name
        await scene.make(body)

    code, findings = await doctor(scene, settings, tmp_path)
    assert code == 1
    here = "nosana-system"
    assert failed(findings) >= {
        "kubernetes.storage",
        f"market {here}/doctor-lost",
        f"market {here}/doctor-typo",
        f"market.gpus {here}/doctor-gpus",
        f"market.namespace {here}/doctor-nowhere",
        "network.ipfs-gateways bare",
        "network.pin bare",
        "network.rpc away",
        f"wallet {here}/doctor-keys doctor-broken/id.json",
        f"wallet {here}/doctor-keys doctor-none/id.json",
        f"wallet {here}/doctor-keys doctor-poor/id.json",
    }
    # The sandbox's own market is well all the same.
    assert not [each for each in failed(findings) if each.endswith(f"{here}/sandbox")]
    assert str(list(bytes(poor)))[1:40] not in json.dumps(findings)
