"""The accounts that each network's watcher follows: markets, wallets, and the jobs of open runs."""

from __future__ import annotations

from nosana_operator.api import JOB_KIND, MARKET_KIND, JobCondition, condition_is_true
from nosana_operator.market.keys.secrets import Wallets
from nosana_operator.market.ports import Cache, Networks


def watch_all(cache: Cache, networks: Networks, wallets: Wallets) -> None:
    """Replace the set of accounts that each network watches."""
    keys: dict[str, set[str]] = {}
    jobs: dict[str, set[str]] = {}
    markets: dict[str, set[str]] = {}
    network_of: dict[tuple[str, str], str] = {}
    for body in cache.list(MARKET_KIND):
        network, address = body["spec"].get("network", ""), body["spec"].get("address", "")
        meta = body["metadata"]
        network_of[(meta["namespace"], meta["name"])] = network
        chain = networks.chain(network)
        if chain is None or chain.problem_with(address) is not None:
            continue
        markets.setdefault(network, set()).add(address)
        keys.setdefault(network, set()).update(wallets.addresses(body))
    for body in cache.list(JOB_KIND):
        run = body["spec"].get("run")
        conditions = (body.get("status") or {}).get("conditions")
        if (
            not run
            or condition_is_true(conditions, JobCondition.SETTLED)
            or not condition_is_true(conditions, JobCondition.RUN_VERIFIED)
        ):
            continue
        ref = run["marketRef"]
        job_network = network_of.get((ref["namespace"], ref["name"]))
        if job_network is not None:
            jobs.setdefault(job_network, set()).add(run["job"])
            keys.setdefault(job_network, set()).add(run["node"])
    for network in networks.names():
        chain = networks.chain(network)
        if chain is not None:
            chain.watch(
                keys=keys.get(network, set()),
                jobs=jobs.get(network, set()),
                markets=markets.get(network, set()),
            )
