"""`make demo`: jobs from post to payment on one machine.

    python -m nosana_sandbox.demo [--keep] [--install helm] [FILE…]

A client's side (pin, list) and an admin's side (NosanaMarket, operator) are played here; everything between
them is the operator's work.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import click
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nosana_operator.api import (
    LABEL_CHAIN_JOB,
    LABEL_JOB,
    JobCondition,
    condition_is_true,
    find_condition,
    parse_timestamp,
)
from nosana_operator.api.result import read_result
from nosana_operator.errors import NosanaError
from nosana_sandbox.helm import ChartHost
from nosana_sandbox.host import MARKET_NAME, SandboxHost, job_object
from nosana_sandbox.world.genesis import read_keypair
from nosana_sandbox.world.journal import JobView
from nosana_sandbox.world.poster import Poster
from nosana_sandbox.world.sandbox import NAMESPACES, Running, Sandbox, Shape

NAME: Final = "demo"
EXAMPLES: Final = Path(__file__).parents[2] / "examples"
POSTED: Final = ("hello-world.json", "count-stages.json", "jupyter-gpu.json")
SERVES_FOR: Final = 30
"""Seconds that are paid for a job that ends only by its time-out."""
GIVE_UP: Final = 600.0
PRIVATE: Final = "private-hello"
NOS: Final = 1_000_000
STEPS: Final = (
    "matched",
    "created",
    "accepted",
    "scheduled",
    "fetched",
    "pulled",
    "started",
    "ready",
    "ended",
    "settled",
)

console = Console(width=None if sys.stdout.isatty() else 140)


@dataclass(slots=True)
class Tracked:
    """One job of the demo, and its state."""

    title: str
    address: str | None
    """The job's address on chain; None for the private one."""
    chain: JobView | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    pods: list[Mapping[str, Any]] = field(default_factory=list)
    answer: str | None = None

    @property
    def status(self) -> Mapping[str, Any]:
        """The NosanaJob's status."""
        found: Mapping[str, Any] = self.body.get("status") or {}
        return found

    @property
    def over(self) -> bool:
        """Whether it has ended, and is settled if it is a market's."""
        conditions = self.status.get("conditions")
        if self.address is not None:
            return condition_is_true(conditions, JobCondition.SETTLED)
        return condition_is_true(conditions, JobCondition.COMPLETE) or condition_is_true(
            conditions, JobCondition.FAILED
        )


def say(text: str) -> None:
    """One line of progress."""
    console.print(f"[bold cyan]»[/] {text}", highlight=False)


def table(jobs: Iterable[Tracked]) -> Table:
    """The live table."""
    out = Table(title="jobs", title_justify="left", expand=False)
    for name in ("job", "on chain", "phase", "pod", "node", "GPU", "endpoint"):
        out.add_column(name, no_wrap=name != "endpoint", overflow="fold")
    for job in jobs:
        pods = job.pods or [{}]
        last = pods[-1]
        limits = [
            container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", "-")
            for container in last.get("spec", {}).get("containers", [])
        ]
        endpoints = [e.get("url") or e.get("service") or "" for e in job.status.get("endpoints", [])]
        out.add_row(
            job.title,
            job.chain.state if job.chain else ("private" if job.address is None else "posted"),
            job.status.get("phase") or "-",
            last.get("metadata", {}).get("name", "-"),
            last.get("spec", {}).get("nodeName", "-"),
            ",".join(limits) or "-",
            endpoints[0] if endpoints else "-",
        )
    return out


def timing(status: Mapping[str, Any]) -> str:
    """Where the time went: seconds from each moment to the next that was noted."""
    moments = [
        (step, parse_timestamp(at)) for step in STEPS if (at := (status.get("timing") or {}).get(step))
    ]
    moments.sort(key=lambda moment: moment[1])
    parts = [
        f"{step} +{(at - before).total_seconds():.2f}"
        for (_, before), (step, at) in itertools.pairwise(moments)
    ]
    return f"{moments[0][0]}, {', '.join(parts)} s" if moments else "-"


