"""The process that is a sandbox's world: chain, IPFS, gateway and volumes, until SIGTERM.

They answer on this machine's loopback and, beside a local cluster, also inside its network namespace and by
Service name to its pods.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from solders.keypair import Keypair

from nosana_operator.kube import KubeClient, load_credentials
from nosana_sandbox.chain import chain_app, loopback_pair
from nosana_sandbox.cluster.expose import expose_in_cluster
from nosana_sandbox.cluster.forward import listen_in_namespace, socket_in_namespace
from nosana_sandbox.cluster.layout import SANDBOX_NAMESPACE
from nosana_sandbox.gateway import Cluster, gateway_app
from nosana_sandbox.ipfs import IpfsStore, ipfs_app
from nosana_sandbox.program.addresses import JOBS_PROGRAM, NOS_MINT
from nosana_sandbox.volumes import Provisioner
from nosana_sandbox.world.genesis import Founded, found, write_keypair
from nosana_sandbox.world.state import CHAIN_PORT, IPFS_PORT, Endpoints, Party, World, WorldFolder

_EVERYWHERE: Final = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class WorldOptions:
    """How the world is made. Without `namespace` it is on loopback alone, without `kubeconfig` no gateway.

    `price` in NOS base units per second; `slot_seconds` how long a slot takes, `finality` in slots.
    """

    state: Path
    price: int
    slot_seconds: float
    finality: int
    namespace: Path | None = None
    kubeconfig: Path | None = None


class _NoCluster:
    """Stands in for the Kubernetes API where there is none: no Ingress, so no host is known."""

    async def list(self, kind: str) -> Sequence[Mapping[str, Any]]:
        return ()


async def serve(options: WorldOptions) -> None:
    """Run the world until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    async with running_world(options):
        await stop.wait()


@contextlib.asynccontextmanager
async def running_world(options: WorldOptions) -> AsyncIterator[World]:
    """A world in this process; its record is written when everything answers, and removed at the end."""
    folder = WorldFolder(options.state)
    founded = found(price=options.price, finality=options.finality)
    async with contextlib.AsyncExitStack() as stack:
        chain = list(loopback_pair())
        ipfs, gateway = _loopback(), _loopback()
        rpc, ws = f"http://{_address(chain[0])}", f"ws://{_address(chain[0])}"
        ipfs_url, gateway_url = f"http://{_address(ipfs)}", f"http://{_address(gateway)}"
        inside: Endpoints | None = None
        ipfs_sockets = [ipfs]
        make_socket: Callable[[], socket.socket] = socket.socket
        if options.namespace is not None:
            make_socket = functools.partial(socket_in_namespace, options.namespace)
            chain += [_inside(options.namespace, port) for port in (CHAIN_PORT, CHAIN_PORT + 1)]
            ipfs_sockets.append(_inside(options.namespace, IPFS_PORT))
            inside = _endpoints("127.0.0.1", "127.0.0.1")
        await _run(stack, chain_app(founded.bank, slot_seconds=options.slot_seconds), chain)
        await _run(stack, ipfs_app(IpfsStore()), ipfs_sockets)
        await _run(stack, gateway_app(await _cluster(stack, options), make_socket), [gateway])
        services: Endpoints | None = None
        if options.namespace is not None and options.kubeconfig is not None:
            for name, port in (("chain", CHAIN_PORT), ("ipfs", IPFS_PORT)):
                await asyncio.to_thread(
                    expose_in_cluster, options.kubeconfig, SANDBOX_NAMESPACE, name, port, port
                )
            credentials = await asyncio.to_thread(load_credentials, options.kubeconfig)
            await stack.enter_async_context(Provisioner(credentials, options.state / "cluster" / "volumes"))
            services = _endpoints(f"chain.{SANDBOX_NAMESPACE}", f"ipfs.{SANDBOX_NAMESPACE}")
        world = World(
            rpc=rpc,
            ws=ws,
            ipfs=ipfs_url,
            gateway=gateway_url,
            program=str(JOBS_PROGRAM),
            mint=str(NOS_MINT),
            market=str(founded.market),
            **_parties(folder, founded),
            inside=inside,
            services=services,
            namespace=None if options.namespace is None else str(options.namespace),
            namespace_inode=None if options.namespace is None else options.namespace.stat().st_ino,
        )
        folder.write(world)
        try:
            yield world
        finally:
            folder.record.unlink(missing_ok=True)


def _parties(folder: WorldFolder, founded: Founded) -> dict[str, Party]:
    return {
        "host": _party(folder, "host", founded.host),
        "poster": _party(folder, "poster", founded.poster),
        "market_authority": _party(folder, "market-authority", founded.market_authority),
    }


def _party(folder: WorldFolder, name: str, keypair: Keypair) -> Party:
    path = folder.keys / f"{name}.json"
    write_keypair(path, keypair)
    return Party(str(keypair.pubkey()), str(path))


async def _cluster(stack: contextlib.AsyncExitStack, options: WorldOptions) -> Cluster:
    if options.kubeconfig is None:
        return _NoCluster()
    credentials = await asyncio.to_thread(load_credentials, options.kubeconfig)
    return KubeClient(await stack.enter_async_context(credentials.open_session(user_agent="nosana-sandbox")))


async def _run(
    stack: contextlib.AsyncExitStack, app: web.Application, sockets: Sequence[socket.socket]
) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    for listening in sockets:
        await web.SockSite(runner, listening).start()


def _endpoints(chain: str, ipfs: str) -> Endpoints:
    return Endpoints(
        rpc=f"http://{chain}:{CHAIN_PORT}",
        ws=f"ws://{chain}:{CHAIN_PORT}",
        ipfs=f"http://{ipfs}:{IPFS_PORT}",
    )


def _inside(namespace: Path, port: int) -> socket.socket:
    return listen_in_namespace(namespace, _EVERYWHERE, port)


def _loopback() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()
    return f"{host}:{port}"
