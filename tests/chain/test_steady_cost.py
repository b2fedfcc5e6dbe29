"""What 500 running jobs cost in requests: of the watcher and of all others that ask. Time is simulated."""

from __future__ import annotations

from fakes.steady_load import Steady, SteadyFleet, live


def test_500_running_jobs_cost_one_request_a_second() -> None:
    """In three markets, by eight keys that stand, from two nodes; without a WebSocket and with one."""

    async def program(fleet: SteadyFleet) -> dict[str, dict[str, float]]:
        rates = {}
        await fleet.settle_in()
        for markets in ("open", "access keys"):
            fleet.followed = False
            rates[f"{markets}, dead"] = await fleet.rate(180)
            fleet.followed = True
            rates[f"{markets}, followed"] = await fleet.rate(60)
            fleet.ask_for_access_keys()
            await fleet.settle_in(30)
        return rates

    for case, rate in live(Steady(), program).items():
        assert rate["sum"] <= (1.0 if case.endswith("dead") else 0.75), (case, rate)
