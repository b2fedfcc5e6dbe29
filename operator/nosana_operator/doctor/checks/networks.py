"""Solana and IPFS, network by network of the settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from nosana_operator.chain.endpoint_report import GENESIS, EndpointReport
from nosana_operator.doctor.facts import Facts, Known, NetworkFacts, Unknown
from nosana_operator.doctor.finding import Finding, Subject

SLOW_SECONDS: Final = 1.0
LAG_SLOTS: Final = 25
"""Ten seconds behind the best endpoint: from there on the operator prefers another (chain/rpc/endpoints.py)."""
SKEW_SECONDS: Final = 30.0
"""The chain's clock is allowed to drift; the operator goes by the measured offset."""


def network_findings(facts: Facts) -> Iterator[Finding]:
    """Every network's endpoints, cluster, clock, gateways and pin services."""
    for name, network in sorted(facts.networks.items()):
        yield from _rpc(name, network)
        yield from _cluster(name, network)
        yield from _sockets(name, network)
        yield from _clock(name, network)
        yield from _gateways(name, network)
        yield from _pins(name, network)


def host_of(url: str) -> str:
    """Host and port: the rest of an endpoint's URL may hold a key."""
    parts = urlsplit(url)
    return parts.hostname or "?" if parts.port is None else f"{parts.hostname}:{parts.port}"


def _answered(endpoints: Sequence[Known[EndpointReport]]) -> list[EndpointReport]:
    return [one for one in endpoints if not isinstance(one, Unknown)]


def _rpc(name: str, network: NetworkFacts) -> Iterator[Finding]:
    answered = _answered(network.endpoints)
    newest = max((report.slot for report in answered), default=0)
    for at, (url, report) in enumerate(zip(network.settings.rpc, network.endpoints, strict=True)):
        say = Subject("network.rpc", name)
        where = f"networks.{name}.rpc[{at}] ({host_of(url)})"
        if isinstance(report, Unknown):
            complain = say.warning if answered else say.failure
            yield complain(
                f"{where} gives no usable answer: {report.why}",
                "Check the URL, its API key and the way to it from here; others are used meanwhile."
                if answered
                else "Check the URL, its API key and the way to it from here; without one endpoint that answers "
                "no market of this network is served.",
            )
        else:
            yield _endpoint(say, where, report, newest)
    if len(network.settings.rpc) == 1 and answered:
        yield Subject("network.rpc", name).warning(
            f"networks.{name}.rpc has one endpoint: when it fails nothing can be settled",
            "Name a second one, of another provider.",
        )
    if answered and not any(report.lists_accounts for report in answered):
        yield Subject("network.program-accounts", name).warning(
            "no endpoint offers getProgramAccounts: runs are found in the markets' transactions, "
            "with a request for each of anybody's",
            "Nothing has to be done; an endpoint that offers it is quicker, and saves these requests.",
        )
    elif answered:
        yield Subject("network.program-accounts", name).ok("getProgramAccounts is offered")


def _endpoint(say: Subject, where: str, report: EndpointReport, newest: int) -> Finding:
    behind = newest - report.slot
    if behind > LAG_SLOTS:
        return say.warning(
            f"{where} is {behind} slots behind the best one",
            "Use another endpoint, or wait until it has caught up; it is asked last meanwhile.",
        )
    if report.latency > SLOW_SECONDS:
        return say.warning(
            f"{where} takes {report.latency:.1f} s to answer", "Use an endpoint that is nearer."
        )
    return say.ok(f"{where} answers after {report.latency * 1000:.0f} ms, slot {report.slot}")


