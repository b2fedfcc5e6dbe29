"""Solana and IPFS, for each network of the settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from nosana_operator.chain.endpoint_report import GENESIS, EndpointReport
from nosana_operator.doctor.facts import Facts, Known, NetworkFacts, Unknown
from nosana_operator.doctor.finding import Finding, Subject

SLOW_SECONDS: Final = 1.0
LAG_SLOTS: Final = 25
"""Ten seconds behind the best endpoint; the operator then prefers another one (chain/rpc/endpoints.py)."""
SKEW_SECONDS: Final = 30.0
"""The chain's clock may drift this far without a finding; the operator uses the measured offset."""


def network_findings(facts: Facts) -> Iterator[Finding]:
    """Findings about every network's endpoints, cluster, clock, gateways and pin services."""
    for name, network in sorted(facts.networks.items()):
        yield from _rpc(name, network)
        yield from _cluster(name, network)
        yield from _sockets(name, network)
        yield from _clock(name, network)
        yield from _gateways(name, network)
        yield from _pins(name, network)


def host_of(url: str) -> str:
    """Host and port of a URL: the rest may hold an API key."""
    parts = urlsplit(url)
    return parts.hostname or "?" if parts.port is None else f"{parts.hostname}:{parts.port}"


def _answered(endpoints: Sequence[Known[EndpointReport]]) -> list[EndpointReport]:
    return [one for one in endpoints if not isinstance(one, Unknown)]


def _rpc(name: str, network: NetworkFacts) -> Iterator[Finding]:
    answered = _answered(network.endpoints)
    newest = max((report.slot for report in answered), default=0)
    for at, (url, report) in enumerate(zip(network.settings.rpc, network.endpoints, strict=True)):
        check = Subject("network.rpc", name)
        where = f"networks.{name}.rpc[{at}] ({host_of(url)})"
        if isinstance(report, Unknown):
            problem = check.warning if answered else check.failure
            yield problem(
                f"{where} gives no usable answer: {report.reason}",
                "Check the URL, its API key and the network between here and there; the operator uses the others "
                "meanwhile."
                if answered
                else "Check the URL, its API key and the network between here and there; the operator serves no market "
                "of this network until an endpoint answers.",
            )
        else:
            yield _endpoint(check, where, report, newest)
    if len(network.settings.rpc) == 1 and answered:
        yield Subject("network.rpc", name).warning(
            f"networks.{name}.rpc has one endpoint: when it fails, nothing can be settled",
            "Add a second one, of another provider.",
        )
    if answered and not any(report.lists_accounts for report in answered):
        yield Subject("network.program-accounts", name).warning(
            "no endpoint offers getProgramAccounts: the operator finds runs in the markets' transactions, with a "
            "request for each transaction of anybody",
            "Nothing has to be done; an endpoint that offers it is faster and saves these requests.",
        )
    elif answered:
        yield Subject("network.program-accounts", name).ok("getProgramAccounts is offered")


def _endpoint(check: Subject, where: str, report: EndpointReport, newest: int) -> Finding:
    behind = newest - report.slot
    if behind > LAG_SLOTS:
        return check.warning(
            f"{where} is {behind} slots behind the best one",
            "Use another endpoint, or wait until it has caught up; the operator uses it last meanwhile.",
        )
    if report.latency > SLOW_SECONDS:
        return check.warning(f"{where} takes {report.latency:.1f} s to answer", "Use a nearer endpoint.")
    return check.ok(f"{where} answers after {report.latency * 1000:.0f} ms, slot {report.slot}")


