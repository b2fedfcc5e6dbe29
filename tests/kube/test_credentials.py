"""Signing in: which configuration is taken, tokens that rotate, errors that say what to do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from nosana_operator.kube import CredentialsError, KubeClient, load_credentials
from support.scripted_api import Answer, scripted, status_answer


@pytest.fixture(autouse=True)
def no_cluster_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def write_kubeconfig(file: Path, server: str, *, namespace: str | None = None, **user: object) -> Path:
    context: dict[str, str] = {"cluster": "c", "user": "u"}
    if namespace is not None:
        context["namespace"] = namespace
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": context}],
            }
        )
    )
    return file


async def test_a_token_of_a_kubeconfig(tmp_path: Path) -> None:
    async with scripted(Answer()) as api:
        file = write_kubeconfig(tmp_path / "config", api.url, namespace="mine", token="secret-1")
        credentials = load_credentials(file)
        assert credentials.namespace == "mine"
        async with credentials.open_session() as session:
            await KubeClient(session).get("Pod", "ns", "p")
        assert api.asked[0].headers["Authorization"] == "Bearer secret-1"
        assert "secret-1" not in repr(credentials)


async def test_a_user_with_a_password(tmp_path: Path) -> None:
    async with scripted(Answer()) as api:
        file = write_kubeconfig(tmp_path / "config", api.url, username="a", password="b")
        async with load_credentials(file).open_session() as session:
            await KubeClient(session).get("Pod", "ns", "p")
        assert api.asked[0].headers.get("Authorization") == "Basic YTpi"


async def test_a_token_that_was_refused_is_asked_for_anew_and_the_request_repeated(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": [
            "-c",
            'printf \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
            '"status":{"token":"%s","expirationTimestamp":"2020-01-01T00:00:00Z"}}\' "$(cat ' + f'{token})"',
        ],
        "interactiveMode": "Never",
    }
    async with scripted(Answer(), status_answer(401), Answer()) as api:
        file = write_kubeconfig(tmp_path / "config", api.url, exec=plugin)
        async with load_credentials(file).open_session() as session:
            client = KubeClient(session)
            await client.get("Pod", "ns", "a")
            token.write_text("new")
            await client.get("Pod", "ns", "b")
        assert [asked.headers["Authorization"] for asked in api.asked] == [
            "Bearer old",
            "Bearer old",
            "Bearer new",
        ]


async def test_many_requests_at_once_read_the_token_once(tmp_path: Path) -> None:
    from nosana_operator.kube.credentials import BearerToken

    reads = 0

    def read() -> str:
        nonlocal reads
        reads += 1
        return f"Bearer {reads}"

    now = 0.0
    token = BearerToken(read, clock=lambda: now)
    assert set(await asyncio.gather(*(token.header() for _ in range(20)))) == {"Bearer 1"}
    refused = await asyncio.gather(*(token.header(refused="Bearer 1") for _ in range(20)))
    assert set(refused) == {"Bearer 2"}
    now = 31.0
    assert await token.header() == "Bearer 3"


async def test_the_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ".kube"
    home.mkdir()
    write_kubeconfig(home / "config", "http://home:1", token="t")
    assert load_credentials().server == "http://home:1"
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "env", "http://env:1", token="t")))
    assert load_credentials().server == "http://env:1"
    explicit = write_kubeconfig(tmp_path / "explicit", "http://explicit:1", token="t")
    assert load_credentials(explicit).server == "http://explicit:1"
    assert load_credentials(explicit).namespace == "default"


@pytest.mark.parametrize("content", [None, "", "{}", "a: [", "clusters: []\n"])
async def test_no_usable_configuration_says_what_to_do(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CredentialsError, match="--kubeconfig"):
        load_credentials(file)


async def test_a_context_that_is_not_there(tmp_path: Path) -> None:
    file = write_kubeconfig(tmp_path / "config", "http://a:1", token="t")
    with pytest.raises(CredentialsError, match="nope"):
        load_credentials(file, context="nope")


async def test_no_token_no_header(tmp_path: Path) -> None:
    async with scripted(Answer()) as api:
        file = write_kubeconfig(tmp_path / "config", api.url)
        async with load_credentials(file).open_session() as session, session.get("version") as response:
            assert response.status == 200
        assert "Authorization" not in api.asked[0].headers
