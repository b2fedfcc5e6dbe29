"""One NosanaMarket: gather what the chain and the cluster say, decide, act.

The intent of every transaction is in `status.transactions` before it is sent (DESIGN 4).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
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
    JobCondition,
    MarketCondition,
    MarketReason,
    MarketRef,
    NosanaMarketSpec,
    NosanaMarketStatus,
    QueueStatus,
    Transaction,
    condition,
    is_true,
    read,
    run_job_name,
    timestamp,
)
from nosana_operator.errors import Conflict, NosanaError, Unavailable
from nosana_operator.inventory import slots
from nosana_operator.market.decide import (
    CreateJob,
    MarketDecision,
    MarketView,
    PendingTransaction,
    Resend,
    Stop,
    Verdict,
    WalletView,
    Work,
    decide,
)
from nosana_operator.market.facts import (
    GONE,
    UNKNOWN,
    Absent,
    Fate,
    Funds,
    JobFacts,
    Known,
    MarketFacts,
    Signed,
)
from nosana_operator.market.ports import Body, Chain, Edges
from nosana_operator.market.verify import run_spec
from nosana_operator.market.wallets import LoadedWallet, Wallets

log = logging.getLogger(__name__)

POLL = 0.5
"""Seconds between looks while a transaction is under way."""
RESYNC = 10.0
"""Seconds between looks when nothing happens: node capacity, funds, a dead subscription."""
FUNDS_FRESH = 30.0
RESEND_AFTER = 2.0
CALM = 5.0
"""Seconds between status writes that only bring figures up to date: a job would else cost one each."""


class MarketHost:
    """Keeps the cluster's keys in their markets' queues and makes a NosanaJob of each run."""

    def __init__(self, edges: Edges, wallets: Wallets) -> None:
        self._edges = edges
        self._wallets = wallets
        self._funds: dict[tuple[str, str], tuple[datetime, Funds]] = {}
        self._sent_at: dict[str, float] = {}
        self._accepted: set[str] = set()
        self._written_at: dict[str, datetime] = {}
        self._seen: set[str] = set()
        """Signatures after whose confirmation runs and queue were read."""

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Take NosanaMarket `(namespace, name)` one step on; the seconds until it wants another look."""
        body = self._edges.cache.get(MARKET_KIND, *key)
        if body is None:
            self._watch_all()
            return None
        try:
            spec = read(NosanaMarketSpec, MARKET_KIND, "spec", body["spec"])
            status = read(NosanaMarketStatus, MARKET_KIND, "status", body.get("status"))
        except ApiError as exc:
            await self._stalled(dict(body), str(exc))
            return None
        try:
            return await self._step(dict(body), spec, status)
        except Conflict:
            # Somebody wrote in between: nothing was signed in vain, the watch brings the newer object.
            return 0.1

    async def _step(self, body: Body, spec: NosanaMarketSpec, status: NosanaMarketStatus) -> float:
        if FINALIZER_SETTLEMENT not in body["metadata"].get("finalizers", []):
            if body["metadata"].get("deletionTimestamp"):
                return RESYNC
            body = await self._finalizers(body, add=True)
        chain = self._edges.networks.chain(spec.network)
        view = await self._gather(body, spec, status, chain)
        decision = decide(view)
        now = self._edges.clock.now()
        signed: list[Signed] = []
        if chain is not None:
            signed = await self._sign(chain, view, decision)
        body = await self._write(body, view, decision, signed, now)
        for transaction, words in decision.failed:
            note = f"{transaction.kind} of {transaction.key} failed: {words}"
            self._edges.events.event(
                body, type="Warning", reason=MarketReason.TRANSACTION_FAILED, action="Send", note=note
            )
        for effect in decision.effects:
            if isinstance(effect, CreateJob):
                await self._create(body, spec, effect)
            elif isinstance(effect, Resend) and chain is not None:
                await self._send(chain, effect.transaction.signature, effect.transaction.raw)
        if chain is not None:
            for new in signed:
                await self._send(chain, new.signature, new.raw)
        if decision.released:
            await self._finalizers(body, add=False)
        under_way = signed or any(not p.seen for p in view.pending)
        return POLL if under_way else CALM if decision.kept else RESYNC

    # -- gather -------------------------------------------------------------------------------------------

    async def _gather(
        self, body: Body, spec: NosanaMarketSpec, status: NosanaMarketStatus, chain: Chain | None
    ) -> MarketView:
        meta = body["metadata"]
        loaded = await self._wallets.load(meta["namespace"], spec)
        self._watch_all()
        problem = chain.problem_with(spec.address) if chain else None
        pending: tuple[PendingTransaction, ...] = ()
        market: Known[MarketFacts] = UNKNOWN
        wallets: tuple[WalletView, ...] = ()
        jobs: dict[str, Known[JobFacts]] = {}
        if chain is None or problem is not None:
            wallets = tuple(_wallet_view(w, UNKNOWN, UNKNOWN) for w in loaded)
        else:
            pending = tuple([await self._pending(chain, spec, t) for t in status.transactions])
            market = await self._market(chain, spec.address)
            wallets = tuple([await self._wallet(chain, spec, w) for w in loaded])
            for wallet in wallets:
                for run in () if isinstance(wallet.runs, Absent) else wallet.runs:
                    jobs[run.job] = await self._job(chain, run.job)
        own = self._jobs(meta, spec)
        held = slots(
            self._edges.cache.list("Node"),
            self._edges.cache.list("Pod"),
            spec.gpu,
            spec.slots.resources,
            market=spec.address,
        )
        return MarketView(
            namespace=meta["namespace"],
            spec=spec,
            deleting=bool(meta.get("deletionTimestamp")),
            network_known=chain is not None,
            networks=tuple(self._edges.networks.names()),
            address_problem=problem,
            market=market,
            wallets=wallets,
            jobs=jobs,
            known_runs=frozenset(job["spec"]["run"]["run"] for job in own),
            unsettled=frozenset(job["spec"]["run"]["run"] for job in own if _occupies(job)),
            pending=pending,
            total=held.total,
        )

    async def _pending(
        self, chain: Chain, spec: NosanaMarketSpec, transaction: Transaction
    ) -> PendingTransaction:
        outcome = await chain.outcome(transaction.signature, transaction.last_valid_block_height)
        landed = outcome.fate in (Fate.CONFIRMED, Fate.FINALIZED)
        if landed and transaction.signature not in self._seen:
            try:
                await chain.refresh_runs(transaction.key)
                await chain.refresh_market(spec.address)
            except Unavailable:
                landed = False
            else:
                self._seen.add(transaction.signature)
        return PendingTransaction(transaction, outcome, seen=landed and transaction.signature in self._seen)

    async def _market(self, chain: Chain, address: str) -> Known[MarketFacts]:
        found = chain.watched_market(address)
        if isinstance(found, MarketFacts):
            return found
        try:
            return await chain.refresh_market(address) or GONE
        except Unavailable as exc:
            log.warning("market not read: %s", exc, extra={"market": address})
            return UNKNOWN
        except NosanaError as exc:
            # An account of another kind at that address: there is no market.
            log.warning("no market at this address: %s", exc, extra={"market": address})
            return GONE

    async def _wallet(self, chain: Chain, spec: NosanaMarketSpec, loaded: LoadedWallet) -> WalletView:
        if loaded.wallet is None:
            return _wallet_view(loaded, UNKNOWN, UNKNOWN)
        address = loaded.wallet.address
        runs = chain.watched_runs(address)
        now = self._edges.clock.now()
        cached = self._funds.get((spec.network, address))
        if cached is not None and (now - cached[0]).total_seconds() < FUNDS_FRESH:
            return _wallet_view(loaded, cached[1], runs)
        try:
            funds = await chain.read_funds(address)
        except Unavailable as exc:
            log.warning("wallet not read: %s", exc, extra={"wallet": address})
            return _wallet_view(loaded, cached[1] if cached else UNKNOWN, runs)
        self._funds[(spec.network, address)] = (now, funds)
        return _wallet_view(loaded, funds, runs)

    async def _job(self, chain: Chain, address: str) -> Known[JobFacts]:
        found = chain.watched_job(address)
        if found is not UNKNOWN:
            return found
        try:
            return await chain.read_job(address) or GONE
        except Unavailable:
            return UNKNOWN

    def _jobs(self, meta: Mapping[str, Any], spec: NosanaMarketSpec) -> list[Mapping[str, Any]]:
        """The NosanaJobs that stand where the market host puts those of this NosanaMarket.

        One elsewhere, or under another name, was made by somebody else: it must not keep a run from being
        served.
        """
        ref = {"namespace": meta["namespace"], "name": meta["name"]}
        out = []
        for job in self._edges.cache.list(JOB_KIND, spec.job_namespace):
            run = job["spec"].get("run")
            if run and run["marketRef"] == ref and job["metadata"]["name"] == run_job_name(run["run"]):
                out.append(job)
        return out

    def _watch_all(self) -> None:
        """Tell each network which accounts matter now."""
        keys: dict[str, set[str]] = {}
        jobs: dict[str, set[str]] = {}
        markets: dict[str, set[str]] = {}
        network_of: dict[tuple[str, str], str] = {}
        for body in self._edges.cache.list(MARKET_KIND):
            network, address = body["spec"].get("network", ""), body["spec"].get("address", "")
            meta = body["metadata"]
            network_of[(meta["namespace"], meta["name"])] = network
            chain = self._edges.networks.chain(network)
            if chain is None or chain.problem_with(address) is not None:
                continue
            markets.setdefault(network, set()).add(address)
            keys.setdefault(network, set()).update(self._wallets.addresses(meta["namespace"], body["spec"]))
        for body in self._edges.cache.list(JOB_KIND):
            run = body["spec"].get("run")
            if not run or is_true((body.get("status") or {}).get("conditions"), JobCondition.SETTLED):
                continue
            if not is_true((body.get("status") or {}).get("conditions"), JobCondition.RUN_VERIFIED):
                continue
            ref = run["marketRef"]
            where = network_of.get((ref["namespace"], ref["name"]))
            if where is not None:
                jobs.setdefault(where, set()).add(run["job"])
                keys.setdefault(where, set()).add(run["node"])
        for network in self._edges.networks.names():
            chain = self._edges.networks.chain(network)
            if chain is not None:
                chain.watch(
                    keys=keys.get(network, set()),
                    jobs=jobs.get(network, set()),
                    markets=markets.get(network, set()),
                )

    # -- act ----------------------------------------------------------------------------------------------

    async def _sign(self, chain: Chain, view: MarketView, decision: MarketDecision) -> list[Signed]:
        """Sign what was decided; nothing is sent before it is durable."""
        out = []
        for effect in decision.effects:
            if not isinstance(effect, Work | Stop):
                continue
            wallet = self._wallets.get(effect.address)
            if wallet is None:
                continue
            try:
                if isinstance(effect, Work) and isinstance(view.market, MarketFacts):
                    out.append(await chain.sign_work(wallet, view.market))
                elif isinstance(effect, Stop):
                    out.append(await chain.sign_stop(wallet, view.spec.address))
            except Unavailable as exc:
                log.warning("not signed: %s", exc, extra={"wallet": effect.address})
        return out

    async def _write(
        self,
        body: Body,
        view: MarketView,
        decision: MarketDecision,
        signed: list[Signed],
        now: datetime,
    ) -> Body:
        meta = body["metadata"]
        before = body.get("status") or {}
        market = view.market if isinstance(view.market, MarketFacts) else None
        transactions = [
            *decision.kept,
            *(
                Transaction(
                    kind=s.kind,
                    key=s.key,
                    signature=s.signature,
                    raw=s.raw,
                    blockhash=s.blockhash,
                    last_valid_block_height=s.last_valid_block_height,
                    signed_at=timestamp(now),
                    run=s.run,
                )
                for s in signed
            ),
        ]

        def is_(kind: MarketCondition, verdict: Verdict) -> dict[str, Any]:
            return condition(
                before.get("conditions"),
                kind,
                verdict.status,
                verdict.reason,
                verdict.message,
                generation=meta.get("generation", 0),
                now=now,
            )

        ready = decision.ready
        stuck = Verdict(ready.status is False, ready.reason, ready.message)
        moving = Verdict(ready.status is None, ready.reason, ready.message)
        status: dict[str, Any] = {
            "observedGeneration": meta.get("generation", 0),
            "conditions": [
                is_(MarketCondition.READY, ready),
                is_(MarketCondition.MARKET_FOUND, decision.found),
                is_(MarketCondition.WALLETS_READY, decision.wallets_ready),
                is_(MarketCondition.STALLED, stuck),
                is_(MarketCondition.RECONCILING, moving),
            ],
            "slots": decision.slots.model_dump(by_alias=True),
            "wallets": [w.model_dump(by_alias=True, exclude_none=True) for w in decision.wallets],
            "transactions": [t.model_dump(by_alias=True, exclude_none=True) for t in transactions],
        }
        if market is not None:
            queue = QueueStatus(type=market.queue_type, length=len(market.queue))
            status["queue"] = queue.model_dump(by_alias=True)
            status["price"] = market.price
        last = self._written_at.get(meta["uid"])
        urgent = bool(signed) or _flips(before, status)
        if not urgent and (not _differs(before, status) or (last and (now - last).total_seconds() < CALM)):
            return body
        reply = await self._edges.kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": MARKET_KIND,
                "metadata": {
                    "name": meta["name"],
                    "namespace": meta["namespace"],
                    "uid": meta["uid"],
                    "resourceVersion": meta["resourceVersion"],
                },
                "status": status,
            },
            manager=MANAGER_MARKET,
            subresource="status",
        )
        self._written_at[meta["uid"]] = now
        self._edges.cache.put(reply)
        return reply

    async def _stalled(self, body: Body, message: str) -> None:
        meta, now = body["metadata"], self._edges.clock.now()
        old = (body.get("status") or {}).get("conditions")
        conditions = [
            condition(
                old, kind, status, MarketReason.SPEC_INVALID, message, generation=meta["generation"], now=now
            )
            for kind, status in ((MarketCondition.READY, False), (MarketCondition.STALLED, True))
        ]
        reply = await self._edges.kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": MARKET_KIND,
                "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
                "status": {"conditions": conditions},
            },
            manager=MANAGER_MARKET,
            subresource="status",
        )
        self._edges.cache.put(reply)

    async def _create(self, body: Body, spec: NosanaMarketSpec, effect: CreateJob) -> None:
        meta, pinner = body["metadata"], self._edges.networks.pinner(spec.network)
        if pinner is None:
            return
        run = run_spec(effect.run, effect.job, MarketRef(namespace=meta["namespace"], name=meta["name"]))
        job: Body = {
            "apiVersion": API_VERSION,
            "kind": JOB_KIND,
            "metadata": {
                "name": run_job_name(effect.run.address),
                "namespace": spec.job_namespace,
                "labels": {
                    LABEL_RUN: effect.run.address,
                    LABEL_CHAIN_JOB: effect.job.address,
                    LABEL_MARKET: effect.job.market,
                    "app.kubernetes.io/managed-by": "nosana-operator",
                },
                # Both from the start: adding them later would cost a request of the paid time.
                "finalizers": [FINALIZER_JOB, FINALIZER_SETTLEMENT],
            },
            "spec": {
                "definitionFrom": {"ipfs": pinner.cid_from_digest(effect.job.ipfs_job)},
                "gpu": spec.gpu.model_dump(by_alias=True, exclude_none=True),
                "resources": spec.slots.resources.model_dump(by_alias=True, exclude_none=True),
                "exposure": spec.exposure.model_dump(by_alias=True, exclude_none=True),
                "run": run.model_dump(by_alias=True),
            },
        }
        if spec.runtime_class_name:
            job["spec"]["runtimeClassName"] = spec.runtime_class_name
        try:
            created = await self._edges.kube.create(job)
        except Conflict:
            # It exists and the watch has not brought it yet. Its name is the run's, so it is this one.
            return
        self._edges.cache.put(created)
        log.info(
            "job created for a run",
            extra={
                "job": f"{spec.job_namespace}/{job['metadata']['name']}",
                "run": effect.run.address,
                "market": spec.address,
            },
        )

    async def _send(self, chain: Chain, signature: str, raw: str) -> None:
        now = self._edges.clock.now().timestamp()
        last = self._sent_at.get(signature)
        if last is not None and now - last < RESEND_AFTER:
            return
        self._sent_at[signature] = now
        try:
            await chain.send(raw, first=signature not in self._accepted)
        except NosanaError as exc:
            log.warning("transaction not taken: %s", exc, extra={"signature": signature})
            return
        self._accepted.add(signature)

    async def _finalizers(self, body: Body, *, add: bool) -> Body:
        meta = body["metadata"]
        kept = [f for f in meta.get("finalizers", []) if f != FINALIZER_SETTLEMENT]
        if add:
            kept.append(FINALIZER_SETTLEMENT)
        reply = await self._edges.kube.patch(
            MARKET_KIND,
            meta["namespace"],
            meta["name"],
            {"metadata": {"finalizers": kept, "resourceVersion": meta["resourceVersion"]}},
        )
        self._edges.cache.put(reply)
        return reply


