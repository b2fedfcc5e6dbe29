"""What an op or a job needs for a while: logins and volumes."""

from __future__ import annotations

from typing import Any

from fakes.jobs import NAMESPACE, Lab, definition, op, private_job

LOGIN = {"docker": {"username": "me", "password": "hush"}}
MAKE = {"type": "container/create-volume", "id": "make", "args": {"name": "data"}}
DATA = [{"name": "data", "dest": "/data"}]


def lab_of(*ops: Any, default_class: bool = True, exits: dict[int, int] | None = None) -> Lab:
    lab = Lab(exits={} if exits is None else exits)
    if default_class:
        notes = {"storageclass.kubernetes.io/is-default-class": "true"}
        lab.kube.add(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "provisioner": "example.com/disks",
                "metadata": {"name": "standard", "annotations": notes},
            }
        )
    lab.kube.add(private_job({"definition": definition(*ops)}))
    lab.boot()
    return lab


def there(lab: Lab, kind: str) -> list[str]:
    found = [body["metadata"]["name"] for body in lab.kube.objects(kind, NAMESPACE)]
    return [name for name in found if "result" not in name]


async def test_a_login_goes_when_its_op_has_ended() -> None:
    lab = lab_of(op("a", authentication=LOGIN), op("b"), exits={0: 0})
    await lab.drive(lambda: bool(lab.pods()))
    assert there(lab, "Secret") == ["hello-0-pull"]
    await lab.drive(lambda: len(lab.pods()) == 2 and lab.phase() == "Running")
    assert there(lab, "Secret") == []


async def test_what_to_fetch_goes_when_its_op_has_ended() -> None:
    files = [{"type": "HF", "repo": "lab/m", "target": "/m", "accessToken": "hush"}]
    lab = lab_of(op("a", resources=files), op("b"), exits={0: 0})
    await lab.drive(lambda: bool(lab.pods()))
    assert there(lab, "Secret") == ["hello-0-fetch"]
    await lab.drive(lambda: len(lab.pods()) == 2 and lab.phase() == "Running")
    assert there(lab, "Secret") == []


async def test_a_volume_is_made_shared_and_goes_with_the_job() -> None:
    lab = lab_of(MAKE, op("a", volumes=DATA), op("b", volumes=DATA), exits={1: 0})
    await lab.drive(lambda: len(lab.pods()) == 2)
    assert there(lab, "PersistentVolumeClaim") == ["hello-0"]
    lab.exits[2] = 0
    await lab.drive(lab.over())
    assert lab.phase() == "Completed"
    assert there(lab, "PersistentVolumeClaim") == []
    assert lab.pods() == [], "a claim is held as long as a pod names it"
    state = lab.result()["opStates"][0]
    assert (state["operationId"], state["status"], state["exitCode"]) == ("make", "success", 0)


async def test_a_process_that_dies_after_making_a_volume_takes_it_over() -> None:
    lab = lab_of(MAKE, op("a", volumes=DATA), exits={1: 0})
    lab.kube.interrupt = None
    await lab.drive(lambda: bool(there(lab, "PersistentVolumeClaim")))
    await lab.crash_and_reboot()
    await lab.drive(lab.over())
    assert lab.phase() == "Completed"


async def test_without_a_class_for_volumes_the_op_says_so() -> None:
    lab = lab_of(MAKE, op("a", volumes=DATA), default_class=False, exits={1: 0})
    await lab.drive(lambda: "StorageClass" in str(lab.says("Ready") and lab.status()["conditions"]))
    assert there(lab, "PersistentVolumeClaim") == []
    await lab.drive(lab.over())
    assert lab.phase() == "Failed"
    assert "no default StorageClass" in lab.status()["ops"][0]["message"]
