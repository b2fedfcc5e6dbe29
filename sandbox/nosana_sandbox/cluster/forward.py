"""Connections between this machine's network and the network namespace of a sandbox cluster.

A socket belongs for ever to the namespace of the thread that made it. So only the making of a socket happens
inside, in a thread of its own that ends at once; every later step (connect, accept, read, write) is ordinary
I/O of this process.

`python -m nosana_sandbox.cluster.forward NAMESPACE HOST PORT` serves the listening socket that it was started
with as standard input; that is how a cluster's API server answers on this machine's loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import sys
import threading
from pathlib import Path

from nosana_sandbox.cluster.errors import NamespaceError

CLONE_NEWNET = 0x40000000
"""`setns(2)`'s type of a network namespace; Python has the call itself from 3.12 on."""

CHUNK = 256 * 1024
"""The most bytes read from one side before they are written to the other."""

_libc = ctypes.CDLL(None, use_errno=True)


def socket_in_namespace(
    namespace: Path, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM
) -> socket.socket:
    """Make an unconnected socket inside the network namespace `namespace` (a file such as `/run/netns/NAME`).

    Takes well under a millisecond, so it may be called from an event loop; fits aiohttp's `socket_factory`.
    Raises `NamespaceError` when the namespace does not exist or may not be entered (that needs root).
    """
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def make() -> None:
        # This thread changes its namespace and never changes it back; it ends instead.
        try:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(descriptor, CLONE_NEWNET) != 0:
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code))
            finally:
                os.close(descriptor)
            made.append(socket.socket(family, kind))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=make, name="make-socket-in-namespace")
    thread.start()
    thread.join()
    if failed:
        raise NamespaceError(
            f"cannot enter the network namespace {namespace}: {failed[0].strerror}; "
            "is the sandbox up, and are you root?"
        ) from failed[0]
    return made[0]


def listen_in_namespace(namespace: Path, host: str, port: int) -> socket.socket:
    """Open a listening, non-blocking TCP socket on `host:port` inside `namespace`, for `sock=` of a server.

    `port` 0 takes a free one (`getsockname()` tells). Raises `NamespaceError`, or `OSError` when the address
    is in use or not an address of the namespace.
    """
    listener = socket_in_namespace(namespace)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


async def connect_in_namespace(namespace: Path, host: str, port: int, timeout: float = 10.0) -> socket.socket:
    """Connect to `host:port` as seen from inside `namespace`; the socket is non-blocking.

    `host` is an IPv4 address (names are not looked up inside); hand the socket to
    `asyncio.open_connection(sock=…)`. Raises `NamespaceError`, `OSError` when nobody answers, `TimeoutError`
    after `timeout` seconds.
    """
    connection = socket_in_namespace(namespace)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(connection, (host, port))
    except BaseException:
        connection.close()
        raise
    return connection


async def forward(listener: socket.socket, namespace: Path, host: str, port: int) -> asyncio.Server:
    """Serve `listener` (a socket of this machine) by connections to `host:port` inside `namespace`.

    The server runs until closed. A client whose connection inside fails is simply closed, as by a host on
    which nothing listens.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inside = await connect_in_namespace(namespace, host, port)
        except (OSError, NamespaceError):
            writer.transport.abort()
            return
        await join(reader, writer, *await asyncio.open_connection(sock=inside))

    return await asyncio.start_server(serve, sock=listener)


async def join(
    left_reader: asyncio.StreamReader,
    left_writer: asyncio.StreamWriter,
    right_reader: asyncio.StreamReader,
    right_writer: asyncio.StreamWriter,
) -> None:
    """Copy bytes in both directions until both sides have closed; a broken side closes the other."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(left_reader, right_writer))
            group.create_task(_pump(right_reader, left_writer))
    except* OSError:
        left_writer.transport.abort()
        right_writer.transport.abort()
    finally:
        left_writer.close()
        right_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    # Forward the half-close: the answer may still be on its way.
    with contextlib.suppress(OSError):
        writer.write_eof()


async def _main(namespace: Path, host: str, port: int) -> None:
    server = await forward(socket.socket(fileno=0), namespace, host, port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
