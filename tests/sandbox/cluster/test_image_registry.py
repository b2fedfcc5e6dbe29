"""The cluster's registries: what they and the nodes are told, and the client that fills them."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nosana_sandbox.cluster import config
from nosana_sandbox.cluster.image_registry import allow, configuration, write_mirror
from nosana_sandbox.cluster.layout import Layout
from nosana_sandbox.cluster.processes import SEARCH_PATH
from nosana_sandbox.images.archive import MANIFEST_TYPE, File, Image, Login, layer, pack
from nosana_sandbox.images.pushing import RegistryClient, RegistryError
from nosana_sandbox.images.references import split_name
from nosana_sandbox.images.stand_ins import stand_ins_for

IMAGE = Image("docker.io/library/a:1", (layer({"a": File(b"a")}), layer({"b": File(b"b")})), cmd=("a",))


@pytest.fixture
def layout() -> Iterator[Layout]:
    folder = Path(tempfile.mkdtemp(prefix="nst-", dir="/tmp"))
    made = Layout(folder, "demo", 1, 1)
    made.folder.mkdir()
    yield made
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("docker.io/library/ubuntu:24.04", ("docker.io", "library/ubuntu", "24.04")),
        ("localhost:5000/a/b:latest", ("localhost:5000", "a/b", "latest")),
        ("ghcr.io/a@sha256:00", ("ghcr.io", "a", "sha256:00")),
    ],
)
def test_parts_of_a_full_name(name: str, parts: tuple[str, str, str]) -> None:
    assert split_name(name) == parts


def test_a_registry_has_a_place_of_its_own_and_the_private_one_comes_last() -> None:
    own, closed = "http://127.0.0.1:5000/v2/localhost-5000", "http://127.0.0.1:5500/v2/localhost-5000"
    for private, last in ((False, own), (True, closed)):
        hosts = tomllib.loads(config.mirror("localhost:5000", private=private))
        first = {"capabilities": ["pull", "resolve"], "override_path": True}
        assert hosts == {"server": last, "override_path": True, "host": {own: first}}


def test_a_mirror_keeps_its_private_images(layout: Layout) -> None:
    file = layout.mirrors / "ghcr.io" / "hosts.toml"
    for private, expected in ((False, False), (True, True), (False, True)):
        write_mirror(layout, "ghcr.io", private=private)
        assert file.read_text() == config.mirror("ghcr.io", private=expected)
    assert [entry.name for entry in file.parent.iterdir()] == ["hosts.toml"]


def test_only_a_real_login_makes_an_image_private() -> None:
    def made(**docker: Any) -> Login | None:
        (stand_in,) = stand_ins_for(
            [{"ops": [{"args": {"image": "me/a:1", "authentication": {"docker": docker}}}]}]
        )
        return stand_in.login

    assert made(username="me", password="x") == Login("me", "x")
    assert made(username="", password="") is None
    assert made(username="me", password="%%global.variables.P%%") is None
    open_too = {"ops": [{"args": {"image": "me/a:1"}}]}
    closed = {
        "ops": [
            {"args": {"image": "me/a:1", "authentication": {"docker": {"username": "u", "password": "p"}}}}
        ]
    }
    assert [s.login for s in stand_ins_for([open_too, closed])] == [None]


def test_a_password_is_in_no_text() -> None:
    assert "hidden" not in repr(Login("me", "hidden"))


# The program itself


@pytest.fixture
def registries(layout: Layout) -> Iterator[dict[str, int]]:
    """Both registries, on ports of this machine."""
    program = shutil.which("docker-registry", path=SEARCH_PATH)
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("docker-registry is not installed")
        pytest.skip("docker-registry is not installed; the sandbox installs it")
    ports, running = {}, []
    for name, file in configuration(layout).items():
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports[name] = free.getsockname()[1]
        text = file.read_text()
        for ours in (":5000", ":5500"):
            text = text.replace(ours, f":{ports[name]}")
        file.write_text(text)
        running.append(subprocess.Popen([program, "serve", str(file)], stderr=subprocess.DEVNULL))
    for port in ports.values():
        deadline = time.monotonic() + 20
        while not _answers(port):
            assert time.monotonic() < deadline, "the registry does not answer"
            time.sleep(0.02)
    yield ports
    for process in running:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.fixture
def connect(registries: dict[str, int]) -> Iterator[Any]:
    made = []

    def client(name: str, login: Login | None = None) -> RegistryClient:
        connection = http.client.HTTPConnection("127.0.0.1", registries[name], timeout=20)
        made.append(connection)
        return RegistryClient(connection, login)

    yield client
    for connection in made:
        connection.close()


@pytest.mark.contract
def test_an_image_gets_there_whole_and_a_tag_can_move(connect: Any, registries: dict[str, int]) -> None:
    client, packed = connect("registry"), pack(IMAGE, "x86_64")
    path = "docker.io/library/a"
    assert client.digest(path, "1") is None
    client.push(path, "1", packed)
    assert client.digest(path, "1") == packed.manifest
    connection = http.client.HTTPConnection("127.0.0.1", registries["registry"], timeout=20)
    for digest, content in packed.blobs.items():
        kind = "manifests" if digest == packed.manifest else "blobs"
        connection.request("GET", f"/v2/{path}/{kind}/sha256:{digest}", headers={"Accept": MANIFEST_TYPE})
        assert connection.getresponse().read() == content
    connection.close()
    other = pack(Image(IMAGE.name, IMAGE.layers[:1]), "x86_64")
    client.push(path, "1", other)
    assert client.digest(path, "1") == other.manifest
    with pytest.raises(RegistryError, match=r"was answered with 404"):
        client.push("Upper/Case", "1", packed)


@pytest.mark.contract
def test_who_may_pull_is_learned_while_it_runs(connect: Any, layout: Layout) -> None:
    packed = pack(IMAGE, "x86_64")
    with pytest.raises(RegistryError, match="401"):
        connect("registry-private").push("ghcr.io/a", "1", packed)
    for login in (Login("me", "öne"), Login("you", "two"), Login("me", "three")):
        allow(layout.logins, login)
        client = connect("registry-private", login)
        client.push("ghcr.io/a", "1", packed)
        assert client.digest("ghcr.io/a", "1") == packed.manifest
    with pytest.raises(RegistryError, match="401"):
        connect("registry-private", Login("me", "öne")).digest("ghcr.io/a", "1")
    assert "three" not in layout.logins.read_text()
    before = layout.logins.read_text()
    allow(layout.logins, Login("me", "three"))
    assert layout.logins.read_text() == before, "nothing to write, and nothing for the registry to read"
