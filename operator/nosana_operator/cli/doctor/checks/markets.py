"""NosanaMarkets: the market on chain, its price and queue, the jobs' namespace, and every key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from nosana_operator.api import NosanaMarketSpec
from nosana_operator.chain import Market, WalletState, address_problem
from nosana_operator.cli.doctor.facts import Body, Facts, Known, MarketFacts, Unknown, WalletFacts
from nosana_operator.cli.doctor.finding import Finding, Subject

LAMPORTS: Final = 1_000_000_000
NOS: Final = 1_000_000
"""Base units of one NOS, and of one xNOS."""
LEAST_LAMPORTS: Final = 5_000_000
"""Fees and rent of a few runs."""
DEEP_QUEUE: Final = 250
"""Entries from which on a market's account is near its end (onchain.md §2)."""
_ENFORCE: Final = "pod-security.kubernetes.io/enforce"


def market_findings(facts: Facts) -> Iterator[Finding]:
    """Every NosanaMarket and every key of it."""
    say = Subject("market")
    if isinstance(facts.cluster.server, Unknown):
        return
    if isinstance(facts.markets, Unknown):
        yield say.unknown(f"NosanaMarkets cannot be listed: {facts.markets.why}")
        return
    if not facts.markets:
        yield say.ok("there is no NosanaMarket: private jobs only")
    claimed: dict[tuple[str, str, str], str] = {}
    for market in facts.markets:
        yield from _market(market, facts, claimed)


def _market(market: MarketFacts, facts: Facts, claimed: dict[tuple[str, str, str], str]) -> Iterator[Finding]:
    name = f"{market.namespace}/{market.name}"
    say, spec = Subject("market", name), market.spec
    if isinstance(spec, Unknown):
        yield say.failure(spec.why, "Correct its spec, or apply the CRDs of this version.")
        return
    yield from _namespace(Subject("market.namespace", name), market.namespace, spec, facts.cluster.namespaces)
    if spec.network not in facts.settings.networks:
        there = ", ".join(sorted(facts.settings.networks)) or "none"
        yield say.failure(
            f"the settings have no network {spec.network!r}, which spec.network names",
            f"Add it under `networks`, or make a NosanaMarket of one of those that are there ({there}).",
        )
    else:
        yield from _on_chain(say, spec, market.account)
    for wallet in market.wallets:
        say = Subject("wallet", f"{name} {wallet.secret}")
        served = spec.network in facts.settings.networks
        yield from _wallet(say, wallet, market.account, served)
        if isinstance(wallet.address, str):
            owner = claimed.setdefault(
                (spec.network, spec.address, wallet.address), f"{name} {wallet.secret}"
            )
            if owner != f"{name} {wallet.secret}":
                yield say.failure(
                    f"the key {wallet.address} stands in this market for {owner} already",
                    "Give each Secret of a market a key of its own.",
                )


def _namespace(
    say: Subject, own: str, spec: NosanaMarketSpec, namespaces: Mapping[str, Known[Body | None]]
) -> Iterator[Finding]:
    jobs = spec.job_namespace
    found = namespaces.get(jobs)
    if jobs == own:
        yield say.failure(
            f"spec.jobNamespace is {own}, where the keys' Secrets are",
            "Make a NosanaMarket whose jobs run in another namespace.",
        )
    elif isinstance(found, Unknown):
        yield say.unknown(f"namespace {jobs} cannot be read: {found.why}")
    elif found is None:
        yield say.failure(
            f"namespace {jobs}, where the jobs are to run, does not exist", f"kubectl create namespace {jobs}"
        )
    elif (found["metadata"].get("labels") or {}).get(_ENFORCE) == "restricted":
        yield say.failure(
            f"namespace {jobs} enforces Pod Security level `restricted`, and jobs run as root inside",
            f"kubectl label --overwrite namespace {jobs} {_ENFORCE}=baseline",
        )
    else:
        yield say.ok(f"jobs run in namespace {jobs}")


