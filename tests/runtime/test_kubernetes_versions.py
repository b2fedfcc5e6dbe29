"""Which Kubernetes the operator starts on."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from nosana_operator.cli.main import main
from nosana_operator.errors import Refused, Unavailable
from nosana_operator.kube import KubeUnavailable
from nosana_operator.kube.server import read_version
from nosana_operator.runtime.errors import StartError
from nosana_operator.runtime.kubernetes_versions import require_supported, version_problem


def told(major: str, minor: str, git: str = "") -> bytes:
    return json.dumps({"major": major, "minor": minor, "gitVersion": git}).encode()


@pytest.mark.parametrize(
    ("body", "supported"),
    [
        (told("1", "30", "v1.30.14"), False),
        (told("1", "9"), False),
        (told("0", "99"), False),
        (told("1", "31", "v1.31.0"), True),
        (told("1", "31+", "v1.31.5-eks-abc"), True),
        (told("1", "37"), True),
        (told("2", "0"), True),
    ],
)
def test_the_range(body: bytes, supported: bool) -> None:
    problem = version_problem(read_version(body))
    assert (problem is None) is supported
    if problem is not None:
        assert "1.31 or newer" in problem
        assert "upgrade" in problem


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", told("one", "31"), told("1", "")])
def test_something_else_is_no_version(body: bytes) -> None:
    with pytest.raises(KubeUnavailable, match="did not give its version"):
        read_version(body)


def answers(*replies: bytes | Exception) -> tuple[Callable[[str], Awaitable[bytes]], list[str]]:
    left, asked = list(replies), list[str]()

    async def read_path(path: str) -> bytes:
        asked.append(path)
        reply = left.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return read_path, asked


async def no_wait(seconds: float) -> None:
    """Time passes at once."""


async def test_an_old_cluster_is_refused_at_the_start() -> None:
    read_path, asked = answers(told("1", "29", "v1.29.3"))
    with pytest.raises(StartError, match=r"Kubernetes v1\.29\.3 is not supported"):
        await require_supported(read_path, sleep=no_wait)
    assert asked == ["/version"]


async def test_silence_is_waited_out_and_no_right_is_no_refusal() -> None:
    read_path, asked = answers(Unavailable("503"), b"<html>", told("1", "35"))
    await require_supported(read_path, sleep=no_wait)
    assert len(asked) == 3
    read_path, asked = answers(Refused("403"))
    await require_supported(read_path, sleep=no_wait)
    assert len(asked) == 1


class _OldServer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/version" else 404)
        self.end_headers()
        self.wfile.write(told("1", "30", "v1.30.14"))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def old_cluster(tmp_path: Path) -> Iterator[Path]:
    """The kubeconfig of a cluster that is too old."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _OldServer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        file = tmp_path / "kubeconfig"
        file.write_text(
            json.dumps(
                {
                    "clusters": [
                        {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
                    ],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        yield file
        server.shutdown()
        thread.join()


def test_the_process_ends_with_one_sentence(old_cluster: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("metrics: {address: 127.0.0.1, port: 0}")
    result = CliRunner().invoke(main, ["run", "--settings", str(settings), "--kubeconfig", str(old_cluster)])
    assert result.exit_code == 1
    assert "nosana-operator: Kubernetes v1.30.14 is not supported: 1.31 or newer is needed" in result.stderr
