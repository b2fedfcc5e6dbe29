"""Loads definitions from the NosanaJob, a ConfigMap, a Secret or IPFS, in tasks beside the work queue.

Nothing here blocks a reconcile: `state` returns at once, and a finished task puts the job into the queue again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from nosana_operator.api import DefinitionFrom, JobReason, KeyRef, Logistics, NosanaJobSpec, Run, parse_inline
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
from nosana_operator.jobs.decision.view import DefinitionState, Loaded, Loading, Unusable
from nosana_operator.jobs.ports import Definitions, JobSettings, Key, Kube
from nosana_operator.ports import Body
from nosana_operator.workload import JobContext, gpu_demand, op_endpoints, run_args, unsupported

log = logging.getLogger(__name__)

MAX_FETCHES: Final = 16
"""Fetches that run at the same time."""
_BACKOFF: Final = Backoff(first=0.5, longest=30.0)
_KEEP: Final = 256
"""Definitions cached by CID: every job of a deployment has the same one."""


@dataclass(slots=True)
class _Entry:
    """The definition of one job. `state` depends on the spec, so it is computed once per generation."""

    task: asyncio.Task[None] | None = None
    stub: Logistics | None = None
    """The endpoints of a confidential job."""
    document: Definition | Unusable | Loading = field(default_factory=Loading)
    state: Loaded | Unusable | None = None
    generation: int = -1


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
        self._by_cid: OrderedDict[str, Definition | Unusable] = OrderedDict()

    def state(self, body: Body, spec: NosanaJobSpec) -> DefinitionState:
        """The job's definition, or why it is not available yet; the first call starts the fetch."""
        meta = body["metadata"]
        entry = self._entries.setdefault(meta["uid"], _Entry())
        if spec.run is not None:
            self._confidential(entry, body, spec.run)
        if isinstance(entry.document, Loading):
            if (inline := spec.definition) is not None:
                entry.document = _parsed(lambda: parse_inline(inline))
            elif entry.stub is not None:
                source = progress(body, entry.stub)
                if not isinstance(source, DefinitionFrom):
                    entry.document = source
                elif entry.task is None:
                    self._begin(entry, (meta["namespace"], meta["name"]), source)
            elif entry.task is None:
                self._begin(entry, (meta["namespace"], meta["name"]), spec.definition_from)
        if not isinstance(entry.document, Definition):
            if entry.task is not None and entry.task.done() and isinstance(entry.document, Loading):
                # The task failed by a defect of ours: the work queue reports the exception and retries.
                task, entry.task = entry.task, None
                task.result()
            return _without_quotes(entry.document, entry)
        generation = int(meta.get("generation", 0))
        if entry.state is None or entry.generation != generation:
            entry.state = self._planned(body, spec, entry.document)
            entry.generation = generation
        return _without_quotes(entry.state, entry)

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

    def _planned(self, body: Body, spec: NosanaJobSpec, definition: Definition) -> Loaded | Unusable:
        """Whether this cluster can run the definition, and in which order."""
        meta = body["metadata"]
        context = JobContext(
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
            storage=self._settings.storage,
        )
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

    def _begin(self, entry: _Entry, key: Key, source: DefinitionFrom | None) -> None:
        entry.task = asyncio.create_task(self._fetch(entry, key, source), name=f"definition of {key}")
        entry.task.add_done_callback(lambda task: None if task.cancelled() else self._wake(key))

    async def _fetch(self, entry: _Entry, key: Key, source: DefinitionFrom | None) -> None:
        """Retry until there is a definite answer; report each failure."""
        for attempt in itertools.count(1):
            async with self._fetches:
                document = await self._attempt_in_time(key[0], source)
            if entry.stub is not None and isinstance(document, Definition):
                # The stub decides where the definition comes from and where the result goes.
                document = document.model_copy(update={"logistics": None})
            entry.document = document
            self._wake(key)
            if not isinstance(entry.document, Loading):
                return
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
            # Parsing a stranger's document of up to 1 MiB would block the event loop.
            kept = await asyncio.to_thread(_parsed, lambda: parse(data, syntax=Syntax.JSON))
            self._by_cid[cid] = kept
            while len(self._by_cid) > _KEEP:
                self._by_cid.popitem(last=False)
        self._by_cid.move_to_end(cid)
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
        return await asyncio.to_thread(_parsed, lambda: parse(load(document, source=ref.key).value))


def _parsed(read: Callable[[], Definition]) -> Definition | Unusable:
    try:
        return read()
    except DefinitionError as error:
        return _invalid(error, FlowStatus.VALIDATION_ERROR)


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
