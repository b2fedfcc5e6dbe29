"""The policies of a namespace stand before the first pod, and are put up again."""

from __future__ import annotations

from fakes.jobs import NAMESPACE, Lab, definition, op, private_job
from fakes.kube import Request
from nosana_operator.errors import Refused


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


async def test_the_address_of_the_clusters_dns_is_allowed_and_read_once() -> None:
    lab = lab_of(2)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "kube-system", "name": "kube-dns"},
    }
    lab.kube.add({**service, "spec": {"clusterIPs": ["10.96.0.10"], "ports": [{"port": 53}]}})
    lab.boot()
    await lab.drive(lambda: len(lab.pods()) == 2)
    assert "10.96.0.10/32" in str(lab.kube.find("NetworkPolicy", NAMESPACE, "nosana-jobs"))
    assert [(r.verb, r.name) for r in lab.kube.requests if r.kind == "Service"].count(
        ("get", "kube-dns")
    ) == 1


async def test_a_cluster_whose_dns_may_not_be_read_still_runs_jobs() -> None:
    lab = lab_of(1)

    async def forbid(request: Request, when: str) -> None:
        if (request.verb, request.kind) == ("get", "Service"):
            raise Refused("services is forbidden")

    lab.kube.interrupt = forbid
    await lab.drive(lab.over("job-0"))
    assert len(policies(lab)) == 3


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