def _cluster(name: str, network: NetworkFacts) -> Iterator[Finding]:
    """Whether all endpoints belong to the intended Solana cluster."""
    check = Subject("network.cluster", name)
    names = {genesis: cluster for cluster, genesis in GENESIS.items()}
    endpoints: dict[str, list[int]] = {}
    for at, report in enumerate(network.endpoints):
        if not isinstance(report, Unknown) and report.genesis is not None:
            endpoints.setdefault(report.genesis, []).append(at)
    answered = _answered(network.endpoints)
    if not endpoints:
        if answered:
            yield check.unknown("no endpoint reports which cluster it belongs to")
        return
    wrong = [
        f"rpc[{at}] is {names.get(genesis, 'of another cluster')}"
        for genesis, places in endpoints.items()
        for at in places
        if name in GENESIS and genesis != GENESIS[name]
    ]
    if wrong:
        yield check.failure(
            f"networks.{name} has endpoints of another Solana cluster: {', '.join(wrong)}",
            f"Use endpoints of {name}, or name the network after its cluster.",
        )
    elif len(endpoints) > 1:
        clusters = "; ".join(
            f"rpc{places} {names.get(genesis, genesis[:8])}" for genesis, places in endpoints.items()
        )
        yield check.failure(
            f"the endpoints of networks.{name} are of different Solana clusters: {clusters}",
            "Use endpoints of one cluster in each network.",
        )
    elif any(report.has_mint is False for report in answered):
        yield check.failure(
            f"networks.{name}.nosMint ({network.settings.nos_mint}) is not a token on this cluster",
            "Correct `nosMint` and `program`, or the endpoints: they belong to different clusters.",
        )
    else:
        yield check.ok(
            f"all endpoints are of one cluster ({names.get(next(iter(endpoints)), 'not a public one')})"
        )


def _sockets(name: str, network: NetworkFacts) -> Iterator[Finding]:
    check = Subject("network.websocket", name)
    good = [seconds for seconds in network.sockets if not isinstance(seconds, Unknown)]
    for at, (url, answer) in enumerate(zip(network.settings.ws, network.sockets, strict=True)):
        if isinstance(answer, Unknown):
            yield check.warning(
                f"networks.{name}.ws[{at}] ({host_of(url)}) delivers nothing: {answer.reason}",
                "Check the URL; "
                + (
                    "the operator uses another one."
                    if good
                    else "the operator sees changes by polling, seconds later."
                ),
            )
    if good:
        yield check.ok(f"slot notifications arrive, the first after {min(good):.1f} s")


def _clock(name: str, network: NetworkFacts) -> Iterator[Finding]:
    check, offset = Subject("network.clock", name), network.clock_offset
    if isinstance(offset, Unknown):
        yield check.unknown(f"the chain's clock could not be read: {offset.reason}")
    elif abs(offset) > SKEW_SECONDS:
        word = "ahead of" if offset > 0 else "behind"
        yield check.warning(
            f"the chain's clock is {abs(offset):.0f} s {word} this machine's",
            "Synchronize this machine's clock with NTP. Runs still end by the chain's clock: the operator measures "
            "the offset.",
        )
    else:
        yield check.ok(f"the chain's clock and this machine's are {abs(offset):.0f} s apart")


def _gateways(name: str, network: NetworkFacts) -> Iterator[Finding]:
    check = Subject("network.ipfs-gateways", name)
    urls = network.settings.ipfs.gateways
    if not urls:
        yield check.failure(
            f"networks.{name}.ipfs.gateways is empty: no job definition can be fetched",
            "Add a gateway.",
        )
        return
    good = [answer for answer in network.gateways if not isinstance(answer, Unknown)]
    for at, (url, answer) in enumerate(zip(urls, network.gateways, strict=True)):
        if isinstance(answer, Unknown):
            problem = check.warning if good else check.failure
            yield problem(
                f"networks.{name}.ipfs.gateways[{at}] ({host_of(url)}) gives no usable answer: {answer.reason}",
                "Check the URL and the network between here and there.",
            )
    if good:
        yield check.ok(f"{len(good)} of {len(urls)} gateways answer")


def _pins(name: str, network: NetworkFacts) -> Iterator[Finding]:
    check = Subject("network.pin", name)
    if not network.pins:
        yield check.failure(
            f"networks.{name}.ipfs.pin is empty: results cannot be kept, so no run can be finished",
            "Add a pin service.",
        )
        return
    good = sum(pin.problem is None for pin in network.pins)
    for at, pin in enumerate(network.pins):
        where = f"networks.{name}.ipfs.pin[{at}] ({host_of(pin.url)})"
        if pin.problem is None:
            yield check.ok(f"{where} accepts our credentials")
        elif pin.problem.refused:
            yield check.failure(
                f"{where} does not accept our credentials: {pin.problem.reason}",
                "Put a valid token into the file that `tokenFile` names.",
            )
        else:
            problem = check.warning if good else check.failure
            yield problem(
                f"{where} gives no usable answer: {pin.problem.reason}",
                "Check its URL and `tokenFile`, and the network between here and there.",
            )
