"""What the end-to-end tests see and do: the poster's side, the admin's side, and everything that a watch told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from nosana_operator.api import (
    JOB_KIND,
    LABEL_CHAIN_JOB,
    LABEL_JOB,
    LABEL_JOB_UID,
    MARKET_KIND,
    JobCondition,
    condition_is_true,
    find_condition,
)
from nosana_operator.api.result import read_result
from nosana_operator.errors import NotFound
from nosana_operator.kube import KubeClient, load_credentials
from nosana_operator.runtime.operator import KINDS
from nosana_sandbox.host import MARKET_NAME, SandboxHost, job_object
from nosana_sandbox.observer import Observer
from nosana_sandbox.world.genesis import read_keypair
from nosana_sandbox.world.journal import JobView
from nosana_sandbox.world.poster import Posted, Poster
from nosana_sandbox.world.sandbox import NAMESPACES, Running

T = TypeVar("T")

JOBS, SYSTEM = NAMESPACES["jobs"], NAMESPACES["system"]
LONG = 90.0
"""Seconds that a step may take before the test gives up: many times what it needs."""
WATCHED = (JOB_KIND, "Pod", "Secret")


def op(
    name: str, cmd: str | list[str], *, group: str | None = None, image: str = "ubuntu", **args: Any
) -> dict[str, Any]:
    """One container/run op."""
    execution = {} if group is None else {"execution": {"group": group}}
    return {"type": "container/run", "id": name, "args": {"image": image, "cmd": cmd, **args}, **execution}


def definition(*ops: Mapping[str, Any]) -> dict[str, Any]:
    """A job definition."""
    return {"version": "0.1", "type": "container", "meta": {"trigger": "cli"}, "ops": list(ops)}


def says(text: str) -> dict[str, Any]:
    """A definition whose one op prints `text`: of its own bytes, hence of its own CID."""
    return definition(op("say", ["echo", text]))


def sleeps(seconds: float, name: str = "sleep", **args: Any) -> dict[str, Any]:
    """A definition whose one op takes so long, and ends at once when it is told to."""
    line = f"trap 'echo told to end; exit 0' TERM; echo {name}; sleep {seconds} & wait $!"
    return definition(op(name, line, **args))


async def eventually(
    look: Callable[[], Awaitable[T | None]], what: str, timeout: float = LONG, every: float = 0.1
) -> T:
    """Ask until there is something true: for what no watch tells of."""
    deadline = time.monotonic() + timeout
    while not (found := await look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s in vain until {what}")
        await asyncio.sleep(every)
    return found


@dataclass(slots=True)
class Scene:
    """One test's view of the sandbox."""

    running: Running
    host: SandboxHost
    kube: KubeClient
    poster: Poster
    seen: Observer
    http: aiohttp.ClientSession
    posted: list[str] = field(default_factory=list)
    """Chain addresses of the jobs that this test posted."""
    applied: list[tuple[str, str, str]] = field(default_factory=list)
    """Kind, namespace and name of what this test made in the cluster."""

    # The poster's side

    async def post(self, what: Mapping[str, Any] | bytes, timeout: int = 120) -> Posted:
        """Pin and list a definition in the sandbox's market."""
        data = what if isinstance(what, bytes) else json.dumps(what).encode()
        posted = await self.poster.post(data, self.running.world.market, timeout=timeout)
        self.posted.append(posted.job)
        return posted

    async def list_cid(self, cid: str, timeout: int = 120) -> Posted:
        """List a definition that nobody has to hold."""
        posted = await self.poster.list_job(cid, self.running.world.market, timeout=timeout)
        self.posted.append(posted.job)
        return posted

    async def fault(self, path: str, body: bytes = b"") -> None:
        """Switch one of the IPFS' faults."""
        async with self.http.post(f"{self.running.world.ipfs}/sandbox/faults/{path}", data=body) as answer:
            assert answer.status == 204, await answer.text()

    async def on_chain(self, posted: Posted, *states: str) -> JobView:
        """The job once it is in one of these states on chain."""

        async def look() -> JobView | None:
            view = await self.poster.job(posted.job)
            return view if view.state in states else None

        return await eventually(look, f"job {posted.job} is {' or '.join(states)} on chain")

    async def result(self, posted: Posted) -> dict[str, Any]:
        """The job's result, fetched from IPFS by the CID that stands on chain."""
        found = await self.poster.result(await self.poster.job(posted.job))
        assert isinstance(found, dict), found
        return found

    async def instructions(self, address: str) -> list[tuple[str, ...]]:
        """What was done on chain that names this account, in order."""
        return [payment.instructions for payment in await self.poster.payments(address)]

    # What is in the cluster

    def job_of(self, posted: Posted) -> Mapping[str, Any] | None:
        """The NosanaJob of a posted job, as last seen."""
        bodies = self.seen.current(JOB_KIND).values()
        return next(
            (b for b in bodies if b["metadata"].get("labels", {}).get(LABEL_CHAIN_JOB) == posted.job), None
        )

    async def job_that(
        self, posted: Posted, good: Callable[[Mapping[str, Any]], bool], what: str
    ) -> Mapping[str, Any]:
        """The NosanaJob of a posted job once `good` says so of it."""

        def look() -> Mapping[str, Any] | None:
            body = self.job_of(posted)
            return body if body is not None and good(body) else None

        return await self.seen.until(look, LONG, f"the NosanaJob of {posted.job} {what}")

    async def running_job(self, posted: Posted) -> Mapping[str, Any]:
        """The NosanaJob once its ops run."""
        return await self.job_that(posted, lambda b: phase(b) == "Running", "runs")

    async def settled(self, posted: Posted) -> Mapping[str, Any]:
        """The NosanaJob once it is settled at finalized."""
        return await self.job_that(posted, lambda b: holds(b, JobCondition.SETTLED), "is settled")

    async def private(self, name: str, what: Mapping[str, Any] | None = None, **spec: Any) -> str:
        """Make a private NosanaJob; its name."""
        body = job_object(name, what or {}, **spec)
        if what is None:
            del body["spec"]["definition"]
        await self.make(body)
        return name

    async def make(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create an object that goes with the test."""
        made = await self.kube.create(body)
        meta = made["metadata"]
        self.applied.append((body["kind"], meta["namespace"], meta["name"]))
        return made

    async def named(
        self, name: str, good: Callable[[Mapping[str, Any]], bool], what: str
    ) -> Mapping[str, Any]:
        """The NosanaJob of that name once `good` says so of it."""

        def look() -> Mapping[str, Any] | None:
            body = self.seen.current(JOB_KIND).get(name)
            return body if body is not None and good(body) else None

        return await self.seen.until(look, LONG, f"the NosanaJob {name} {what}")

    async def over(self, name: str) -> Mapping[str, Any]:
        """The NosanaJob once it is complete or failed."""
        return await self.named(
            name, lambda b: holds(b, JobCondition.COMPLETE) or holds(b, JobCondition.FAILED), "is over"
        )

    async def stored_result(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The FlowState as it lies in the job's Secrets."""
        names: Sequence[str] = body["status"]["resultSecrets"]
        found: dict[str, Any] = json.loads(
            read_result([await self.kube.get("Secret", JOBS, name) for name in names])
        )
        return found

    def pods_ever(self, body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """Every pod that this NosanaJob ever had, by uid, as last seen."""
        mine = body["metadata"]["uid"]
        return {
            seen.body["metadata"]["uid"]: seen.body
            for seen in self.seen.history("Pod")
            if seen.body["metadata"].get("labels", {}).get(LABEL_JOB_UID) == mine
        }

    async def gone(self, kind: str, namespace: str, name: str) -> None:
        """Wait until an object does not exist any more."""

        async def look() -> bool:
            try:
                await self.kube.get(kind, namespace, name)
            except NotFound:
                return True
            return False

        await eventually(look, f"{kind} {namespace}/{name} is gone")

    # The market

    async def market(self) -> Mapping[str, Any]:
        """The sandbox's NosanaMarket."""
        return await self.kube.get(MARKET_KIND, SYSTEM, MARKET_NAME)

    async def set_market(self, **spec: Any) -> None:
        """Change fields of the NosanaMarket's spec."""
        await self.kube.patch(MARKET_KIND, SYSTEM, MARKET_NAME, {"spec": spec})

    async def market_that(self, good: Callable[[Mapping[str, Any]], bool], what: str) -> Mapping[str, Any]:
        """The NosanaMarket once `good` says so of its status."""

        async def look() -> Mapping[str, Any] | None:
            body = await self.market()
            up_to_date = (body.get("status") or {}).get("observedGeneration") == body["metadata"][
                "generation"
            ]
            return body if up_to_date and good(body["status"]) else None

        return await eventually(look, f"the NosanaMarket {what}")

    async def idle(self) -> None:
        """Wait until no run is open and the host stands in the queue."""
        await self.market_that(
            lambda s: s["slots"]["running"] == 0 and s["slots"]["standing"] == 1,
            "has no run and its host stands",
        )

    async def clean(self) -> None:
        """Take back what the test left behind, so that the next one finds an idle market."""
        for address in self.posted:
            with contextlib.suppress(Exception):
                state = (await self.poster.job(address)).state
                if state == "Queued":
                    await self.poster.delist(address)
                elif state == "Running":
                    await self.poster.end(address)
        for kind, namespace, name in self.applied:
            await self.kube.delete(kind, namespace, name)


@contextlib.asynccontextmanager
async def scene_of(running: Running, host: SandboxHost) -> AsyncIterator[Scene]:
    """A Scene over a sandbox whose operator has been installed."""
    credentials = load_credentials(running.kubeconfig)
    world = running.world
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(credentials.open_session(user_agent="nosana-tests"))
        poster = Poster(rpc=world.rpc, ipfs=world.ipfs, keypair=read_keypair(Path(world.poster.keypair)))
        await stack.enter_async_context(poster)
        # Of Secrets only that they are there: their contents are of no use here.
        watching = Observer(credentials, [KINDS[kind] for kind in WATCHED], JOBS, metadata_only=("Secret",))
        seen = await stack.enter_async_context(watching)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        scene = Scene(running, host, KubeClient(session, kinds=KINDS), poster, seen, http)
        try:
            yield scene
        finally:
            await scene.clean()


# Reading objects


def conditions(body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The conditions in an object's status."""
    found: Sequence[Mapping[str, Any]] = (body.get("status") or {}).get("conditions") or ()
    return found


def holds(body: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition is True."""
    return condition_is_true(conditions(body), kind)


def condition(body: Mapping[str, Any], kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition; empty texts when it is not there."""
    found = find_condition(conditions(body), kind) or {}
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


def phase(body: Mapping[str, Any]) -> str:
    """The phase, or nothing yet."""
    return str((body.get("status") or {}).get("phase") or "")


def job_name(pod: Mapping[str, Any]) -> str:
    """The NosanaJob that a pod belongs to."""
    return str(pod["metadata"].get("labels", {}).get(LABEL_JOB, ""))


def terminated(pod: Mapping[str, Any]) -> bool:
    """Whether a pod's containers have ended."""
    states = pod.get("status", {}).get("containerStatuses") or []
    return bool(states) and all("terminated" in each.get("state", {}) for each in states)


def started(pod: Mapping[str, Any]) -> bool:
    """Whether a pod's containers run or have run."""
    states = pod.get("status", {}).get("containerStatuses") or []
    return bool(states) and all(each.get("state", {}).keys() & {"running", "terminated"} for each in states)


def logs_of(state: Mapping[str, Any], name: str) -> list[str]:
    """The log lines of an op in a FlowState."""
    return [entry["log"].rstrip("\n") for entry in op_state(state, name)["logs"]]


def op_state(state: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One op in a FlowState."""
    found: Mapping[str, Any] = next(each for each in state["opStates"] if each["operationId"] == name)
    return found


def finishes(view: JobView) -> list[str]:
    """Signatures of the transactions that finished the job."""
    return [payment.signature for payment in view.payments if "Finish" in payment.instructions]


def assert_paid_once(view: JobView, body: Mapping[str, Any], host: str) -> None:
    """Exactly one `finish`; what was paid is the price of the seconds; the NosanaJob says the same."""
    assert (view.state, view.node) == ("Done", host)
    names = [name for payment in view.payments for name in payment.instructions]
    assert names.count("Finish") == 1, names
    assert names.count("List") == 1, names
    assert set(names) <= {"List", "Work", "Finish", "Extend"}, names
    totals = view.totals
    assert totals.earned == view.price * view.seconds
    assert totals.earned + totals.refunded == totals.deposited == view.price * view.timeout
    # All of the pay went to the host's own account, in the one transaction that finished.
    (finish,) = [payment for payment in view.payments if "Finish" in payment.instructions]
    paid = [(transfer.owner, transfer.change) for transfer in finish.transfers if transfer.change > 0]
    assert [change for owner, change in paid if owner == host] == ([totals.earned] if totals.earned else [])
    settlement = body["status"]["settlement"]
    assert settlement["kind"] == "finish"
    assert settlement["transaction"]["signature"] == finish.signature
    assert settlement["secondsPaid"] == view.seconds
    assert (settlement["earned"], settlement["refunded"]) == (totals.earned, totals.refunded)
    assert body["status"]["resultCID"] == settlement["resultCID"] == view.result_cid


def encoded(text: str) -> str:
    """As a Secret's data holds it."""
    return base64.b64encode(text.encode()).decode()
