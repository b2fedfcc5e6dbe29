"""The flows of `flows.py` against the in-memory API, also with a process that dies all the time."""

from __future__ import annotations

import pytest

from fakes.jobs import NAMESPACE, Lab, definition, private_job
from support.flows import FLOWS, Flow


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS.keys())
@pytest.mark.parametrize("crashing", [False, True], ids=["", "restarted"])
async def test_a_flow(flow: Flow, crashing: bool) -> None:
    lab = Lab(exits=dict(flow.exits))
    notes = {"storageclass.kubernetes.io/is-default-class": "true"}
    lab.kube.add(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "provisioner": "example.com/disks",
            "metadata": {"name": "standard", "annotations": notes},
        }
    )
    for index, lines in flow.says.items():
        written = "".join(f"2026-01-02T03:04:05Z {line}\n" for line in lines)
        lab.kube.logs[NAMESPACE, f"hello-{index}"] = written.encode()
    lab.kube.add(private_job({"definition": definition(*flow.ops), **flow.spec}))
    lab.boot()
    if flow.stop:
        await lab.drive(lambda: len(lab.kubelet.starts) == sum(map(len, flow.names("hello"))))
        lab.kube.edit("NosanaJob", NAMESPACE, "hello", {"spec": {"stop": True}})
    if crashing:
        while not lab.over()():
            before = len(lab.kube.requests)
            await lab.drive(lambda before=before: lab.over()() or len(lab.kube.requests) > before + 2)  # type: ignore[misc]
            await lab.crash_and_reboot()
    await lab.drive(lab.over())

    waves = [set(wave) for wave in lab.kubelet.started if wave]
    started = [name for wave in lab.kubelet.started for name in wave]
    if crashing:
        # A process that dies between two pods of a wave leaves the rest to the next.
        for wave in flow.names("hello"):
            now, started = started[: len(wave)], started[len(wave) :]
            assert set(now) == wave
        assert started == []
    else:
        assert waves == flow.names("hello")
        assert len(started) == sum(map(len, waves))
    result = lab.result()
    assert [state["status"] for state in result["opStates"]] == list(flow.ends)
    assert result["status"] == flow.flow
