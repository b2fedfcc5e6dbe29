"""NosanaMarkets: the market on chain, its price and queue, the jobs' namespace, and every key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nosana_operator.api import NosanaMarketSpec
from nosana_operator.chain import Market, WalletState, address_problem
from nosana_operator.doctor.facts import Facts, Known, MarketFacts, Unknown, WalletFacts
from nosana_operator.doctor.finding import Finding, Subject
from nosana_operator.market.host.eligibility import reserve
from nosana_operator.market.host.queueing import DEEPEST
from nosana_operator.runtime.settings import NetworkSettings

LAMPORTS: Final = 1_000_000_000
NOS: Final = 1_000_000
"""Base units of one NOS, and of one xNOS."""
_ENFORCE: Final = "pod-security.kubernetes.io/enforce"


def market_findings(facts: Facts) -> Iterator[Finding]:
    """Findings about every NosanaMarket and each of its keys."""
    check = Subject("market")
    if isinstance(facts.cluster.server, Unknown):
        return
    if isinstance(facts.markets, Unknown):
        yield check.unknown(f"NosanaMarkets cannot be listed: {facts.markets.reason}")
        return
    if not facts.markets:
        yield check.ok("there is no NosanaMarket: private jobs only")
    claimed: dict[tuple[str, str, str], str] = {}
    for market in facts.markets:
        yield from _market(market, facts, claimed)


def _market(market: MarketFacts, facts: Facts, claimed: dict[tuple[str, str, str], str]) -> Iterator[Finding]:
    name = f"{market.namespace}/{market.name}"
    check, spec = Subject("market", name), market.spec
    if isinstance(spec, Unknown):
        yield check.failure(spec.reason, "Correct its spec, or apply the CRDs of this version.")
        return
    yield from _namespace(Subject("market.namespace", name), market.namespace, spec, facts)
    if spec.network not in facts.settings.networks:
        names = ", ".join(sorted(facts.settings.networks)) or "none"
        yield check.failure(
            f"the settings have no network {spec.network!r}, which spec.network names",
            f"Add it under `networks`, or create a NosanaMarket for one of the configured networks ({names}).",
        )
    else:
        yield from _on_chain(check, spec, market.account)
    for wallet in market.wallets:
        check = Subject("wallet", f"{name} {wallet.secret}")
        yield from _wallet(check, wallet, market.account, facts.settings.networks.get(spec.network))
        if isinstance(wallet.address, str):
            owner = claimed.setdefault(
                (spec.network, spec.address, wallet.address), f"{name} {wallet.secret}"
            )
            if owner != f"{name} {wallet.secret}":
                yield check.failure(
                    f"{owner} already uses the key {wallet.address} in this market",
                    "Give each Secret of a market its own key.",
                )


def _namespace(check: Subject, own: str, spec: NosanaMarketSpec, facts: Facts) -> Iterator[Finding]:
    jobs, served = spec.job_namespace, facts.settings.watch_namespaces
    namespace = facts.cluster.namespaces.get(jobs)
    if jobs == own:
        yield check.failure(
            f"spec.jobNamespace is {own}, where the keys' Secrets are",
            "Create a NosanaMarket whose jobs run in another namespace.",
        )
    elif served and jobs not in served:
        yield check.failure(
            f"spec.jobNamespace is {jobs}, which is not among the operator's watchNamespaces",
            f"Add it to watchNamespaces ({', '.join(served)}).",
        )
    elif isinstance(namespace, Unknown):
        yield check.unknown(f"namespace {jobs} cannot be read: {namespace.reason}")
    elif namespace is None:
        yield check.failure(
            f"spec.jobNamespace is {jobs}, and that namespace does not exist",
            f"kubectl create namespace {jobs}",
        )
    elif (namespace["metadata"].get("labels") or {}).get(_ENFORCE) == "restricted":
        yield check.failure(
            f"namespace {jobs} enforces the Pod Security level `restricted`, but containers of jobs run as root",
            f"kubectl label --overwrite namespace {jobs} {_ENFORCE}=baseline",
        )
    else:
        yield check.ok(f"jobs run in namespace {jobs}")


def _on_chain(check: Subject, spec: NosanaMarketSpec, account: Known[Market | None]) -> Iterator[Finding]:
    if problem := address_problem(spec.address):
        yield check.failure(
            problem.partition(";")[0], "Create a NosanaMarket with the market's address in base58."
        )
    elif account is None:
        yield check.failure(
            f"there is no market {spec.address} on network {spec.network}",
            "Create a NosanaMarket with the right address; a market of devnet is not on mainnet.",
        )
    elif isinstance(account, Unknown):
        yield check.unknown(f"the market's account could not be read: {account.reason}")
    else:
        yield from _account(check, spec, account)


def _account(check: Subject, spec: NosanaMarketSpec, account: Market) -> Iterator[Finding]:
    waiting = len(account.queue)
    queue = {
        "Job": f"jobs in its queue: {waiting}",
        "Node": f"hosts in its queue: {waiting}",
        "Empty": "its queue is empty",
    }[account.queue_type]
    if waiting > DEEPEST:
        yield check.warning(
            f"{queue}, more than {DEEPEST}: the keys do not join until it is shorter",
            "Wait, or choose another market.",
        )
    if account.price < spec.min_price:
        yield check.warning(
            f"the market pays {account.price / NOS:g} NOS/s, less than spec.minPrice "
            f"({spec.min_price / NOS:g}): the keys stay out of its queue",
            "Lower spec.minPrice, or wait until the market pays more.",
        )
    elif account.price == 0:
        yield check.warning("the market pays nothing", "Choose another market, if that is not what you want.")
    if spec.paused or spec.drain is not None:
        field = "paused" if spec.paused else "drain"
        yield check.warning(
            f"spec.{field} is set: the keys stay out of the queue",
            f"Remove spec.{field} to join the queue again.",
        )
    yield check.ok(f"the market is on chain, pays {account.price / NOS:g} NOS/s; {queue}")


def _wallet(
    check: Subject, wallet: WalletFacts, account: Known[Market | None], network: NetworkSettings | None
) -> Iterator[Finding]:
    if isinstance(wallet.address, Unknown):
        if wallet.address.refused:
            yield check.failure(
                wallet.address.reason,
                "kubectl create secret generic NAME --from-file=id.json=KEYPAIR in the NosanaMarket's namespace, "
                "with the key file of the Solana CLI.",
            )
        else:
            yield check.unknown(wallet.address.reason)
        return
    if network is None:
        yield check.ok(f"the Secret holds the key {wallet.address}")
        return
    market = None if isinstance(account, Unknown) else account
    problems = [
        *_money(check, wallet.address, wallet.state, market, network.fees.cap),
        *_access(check, wallet.address, wallet.access_keys, market),
    ]
    yield from problems
    if not problems and not isinstance(wallet.state, Unknown):
        yield check.ok(
            f"{wallet.address} has {wallet.state.lamports / LAMPORTS:.4f} SOL, "
            f"{(wallet.state.stake_xnos or 0) / NOS:g} xNOS staked, {wallet.state.nos_balance / NOS:g} NOS"
        )


def _money(
    check: Subject, address: str, state: Known[WalletState], market: Market | None, fee_cap: int
) -> Iterator[Finding]:
    if isinstance(state, Unknown):
        yield check.unknown(f"the balances of {address} could not be read: {state.reason}")
        return
    needed = reserve(0, fee_cap, nos_account=state.nos_account_exists)
    if state.lamports < needed:
        yield check.failure(
            f"{address} has {state.lamports / LAMPORTS:.6f} SOL; fees and rent take {needed / LAMPORTS:.6f} for "
            "each run at a time",
            "Send it SOL: 0.1 is plenty.",
        )
    minimum = market.xnos_minimum if market is not None else 0
    if state.stake_xnos is None:
        yield check.failure(
            f"{address} has no stake account, and no market admits a key without one",
            "Stake NOS with this key; 0 is enough when the market has no minimum.",
        )
    elif state.stake_xnos < minimum:
        yield check.failure(
            f"{address} has {state.stake_xnos / NOS:g} xNOS staked, the market requires {minimum / NOS:g}",
            "Stake more NOS with this key, or for longer.",
        )
    if not state.nos_account_exists:
        yield check.warning(
            f"{address} has no NOS account yet; the first `work` creates it, for 0.002 SOL of rent",
            "Nothing has to be done as long as the key has the SOL.",
        )


def _access(
    check: Subject, address: str, keys: Known[frozenset[str]], market: Market | None
) -> Iterator[Finding]:
    if market is None or market.node_access_key is None:
        return
    if isinstance(keys, Unknown):
        yield check.unknown(
            f"whether {address} holds the market's access key could not be read: {keys.reason}"
        )
    elif market.node_access_key not in keys:
        yield check.failure(
            f"{address} holds no token of the collection {market.node_access_key}, which the market requires",
            "Have one issued to this key, or choose an open market.",
        )
