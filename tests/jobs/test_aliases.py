"""Aliases of ops, from the pod's address to its end."""

from __future__ import annotations

from fakes.jobs import NAMESPACE, Lab, definition, op, private_job

PAIR = definition(op("db", group="g", aliases="db, cache"), op("web", group="g", depends_on=["db"]))


def named(lab: Lab) -> dict[str, list[str]]:
    """Alias → addresses."""
    found: dict[str, list[str]] = {}
    for body in lab.kube.objects("EndpointSlice", NAMESPACE):
        for endpoint in body["endpoints"]:
            found[endpoint["hostname"]] = endpoint["addresses"]
    return found


def give_address(lab: Lab, name: str, address: str) -> None:
    lab.kube.edit("Pod", NAMESPACE, name, {"status": {"podIP": address}})


async def running() -> Lab:
    lab = Lab()
    lab.kube.add(private_job({"definition": PAIR}))
    lab.boot()
    await lab.drive(lambda: lab.phase() == "Running" and len(lab.pods()) == 2)
    return lab


async def test_names_follow_the_pod_and_go_with_it() -> None:
    lab = await running()
    assert named(lab) == {}
    give_address(lab, "hello-0", "10.0.0.7")
    give_address(lab, "hello-1", "10.0.0.8")
    await lab.work()
    assert named(lab) == {"db": ["10.0.0.7"], "cache": ["10.0.0.7"]}
    lab.kubelet.end("hello-0", 0)
    await lab.work()
    assert named(lab) == {}


async def test_what_an_earlier_process_published_is_mended() -> None:
    lab = await running()
    give_address(lab, "hello-0", "10.0.0.7")
    await lab.work()
    await lab.controller.close()
    lab.kubelet.end("hello-0", 0)
    await lab.crash_and_reboot()
    await lab.work()
    assert named(lab) == {}


async def test_a_job_without_aliases_pays_nothing() -> None:
    lab = Lab(exits={0: 0})
    lab.kube.add(private_job({"definition": definition(op("a"))}))
    lab.boot()
    await lab.drive(lab.over())
    assert not lab.written("EndpointSlice", "Service")
