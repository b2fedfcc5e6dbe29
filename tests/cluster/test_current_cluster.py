"""The user's own cluster, for which a spare one stands in: namespaces are deleted from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nosana_sandbox.cluster import ClusterError, CurrentCluster, LocalCluster, expose_in_cluster
from nosana_sandbox.cluster.kubectl import Kubectl, find_kubectl

pytestmark = pytest.mark.cluster


def test_it_is_used_as_it_is_and_left_as_it_was(
    spare_cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(spare_cluster.kubeconfig))
    lines: list[str] = []
    current = CurrentCluster(tmp_path / "state", lines.append)
    assert current.status().state == "absent"
    status = current.up()
    assert (status.state, status.gpus, status.nodes, status.namespace) == ("running", 2, 1, None)
    assert "1 nodes, 2 GPUs" in lines[-1]
    current.ensure_images([{"ops": [{"args": {"image": "ubuntu"}}]}])
    assert "pulls the real ones" in lines[-1]

    kubectl = Kubectl(find_kubectl(), spare_cluster.kubeconfig)
    kubectl.run("create", "namespace", "the-users")
    assert status.kubeconfig is not None
    for namespace in ("the-sandboxes", "the-users"):
        expose_in_cluster(status.kubeconfig, namespace, "chain", 80, 8899)
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    current.down()
    names = [item["metadata"]["name"] for item in kubectl.get("namespaces")["items"]]
    assert "the-users" in names
    assert "the-sandboxes" not in names
    assert current.status().state == "absent"
    current.down()
    kubectl.run("delete", "namespace", "the-users")


def test_a_cluster_that_does_not_answer_is_said_before_anything_is_made(
    spare_cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    # Port 9 (discard) answers nowhere.
    text = spare_cluster.kubeconfig.read_text()
    server = next(line for line in text.splitlines() if '"server"' in line)
    kubeconfig.write_text(text.replace(server, '"server": "https://127.0.0.1:9",'))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    current = CurrentCluster(tmp_path / "state", lambda line: None)
    with pytest.raises(
        ClusterError, match=r"the current cluster https://127\.0\.0\.1:9 cannot be used: .*--cluster local"
    ):
        current.up()
    assert not (tmp_path / "state").exists()
