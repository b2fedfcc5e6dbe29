"""The policies of a namespace stand before the first pod, and are put up again."""

from __future__ import annotations

from fakes.jobs import NAMESPACE, Lab, definition, op, private_job
from fakes.kube import Request


def lab_of(jobs: int) -> Lab:
    lab = Lab(exits={0: 0})
    for number in range(jobs):
        lab.kube.add(private_job({"definition": definition(op("a"))}, f"job-{number}"))
    lab.boot()
    return lab


def policies(lab: Lab) -> list[Request]:
    return [r for r in lab.kube.requests if r.kind in ("NetworkPolicy", "PodDisruptionBudget")]


async def test_they_stand_before_the_first_pod_and_cost_the_next_job_nothing() -> None:
    lab = lab_of(3)
    await lab.drive(lambda: len(lab.pods()) == 3)
    kinds = [r.kind for r in lab.kube.requests if r.kind in ("NetworkPolicy", "PodDisruptionBudget", "Pod")]
    assert kinds == ["NetworkPolicy", "NetworkPolicy", "PodDisruptionBudget", "Pod", "Pod", "Pod"]


async def test_they_are_put_up_again_when_the_nodes_change_or_time_has_passed() -> None:
    lab = lab_of(1)
    await lab.drive(lab.over("job-0"))
    assert len(policies(lab)) == 3
    for number, changed in ((1, False), (2, True), (3, False)):
        if number == 3:
            lab.clock.advance(601)
        if changed:
            addresses = [{"type": "InternalIP", "address": "203.0.113.7"}]
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
            lab.kube.add({**node, "status": {"addresses": addresses}})
            lab.boot()
        lab.kube.requests.clear()
        lab.kube.add(private_job({"definition": definition(op("a"))}, f"job-{number}"))
        await lab.drive(lab.over(f"job-{number}"))
        assert bool(policies(lab)) is (number != 1)
    spec = lab.kube.find("NetworkPolicy", NAMESPACE, "nosana-jobs")
    assert "203.0.113.7/32" in str(spec)
