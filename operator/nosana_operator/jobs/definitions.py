"""Loads definitions from the NosanaJob, a ConfigMap, a Secret or IPFS, in tasks beside the work queue.

Nothing here blocks a reconcile: `state` returns at once, and a finished task puts the job into the queue again.
Nothing here blocks the event loop either: all but small definitions are parsed and planned in `_WORKERS` threads.

    state ── no document ──> task: fetch, parse in a thread ──> document, job wakes
      │
      ├───── not planned ──> task: plan in a thread ──────────> state of this generation, job wakes
      └───── planned ──────> Loaded or Unusable
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeVar

from nosana_operator.api import DefinitionFrom, JobReason, KeyRef, Logistics, NosanaJobSpec, Run, parse_inline
from nosana_operator.api.inline import inline_size
from nosana_operator.backoff import Backoff
from nosana_operator.definition import (
    Definition,
    DefinitionError,
    Problem,
    RunArgs,
    Syntax,
    exposed_ports,
    load,
    parse,
    plan,
)
from nosana_operator.definition.flowstate import FlowStatus
from nosana_operator.definition.limits import MAX_MESSAGE, MAX_PORTS
from nosana_operator.errors import Mismatch, NosanaError, NotFound, Refused
from nosana_operator.jobs.confidential import progress, stub_in, stub_of
from nosana_operator.jobs.decision.decide import GIVE_UP_DEFINITION
from nosana_operator.jobs.decision.view import SMALL_DEFINITION, DefinitionState, Loaded, Loading, Unusable
from nosana_operator.jobs.ports import Definitions, JobSettings, Key, Kube
from nosana_operator.ports import Body
from nosana_operator.workload import JobContext, gpu_demand, op_endpoints, run_args, unsupported

log = logging.getLogger(__name__)
Outcome = TypeVar("Outcome")

MAX_FETCHES: Final = 16
"""Fetches that run at the same time."""
_BACKOFF: Final = Backoff(first=0.5, longest=30.0)
_WORKERS: Final = 2
"""Threads for parsing and planning. Each waits for the interpreter's lock, so more would only delay the loop."""
_CACHE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the documents whose definitions are cached by CID: every job of a deployment has the same one.
A parsed definition takes up to 20 times as much memory."""


@dataclass(slots=True)
class _Entry:
    """The definition of one job. `state` depends on the spec, so it is computed once per generation."""

    task: asyncio.Task[None] | None = None
    stub: Logistics | None = None
    """The endpoints of a confidential job."""
    document: Definition | Unusable | Loading = field(default_factory=Loading)
    state: Loaded | Unusable | None = None
    generation: int = -1
    """Of the spec that `state` belongs to."""


class _Cache:
    """The definitions used last, bounded by the bytes of their documents."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[Definition | Unusable, int]] = OrderedDict()

    def get(self, cid: str) -> Definition | Unusable | None:
        if cid not in self._kept:
            return None
        self._kept.move_to_end(cid)
        return self._kept[cid][0]

    def put(self, cid: str, definition: Definition | Unusable, size: int) -> None:
        self._bytes += size - self._kept.pop(cid, (None, 0))[1]
        self._kept[cid] = (definition, size)
        while self._bytes > self._max_bytes:
            self._bytes -= self._kept.popitem(last=False)[1][1]