def _on_chain(say: Subject, spec: NosanaMarketSpec, account: Known[Market | None]) -> Iterator[Finding]:
    if problem := address_problem(spec.address):
        yield say.failure(
            problem.partition(";")[0], "Make a NosanaMarket with the market's address in base58."
        )
    elif account is None or (isinstance(account, Unknown) and account.refused):
        yield say.failure(
            f"there is no market {spec.address} on network {spec.network}",
            "Make a NosanaMarket with the right address; a market of devnet is not on mainnet.",
        )
    elif isinstance(account, Unknown):
        yield say.unknown(f"the market on chain was not read: {account.why}")
    else:
        yield from _account(say, spec, account)


def _account(say: Subject, spec: NosanaMarketSpec, account: Market) -> Iterator[Finding]:
    waiting = len(account.queue)
    queue = {
        "Job": f"{waiting} jobs wait for a host",
        "Node": f"{waiting} hosts wait for a job",
        "Empty": "its queue is empty",
    }[account.queue_type]
    if waiting >= DEEP_QUEUE:
        yield say.warning(
            f"{queue}: the market's account has room for few more",
            "Wait, or choose another market; nothing joins a queue that is full.",
        )
    if account.price == 0:
        yield say.warning("the market pays nothing", "Choose another market, if that is not what you want.")
    yield say.ok(f"the market is on chain, pays {account.price / NOS:g} NOS/s; {queue}")


def _wallet(
    say: Subject, wallet: WalletFacts, account: Known[Market | None], served: bool
) -> Iterator[Finding]:
    if isinstance(wallet.address, Unknown):
        if wallet.address.refused:
            yield say.failure(
                wallet.address.why,
                "kubectl create secret generic NAME --from-file=id.json=KEYPAIR in the NosanaMarket's namespace, "
                "with the key file of the Solana CLI.",
            )
        else:
            yield say.unknown(wallet.address.why)
        return
    if not served:
        yield say.ok(f"the Secret holds the key {wallet.address}")
        return
    market = None if isinstance(account, Unknown) else account
    problems = [
        *_money(say, wallet.address, wallet.state, market),
        *_access(say, wallet.address, wallet.access_keys, market),
    ]
    yield from problems
    if not problems and not isinstance(wallet.state, Unknown):
        yield say.ok(
            f"{wallet.address} has {wallet.state.lamports / LAMPORTS:.4f} SOL, "
            f"{(wallet.state.stake_xnos or 0) / NOS:g} xNOS staked, {wallet.state.nos_balance / NOS:g} NOS"
        )


def _money(say: Subject, address: str, state: Known[WalletState], market: Market | None) -> Iterator[Finding]:
    if isinstance(state, Unknown):
        yield say.unknown(f"what {address} has was not read: {state.why}")
        return
    if state.lamports < LEAST_LAMPORTS:
        yield say.failure(
            f"{address} has {state.lamports / LAMPORTS:.6f} SOL, too little for fees and rent",
            f"Send it {LEAST_LAMPORTS / LAMPORTS:g} SOL or more.",
        )
    minimum = market.xnos_minimum if market is not None else 0
    if state.stake_xnos is None:
        yield say.failure(
            f"{address} has no stake account, without which no market lets it stand",
            "Stake NOS with this key; 0 is enough where the market asks for nothing.",
        )
    elif state.stake_xnos < minimum:
        yield say.failure(
            f"{address} has {state.stake_xnos / NOS:g} xNOS staked, the market asks for {minimum / NOS:g}",
            "Stake more NOS with this key, or for longer.",
        )
    if not state.nos_account_exists:
        yield say.warning(
            f"{address} has no NOS account yet; it is made with the first `work`, for 0.002 SOL of rent",
            "Nothing has to be done, as long as the SOL is there.",
        )


def _access(
    say: Subject, address: str, keys: Known[frozenset[str]], market: Market | None
) -> Iterator[Finding]:
    if market is None or market.node_access_key is None:
        return
    if isinstance(keys, Unknown):
        yield say.unknown(f"whether {address} holds the market's access key was not read: {keys.why}")
    elif market.node_access_key not in keys:
        yield say.failure(
            f"{address} holds no token of the collection {market.node_access_key}, which the market asks for",
            "Have one issued to this key, or choose an open market.",
        )
