"""The `nosana-sandbox` command."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from nosana_operator.errors import NosanaError
from nosana_sandbox.chain import Kind
from nosana_sandbox.helm import ChartHost
from nosana_sandbox.program.replay import replay as replay_recordings
from nosana_sandbox.world.genesis import read_keypair
from nosana_sandbox.world.journal import JobView
from nosana_sandbox.world.poster import Poster
from nosana_sandbox.world.sandbox import DEFAULT_GPUS, DEFAULT_NODES, ClusterKind, Sandbox, Shape

P = ParamSpec("P")
R = TypeVar("R")

_NOS = 1_000_000

_name = click.option("--name", default="default", show_default=True, help="Which sandbox.")
_output = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A Nosana market, its chain, IPFS, a gateway and a Kubernetes cluster on this machine."""


def _says_what_is_wrong(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our own errors into one line and exit code 1."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except NosanaError as error:
            sys.exit(f"error: {error}")

    return wrapped


def _report(line: str) -> None:
    click.echo(line, err=True)


def _print(body: Mapping[str, Any], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(body, indent=2))
        return
    for key, value in body.items():
        if isinstance(value, dict):
            value = "  ".join(f"{name}={each}" for name, each in value.items())
        click.echo(f"{key:<12}{value}")


@main.command()
@click.option("--gpus", default=DEFAULT_GPUS, show_default=True, help="GPUs of all nodes together.")
@click.option("--nodes", default=DEFAULT_NODES, show_default=True, help="Nodes of the local cluster.")
@click.option(
    "--cluster",
    type=click.Choice(["local", "current"]),
    default="local",
    show_default=True,
    help="Make a cluster on this machine, or use the one that kubeconfig points at.",
)
@click.option(
    "--install",
    type=click.Choice(["helm"]),
    help="Install the operator of this checkout by its chart too, and offer all GPUs in the market.",
)
@_name
@_output
@_says_what_is_wrong
def up(gpus: int, nodes: int, cluster: ClusterKind, install: str | None, name: str, output: str) -> None:
    """Start the sandbox; parts that run already stay."""
    sandbox = Sandbox(name, _report)
    running = sandbox.up(Shape(name, cluster, gpus, nodes))
    if install is not None:
        host = ChartHost(sandbox, running, _report)
        host.bring_up()
        host.offer(slots=None)
    _print(running.to_json(), output)


@main.command()
@_name
@_output
@_says_what_is_wrong
def down(name: str, output: str) -> None:
    """Remove the sandbox, whatever state it is in."""
    Sandbox(name, _report).down()
    _print({"name": name, "state": "absent"}, output)


@main.command()
@_name
@_output
@_says_what_is_wrong
def status(name: str, output: str) -> None:
    """Print all addresses; exit code 1 when a part does not run."""
    _print(Sandbox(name, _report).status().to_json(), output)


@main.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@_says_what_is_wrong
def replay(files: tuple[Path, ...]) -> None:
    """Compare the Jobs program's stand-in with recordings of the real one; exit code 1 on a difference."""
    compared = replay_recordings(files)
    click.echo("\n".join(compared.lines()))
    sys.exit(1 if compared.differences else 0)


def _as_poster(name: str, act: Callable[[Poster], Awaitable[R]]) -> R:
    world = Sandbox(name, _report).world()
    keypair = read_keypair(Path(world.poster.keypair))

    async def run() -> R:
        async with Poster(rpc=world.rpc, ipfs=world.ipfs, keypair=keypair) as poster:
            return await act(poster)

    return asyncio.run(run())


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--timeout", type=click.IntRange(min=1), help="Seconds to pay for  [default: the market's own]")
@click.option("--market", help="Address of another market than the sandbox's.")
@_name
@_says_what_is_wrong
def post(file: Path, timeout: int | None, market: str | None, name: str) -> None:
    """Pin a job definition and list it on the chain, as a client would; prints the job's address."""
    sandbox = Sandbox(name, _report)
    where = market or sandbox.world().market
    definition = file.read_bytes()
    # No registry is reachable, so each image needs a stand-in; what is no definition names no images.
    if isinstance(parsed := _json_or_none(definition), dict):
        sandbox.ensure_images([parsed])
    posted = _as_poster(name, lambda poster: poster.post(definition, where, timeout=timeout))
    click.echo(posted.job)


def _json_or_none(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


@main.command()
@click.argument("address")
@_name
@_output
@_says_what_is_wrong
def job(address: str, name: str, output: str) -> None:
    """Print a job's state on the chain, its payments and its result."""

    async def look(poster: Poster) -> tuple[JobView, Any]:
        view = await poster.job(address)
        return view, await poster.result(view)

    view, result = _as_poster(name, look)
    if output == "json":
        click.echo(json.dumps({**view.to_json(), "result": result}, indent=2))
        return
    _print(
        {
            "job": view.address,
            "state": view.state,
            "market": view.market,
            "node": view.node or "-",
            "run": view.run.address if view.run else "-",
            "timeout": f"{view.timeout} s",
            "ran": f"{view.seconds} s" if view.time_end else "-",
            "price": f"{view.price / _NOS:g} NOS/s",
            "deposited": f"{view.totals.deposited / _NOS:g} NOS",
            "earned": f"{view.totals.earned / _NOS:g} NOS",
            "refunded": f"{view.totals.refunded / _NOS:g} NOS",
            "definition": view.definition_cid,
            "result": view.result_cid or "-",
        },
        output,
    )
    if result is not None:
        click.echo(result if isinstance(result, str) else json.dumps(result, indent=2))


@main.command()
@click.argument("address")
@_name
@_says_what_is_wrong
def end(address: str, name: str) -> None:
    """Stop a running job: its host is paid for the time so far, the rest is refunded."""
    click.echo(_as_poster(name, lambda poster: poster.end(address)))


@main.command()
@click.argument("address")
@click.option("--by", default=600, show_default=True, type=click.IntRange(min=1), help="Seconds more.")
@_name
@_says_what_is_wrong
def extend(address: str, by: int, name: str) -> None:
    """Give a job more time."""
    click.echo(_as_poster(name, lambda poster: poster.extend(address, by)))


@main.command()
@click.argument("address")
@_name
@_says_what_is_wrong
def delist(address: str, name: str) -> None:
    """Delist a job that no host has taken yet."""
    click.echo(_as_poster(name, lambda poster: poster.delist(address)))


@main.command()
@click.option("--advance", type=float, help="Move the chain's time by so many seconds.")
@_name
@_output
@_says_what_is_wrong
def clock(advance: float | None, name: str, output: str) -> None:
    """Print the chain's time, or change it."""
    wanted = [] if advance is None else [{"advance": advance}]
    _print(_as_poster(name, lambda poster: poster.call("sandbox_clock", *wanted)), output)


@main.group()
def fault() -> None:
    """Make the chain's RPC fail, as real nodes do."""


def _faults(name: str, output: str, **told: Any) -> None:
    body = _as_poster(name, lambda poster: poster.call("sandbox_faults", *([told] if told else [])))
    if output == "json":
        click.echo(json.dumps(body, indent=2))
        return
    for rule in body["rules"]:
        rest = (f"{key}={value}" for key, value in rule.items() if key not in ("kind", "method"))
        click.echo(f"{rule['kind']:<14}{rule['method']:<28}{' '.join(rest)}")
    for what, times in body["injected"].items():
        click.echo(f"hit {times}x: {what}")
    for signature in body["lostTransactions"]:
        click.echo(f"never happened: {signature}")


@fault.command("add")
@click.argument("kind", type=click.Choice([kind.value for kind in Kind]))
@click.option("--method", help="RPC method, notification (accountNotification) or connect; a pattern.")
@click.option("--times", type=click.IntRange(min=1), help="How often  [default: until cleared]")
@click.option("--skip", type=click.IntRange(min=0), help="So many pass before.")
@click.option("--chance", type=click.FloatRange(0, 1), help="How likely each is hit.")
@click.option("--retry-after", type=float, help="Seconds, for rate-limited.")
@click.option("--status", type=click.IntRange(400, 599), help="HTTP status, for server-error.")
@click.option("--code", type=int, help="JSON-RPC code, for error.")
@click.option("--message", help="For error.")
@click.option("--seconds", type=float, help="For silent and delayed.")
@click.option("--slots", type=click.IntRange(min=1), help="For lag and late.")
@_name
@_output
@_says_what_is_wrong
def fault_add(kind: str, name: str, output: str, **rest: Any) -> None:
    """Add a rule: which fault, for which method, how often."""
    given = {key: value for key, value in rest.items() if value is not None}
    _faults(name, output, add={"kind": kind, **given})


@fault.command("list")
@_name
@_output
@_says_what_is_wrong
def fault_list(name: str, output: str) -> None:
    """Print the rules and how often they applied."""
    _faults(name, output)


@fault.command("clear")
@_name
@_output
@_says_what_is_wrong
def fault_clear(name: str, output: str) -> None:
    """Remove all rules."""
    _faults(name, output, clear=True)


@fault.command("seed")
@click.argument("seed", type=click.IntRange(min=0))
@_name
@_output
@_says_what_is_wrong
def fault_seed(seed: int, name: str, output: str) -> None:
    """Restart the random sequence."""
    _faults(name, output, seed=seed)


@fault.command("fork")
@click.argument("slots", type=click.IntRange(min=1))
@_name
@_output
@_says_what_is_wrong
def fault_fork(slots: int, name: str, output: str) -> None:
    """Replace the newest slots by empty ones: what they held never happened."""
    _faults(name, output, fork=slots)


@fault.command("hang-up")
@click.option("--cut", is_flag=True, help="Without a word.")
@_name
@_output
@_says_what_is_wrong
def fault_hang_up(cut: bool, name: str, output: str) -> None:
    """End every WebSocket."""
    _faults(name, output, hangUp="cut" if cut else "politely")


if __name__ == "__main__":
    main()