class DefinitionLoader:
    """Definitions by job uid; `wake` puts a job's key into the work queue."""

    def __init__(
        self,
        kube: Kube,
        definitions: Definitions,
        settings: JobSettings,
        wake: Callable[[Key], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._definitions = definitions
        self._settings = settings
        self._wake = wake
        self._sleep = sleep
        self._fetches = asyncio.Semaphore(MAX_FETCHES)
        self._entries: dict[str, _Entry] = {}
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="definitions")
        self._by_cid = _Cache(_CACHE_BYTES)

    def state(self, body: Body, spec: NosanaJobSpec) -> DefinitionState:
        """The job's definition, or why it is not available yet; the first call starts the fetch."""
        meta = body["metadata"]
        key = (meta["namespace"], meta["name"])
        entry = self._entries.setdefault(meta["uid"], _Entry())
        if entry.task is not None and entry.task.done():
            # A task that failed by a defect of ours raises here: the work queue reports it and retries.
            task, entry.task = entry.task, None
            task.result()
        if spec.run is not None:
            self._confidential(entry, body, spec.run)
        if isinstance(entry.document, Loading) and entry.task is None:
            if (inline := spec.definition) is not None:
                if inline_size(inline) <= SMALL_DEFINITION:
                    entry.document = _parsed(lambda: parse_inline(inline))
                else:
                    self._begin(entry, key, self._read_inline(entry, inline))
            elif entry.stub is None:
                self._begin(entry, key, self._fetch(entry, key, spec.definition_from))
            elif isinstance(source := progress(body, entry.stub), DefinitionFrom):
                self._begin(entry, key, self._fetch(entry, key, source))
            else:
                entry.document = source
        if not isinstance(entry.document, Definition):
            return _without_quotes(entry.document, entry)
        generation = int(meta.get("generation", 0))
        if (entry.state is None or entry.generation != generation) and entry.task is None:
            context = self._context(body, spec, entry.document)
            if entry.document.size <= SMALL_DEFINITION:
                entry.state, entry.generation = _planned(context), generation
            else:
                self._begin(entry, key, self._plan(entry, generation, context))
        # While the plan for a changed spec is made, the one before counts.
        return _without_quotes(entry.state or Loading(), entry)

    def forget(self, uid: str) -> None:
        """End the fetch of a job that is over or gone."""
        entry = self._entries.pop(uid, None)
        if entry is not None and entry.task is not None:
            entry.task.cancel()

    async def close(self) -> None:
        """End all fetches."""
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        self._entries.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _context(self, body: Body, spec: NosanaJobSpec, definition: Definition) -> JobContext:
        meta = body["metadata"]
        return JobContext(
            name=meta["name"],
            namespace=meta["namespace"],
            uid=meta["uid"],
            spec=spec,
            definition=definition,
            cluster=self._settings.cluster,
            default_exposure=self._settings.exposure,
            cluster_domain=self._settings.cluster_domain,
            trusted_runtime_class=self._settings.isolation.trusted_runtime_class,
            fetching=self._settings.fetching,
            nodes=self._settings.nodes,
            storage=self._settings.storage,
        )

    # -- fetching ----------------------------------------------------------------------------------------

    def _confidential(self, entry: _Entry, body: Body, run: Run) -> None:
        """A market's job whose definition on IPFS is only a stub waits for the definition from its poster."""
        if entry.stub is None:
            entry.stub = stub_in(body)
        if isinstance(entry.document, Definition) and entry.document.logistics is not None:
            stub = stub_of(entry.document, run)
            entry.task = None
            if isinstance(stub, Logistics):
                entry.stub, entry.document = stub, Loading()
            else:
                entry.document = stub

    def _begin(self, entry: _Entry, key: Key, work: Coroutine[Any, Any, None]) -> None:
        entry.task = asyncio.create_task(work, name=f"definition of {key}")
        entry.task.add_done_callback(lambda task: None if task.cancelled() else self._wake(key))

    async def _read_inline(self, entry: _Entry, inline: Mapping[str, Any]) -> None:
        entry.document = await self._in_thread(lambda: _parsed(lambda: parse_inline(inline)))

    async def _plan(self, entry: _Entry, generation: int, context: JobContext) -> None:
        entry.state = await self._in_thread(lambda: _planned(context))
        entry.generation = generation

    async def _in_thread(self, work: Callable[[], Outcome]) -> Outcome:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    async def _fetch(self, entry: _Entry, key: Key, source: DefinitionFrom | None) -> None:
        """Retry until there is a definite answer; report each failure."""
        for attempt in itertools.count(1):
            async with self._fetches:
                document = await self._attempt_in_time(key[0], source)
            if entry.stub is not None and isinstance(document, Definition):
                # The stub decides where the definition comes from and where the result goes.
                document = document.model_copy(update={"logistics": None})
            entry.document = document
            if not isinstance(entry.document, Loading):
                return
            self._wake(key)
            log.info(
                "definition not available yet: %s",
                entry.document.problem,
                extra={"job": f"{key[0]}/{key[1]}"},
            )
            await self._sleep(_BACKOFF.wait(attempt))

    async def _attempt_in_time(
        self, namespace: str, source: DefinitionFrom | None
    ) -> Definition | Unusable | Loading:
        """One attempt, with a time limit so that it does not hold its slot among the fetches."""
        seconds = GIVE_UP_DEFINITION.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                return await self._attempt(namespace, source)
        except TimeoutError:
            return Loading(f"no answer in {seconds:g} s", JobReason.DEFINITION_UNREACHABLE)

    async def _attempt(
        self, namespace: str, source: DefinitionFrom | None
    ) -> Definition | Unusable | Loading:
        if source is None:
            message = "the NosanaJob has no definition; set spec.definition or spec.definitionFrom"
            return Unusable(
                JobReason.DEFINITION_NOT_FOUND, message, (Problem("$", message),), FlowStatus.INIT_ERROR
            )
        try:
            if source.ipfs is not None:
                return await self._from_ipfs(source.ipfs)
            if source.config_map is not None:
                return await self._from_object("ConfigMap", namespace, source.config_map)
            if source.secret is not None:
                return await self._from_object("Secret", namespace, source.secret)
        except Mismatch as error:
            return _unusable(JobReason.DEFINITION_MISMATCH, error)
        except Refused as error:
            return _unusable(JobReason.DEFINITION_INVALID, error)
        except NotFound as error:
            return Loading(str(error), JobReason.DEFINITION_NOT_FOUND)
        except NosanaError as error:
            return Loading(str(error), JobReason.DEFINITION_UNREACHABLE)
        raise TypeError("definitionFrom without a source")

    async def _from_ipfs(self, cid: str) -> Definition | Unusable:
        kept = self._by_cid.get(cid)
        if kept is None:
            data = await self._definitions.fetch(cid)
            kept = await self._in_thread(lambda: _parsed(lambda: parse(data, syntax=Syntax.JSON)))
            self._by_cid.put(cid, kept, len(data))
        return kept

    async def _from_object(self, kind: str, namespace: str, ref: KeyRef) -> Definition | Unusable | Loading:
        try:
            body = await self._kube.get(kind, namespace, ref.name)
        except NotFound:
            message = f"there is no {kind} {namespace}/{ref.name}; create it, with the key {ref.key!r}"
            return Loading(message, JobReason.DEFINITION_NOT_FOUND)
        text: str | bytes | None = (body.get("data") or {}).get(ref.key)
        if text is None:
            message = f"{kind} {namespace}/{ref.name} has no key {ref.key!r}; add it, or name another key"
            return Loading(message, JobReason.DEFINITION_NOT_FOUND)
        if kind == "Secret":
            try:
                text = base64.b64decode(text, validate=True)
            except binascii.Error:
                text = b""
        document = text
        return await self._in_thread(lambda: _parsed(lambda: parse(load(document, source=ref.key).value)))


def _planned(context: JobContext) -> Loaded | Unusable:
    """Whether this cluster can run the definition, and in which order."""
    definition = context.definition
    try:
        order = plan(definition)
        problems = unsupported(context)
        if problems:
            raise DefinitionError(problems)
    except DefinitionError as error:
        return _invalid(error, FlowStatus.INIT_ERROR)
    demand = gpu_demand(context)
    if demand is not None and demand.exceeds:
        problem = Problem("ops", demand.message)
        return Unusable(JobReason.GPU_OPS_EXCEED_SLOT, demand.message, (problem,), FlowStatus.INIT_ERROR)
    endpoints, checks = [], {}
    for index, op in enumerate(definition.ops):
        if not isinstance(op.args, RunArgs):
            continue
        try:
            ports = exposed_ports(run_args(context, index))
        except DefinitionError:
            # The op needs results of an earlier op, or cannot start: then its start reports that.
            ports = exposed_ports(op.args)
        endpoints += op_endpoints(context, index, ports)
        if checked := tuple(port for port in ports if port.health_checks):
            checks[index] = checked
    if len(endpoints) > MAX_PORTS:
        message = f"at most {MAX_PORTS} exposed ports are allowed, found {len(endpoints)}"
        too_many = DefinitionError([Problem("ops", message, "split the job")])
        return _invalid(too_many, FlowStatus.INIT_ERROR)
    return Loaded(context, order, tuple(endpoints), checks)


def _parsed(read: Callable[[], Definition]) -> Definition | Unusable:
    try:
        definition = read()
    except DefinitionError as error:
        return _invalid(error, FlowStatus.VALIDATION_ERROR)
    # Computed here, in a thread, and kept.
    _ = definition.size, definition.ops_with_host_literals
    return definition


def _without_quotes(state: DefinitionState, entry: _Entry) -> DefinitionState:
    """The state for conditions. The problems of a confidential definition quote it, so only the result has them."""
    if entry.stub is None or not isinstance(state, Unusable) or state.reason != JobReason.DEFINITION_INVALID:
        return state
    number = "a problem" if len(state.problems) == 1 else f"{len(state.problems)} problems"
    return replace(state, message=f"the definition has {number}, which only its poster is told")


def _invalid(
    error: DefinitionError, status: Literal[FlowStatus.INIT_ERROR, FlowStatus.VALIDATION_ERROR]
) -> Unusable:
    return Unusable(JobReason.DEFINITION_INVALID, str(error)[:MAX_MESSAGE], error.problems, status)


def _unusable(reason: JobReason, error: NosanaError) -> Unusable:
    return Unusable(reason, str(error)[:MAX_MESSAGE], (Problem("$", str(error)),), FlowStatus.INIT_ERROR)
