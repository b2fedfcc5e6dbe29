"""Our client against a real API server: what Kubernetes really does with our requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nosana_operator.kube import (
    EventRecorder,
    KubeClient,
    KubeConflict,
    KubeNotFound,
    KubeRefused,
    KubeUnavailable,
    load_credentials,
)
from nosana_operator.runtime.operator import KINDS
from nosana_sandbox.cluster.apiserver import BareApiServer

pytestmark = pytest.mark.contract


def config_map(namespace: str, name: str = "c", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


def pod(namespace: str, name: str = "p") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "op", "image": "busybox"}]},
    }


async def test_create_get_list_delete(kube: KubeClient, namespace: str) -> None:
    made = await kube.create(config_map(namespace, a="1"))
    assert await kube.get("ConfigMap", namespace, "c") == made
    listed = await kube.list("ConfigMap", namespace)
    assert [(item["kind"], item["apiVersion"]) for item in listed] == [("ConfigMap", "v1")]
    await kube.delete("ConfigMap", namespace, "c", uid=made["metadata"]["uid"])
    with pytest.raises(KubeNotFound):
        await kube.get("ConfigMap", namespace, "c")
    await kube.delete("ConfigMap", namespace, "c")


async def test_create_of_a_taken_name(kube: KubeClient, namespace: str) -> None:
    await kube.create(config_map(namespace))
    with pytest.raises(KubeConflict) as caught:
        await kube.create(config_map(namespace))
    assert caught.value.reason == "AlreadyExists"


async def test_delete_with_another_uid_leaves_the_object(kube: KubeClient, namespace: str) -> None:
    await kube.create(config_map(namespace))
    await kube.delete("ConfigMap", namespace, "c", uid="00000000-0000-0000-0000-000000000000")
    assert await kube.get("ConfigMap", namespace, "c")


async def test_a_namespace_that_is_not_there(kube: KubeClient) -> None:
    with pytest.raises(KubeNotFound):
        await kube.create(config_map("nowhere"))


async def test_pages(kube: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nosana_operator.kube.client._PAGE", 2)
    for number in range(5):
        await kube.create(config_map(namespace, f"c{number}"))
    snapshot = await kube.snapshot("ConfigMap", namespace, metadata_only=True)
    assert [item["metadata"]["name"] for item in snapshot.items] == [f"c{number}" for number in range(5)]
    assert all("data" not in item for item in snapshot.items)
    assert snapshot.resource_version.isdigit()


async def test_apply_owns_its_fields_and_gives_up_what_it_leaves_out(
    kube: KubeClient, namespace: str
) -> None:
    await kube.apply(config_map(namespace, a="1", b="1"), manager="one")
    await kube.apply(config_map(namespace, c="1"), manager="two")
    after = await kube.apply(config_map(namespace, a="2"), manager="one")
    assert after["data"] == {"a": "2", "c": "1"}


async def test_apply_without_force_meets_the_other_owner(kube: KubeClient, namespace: str) -> None:
    await kube.apply(config_map(namespace, a="1"), manager="one")
    with pytest.raises(KubeConflict):
        await kube.apply(config_map(namespace, a="2"), manager="two", force=False)
    assert (await kube.apply(config_map(namespace, a="2"), manager="two"))["data"] == {"a": "2"}


async def test_apply_with_a_resource_version_is_a_compare_and_swap(kube: KubeClient, namespace: str) -> None:
    first = await kube.apply(config_map(namespace, a="1"), manager="one")
    body = config_map(namespace, a="2")
    body["metadata"]["resourceVersion"] = first["metadata"]["resourceVersion"]
    await kube.apply(body, manager="one")
    body["data"] = {"a": "3"}
    with pytest.raises(KubeConflict) as caught:
        await kube.apply(body, manager="one")
    assert caught.value.reason == "Conflict"
    assert (await kube.get("ConfigMap", namespace, "c"))["data"] == {"a": "2"}


async def test_of_two_writers_with_the_same_version_one_wins(kube: KubeClient, namespace: str) -> None:
    version = (await kube.apply(config_map(namespace), manager="one"))["metadata"]["resourceVersion"]

    async def write(value: int) -> bool:
        body = config_map(namespace, a=str(value))
        body["metadata"]["resourceVersion"] = version
        try:
            await kube.apply(body, manager="one")
        except KubeConflict:
            return False
        return True

    assert sum(await asyncio.gather(*(write(value) for value in range(10)))) == 1


async def test_patches(kube: KubeClient, namespace: str) -> None:
    await kube.create(config_map(namespace, a="1"))
    merged = await kube.patch("ConfigMap", namespace, "c", {"data": {"b": "2"}})
    assert merged["data"] == {"a": "1", "b": "2"}
    patched = await kube.patch("ConfigMap", namespace, "c", [{"op": "remove", "path": "/data/a"}])
    assert patched["data"] == {"b": "2"}
    with pytest.raises(KubeRefused):
        await kube.patch("ConfigMap", namespace, "c", [{"op": "test", "path": "/data/b", "value": "x"}])
    stale = {"metadata": {"resourceVersion": merged["metadata"]["resourceVersion"]}, "data": {"b": "3"}}
    with pytest.raises(KubeConflict):
        await kube.patch("ConfigMap", namespace, "c", stale)


async def test_a_field_that_the_schema_does_not_know_is_refused(
    installed: KubeClient, namespace: str
) -> None:
    job = {
        "apiVersion": "nosana.io/v1alpha1",
        "kind": "NosanaJob",
        "metadata": {"name": "j", "namespace": namespace},
        "spec": {"definition": {}},
    }
    await installed.create(job)
    body = {**job, "status": {"phase": "Running", "setlement": {"kind": "finish"}}}
    del body["spec"]
    for do in (
        lambda: installed.apply(body, manager="m", subresource="status"),
        lambda: installed.patch(
            "NosanaJob", namespace, "j", {"status": body["status"]}, subresource="status"
        ),
    ):
        with pytest.raises(KubeRefused, match="setlement"):
            await do()


async def test_a_finalizer_keeps_the_object_until_it_is_taken_off(kube: KubeClient, namespace: str) -> None:
    body = config_map(namespace)
    body["metadata"]["finalizers"] = ["example.org/x"]
    await kube.create(body)
    await kube.delete("ConfigMap", namespace, "c")
    assert (await kube.get("ConfigMap", namespace, "c"))["metadata"]["deletionTimestamp"]
    await kube.patch("ConfigMap", namespace, "c", {"metadata": {"finalizers": None}})
    with pytest.raises(KubeNotFound):
        await kube.get("ConfigMap", namespace, "c")


async def test_logs_of_a_pod_that_is_nowhere(kube: KubeClient, namespace: str) -> None:
    await kube.create(pod(namespace))
    with pytest.raises((KubeRefused, KubeUnavailable)):
        await kube.read_logs(namespace, "p", "wrong")
    with pytest.raises(KubeNotFound):
        await kube.read_logs(namespace, "gone", "op")


async def test_replies_are_passed_on_with_a_kind(apiserver: BareApiServer, namespace: str) -> None:
    replies: list[tuple[str, str]] = []
    async with load_credentials(apiserver.kubeconfig).open_session() as session:
        client = KubeClient(
            session,
            kinds=KINDS,
            on_reply=lambda body: replies.append((body["kind"], body["metadata"]["uid"])),
        )
        made = await client.create(pod(namespace))
        await client.patch("Pod", namespace, "p", {"metadata": {"labels": {"a": "b"}}})
        await client.get("Pod", namespace, "p")
        await client.delete("Pod", namespace, "p")
    assert replies[:3] == [("Pod", made["metadata"]["uid"])] * 3


async def test_a_wrong_token_is_unavailable_and_not_a_verdict(apiserver: BareApiServer) -> None:
    text = apiserver.kubeconfig.read_text().replace(apiserver.token, "wrong")
    file = apiserver.kubeconfig.with_name("wrong")
    file.write_text(text)

    async def no_wait(seconds: float) -> None:
        return

    async with load_credentials(file).open_session() as session:
        with pytest.raises(KubeUnavailable) as caught:
            await KubeClient(session, sleep=no_wait).get("Node", None, "n")
    assert caught.value.code == 401


async def test_events_are_taken_and_counted(kube: KubeClient, namespace: str) -> None:
    regarding = await kube.create(config_map(namespace))
    recorder = EventRecorder(kube, controller="nosana.io/operator", instance="test")
    for _ in range(3):
        recorder.event(regarding, type="Warning", reason="Odd", action="Look", note="Something is odd.")
    await recorder.flush(5)
    (event,) = await kube.list("Event", namespace)
    assert event["series"]["count"] == 3
    assert event["regarding"]["uid"] == regarding["metadata"]["uid"]
    assert recorder.dropped == 0
