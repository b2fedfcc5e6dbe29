"""Reconciles one NosanaMarket: gather what the chain and the cluster say, decide, act.

The intent of every transaction is in `status.transactions` before it is sent
(docs/architecture.md#why-it-cannot-pay-twice).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from nosana_operator.api import (
    API_VERSION,
    FINALIZER_JOB,
    FINALIZER_SETTLEMENT,
    JOB_KIND,
    LABEL_CHAIN_JOB,
    LABEL_MARKET,
    LABEL_RUN,
    MANAGER_MARKET,
    MARKET_KIND,
    ApiError,
    MarketReason,
    NosanaMarketSpec,
    NosanaMarketStatus,
    Transaction,
    parse_part,
    run_job_name,
)
from nosana_operator.api.placement import NodeSettings
from nosana_operator.errors import Conflict, NosanaError, NotFound, Refused
from nosana_operator.market.epochs import epoch_of, newest_epoch
from nosana_operator.market.facts import MarketFacts, Signed
from nosana_operator.market.host.decide import decide, market_found, refusal_message
from nosana_operator.market.host.effects import (
    CreateJob,
    Effect,
    MarketDecision,
    ReplaceJob,
    Resend,
    Stop,
    StopJob,
    Work,
)
from nosana_operator.market.host.gather import Gatherer
from nosana_operator.market.host.held_runs import job_effects
from nosana_operator.market.host.offers import OfferFence
from nosana_operator.market.host.status import differs, flips, market_status, unreadable_status
from nosana_operator.market.host.view import MarketView
from nosana_operator.market.intents import POLL, RETRY, IntentSender
from nosana_operator.market.job_spec import job_spec, market_ref
from nosana_operator.market.keys.polls import ChainPolls
from nosana_operator.market.keys.secrets import Wallets
from nosana_operator.market.ports import Chain, Edges
from nosana_operator.ports import Body

log = logging.getLogger(__name__)

AT_ONCE = 0.1
RESYNC = 10.0
"""Seconds between reconciles when nothing happens: node capacity, funds, a dead subscription."""
STATUS_INTERVAL = 5.0
"""Seconds between status writes that only update figures: otherwise each job would cost one."""
REFUSAL_COOLDOWN = timedelta(seconds=60)
"""No slot is offered for this long after the API server refused a NosanaJob."""


@dataclass(slots=True)
class _MarketMemory:
    """Caches of one NosanaMarket; losing them costs only time."""

    uid: str
    sender: IntentSender = field(default_factory=IntentSender)
    reported: set[str] = field(default_factory=set)
    """Signatures, runs and nodes that an Event was written about."""
    written_at: datetime | None = None
    write_postponed: bool = False
    """The status is out of date: it was written too short a time ago."""
    refusal: tuple[datetime, str] | None = None
    """When and why the API server last refused a NosanaJob."""

    def forget_all_but(self, signatures: set[str], reported: set[str]) -> None:
        """Drop what is over."""
        self.sender.forget_all_but(signatures)
        self.reported &= signatures | reported


class MarketHost:
    """Keeps the cluster's wallets in their markets' queues and creates a NosanaJob for each run.

    `nodes`: from the settings: the nodes that can run ops.
    """

    def __init__(self, edges: Edges, wallets: Wallets, polls: ChainPolls, nodes: NodeSettings) -> None:
        self._edges = edges
        self._wallets = wallets
        self._polls = polls
        self._gatherer = Gatherer(edges, wallets, polls, nodes)
        self._fence = OfferFence(edges.cache, edges.clock, edges.leadership)
        self._memory: dict[tuple[str, str], _MarketMemory] = {}

    def observe_pod(self, pod: Mapping[str, Any]) -> None:
        """Take note of a pod's change; call it with every one, for a pod that a kubelet refused is deleted soon."""
        self._gatherer.observe_pod(pod)

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Take NosanaMarket `(namespace, name)` one step on; returns the seconds until the next reconcile."""
        body = self._edges.cache.get(MARKET_KIND, *key)
        if body is None:
            self._memory.pop(key, None)
            self._gatherer.forget()
            return None
        memory = self._memory.get(key)
        if memory is None or memory.uid != body["metadata"]["uid"]:
            memory = self._memory[key] = _MarketMemory(body["metadata"]["uid"])
        try:
            body = await self._claim(dict(body))
            spec = parse_part(NosanaMarketSpec, MARKET_KIND, "spec", body["spec"])
            status = parse_part(NosanaMarketStatus, MARKET_KIND, "status", body.get("status"))
            return await self._step(dict(body), memory, spec, status)
        except ApiError as exc:
            await self._unreadable(dict(body), str(exc))
            return None
        except Conflict:
            # Somebody else wrote first. Nothing was sent, and the watch brings the newer object.
            return AT_ONCE

    async def _claim(self, body: Body) -> Body:
        """The object with our epoch in its status: a write of an earlier leader fails after that."""
        recorded = epoch_of(body)
        epoch = self._edges.leadership.check(recorded)
        if recorded == epoch:
            return body
        try:
            return await self._apply(body, {**(body.get("status") or {}), "epoch": epoch})
        except Refused as exc:
            log.warning(
                "the API server refused our status: %s", exc, extra={"market": body["metadata"]["name"]}
            )
            self._fence.exempt(body)
            return body

    async def _step(
        self, body: Body, memory: _MarketMemory, spec: NosanaMarketSpec, status: NosanaMarketStatus
    ) -> float:
        if FINALIZER_SETTLEMENT not in body["metadata"].get("finalizers", []):
            if body["metadata"].get("deletionTimestamp"):
                return RESYNC
            body = await self._finalizers(body, add=True)
        chain = self._edges.networks.chain(spec.network)
        refusal = self._refusal(memory)
        key = body["metadata"]["namespace"], body["metadata"]["name"]
        done: list[Effect] = []
        # The paid clock of a run is ticking, so its NosanaJob waits for no other read of the chain.
        snapshot = await self._gatherer.snapshot(body, spec, status)
        if market_found(snapshot).status:
            await self._serve(body, memory, spec, job_effects(snapshot), done)
        ticket = self._fence.ticket(key)
        view = await self._gatherer.view(
            body, spec, status, job_refusal=refusal, job_accounts=snapshot.job_accounts
        )
        decision = decide(view)
        await self._serve(body, memory, spec, decision.effects, done)
        if refusal is not None and self._refusal(memory) is None:
            # The wallets were to leave the queue because jobs were refused, which is no longer so: decide again.
            return AT_ONCE
        offers = any(isinstance(effect, Work) for effect in decision.effects)
        if offers:
            ticket, view, decision = await self._confirm_offer(body, memory, spec, status)
            await self._serve(body, memory, spec, decision.effects, done)
        signed = await self._sign(chain, view, decision) if chain is not None else []
        body, signed = await self._write_offer(ticket, body, memory, view, decision, signed)
        self._report(body, memory, view, decision)
        if chain is not None:
            for effect in decision.effects:
                if isinstance(effect, Resend):
                    await self._send(body, memory, chain, effect.transaction)
            for new in signed:
                await self._send(body, memory, chain, new)
        if decision.release:
            await self._finalizers(body, add=False)
        under_way = {one.signature for one in decision.pending} | {one.signature for one in signed}
        reported = {run for run, _ in decision.unserved}
        reported |= {one.foreign for one in decision.wallets if one.foreign}
        reported |= {f"node {one.node}" for one in view.refusing_nodes}
        memory.forget_all_but(under_way, reported)
        if signed or any(not one.seen for one in view.pending):
            return POLL
        if offers:
            # The fresh view did not confirm the offer, or the chain did not answer.
            return RETRY
        return STATUS_INTERVAL if decision.pending or memory.write_postponed else RESYNC

    async def _confirm_offer(
        self, body: Body, memory: _MarketMemory, spec: NosanaMarketSpec, status: NosanaMarketStatus
    ) -> tuple[int | None, MarketView, MarketDecision]:
        """Decide again from a fresh view, with its own ticket, before any `work` is signed.

        The snapshots may show a slot as free whose wallet has been given a job a moment ago.
        """
        ticket = self._fence.ticket((body["metadata"]["namespace"], body["metadata"]["name"]))
        view = await self._gatherer.fresh_view(body, spec, status, job_refusal=self._refusal(memory))
        return ticket, view, decide(view)

    # -- serving runs -------------------------------------------------------------------------------------

    async def _serve(
        self,
        body: Body,
        memory: _MarketMemory,
        spec: NosanaMarketSpec,
        effects: Iterable[Effect],
        done: list[Effect],
    ) -> None:
        """Create the missing NosanaJobs, before anything else: the paid clock runs.

        `done`: what this reconcile has done already; a deletion becomes visible only when the watch brings it.
        """
        for effect in effects:
            if effect in done:
                continue
            done.append(effect)
            if isinstance(effect, CreateJob):
                await self._create(body, memory, spec, effect)
            elif isinstance(effect, ReplaceJob):
                await self._replace(body, effect)
            elif isinstance(effect, StopJob):
                await self._stop_job(body, effect)

    async def _create(
        self, body: Body, memory: _MarketMemory, spec: NosanaMarketSpec, effect: CreateJob
    ) -> None:
        pinner = self._edges.networks.pinner(spec.network)
        if pinner is None:
            return
        run, job = effect.run, effect.job
        dictated = job_spec(run, job, market_ref(body), spec, pinner.cid_from_digest(job.ipfs_job))
        name = run_job_name(run.address)
        try:
            await self._edges.kube.create(
                {
                    "apiVersion": API_VERSION,
                    "kind": JOB_KIND,
                    "metadata": {
                        "name": name,
                        "namespace": spec.job_namespace,
                        "labels": {
                            LABEL_RUN: run.address,
                            LABEL_CHAIN_JOB: job.address,
                            LABEL_MARKET: job.market,
                            "app.kubernetes.io/managed-by": "nosana-operator",
                        },
                        # Both from the start: adding them later would cost a request of the paid time.
                        "finalizers": [FINALIZER_JOB, FINALIZER_SETTLEMENT],
                    },
                    "spec": dictated.model_dump(mode="json", by_alias=True, exclude_none=True),
                }
            )
        except Conflict:
            # An object that the watch has not brought yet has its name; the next reconcile judges it.
            return
        except (NotFound, Refused) as exc:
            message = f"a NosanaJob cannot be created in namespace {spec.job_namespace}: {exc}"
            memory.refusal = (self._edges.clock.now(), message)
            log.error("%s", message, extra={"run": run.address, "market": spec.address})
            return
        memory.refusal = None
        self._edges.metrics.matched(spec.address)
        log.info(
            "job created for a run",
            extra={"job": f"{spec.job_namespace}/{name}", "run": run.address, "market": spec.address},
        )

    async def _replace(self, body: Body, effect: ReplaceJob) -> None:
        job = effect.job
        note = (
            f"NosanaJob {job.namespace}/{job.name} differs from what the chain dictates for run {effect.run}; "
            "it is deleted and created again"
        )
        await self._edges.kube.delete(JOB_KIND, job.namespace, job.name, uid=job.uid)
        self._event(body, MarketReason.JOB_REFUSED, "Replace", note)

    async def _stop_job(self, body: Body, effect: StopJob) -> None:
        job = effect.job
        await self._edges.kube.patch(JOB_KIND, job.namespace, job.name, {"spec": {"stop": True}})
        note = f"NosanaJob {job.namespace}/{job.name} is stopped: the deadline of spec.drain has passed"
        self._event(body, MarketReason.DRAINING, "Drain", note)

    def _refusal(self, memory: _MarketMemory) -> str | None:
        if memory.refusal is None or self._edges.clock.now() - memory.refusal[0] > REFUSAL_COOLDOWN:
            return None
        return memory.refusal[1]

    # -- transactions -------------------------------------------------------------------------------------

    async def _sign(self, chain: Chain, view: MarketView, decision: MarketDecision) -> list[Signed]:
        """Sign what was decided; nothing is sent before it is durable."""
        signed = []
        for effect in decision.effects:
            if not isinstance(effect, Work | Stop):
                continue
            self._edges.leadership.check(newest_epoch(one.transaction for one in view.pending))
            wallet = self._wallets.by_address(effect.address, view.ref, view.spec)
            if wallet is None:
                continue
            try:
                if isinstance(effect, Stop):
                    signed.append(await chain.sign_stop(wallet, view.spec.address))
                elif isinstance(view.market, MarketFacts):
                    signed.append(await chain.sign_work(wallet, view.market))
            except NosanaError as exc:
                log.warning("cannot sign: %s", exc, extra={"wallet": effect.address})
                if isinstance(effect, Work) and isinstance(exc, Refused):
                    self._polls.recheck_access_keys(view.spec.network, effect.address)
        return signed

    async def _send(self, body: Body, memory: _MarketMemory, chain: Chain, one: Transaction | Signed) -> None:
        try:
            await memory.sender.send(chain, one, self._edges.clock.now(), {"wallet": one.key})
        except Refused as exc:
            if one.signature not in memory.reported:
                memory.reported.add(one.signature)
                note = f"{one.kind} of {one.key} is refused: {exc}"
                self._event(body, MarketReason.TRANSACTION_FAILED, "Send", note)

    # -- status and Events --------------------------------------------------------------------------------

    def _report(self, body: Body, memory: _MarketMemory, view: MarketView, decision: MarketDecision) -> None:
        """Write Events about what is new."""
        for transaction, words in decision.failed:
            note = f"{transaction.kind} of {transaction.key} failed: {words}"
            self._event(body, MarketReason.TRANSACTION_FAILED, "Send", note)
        for run, message in decision.unserved:
            if run not in memory.reported:
                memory.reported.add(run)
                self._event(body, MarketReason.RUN_UNSERVED, "Serve", f"run {run} {message}")
        for address in self._gatherer.take_evicted(body):
            note = (
                f"{address} is no longer in the queue and holds no new run: the market's authority removed it, or "
                "its job ended at once; it joins the queue again after a minute if it may"
            )
            self._event(body, MarketReason.STANDING_LOST, "Stand", note)
        refusing = {f"node {node.node}": node for node in view.refusing_nodes}
        for key, node in refusing.items():
            if key not in memory.reported:
                memory.reported.add(key)
                self._event(body, MarketReason.NODE_REFUSES_PODS, "HoldBack", refusal_message(node))
        for wallet in decision.wallets:
            if wallet.foreign is not None and wallet.foreign not in memory.reported:
                memory.reported.add(wallet.foreign)
                note = f"{wallet.address} {wallet.message}"
                self._event(body, MarketReason.KEY_IN_USE_ELSEWHERE, "Stand", note)

    def _event(self, body: Body, reason: MarketReason, action: str, note: str) -> None:
        self._edges.events.event(body, type="Warning", reason=reason, action=action, note=note)

    async def _write_offer(
        self,
        ticket: int | None,
        body: Body,
        memory: _MarketMemory,
        view: MarketView,
        decision: MarketDecision,
        signed: list[Signed],
    ) -> tuple[Body, list[Signed]]:
        """Write the status, with offers only if the fence lets them pass; returns the object and what may be sent."""
        if not any(one.kind == "work" for one in signed):
            return await self._write(body, memory, view, decision, signed), signed
        async with self._fence.offer(ticket, body) as passed:
            if passed:
                return await self._write(body, memory, view, decision, signed), signed
        return await self._write(body, memory, view, decision, []), []

    async def _write(
        self,
        body: Body,
        memory: _MarketMemory,
        view: MarketView,
        decision: MarketDecision,
        signed: list[Signed],
    ) -> Body:
        now, previous = self._edges.clock.now(), body.get("status") or {}
        epoch = self._edges.leadership.check()
        status = market_status(body, view, decision, signed, now, epoch)
        recent = memory.written_at is not None and (now - memory.written_at).total_seconds() < STATUS_INTERVAL
        urgent = bool(signed) or flips(previous, status)
        # What is unknown only because this process has just started is not worth a write.
        starting = view.polls_pending and not signed
        memory.write_postponed = (starting or (not urgent and recent)) and differs(previous, status)
        if memory.write_postponed or not (urgent or differs(previous, status)):
            return body
        reply = await self._apply(body, status)
        memory.written_at = now
        return reply

    async def _unreadable(self, body: Body, problem: str) -> None:
        log.warning("%s", problem, extra={"market": body["metadata"]["name"]})
        status = unreadable_status(body, problem, self._edges.clock.now())
        if status != body.get("status"):
            await self._apply(body, status)

    async def _apply(self, body: Body, status: dict[str, Any]) -> Body:
        """A compare-and-swap: what was signed is sent only if it was decided from the newest version."""
        meta = body["metadata"]
        return await self._edges.kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": MARKET_KIND,
                "metadata": {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")},
                "status": status,
            },
            manager=MANAGER_MARKET,
            subresource="status",
        )

    async def _finalizers(self, body: Body, *, add: bool) -> Body:
        meta = body["metadata"]
        kept = [f for f in meta.get("finalizers", []) if f != FINALIZER_SETTLEMENT]
        if add:
            kept.append(FINALIZER_SETTLEMENT)
        return await self._edges.kube.patch(
            MARKET_KIND,
            meta["namespace"],
            meta["name"],
            {"metadata": {"finalizers": kept, "resourceVersion": meta["resourceVersion"]}},
        )
