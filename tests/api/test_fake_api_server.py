"""The API server in memory refuses what the real one does: the rows are held against a real one too (contract)."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.admission import refusals
from fakes.kube import FakeKube, FakeRefused, InvalidFixture
from fakes.schemas import RULES
from nosana_operator.api import crds
from support.refused import GOOD, REFUSED, changed


def rules(schema: Any) -> set[str]:
    """Every CEL rule of a schema."""
    if isinstance(schema, list):
        return set().union(*(rules(one) for one in schema))
    if not isinstance(schema, dict):
        return set()
    own = {rule["rule"] for rule in schema.get("x-kubernetes-validations", ()) if isinstance(rule, dict)}
    return own.union(*(rules(one) for one in schema.values()))


def test_each_rule_of_the_crds_has_its_counterpart() -> None:
    """A new CEL rule needs an entry in `fakes.schemas.RULES`."""
    assert rules(crds()) == set(RULES)


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_good_objects_are_taken(body: dict[str, Any]) -> None:
    assert refusals(body) == []


@pytest.mark.parametrize(("kind", "change", "words"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(kind: str, change: dict[str, Any], words: str) -> None:
    assert words in "; ".join(refusals(changed(GOOD[kind], change)))


async def test_a_refused_write_leaves_no_trace() -> None:
    kube = FakeKube()
    bad = changed(GOOD["Service"], {"spec": {"ports": []}})
    for write in (kube.create, lambda body: kube.apply(body, manager="test")):
        with pytest.raises(FakeRefused, match=r"Service web is invalid: spec\.ports: Required value"):
            await write(bad)
    with pytest.raises(InvalidFixture, match=r"spec\.ports"):
        kube.add(bad)
    assert kube.objects("Service") == []
    await kube.create(GOOD["Service"])
    with pytest.raises(FakeRefused, match=r"metadata\.labels"):
        await kube.patch("Service", "jobs", "web", {"metadata": {"labels": {"a": "-"}}})
    assert kube.objects("Service")[0]["metadata"].get("labels") is None


def test_a_specs_immutable_parts() -> None:
    job = GOOD["NosanaJob"]
    other = changed(job, {"spec": {"definition": {"version": "0.2"}}})
    assert any("immutable" in one for one in refusals(other, job))
    assert (
        any("suspended" in one for one in refusals(changed(job, {"spec": {"suspend": True}}), job)) is False
    )
    pod = GOOD["Pod"]
    assert any("Forbidden" in one for one in refusals(changed(pod, {"spec": {"hostname": "b"}}), pod))
    assert refusals(changed(pod, {"spec": {"nodeName": "n"}}), pod) == []


def test_what_has_not_changed_is_not_judged_again() -> None:
    old = changed(GOOD["NosanaJob"], {"spec": {"timeout": 0}})
    assert refusals(old) != []
    assert refusals(changed(old, {"status": {"phase": "Running"}}), old) == []