class Demo:
    """One run of the demo."""

    def __init__(
        self, sandbox: Sandbox, running: Running, host: SandboxHost | ChartHost, files: tuple[Path, ...]
    ) -> None:
        self._sandbox = sandbox
        self._running = running
        self._files = files
        self._host = host
        self._jobs: list[Tracked] = []

    def prepare(self) -> None:
        """The admin's side: CRDs, operator, market, stand-in images."""
        say("installing CRDs, the wallet's Secret and the operator")
        self._host.bring_up()
        say("offering 2 of the cluster's 4 GPUs in the market (NosanaMarket)")
        self._host.offer(slots=2)
        self._host.kubectl.run(
            "wait", "-n", NAMESPACES["system"], "--for=condition=Ready", "--timeout=30s", f"nm/{MARKET_NAME}"
        )
        definitions = []
        for file in self._files:
            try:
                definitions.append(json.loads(file.read_bytes()))
            except ValueError:
                continue  # Posted all the same: the host has to cope.
        say("making stand-in images under the real names, loading them into the nodes")
        self._sandbox.ensure_images([d for d in definitions if isinstance(d, dict)])

    async def post(self) -> None:
        """The client's side: pin each definition and list it on chain."""
        world = self._running.world
        async with self._poster() as poster:
            for file in self._files:
                posted = await poster.post(
                    file.read_bytes(), world.market, timeout=SERVES_FOR if _serves(file) else 600
                )
                say(f"posted {file.name}: job {posted.job}, definition {posted.cid}")
                self._jobs.append(Tracked(file.stem, posted.job))

    def private(self) -> None:
        """The same without a chain: kubectl apply."""
        definition = json.loads((EXAMPLES / POSTED[0]).read_bytes())
        self._host.kubectl.run(
            "delete", "nj", PRIVATE, "-n", NAMESPACES["jobs"], "--ignore-not-found", "--wait=true"
        )
        self._host.kubectl.apply([job_object(PRIVATE, definition)])
        say(f"applied a private NosanaJob: kubectl get nj -n {NAMESPACES['jobs']} {PRIVATE}")
        self._jobs.append(Tracked(PRIVATE, None))

    async def follow(self, jobs: list[Tracked]) -> None:
        """The live table until all are over. Raises DemoError when that takes too long."""
        deadline = time.monotonic() + GIVE_UP
        async with self._poster() as poster:
            with Live(table(jobs), console=console, refresh_per_second=4, transient=False) as live:
                while not all(job.over for job in jobs):
                    if time.monotonic() > deadline:
                        raise DemoError(
                            f"not all jobs are over after {GIVE_UP:g} s; see `{self._host.follow_log()}`"
                        )
                    if ended := self._host.ended():
                        raise DemoError(ended)
                    await self._look(poster, jobs)
                    live.update(Group(table(jobs), *(_opened(job) for job in jobs if job.answer)))
                    await asyncio.sleep(0.3)

    async def _look(self, poster: Poster, jobs: list[Tracked]) -> None:
        bodies = self._host.kubectl.get("nj", "-n", NAMESPACES["jobs"])["items"]
        pods = self._host.kubectl.get("pods", "-n", NAMESPACES["jobs"])["items"]
        for job in jobs:
            if job.address is not None:
                job.chain = await poster.job(job.address)
            for body in bodies:
                labels = body["metadata"].get("labels", {})
                its = labels.get(LABEL_CHAIN_JOB) if job.address else body["metadata"]["name"]
                if its == (job.address or job.title):
                    job.body = body
            if job.body:
                mine = job.body["metadata"]["name"]
                job.pods = [p for p in pods if p["metadata"].get("labels", {}).get(LABEL_JOB) == mine]
            if job.answer is None and job.status.get("phase") == "Running":
                job.answer = await asyncio.to_thread(self._open, job)

    def _open(self, job: Tracked) -> str | None:
        """The endpoint's answer through the gateway, once it answers."""
        for endpoint in job.status.get("endpoints", []):
            host = urlsplit(endpoint.get("url") or "").hostname
            if host is None:
                continue
            request = urllib.request.Request(self._running.world.gateway, headers={"Host": host})
            try:
                with urllib.request.urlopen(request, timeout=2) as response:
                    page = response.read(400).decode(errors="replace")
            except (urllib.error.URLError, OSError):
                return None
            port = urlsplit(self._running.world.gateway).port
            return f"GET http://{host}:{port}/ → {' '.join(page.split())[:160]}"
        return None

    async def report(self, job: Tracked) -> None:
        """The summary of one job."""
        lines: list[str] = []
        condition = find_condition(job.status.get("conditions"), JobCondition.READY) or {}
        lines.append(f"phase      {job.status.get('phase')} ({condition.get('reason', '-')})")
        if job.address is None:
            result = self._private_result(job)
        else:
            async with self._poster() as poster:
                view = await poster.job(job.address)
                result = await poster.result(view)
            totals = view.totals
            lines += [
                f"on chain   {view.state}, job {view.address}",
                f"paid       {view.seconds} s of {view.timeout} s at {view.price / NOS:g} NOS/s: earned "
                f"{totals.earned / NOS:g} NOS, refunded {totals.refunded / NOS:g} NOS",
                f"result     {view.result_cid}",
            ]
        lines += [f"time       {timing(job.status)}"]
        if job.answer:
            lines.append(job.answer)
        lines += ["", _shown(result)]
        console.print(Panel(Text("\n".join(lines)), title=job.title, title_align="left"))

    def _private_result(self, job: Tracked) -> Any:
        names = job.status.get("resultSecrets") or []
        secrets = [self._host.kubectl.get("secret", "-n", NAMESPACES["jobs"], name) for name in names]
        return json.loads(read_result(secrets)) if secrets else None

    @property
    def jobs(self) -> list[Tracked]:
        """The summaries of all jobs."""
        return self._jobs

    def how_to_go_on(self) -> None:
        """Commands to try while it is up."""
        kubectl = f"{self._host.kubectl.program} --kubeconfig {self._running.kubeconfig}"
        console.print(
            Panel(
                Text(
                    f"{kubectl} get nm,nj,pods -A\n"
                    f"nosana-sandbox post examples/hello-world.json --name {NAME}\n"
                    f"nosana-sandbox job ADDRESS --name {NAME}\n"
                    f"nosana-sandbox end ADDRESS --name {NAME}\n"
                    f"{self._host.follow_log()}\n"
                    f"nosana-sandbox down --name {NAME}"
                ),
                title="it stays up; to go on",
                title_align="left",
            )
        )

    def _poster(self) -> Poster:
        world = self._running.world
        return Poster(rpc=world.rpc, ipfs=world.ipfs, keypair=read_keypair(Path(world.poster.keypair)))