def _wallet_view(loaded: LoadedWallet, funds: Funds | Absent, runs: Known[Any]) -> WalletView:
    wallet = loaded.wallet
    problem = None if wallet is not None else (loaded.reason, loaded.message)
    return WalletView(loaded.secret, wallet.address if wallet else None, problem, funds, runs)


def _occupies(job: Mapping[str, Any]) -> bool:
    """Whether a NosanaJob still holds its slot: verified, and its pods have not ended or its run is open."""
    conditions = (job.get("status") or {}).get("conditions")
    if is_true(conditions, JobCondition.SETTLED):
        return False
    return is_true(conditions, JobCondition.RUN_VERIFIED)


def _flips(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a condition changes its status: people and tools wait for that."""
    old = {c["type"]: c["status"] for c in before.get("conditions") or ()}
    return any(old.get(c["type"]) != c["status"] for c in after["conditions"])


def _differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Balances alone change with every fee: they are written along with the next real change."""

    def essence(status: Mapping[str, Any]) -> dict[str, Any]:
        wallets = [
            {k: v for k, v in w.items() if k not in ("lamports", "nos")} for w in status.get("wallets") or ()
        ]
        return {
            **{
                k: v for k, v in status.items() if k in ("observedGeneration", "conditions", "slots", "price")
            },
            "wallets": wallets,
            "transactions": status.get("transactions") or [],
        }

    return essence(before) != essence(after)
