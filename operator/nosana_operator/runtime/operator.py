"""The operator as a process: what runs, in which order it starts and stops, and how it ends.

SIGTERM leaves the chain and the pods as they are: the next process continues from what the Kubernetes API holds.
When a background task ends, the whole process ends with an error, so that the kubelet restarts it; it never lives
on without that task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from nosana_operator.api import (
    GROUP,
    JOB_KIND,
    LABEL_CHAIN_JOB,
    LABEL_JOB,
    LABEL_JOB_UID,
    LABEL_RUN,
    MARKET_KIND,
    PLURALS,
    VERSION,
)
from nosana_operator.kube import (
    CORE_KINDS,
    AlwaysLeading,
    Credentials,
    Election,
    EventRecorder,
    KubeClient,
    ObjectCache,
    Resource,
    Term,
    trim,
)
from nosana_operator.market import Leadership
from nosana_operator.ports import Body
from nosana_operator.runtime.health import ApiHealth, measure_loop_lag
from nosana_operator.runtime.kubernetes_versions import require_supported
from nosana_operator.runtime.metrics.operator_metrics import OperatorMetrics
from nosana_operator.runtime.queue import WorkQueue
from nosana_operator.runtime.routing import (
    ObjectKey,
    Router,
    latest_epoch,
)
from nosana_operator.runtime.settings import Settings
from nosana_operator.runtime.tasks import TaskSupervisor, cancel_all
from nosana_operator.runtime.watching import ClusterView, Scope, wait_for_kinds
from nosana_operator.runtime.web import WebServer

log = logging.getLogger(__name__)

DOMAIN_KINDS = {kind: Resource(kind, GROUP, VERSION, plural) for kind, plural in PLURALS.items()}
KINDS = {**CORE_KINDS, **DOMAIN_KINDS}
"""Every kind that the operator reads or writes."""

REPORTING_CONTROLLER = f"{GROUP}/operator"

_DRAIN_SECONDS = 1.5
"""How long a running reconciliation may take to end by itself. Cancelling one is safe, and a standby is waiting."""
_FLUSH_SECONDS = 2.0

Reconcile = Callable[[ObjectKey], Awaitable[float | None]]


@dataclass(frozen=True, slots=True)
class OperatorContext:
    """What the process gives to the loops that it builds."""

    settings: Settings
    kube: KubeClient
    cache: ObjectCache
    events: EventRecorder
    metrics: OperatorMetrics
    leadership: Leadership
    http: aiohttp.ClientSession
    """For everything that is not the Kubernetes API: chain, IPFS."""
    enqueue_job: Callable[[ObjectKey], None]
    chain_changed: Callable[[str, str], None]
    """(kind, address): an account on chain changed."""


@dataclass(frozen=True, slots=True)
class Loops:
    """The two loops, and the background tasks that they need.

    The market host has two queues, one of NosanaMarkets and one of runs, so that many runs settle at once.
    """

    reconcile_job: Reconcile
    reconcile_market: Reconcile
    reconcile_run: Reconcile
    observe_pod: Callable[[Body], None] = lambda pod: None
    """Called with every change of a pod, before anything is enqueued for it."""
    background: Sequence[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = ()
    close: Sequence[Callable[[], Awaitable[None]]] = field(default=())
    """Called at the end, in order."""


def slim_pod(body: dict[str, Any]) -> dict[str, Any]:
    """What the cache keeps of a pod: ours without bookkeeping; of any other, only what it takes from its node."""
    if LABEL_JOB in (body["metadata"].get("labels") or {}):
        return trim.without_bookkeeping(body)
    return trim.pod_footprint(body)


class Operator:
    """One run of the operator against one cluster.

    `build` makes the loops; it is called once, before the first watch. `identity` is the name under which this
    process holds the Lease; no other living process may have it. Unset: a new name.
    """

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        build: Callable[[OperatorContext], Loops],
        *,
        identity: str | None = None,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._build = build
        self._identity = identity or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self._stop = asyncio.Event()
        self._missing: str | None = "not checked yet"
        self.metrics = OperatorMetrics()
        self.web_port: int | None = None
        """The port of metrics and health once it is served."""
        self.ready = asyncio.Event()
        """Set once the cache is filled, this process leads and the loops run."""

    def stop(self) -> None:
        """Request an orderly end, as SIGTERM does."""
        self._stop.set()

    async def run(self) -> None:
        """Run until `stop()` or a signal. Raises StartError or BackgroundFailed when it ends for another reason.

        A process that does not lead watches the cluster, serves metrics and is ready, but reconciles nothing.
        """
        settings, metrics = self._settings, self.metrics
        api = ApiHealth()
        cache = ObjectCache(
            ("Pod", "Node", "ResourceQuota", JOB_KIND, MARKET_KIND),
            indexes={"Pod": (LABEL_JOB_UID,), JOB_KIND: (LABEL_RUN, LABEL_CHAIN_JOB)},
            trim={
                "Pod": slim_pod,
                "Node": trim.node,
                "ResourceQuota": trim.without_bookkeeping,
                JOB_KIND: trim.without_bookkeeping,
                MARKET_KIND: trim.without_bookkeeping,
            },
        )

        def observe(verb: str, kind: str, code: str, seconds: float) -> None:
            metrics.kubernetes_request(verb, kind, code, seconds)
            api.observe(verb, kind, code, seconds)

        jobs: WorkQueue[ObjectKey] = WorkQueue("jobs", observer=metrics.queue("jobs", JOB_KIND))
        markets: WorkQueue[ObjectKey] = WorkQueue("markets", observer=metrics.queue("markets", MARKET_KIND))
        runs: WorkQueue[ObjectKey] = WorkQueue("runs", observer=metrics.queue("runs", "Run"))
        for queue in (jobs, markets, runs):
            metrics.watch_queue(queue)
        router = Router(cache, jobs, markets, runs)

        async with contextlib.AsyncExitStack() as stack:
            session = await stack.enter_async_context(self._credentials.open_session())
            http = await stack.enter_async_context(
                aiohttp.ClientSession(headers={"User-Agent": "nosana-operator"})
            )
            term = self._term(KubeClient(session, kinds=KINDS, observe=observe), cache)
            kube = KubeClient(session, kinds=KINDS, observe=observe, on_reply=cache.put, guard=term.check)
            # Only the leader exposes them, so that a sum over the replicas is right.
            metrics.expose_objects(
                lambda: cache.list(JOB_KIND) if term.leading else (),
                lambda: cache.list(MARKET_KIND) if term.leading else (),
            )
            events = EventRecorder(kube, controller=REPORTING_CONTROLLER, instance=socket.gethostname())
            view = ClusterView(
                _scopes(settings),
                cache=cache,
                lister=kube,
                credentials=self._credentials,
                on_change=router,
                on_signals=self._take_signals,
                on_event=metrics.watch_event,
            )
            metrics.expose_watches(lambda: view.silence)
            web = WebServer(
                metrics.registry,
                address=settings.metrics.address,
                port=settings.metrics.port,
                alive={"event loop": lambda: None},
                ready={
                    "kubernetes": api.problem,
                    "kinds": lambda: self._missing,
                    "caches": lambda: None if view.synced else "the first listing is not complete",
                },
            )
            self.web_port = await web.start()
            stack.push_async_callback(web.stop)
            log.info("Metrics and health are served on port %d", self.web_port)
            self._take_signals()
            stack.callback(self._leave_signals)

            loops = self._build(
                OperatorContext(
                    settings=settings,
                    kube=kube,
                    cache=cache,
                    events=events,
                    metrics=metrics,
                    leadership=term,
                    http=http,
                    enqueue_job=jobs.add,
                    chain_changed=router.chain_changed,
                )
            )
            for close in reversed(loops.close):
                stack.push_async_callback(close)

            parts = TaskSupervisor()
            stack.push_async_callback(parts.cancel)
            parts.start("API health", api.probe(kube.read_path))
            parts.start("event loop lag", measure_loop_lag(metrics.loop_lag))
            if not await parts.finish(self._prepare(kube, view), self._stop):
                return
            parts.start("watches", view.run())
            if not await parts.finish(term.acquire(), self._stop):
                return
            acting: set[asyncio.Task[None]] = set()
            stack.push_async_callback(self._step_down, acting, events, term)
            metrics.leader(True)
            acting.add(parts.start("election", term.hold()))
            # The watches may not have delivered yet what the previous leader wrote last.
            if not await parts.finish(view.sync(DOMAIN_KINDS), self._stop):
                return
            for name, background in (("events", events.run), *loops.background):
                acting.add(parts.start(name, background()))
            workers = {
                parts.start("job workers", jobs.run(settings.workers.jobs, loops.reconcile_job)): jobs,
                parts.start(
                    "market workers", markets.run(settings.workers.markets, loops.reconcile_market)
                ): markets,
                parts.start("run workers", runs.run(settings.workers.runs, loops.reconcile_run)): runs,
            }
            acting |= workers.keys()
            router.open(loops.observe_pod)
            self.ready.set()
            log.info(
                "The operator runs: %d jobs, %d markets, %d pods, %d nodes",
                *(cache.count(kind) for kind in (JOB_KIND, MARKET_KIND, "Pod", "Node")),
            )
            await parts.wait_until(self._stop)
            log.info("Stopping; pods and chain stay as they are")
            for task, queue in workers.items():
                parts.expect_end(task)
                queue.stop()
            await asyncio.wait(workers, timeout=_DRAIN_SECONDS)

    async def _prepare(self, kube: KubeClient, view: ClusterView) -> None:
        def missing(text: str) -> None:
            if self._missing != text:
                log.warning("The cluster does not serve %s yet; apply the CRDs (nosana-operator crds)", text)
            self._missing = text

        await require_supported(kube.read_path)
        await wait_for_kinds(kube.read_path, tuple(DOMAIN_KINDS.values()), on_missing=missing)
        self._missing = None
        await view.sync()

    def _term(self, api: KubeClient, cache: ObjectCache) -> Term:
        election = self._settings.election
        if not election.enabled:
            return AlwaysLeading()
        return Election(
            api,
            namespace=election.namespace or self._credentials.namespace,
            name=election.name,
            identity=self._identity,
            times=election,
            floor=lambda: latest_epoch(cache.list(JOB_KIND), cache.list(MARKET_KIND)),
        )

    async def _step_down(self, acting: set[asyncio.Task[None]], events: EventRecorder, term: Term) -> None:
        """Cancel everything that writes, then release the Lease; the watches end after that, which takes longer."""
        await cancel_all(acting)
        await events.flush(_FLUSH_SECONDS)
        self.metrics.leader(False)
        await term.release()

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Only the main thread can do this; a test or an embedding program calls `stop()`.
            with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
                loop.add_signal_handler(number, self._stop.set)

    def _leave_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
                loop.remove_signal_handler(number)


def _scopes(settings: Settings) -> list[Scope]:
    # Slots are what other pods leave free, so pods and nodes of the whole cluster are needed in either case.
    inventory = (CORE_KINDS["Pod"], CORE_KINDS["Node"])
    domain = (*DOMAIN_KINDS.values(), CORE_KINDS["ResourceQuota"])
    if not settings.watch_namespaces:
        return [Scope((*domain, *inventory))]
    return [Scope(domain, settings.watch_namespaces), Scope(inventory)]