class DemoError(NosanaError):
    """The demo did not complete."""


def _serves(file: Path) -> bool:
    """Whether the definition exposes a port: such a job ends only by its time-out."""
    try:
        ops = json.loads(file.read_bytes())["ops"]
        return any("expose" in op.get("args", {}) for op in ops)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _opened(job: Tracked) -> Text:
    return Text(f"  {job.title}: {job.answer}", style="green")


def _shown(result: Any) -> str:
    """The FlowState in short: status, ops, the last lines of each log."""
    if not isinstance(result, dict):
        return f"result: {result}"
    lines = [f"FlowState  status {result.get('status')}"]
    for error in result.get("errors") or []:
        lines.append(f"  error    {json.dumps(error)}")
    for op in result.get("opStates") or []:
        lines.append(f"  op {op.get('operationId')}: {op.get('status')}, exit code {op.get('exitCode')}")
        lines += [f"    | {(entry.get('log') or '').rstrip()}" for entry in (op.get("logs") or [])[-5:]]
    return "\n".join(lines)


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything up, and say how to go on.")
@click.option(
    "--install",
    type=click.Choice(["process", "helm"]),
    default="process",
    show_default=True,
    help="The operator as a process beside the cluster, or by its chart in the cluster.",
)
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(keep: bool, install: Literal["process", "helm"], files: tuple[Path, ...]) -> None:
    """Run job definitions end to end: posted on chain, run in pods, settled, paid."""
    # Ended politely from outside counts as Ctrl-C: what was started is taken down.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    began = time.monotonic()
    sandbox = Sandbox(NAME, say)
    kept = False
    try:
        say("bringing up the sandbox: Kubernetes, a Solana chain with a Nosana market, IPFS, a gateway")
        running = sandbox.up(Shape(NAME))
        by_chart = install == "helm"
        host = ChartHost(sandbox, running, say) if by_chart else SandboxHost(sandbox, running)
        demo = Demo(sandbox, running, host, files or tuple(EXAMPLES / name for name in POSTED))
        demo.prepare()
        asyncio.run(_show(demo))
        if keep:
            demo.how_to_go_on()
            kept = True
        say(f"done after {time.monotonic() - began:.0f} s")
    except KeyboardInterrupt:
        say("stopped")
        sys.exit(130)
    except NosanaError as error:
        console.print(f"[bold red]error:[/] {error}", highlight=False)
        sys.exit(1)
    finally:
        if not kept:
            say("taking everything down")
            sandbox.down()


async def _show(demo: Demo) -> None:
    await demo.post()
    await demo.follow(demo.jobs)
    posted = list(demo.jobs)
    demo.private()
    private = demo.jobs[len(posted) :]
    await demo.follow(private)
    for job in demo.jobs:
        await demo.report(job)


if __name__ == "__main__":
    main()
