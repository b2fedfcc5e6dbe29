from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from nosana_sandbox.cluster import forward
from nosana_sandbox.cluster.errors import NamespaceError

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def reach(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Callable[[Handler | None], Awaitable[Client]]]:
    """Serve the handler (None: nobody) "inside", forward a port of ours to it, and connect to that port.

    The namespace is this one: entering another needs root and is tested in the cluster ring.
    """
    monkeypatch.setattr(forward, "socket_in_namespace", lambda namespace: socket.socket())
    async with AsyncExitStack() as stack:

        async def made(handler: Handler | None) -> Client:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            if handler is not None:
                await stack.enter_async_context(await asyncio.start_server(handler, "127.0.0.1", port))
            listener = socket.create_server(("127.0.0.1", 0))
            outside = listener.getsockname()
            server = await forward.forward(listener, Path("/proc/self/ns/net"), "127.0.0.1", port)
            await stack.enter_async_context(server)
            reader, writer = await asyncio.open_connection(*outside)
            stack.push_async_callback(writer.wait_closed)
            stack.callback(writer.close)
            return reader, writer

        yield made


async def test_an_answer_that_comes_after_the_question_has_ended_arrives(
    reach: Callable[[Handler | None], Awaitable[Client]],
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read()
        writer.write(question[::-1])
        writer.close()

    reader, writer = await reach(answer)
    question = bytes(range(256)) * 10_000
    writer.write(question)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 10) == question[::-1]


async def test_a_side_that_breaks_ends_the_other(
    reach: Callable[[Handler | None], Awaitable[Client]],
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.abort()

    reader, writer = await reach(hang_up)
    writer.write(b"x")
    assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_nobody_inside_is_a_connection_that_ends(
    reach: Callable[[Handler | None], Awaitable[Client]],
) -> None:
    reader, _ = await reach(None)
    assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_namespace_that_cannot_be_entered_is_said(tmp_path: Path) -> None:
    with pytest.raises(NamespaceError, match=r"cannot enter the network namespace .*; is the sandbox up"):
        await forward.connect_in_namespace(tmp_path / "none", "127.0.0.1", 1)