def _cluster(name: str, network: NetworkFacts) -> Iterator[Finding]:
    """Whether all endpoints are of the one Solana cluster that is meant."""
    say = Subject("network.cluster", name)
    known = {genesis: cluster for cluster, genesis in GENESIS.items()}
    found: dict[str, list[int]] = {}
    for at, report in enumerate(network.endpoints):
        if not isinstance(report, Unknown) and report.genesis is not None:
            found.setdefault(report.genesis, []).append(at)
    answered = _answered(network.endpoints)
    if not found:
        if answered:
            yield say.unknown("no endpoint tells which cluster it belongs to")
        return
    wrong = [
        f"rpc[{at}] is {known.get(genesis, 'of another cluster')}"
        for genesis, places in found.items()
        for at in places
        if name in GENESIS and genesis != GENESIS[name]
    ]
    if wrong:
        yield say.failure(
            f"networks.{name} has endpoints of another Solana cluster: {', '.join(wrong)}",
            f"Put endpoints of {name} there, or name the network after the cluster it is.",
        )
    elif len(found) > 1:
        told = "; ".join(
            f"rpc{places} {known.get(genesis, genesis[:8])}" for genesis, places in found.items()
        )
        yield say.failure(
            f"the endpoints of networks.{name} are of different Solana clusters: {told}",
            "Keep to one cluster a network.",
        )
    elif any(report.has_mint is False for report in answered):
        yield say.failure(
            f"networks.{name}.nosMint ({network.settings.nos_mint}) is no token there",
            "Correct `nosMint` and `program`, or the endpoints: they are of different clusters.",
        )
    else:
        yield say.ok(f"all endpoints are of one cluster ({known.get(next(iter(found)), 'not a public one')})")


def _sockets(name: str, network: NetworkFacts) -> Iterator[Finding]:
    say = Subject("network.websocket", name)
    good = [seconds for seconds in network.sockets if not isinstance(seconds, Unknown)]
    for at, (url, answer) in enumerate(zip(network.settings.ws, network.sockets, strict=True)):
        if isinstance(answer, Unknown):
            yield say.warning(
                f"networks.{name}.ws[{at}] ({host_of(url)}) tells nothing: {answer.why}",
                "Check the URL; "
                + ("another one is used." if good else "changes are seen by polling, seconds later."),
            )
    if good:
        yield say.ok(f"slots are told, the first after {min(good):.1f} s")


def _clock(name: str, network: NetworkFacts) -> Iterator[Finding]:
    say, offset = Subject("network.clock", name), network.clock_offset
    if isinstance(offset, Unknown):
        yield say.unknown(f"the chain's clock was not read: {offset.why}")
    elif abs(offset) > SKEW_SECONDS:
        word = "ahead of" if offset > 0 else "behind"
        yield say.warning(
            f"the chain's clock is {abs(offset):.0f} s {word} the one here",
            "Set the clock here by NTP. Runs end by the chain's clock all the same: the offset is measured.",
        )
    else:
        yield say.ok(f"the chain's clock and the one here are {abs(offset):.0f} s apart")


def _gateways(name: str, network: NetworkFacts) -> Iterator[Finding]:
    say = Subject("network.ipfs-gateways", name)
    urls = network.settings.ipfs.gateways
    if not urls:
        yield say.failure(
            f"networks.{name}.ipfs.gateways is empty: no job definition can be fetched",
            "Name one gateway or more.",
        )
        return
    good = [answer for answer in network.gateways if not isinstance(answer, Unknown)]
    for at, (url, answer) in enumerate(zip(urls, network.gateways, strict=True)):
        if isinstance(answer, Unknown):
            complain = say.warning if good else say.failure
            yield complain(
                f"networks.{name}.ipfs.gateways[{at}] ({host_of(url)}) gives no usable answer: {answer.why}",
                "Check the URL and the way to it from here.",
            )
    if good:
        yield say.ok(f"{len(good)} of {len(urls)} gateways answer")


def _pins(name: str, network: NetworkFacts) -> Iterator[Finding]:
    say = Subject("network.pin", name)
    if not network.pins:
        yield say.failure(
            f"networks.{name}.ipfs.pin is empty: results cannot be kept, so no run can be finished",
            "Name a pin service.",
        )
        return
    good = sum(pin.answer is None for pin in network.pins)
    for at, pin in enumerate(network.pins):
        where = f"networks.{name}.ipfs.pin[{at}] ({host_of(pin.url)})"
        if pin.answer is None:
            yield say.ok(f"{where} takes our credentials")
        elif pin.answer.refused:
            yield say.failure(
                f"{where} does not take our credentials: {pin.answer.why}",
                "Put a valid token into the file that `tokenFile` names.",
            )
        else:
            complain = say.warning if good else say.failure
            yield complain(
                f"{where} gives no usable answer: {pin.answer.why}",
                "Check its URL and `tokenFile`, and the way to it from here.",
            )
