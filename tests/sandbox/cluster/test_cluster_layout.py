from __future__ import annotations

import json
from pathlib import Path

import pytest

from nosana_sandbox.cluster import ClusterError, config
from nosana_sandbox.cluster.layout import Layout, spread


@pytest.mark.parametrize(
    ("gpus", "nodes", "shares"),
    [(4, 2, (2, 2)), (5, 2, (3, 2)), (1, 3, (1, 0, 0)), (0, 2, (0, 0)), (7, 1, (7,)), (12, 3, (4, 4, 4))],
)
def test_gpus_are_shared_out_evenly(gpus: int, nodes: int, shares: tuple[int, ...]) -> None:
    assert spread(gpus, nodes) == shares


def test_nodes_share_nothing_that_must_be_their_own() -> None:
    layout = Layout(Path("/var/lib/x"), "demo", 4, 3)
    for of in ("name", "address", "subnet", "bridge", "folder", "cgroup", "containerd_socket"):
        assert len({getattr(node, of) for node in layout.nodes}) == 3


def test_two_sandboxes_share_no_name_on_the_machine() -> None:
    one, other = Layout(Path("/var/lib/x"), "demo", 4, 1), Layout(Path("/tmp/y"), "demo", 4, 1)
    third = Layout(Path("/var/lib/x"), "tests", 4, 1)
    assert len({layout.slug for layout in (one, other, third)}) == 3
    assert one.slug == Layout(Path("/var/lib/x"), "demo", 8, 2).slug, "taking down needs no shape"


@pytest.mark.parametrize(
    ("state", "name", "gpus", "nodes", "says"),
    [
        ("/x", "Demo", 4, 1, "the sandbox's name 'Demo' cannot be used"),
        ("/x", "", 4, 1, "the sandbox's name '' cannot be used"),
        ("/x", "a/../b", 4, 1, "cannot be used; take at most 31 lower-case letters"),
        ("/x", "a" * 32, 4, 1, "take at most 31"),
        ("x", "demo", 4, 1, "the state folder x cannot be used; take an absolute path"),
        ("/" + "x" * 60, "demo", 4, 1, "at most 50 characters"),
        ("/x", "demo", 4, 0, "1 to 16 nodes, not 0"),
        ("/x", "demo", 4, 17, "1 to 16 nodes, not 17"),
        ("/x", "demo", -1, 1, "0 or more GPUs, not -1"),
    ],
)
def test_what_cannot_work_is_refused(state: str, name: str, gpus: int, nodes: int, says: str) -> None:
    with pytest.raises(ClusterError, match=says):
        Layout(Path(state), name, gpus, nodes)


def test_every_socket_fits_the_kernels_limit() -> None:
    layout = Layout(Path("/" + "x" * 49), "a" * 31, 16, 16)
    longest = max(
        (
            layout.nodes[-1].containerd_socket.with_name("containerd.sock.ttrpc"),
            layout.nodes[-1].folder / "kubelet" / "device-plugins" / "kubelet.sock",
            layout.nodes[-1].folder / "kubelet" / "pod-resources" / "kubelet.sock",
        ),
        key=lambda path: len(str(path)),
    )
    assert len(str(longest)) < 108


def test_a_node_without_gpus_has_no_gpu_labels() -> None:
    layout = Layout(Path("/x"), "demo", 1, 2)
    commands = [config.kubelet_command(layout, node, Path("/c"), Path("/k")) for node in layout.nodes]
    labels = [word for command in commands for word in command if word.startswith("--node-labels=")]
    assert len(labels) == 1
    assert "nvidia.com/gpu.count=1" in labels[0]
    assert "nvidia.com/gpu.memory=24564" in labels[0]


def test_the_pods_network_stays_inside_the_nodes_range() -> None:
    layout = Layout(Path("/x"), "demo", 1, 2)
    first, second = (json.loads(config.cni(layout, node))["plugins"][0] for node in layout.nodes)
    assert first["ipam"]["ranges"] == [[{"subnet": "10.88.1.0/24", "gateway": "10.88.1.1"}]]
    assert second["ipam"]["ranges"] == [[{"subnet": "10.88.2.0/24", "gateway": "10.88.2.1"}]]
    assert first["ipam"]["dataDir"] != second["ipam"]["dataDir"]


@pytest.mark.parametrize("masquerade", [True, False])
def test_everything_is_masqueraded_only_where_bridges_pass_by_the_filter(masquerade: bool) -> None:
    layout = Layout(Path("/x"), "demo", 1, 1)
    assert ("--masquerade-all" in config.proxy(layout, Path("/k"), masquerade_all=masquerade)) is masquerade


def test_feature_gates_are_switched_on_in_all_programs_that_serve_them() -> None:
    layout = Layout(Path("/x"), "demo", 1, 1, ("A", "B"))
    assert "--feature-gates=A=true,B=true" in config.kubelet_command(
        layout, layout.nodes[0], Path("/c"), Path("/k")
    )
    plain = config.kubelet_command(Layout(Path("/x"), "demo", 1, 1), layout.nodes[0], Path("/c"), Path("/k"))
    assert not any(word.startswith("--feature-gates") for word in plain)
