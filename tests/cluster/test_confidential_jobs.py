"""A confidential job, all the way: only its stub and a blank result are for everybody."""

from __future__ import annotations

import json

import pytest

from nosana_operator.api import JOB_KIND, JobCondition, definition_secret_name
from nosana_sandbox.cluster.forward import listen_in_namespace
from nosana_sandbox.cluster.local import LocalCluster
from nosana_sandbox.world.confidential import ConfidentialEndpoint
from support.scene import JOBS, Scene, assert_paid_once, condition, definition, logs_of, op

pytestmark = pytest.mark.cluster

WORD = "for-the-poster-only"


async def test_definition_and_result_go_to_the_poster_alone(
    scene: Scene, sandbox_cluster: LocalCluster
) -> None:
    await scene.idle()
    host = scene.running.world.host.address
    real = json.dumps(definition(op("work", f"echo {WORD}"))).encode()
    # Where the operator is: in the cluster's network namespace.
    listener = listen_in_namespace(sandbox_cluster.namespace, "127.0.0.1", 0)
    async with ConfidentialEndpoint(host, real, listener) as endpoint:
        posted = await scene.post(endpoint.stub())
        body = await scene.settled(posted)
        view = await scene.poster.job(posted.job)
        assert_paid_once(view, body, host)
        assert condition(body, JobCondition.COMPLETE)[:2] == ("True", "Succeeded")

        delivered = endpoint.results[posted.job]
        assert delivered["status"] == "success"
        assert logs_of(delivered, "work") == [WORD]
        assert endpoint.asked == 1

        published = await scene.result(posted)
        assert published["opStates"] == []
        assert published["status"] == "success"
        assert (published["startTime"], published["endTime"]) == (
            delivered["startTime"],
            delivered["endTime"],
        )

    secret = await scene.kube.get("Secret", JOBS, definition_secret_name(body["metadata"]["name"]))
    assert [one["uid"] for one in secret["metadata"]["ownerReferences"]] == [body["metadata"]["uid"]]
    for version in scene.seen.history(JOB_KIND):
        assert WORD not in json.dumps(version.body)
