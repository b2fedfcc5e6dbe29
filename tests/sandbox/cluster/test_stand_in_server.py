"""The server in stand-in images, as a process of this machine."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from nosana_sandbox.cluster import build

pytestmark = pytest.mark.contract

ANSWERS = {"page": "<h1>me</h1>", "statuses": {}, "greetings": {}}


@pytest.fixture
def program() -> Path:
    if not shutil.which("go") and not Path("/usr/local/go/bin/go").exists() and not os.environ.get("CI"):
        pytest.skip("there is no Go to build it; the sandbox brings its own")
    return build.ensure_stand_in(lambda line: None)


@pytest.fixture
def base(program: Path, tmp_path: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = ANSWERS | {"statuses": {f"{port} GET /gone?a=1": 410}, "greetings": {str(port): "hello"}}
    (tmp_path / "answers.json").write_text(json.dumps(said))
    process = subprocess.Popen([program, "-answers", tmp_path / "answers.json", str(port)])
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


async def test_every_path_and_method_is_answered(base: str) -> None:
    async with aiohttp.ClientSession() as session:
        for method, path in (
            ("GET", "/"),
            ("POST", "/v1/chat/completions"),
            ("DELETE", "/a/b"),
            ("PUT", "/x?y"),
        ):
            body = b"x" * 300_000 if method in ("POST", "PUT") else None
            async with session.request(method, base + path, data=body) as answer:
                assert (answer.status, await answer.text()) == (200, ANSWERS["page"])
        async with session.get(f"{base}/gone?a=1") as answer:
            assert answer.status == 410
        async with session.post(f"{base}/gone?a=1") as answer:
            assert answer.status == 200


async def test_a_websocket_greets_and_sends_back(base: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{base}/any") as talk:
        assert await talk.receive_str() == "hello"
        for size in (0, 1, 125, 126, 65_535, 65_536, 300_000):
            await talk.send_bytes(b"z" * size)
            assert await talk.receive_bytes() == b"z" * size
        await talk.send_str("ö")
        assert await talk.receive_str() == "ö"


def test_a_port_that_is_taken_is_waited_for(program: Path) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        second = subprocess.Popen([program, str(port)])
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(0.3)
    deadline = time.monotonic() + 10
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        second.kill()
        second.wait()
