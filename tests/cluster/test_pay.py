"""What an admin says of pay: to whom, and for how long at most."""

from __future__ import annotations

import pytest
from solders.keypair import Keypair

from nosana_operator.api import JobCondition
from support.scene import Scene, condition, finishes, sleeps

pytestmark = pytest.mark.cluster


async def test_a_run_is_ended_at_max_timeout_and_paid_to_the_payout_address(scene: Scene) -> None:
    payout = str(Keypair().pubkey())
    await scene.idle()
    await scene.set_market(payoutAddress=payout, maxTimeout=5)
    try:
        posted = await scene.post(sleeps(600), timeout=600)
        body = await scene.settled(posted)
    finally:
        await scene.set_market(payoutAddress=None, maxTimeout=None)
    view = await scene.poster.job(posted.job)
    assert condition(body, JobCondition.COMPLETE)[:2] == ("True", "Expired")
    assert 5 <= view.seconds < 30
    (finish,) = [payment for payment in view.payments if payment.signature in finishes(view)]
    gained = {transfer.owner: transfer.change for transfer in finish.transfers if transfer.change > 0}
    assert gained == {payout: view.totals.earned, view.payer: view.totals.refunded}
    told = (await scene.result(posted))["opStates"][0]["diagnostics"]["reason"]
    assert told["jobExpired"]
    assert told["reason"] == "this host serves a job for 5 s at most"
